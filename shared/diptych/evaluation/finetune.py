"""Fine-tuning: the encoder with a new head, trained on labels; beside it the same from scratch."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from torch import nn

from diptych.evaluation.classical import classical_contenders, over_draws
from diptych.evaluation.comparison import Contender, compare
from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.frozen import (
    Encoders,
    LabelEvaluation,
    check_options,
    encoders_of,
    random_encoder,
    torch_seed,
)
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.tuning import Tuning, predict, tune
from diptych.study import Indices, Study


@dataclass(frozen=True, kw_only=True)
class FineTuning(Tuning, LabelEvaluation):
    """Train the encoder and a head on the labels; the same budget for the encoder from scratch.

    The epoch with the best score of the validation patients (macro F1, or MAE) is kept; of these, too, only
    the label fraction is used. Rows: pretrained, from scratch (random weights; the encoder stays so with mode
    frozen), a random forest and a linear model on hand-made features, and the majority class or mean.

    Args:
        fractions: Shares of the labelled training and validation patients to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of patients.
    """

    seeds: int = 3

    def __post_init__(self) -> None:
        LabelEvaluation.__post_init__(self)
        Tuning.__post_init__(self)

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed. It is copied."""
        fractions = check_options(self.fractions, self.seeds)
        encoders = encoders_of(encoder)
        repeats = max(self.seeds, len(encoders))
        target = self.prepared(study)
        where = choose_device(self.device)
        notes: list[str] = []

        def tuned(start: nn.Module, train: Indices, seed: int, fraction: float) -> Floats:
            validation = target.validation
            if fraction < 1.0 and len(validation):
                validation = target.few(validation, fraction, seed % self.seeds)
            with torch_seed(seed):
                model = tune(study, target, start, train, validation, self, where)
                return predict(study, target, model, target.test, where)

        classical, remarks = classical_contenders(study, target, fractions, self.seeds)
        contenders: list[Contender] = []
        for fraction in fractions:

            def pretrained(train: Indices, seed: int, fraction: float = fraction) -> Floats:
                return tuned(deepcopy(encoders[seed % len(encoders)]), train, seed, fraction)

            def scratch(train: Indices, seed: int, fraction: float = fraction) -> Floats:
                return tuned(random_encoder(study, seed), train, seed, fraction)

            contenders.append(over_draws("pretrained", target, fraction, repeats, self.seeds, pretrained))
            name = "random weights" if self.mode == "frozen" else "from scratch"
            contenders.append(over_draws(name, target, fraction, self.seeds, self.seeds, scratch))
            contenders += [each for each in classical if each.fraction == fraction]
        if not len(target.validation):
            notes.append(f"without validation {target.words.units} the last epoch is kept")
        return compare(
            target,
            contenders,
            title=f"{self.label}: fine-tuning ({self.mode})",
            draws=self.draws,
            notes=[*notes, *remarks],
        )
