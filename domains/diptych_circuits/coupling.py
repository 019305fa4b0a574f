"""``evaluate coupling``: coupling capacitances of unseen designs, predicted zero-shot and with few labelled designs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diptych.evaluation.frozen import Encoders
from diptych.evaluation.table import Table
from diptych.study import Study
from diptych.words import Words
from diptych_circuits.balanced.losses import RegressionLoss
from diptych_circuits.evaluated import coupling_targets
from diptych_circuits.options import PairOptions
from diptych_circuits.ranges import Range
from diptych_circuits.scored import compare_predicted
from diptych_circuits.targets import LabelRange, Targets, check_targets, label_range, within
from diptych_circuits.trial import Trial

WORDS = Words(unit="design", recording="netlist", sample="coupling")
MODES = {
    "frozen": "heads on frozen embeddings",
    "trees": "boosted trees on frozen embeddings",
    "downstream": "a graph network on frozen embeddings",
    "finetune": "fine-tuning",
}


@dataclass(frozen=True, kw_only=True)
class CouplingCapacitance(PairOptions):
    """Predict the capacitance between two nodes, of designs that no label was seen of.

    Rows: pretrained, the same with random weights (from scratch with finetune), the same head on statistics alone,
    boosted trees on statistics of both ends and of the pair, the mean of each kind of coupling, and one constant.
    Labels are log10 of the capacitance, 0 and 1 at the smallest and largest of the training designs.

    Args:
        loss: mse, gai, bmc, bni, lds or released_bmc.
        balance: Train on as many couplings of each kind as of the rarest.
        scale: training, or release: 1e-21 to 1e-15 F, couplings beyond left out.
    """

    loss: RegressionLoss = "mse"
    balance: bool = False
    scale: LabelRange = "training"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_loss(self.loss)

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed. It is copied.

        Raises DataError for netlists without couplings, or too few designs that have any.
        """
        study, notes = self.tested_study(study)
        targets = coupling_targets(study, self.between)
        check_targets(targets, "coupling capacitances", len(study.circuits.netlists))
        limits = label_range(targets, self.scale)
        targets, left_out = kept(targets, limits, self.scale)
        trial = Trial(
            study,
            targets,
            limits.label(targets.farad),
            0,
            self,
            loss=self.loss,
            distances=self.distances,
            balance=self.balance,
        )
        return compare_predicted(
            trial.contenders(encoder),
            targets,
            limits,
            title=f"coupling capacitance between {self.between}: {MODES[self.mode]}, loss {self.loss}",
            words=WORDS,
            draws=self.draws,
            notes=[*notes, *left_out, *label_notes(targets, limits), *self.input_notes()],
        )


def kept(targets: Targets, limits: Range, scale: LabelRange) -> tuple[Targets, list[str]]:
    """The targets that the release would take, where its scale is asked for, and a note on the others."""
    if scale != "release":
        return targets, []
    inside = within(limits, targets.farad)
    note = f"{np.count_nonzero(~inside)} of {len(inside)} capacitances lie beyond the release's limits and are left out"
    train, validation, test = (
        each[inside[each]] for each in (targets.train, targets.validation, targets.test)
    )
    return replace(targets, train=train, validation=validation, test=test), [note]


def label_notes(targets: Targets, limits: Range) -> list[str]:
    """What 0 and 1 are, and how many test labels lie beyond."""
    beyond = np.count_nonzero(~within(limits, targets.farad[targets.test]))
    notes = [
        f"labels: log10 of the capacitance, 0 at {limits.low:.3g} F and 1 at {limits.high:.3g} F",
        "error of total %: sum of |predicted - true| over the sum of the true capacitances, in farad; macro F1 of five "
        "classes of equal width of the label",
    ]
    if beyond:
        notes.append(f"{beyond} test capacitances lie beyond and count as the nearer limit")
    return notes
