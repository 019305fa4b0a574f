"""``evaluate ground``: capacitance to ground of the nets of unseen designs, as a number or as one of five classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from diptych.errors import ConfigError
from diptych.evaluation.frozen import Encoders
from diptych.evaluation.table import Table
from diptych.study import Study
from diptych.words import Words
from diptych_circuits.balanced.losses import ClassLoss, RegressionLoss
from diptych_circuits.coupling import MODES, kept, label_notes
from diptych_circuits.evaluated import ground_targets
from diptych_circuits.options import Options
from diptych_circuits.ranges import CLASSES, classes
from diptych_circuits.scored import compare_predicted
from diptych_circuits.targets import LabelRange, check_targets, label_range
from diptych_circuits.trial import Trial

Answer = Literal["number", "class"]
LOSSES: dict[Answer, Any] = {"number": RegressionLoss, "class": ClassLoss}
WORDS = Words(unit="design", recording="netlist", sample="net")


@dataclass(frozen=True, kw_only=True)
class GroundCapacitance(Options):
    """Predict a net's capacitance to ground, of designs that no label was seen of.

    Rows: pretrained, the same with random weights (from scratch with finetune), the same head on statistics alone,
    boosted trees on statistics, and one constant. Labels are log10 of the capacitance, 0 and 1 at the smallest and
    largest of the training designs; the classes are its fifths.

    Args:
        epochs: Passes over the training nets; the epoch of the best validation score is kept.
        batch_size: Nets in a step, where steps are not whole netlists.
        answer: number, or class: one of five.
        loss: For numbers mse (the default), gai, bmc, bni, lds or released_bmc; for classes ce (the default),
            balanced_softmax, released_balanced_softmax or focal.
        scale: training, or release: 1e-20 to 1e-14 F, nets beyond left out.
    """

    epochs: int = 100
    batch_size: int = 128
    answer: Answer = "number"
    loss: RegressionLoss | ClassLoss | None = None
    scale: LabelRange = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer not in get_args(Answer):
            raise ConfigError(f"answer is {' or '.join(map(repr, get_args(Answer)))}; got {self.answer!r}")
        allowed = get_args(LOSSES[self.answer])
        if self.loss not in (None, *allowed):
            raise ConfigError(
                f"the loss of a {self.answer} is one of {', '.join(allowed)}; got {self.loss!r}"
            )
        self.check_loss(self.own_loss())

    def own_loss(self) -> RegressionLoss | ClassLoss:
        """The loss, by default the first of those that the answer may have."""
        first: RegressionLoss | ClassLoss = get_args(LOSSES[self.answer])[0]
        return self.loss or first

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed. It is copied.

        Raises DataError for netlists without ground capacitances, or too few designs that have any.
        """
        study, notes = self.tested_study(study)
        targets = ground_targets(study)
        check_targets(targets, "capacitances of nets to ground", len(study.circuits.netlists))
        limits = label_range(targets, self.scale)
        targets, left_out = kept(targets, limits, self.scale)
        numbers, loss = limits.label(targets.farad), self.own_loss()
        if self.answer == "number":
            trial = Trial(study, targets, numbers, 0, self, loss=loss)
        else:
            trial = Trial(study, targets, classes(numbers), CLASSES, self, loss=loss)
        return compare_predicted(
            trial.contenders(encoder),
            targets,
            limits,
            title=f"ground capacitance of nets as a {self.answer}: {MODES[self.mode]}, loss {loss}",
            words=WORDS,
            draws=self.draws,
            notes=[*notes, *left_out, *label_notes(targets, limits)],
        )
