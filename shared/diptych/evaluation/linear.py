"""The linear probe: what a straight boundary on frozen embeddings can tell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from diptych.errors import ConfigError
from diptych.evaluation.frozen import evaluate_frozen
from diptych.evaluation.linear_model import STRENGTHS, fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target, Task
from diptych.study import Indices, Study


def linear(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    label: str,
    task: Task = "auto",
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 5,
    draws: int = 2000,
    strengths: tuple[float, ...] = STRENGTHS,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Logistic (classes) or ridge regression (numbers) on standardised frozen embeddings.

    The strength of the penalty is chosen on patient-grouped folds of the training patients. Rows: pretrained,
    the same encoder with random weights, a random forest and a linear model on hand-made features, and the
    majority class or mean; each per patient and per sample.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed.
        label: Name of the label to predict.
        task: classification, regression, or auto: text is classes, numbers are regression.
        fractions: Shares of the labelled training patients to fit on.
        seeds: Number of random encoders, of draws of patients below 100 %, and of forests.
        draws: Number of bootstrap resamples of the test patients.
        strengths: Values of C to choose from; ridge takes alpha = 1 / C.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to embed: auto, cpu, cuda.
    """
    if not strengths or min(strengths) <= 0:
        raise ConfigError("the strengths C to choose from are positive numbers; expected at least one")
    notes: list[str] = []
    ordered = sorted(set(strengths))

    def predict(features: Floats, target: Target, train: Indices, seed: int) -> Floats:
        fit = fit_linear(features, target, train, seed=seed, strengths=ordered)
        notes.extend(fit.warnings("linear probe"))
        return fit.predict(features[target.test])

    return evaluate_frozen(
        study,
        encoder,
        predict,
        title=f"{label}: linear probe",
        label=label,
        task=task,
        fractions=fractions,
        seeds=seeds,
        draws=draws,
        run_splits=run_splits,
        device=device,
        notes=notes,
    )
