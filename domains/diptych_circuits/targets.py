"""What evaluations of circuits predict: couplings of two nodes or the ground capacitance of one, and their scale.

Labels and scales come from training designs alone; a design is the unit of every split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError
from diptych.evaluation.few_labels import draw_patients
from diptych.evaluation.metrics import Floats
from diptych.study import Indices
from diptych_circuits.ranges import COUPLING, GROUND, Range, range_of

LabelRange = Literal["training", "release"]

RELEASED = {2: COUPLING, 1: GROUND}  # by the number of ends


@dataclass(frozen=True, kw_only=True)
class Targets:
    """n labelled couplings (two ends) or nets (one end); positions in ``train`` and so on are among these n."""

    ends: Indices  # (n, 1 or 2) numbers of nodes; a pin comes before a net
    kind: Indices  # (n,) which of ``kinds``
    kinds: tuple[str, ...]
    symmetric: NDArray[
        np.bool_
    ]  # (kinds,) whether both ends are of one kind, so that their order means nothing
    farad: Floats  # (n,)
    design: NDArray[np.str_]  # (n,) salted key of the design
    train: Indices
    validation: Indices
    test: Indices

    def few(self, positions: Indices, fraction: float, seed: int) -> Indices:
        """The targets of a share of the designs at ``positions``; smaller shares are parts of larger ones."""
        if fraction == 1.0:
            return positions
        designs = np.unique(self.design[positions]).tolist()
        chosen = draw_patients(dict.fromkeys(designs), fraction, seed)
        return positions[np.isin(self.design[positions], sorted(chosen))]

    def balanced(self, positions: Indices, seed: int) -> Indices:
        """As many targets of each kind that occurs as of the rarest one, drawn at random, in order."""
        members = [positions[self.kind[positions] == kind] for kind in np.unique(self.kind[positions])]
        least = min(len(each) for each in members)
        generator = np.random.default_rng(seed)
        return np.sort(np.concatenate([generator.permutation(each)[:least] for each in members]))


def split_positions(splits: NDArray[np.str_]) -> dict[str, Indices]:
    """Positions of each split, by its name."""
    return {name: np.flatnonzero(splits == name).astype(np.int64) for name in ("train", "validation", "test")}


def label_range(targets: Targets, kind: LabelRange) -> Range:
    """The capacitances that are 0 and 1 as labels: those of the training targets, or the release's fixed ones.

    Raises ConfigError for another kind.
    """
    if kind not in get_args(LabelRange):
        raise ConfigError(f"label_range is {' or '.join(map(repr, get_args(LabelRange)))}; got {kind!r}")
    if kind == "release":
        return RELEASED[targets.ends.shape[1]]
    return range_of(targets.farad[targets.train])


def within(limits: Range, farad: Floats) -> NDArray[np.bool_]:
    """(n,) which capacitances lie strictly between the limits, as the release keeps them."""
    return np.asarray((farad > limits.low) & (farad < limits.high))


def check_targets(targets: Targets, what: str, netlists: int) -> None:
    """Stop where nothing can be learnt or measured. Raises DataError that says what is missing."""
    if not len(targets.farad):
        raise DataError(
            f"none of the {netlists} netlists has {what}: they hold no parasitic capacitors. Evaluation needs "
            "post-layout netlists (with C elements); pretraining does not"
        )
    for split in ("train", "test"):
        if not len(getattr(targets, split)):
            raise DataError(
                f"no {split} design has {what}; expected at least one. Change the shares of the split or its salt, or "
                "add designs with parasitics"
            )


def decades(farad: Floats, positions: Indices) -> list[tuple[str, Indices]]:
    """The positions whose capacitance lies in each power of ten, with a name in attofarad."""
    power = np.floor(np.log10(farad[positions])).astype(np.int64)
    return [
        (f"{_attofarad(int(each))} to {_attofarad(int(each) + 1)} aF", positions[power == each])
        for each in np.unique(power)
    ]


def _attofarad(power: int) -> str:
    return f"{10.0 ** (power + 18):g}"


def kind_levels(targets: Targets, positions: Indices) -> Sequence[tuple[str, Indices]]:
    """The positions of each kind that occurs, with its name; nothing where only one does."""
    occurring = np.unique(targets.kind[positions]).tolist()
    if len(occurring) < 2:
        return []
    return [(targets.kinds[number], positions[targets.kind[positions] == number]) for number in occurring]
