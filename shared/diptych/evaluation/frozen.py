"""What evaluations share: options, encoders, seeds; frozen ones embed once and fit for every fraction and draw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from diptych.data.loading import seeded
from diptych.errors import ConfigError
from diptych.evaluation.classical import classical_contenders, over_draws
from diptych.evaluation.comparison import Contender, compare
from diptych.evaluation.embeddings import embed
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target, Task, prepare
from diptych.study import Indices, Study

# one encoder, or one from each of several pretraining seeds
Encoders = nn.Module | Sequence[nn.Module]
# features (n, d), label, positions of the training samples, seed -> predictions for target.test
Predict = Callable[[Floats, Target, Indices, int], Floats]


def encoders_of(encoder: Encoders) -> list[nn.Module]:
    """The encoders as a list, also where there is one."""
    if isinstance(encoder, nn.Module) and not isinstance(encoder, nn.ModuleList):
        return [encoder]
    encoders = list(encoder)
    if not encoders:
        raise ConfigError("expected an encoder or several to evaluate; got an empty list")
    return encoders


def random_encoder(study: Study, seed: int) -> nn.Module:
    """The same architecture with fresh weights; torch's random state stays as it was."""
    with torch_seed(seed):
        return study.new_encoder()


@contextmanager
def torch_seed(seed: int) -> Iterator[None]:
    """Seeds the global generators for a block and restores them afterwards."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    number = 0 if accelerator is None else torch.accelerator.device_count()
    devices = [torch.device(str(accelerator), index) for index in range(number)]
    with seeded(seed, devices):
        torch.manual_seed(seed)  # the accelerators' generators too
        yield


def check_options(fractions: Sequence[float], seeds: int) -> tuple[float, ...]:
    """The fractions, each once and the largest first. Raises ConfigError for what cannot be run."""
    if not fractions or any(not 0.0 < fraction <= 1.0 for fraction in fractions):
        given = ", ".join(f"{fraction:g}" for fraction in fractions) or "none"
        raise ConfigError(f"label fractions are above 0 and at most 1, such as 1.0 and 0.1; got {given}")
    if seeds < 1:
        raise ConfigError(f"the number of seeds is at least 1; got {seeds}")
    return tuple(sorted(set(fractions), reverse=True))


@dataclass(frozen=True, kw_only=True)
class LabelEvaluation:
    """What every evaluation of one label is told; an evaluator is a dataclass that inherits it and adds what it needs.

    Args:
        label: Name of the label to predict.
        task: classification, regression, or auto: text is classes, numbers are regression.
        fractions: Shares of the labelled training patients to use.
        seeds: Number of random encoders, of draws of patients below 100 %, and of forests.
        draws: Number of bootstrap resamples of the test patients.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to compute: auto, cpu, cuda.

    Raises:
        ConfigError: options that cannot be run.
    """

    label: str
    task: Task = "auto"
    fractions: tuple[float, ...] = (1.0,)
    seeds: int = 5
    draws: int = 2000
    run_splits: str | Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_options(self.fractions, self.seeds)

    def prepared(self, study: Study) -> Target:
        """The label, checked. Raises what :func:`diptych.evaluation.target.prepare` raises."""
        return prepare(study.samples, self.label, self.task, self.run_splits)


def evaluate_frozen(
    options: LabelEvaluation,
    study: Study,
    encoder: Encoders,
    predict: Predict,
    *,
    what: str,
    notes: list[str],
) -> Table:
    """The table of a method that fits ``predict`` on embeddings; ``what`` names it.

    ``notes`` may be extended by ``predict`` while it runs.
    """
    fractions, seeds = check_options(options.fractions, options.seeds), options.seeds
    encoders = encoders_of(encoder)
    target = options.prepared(study)
    pretrained = [_features(study, each, target, options.device) for each in encoders]
    untrained = [
        _features(study, random_encoder(study, seed), target, options.device) for seed in range(seeds)
    ]
    classical, remarks = classical_contenders(study, target, fractions, seeds)
    contenders: list[Contender] = []
    for fraction in fractions:
        for name, features in (("pretrained", pretrained), ("random weights", untrained)):
            repeats = len(features) if fraction == 1.0 else max(seeds, len(features))

            def fit(train: Indices, repeat: int, features: list[Floats] = features) -> Floats:
                return predict(features[repeat % len(features)], target, train, repeat)

            contenders.append(over_draws(name, target, fraction, repeats, seeds, fit))
        contenders += [each for each in classical if each.fraction == fraction]
    title = f"{options.label}: {what}"
    return compare(target, contenders, title=title, draws=options.draws, notes=[*notes, *remarks])


def _features(study: Study, encoder: nn.Module, target: Target, device: str) -> Floats:
    return embed(encoder, study.plain(target.rows), device).astype(np.float64)
