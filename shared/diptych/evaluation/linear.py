"""The linear probe: what a straight boundary on frozen embeddings can tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diptych.errors import ConfigError
from diptych.evaluation.frozen import Encoders, LabelEvaluation, evaluate_frozen
from diptych.evaluation.linear_model import STRENGTHS, fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target
from diptych.study import Indices, Study


@dataclass(frozen=True, kw_only=True)
class LinearProbe(LabelEvaluation):
    """Logistic (classes) or ridge regression (numbers) on standardised frozen embeddings.

    The strength of the penalty is chosen on patient-grouped folds of the training patients. Rows: pretrained,
    the same encoder with random weights, a random forest and a linear model on hand-made features, and the
    majority class or mean; each per patient and per sample.

    Args:
        fractions: Shares of the labelled training patients to fit on.
        strengths: Values of C to choose from; ridge takes alpha = 1 / C.
    """

    strengths: tuple[float, ...] = STRENGTHS

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strengths(self.strengths)

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed."""
        notes: list[str] = []
        ordered = sorted(set(self.strengths))

        def predict(features: Floats, target: Target, train: Indices, seed: int) -> Floats:
            fit = fit_linear(features, target, train, seed=seed, strengths=ordered)
            notes.extend(fit.warnings("linear probe"))
            return fit.predict(features[target.test])

        return evaluate_frozen(self, study, encoder, predict, what="linear probe", notes=notes)


def check_strengths(strengths: Sequence[float]) -> None:
    """Raise ConfigError where there is no C to choose from, or one that is none."""
    if not strengths or min(strengths) <= 0:
        raise ConfigError("the strengths C to choose from are positive numbers; expected at least one")
