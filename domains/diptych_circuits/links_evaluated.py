"""``evaluate links``: does a pair of nodes couple at all? Negatives are pairs of the same kinds in the same netlist."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from diptych.errors import ConfigError, DataError
from diptych.evaluation.frozen import Encoders
from diptych.evaluation.table import Table
from diptych.study import Indices, Study
from diptych.words import Words
from diptych_circuits.balanced.losses import ClassLoss
from diptych_circuits.circuits import Circuits
from diptych_circuits.coupling import MODES
from diptych_circuits.evaluated import coupling_targets
from diptych_circuits.options import PairOptions
from diptych_circuits.scored import compare_links
from diptych_circuits.targets import Targets, check_targets, split_positions
from diptych_circuits.trial import Trial

WORDS = Words(unit="design", recording="netlist", sample="pair")
ROUNDS = 20  # draws of a negative pair before a coupling goes without


@dataclass(frozen=True, kw_only=True)
class CouplingExistence(PairOptions):
    """Tell pairs that couple from pairs of the same kinds of nodes in the same netlist that do not.

    What an extractor dropped as too small counts as no coupling. Rows as in the evaluation of coupling capacitances,
    but for the mean of each kind, which here is a constant.

    Args:
        epochs: Passes over the training pairs; the epoch of the best validation score is kept.
        batch_size: Pairs in a step, where steps are not whole netlists.
        negatives: Pairs without coupling for each coupling.
        loss: ce, balanced_softmax, released_balanced_softmax or focal.
    """

    draws: int = 500
    epochs: int = 30
    negatives: float = 1.0
    loss: ClassLoss = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.negatives > 0:
            raise ConfigError(
                f"negatives: expected a number above 0 of pairs for each coupling; got {self.negatives:g}"
            )
        self.check_loss(self.loss)

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed. It is copied.

        Raises DataError for netlists without couplings, or too few designs that have any.
        """
        study, notes = self.tested_study(study)
        couplings = coupling_targets(study, self.between)
        check_targets(couplings, "coupling capacitances", len(study.circuits.netlists))
        targets, labels = with_negatives(study.circuits, couplings, self.negatives, seed=0)
        trial = Trial(study, targets, labels, 2, self, loss=self.loss, distances=self.distances)
        return compare_links(
            trial.contenders(encoder),
            targets,
            labels,
            title=f"existence of couplings between {self.between}: {MODES[self.mode]}, loss {self.loss}",
            words=WORDS,
            draws=self.draws,
            notes=[
                *notes,
                f"{np.count_nonzero(labels == 0)} pairs without coupling beside {np.count_nonzero(labels)} couplings, "
                "of the same kinds in the same netlists; what the extractor dropped as too small counts as none",
                *self.input_notes(),
            ],
        )


def with_negatives(
    circuits: Circuits, couplings: Targets, ratio: float, seed: int
) -> tuple[Targets, Indices]:
    """The couplings and pairs that do not couple, with (n,) labels 1 and 0.

    A negative pair keeps the first end of a coupling, and its second end is another node of the same kind in the same
    netlist, uniformly. Negatives are different from each other and from all couplings. A coupling for which none is
    found after ROUNDS draws has none, as where all pairs of a netlist couple.

    Raises DataError where no negative pair exists.
    """
    generator = np.random.default_rng(seed)
    first, second = np.repeat(couplings.ends, int(np.ceil(ratio)), axis=0).T
    source = np.repeat(np.arange(len(couplings.ends)), int(np.ceil(ratio)))
    chosen = np.sort(generator.permutation(len(source))[: round(ratio * len(couplings.ends))])
    first, second, source = first[chosen], second[chosen], source[chosen]
    low, size = _alike(circuits, second)
    span = len(circuits)
    taken = np.unique(_codes(couplings.ends, span))
    found: list[tuple[Indices, Indices]] = []
    for _ in range(ROUNDS):
        other = low + (generator.random(len(first)) * size).astype(np.int64)
        pairs = np.column_stack([first, other])
        codes = _codes(pairs, span)
        _, earliest = np.unique(codes, return_index=True)
        good = np.zeros(len(codes), dtype=bool)
        good[earliest] = True
        good &= ~np.isin(codes, taken) & (first != other)
        found.append((source[good], pairs[good]))
        taken = np.union1d(taken, codes[good])
        first, low, size, source = (each[~good] for each in (first, low, size, source))
    origin = np.concatenate([places for places, _ in found])
    if not len(origin):
        raise DataError(
            "all pairs of nodes couple in these netlists; there is no pair without coupling to tell apart"
        )
    everything = np.concatenate([np.arange(len(couplings.ends)), origin])
    split = np.full(len(couplings.ends), "", dtype="U10")
    for name in ("train", "validation", "test"):
        split[getattr(couplings, name)] = name
    parts = split_positions(split[everything])
    joined = replace(
        couplings,
        ends=np.concatenate([couplings.ends, *(pairs for _, pairs in found)]),
        kind=couplings.kind[everything],
        farad=couplings.farad[everything],
        design=couplings.design[everything],
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )
    return joined, (np.arange(len(everything)) < len(couplings.ends)).astype(np.int64)


def _alike(circuits: Circuits, nodes: Indices) -> tuple[Indices, Indices]:
    """The first node of the same kind in the same netlist, and how many there are: they are contiguous."""
    code = np.asarray(circuits.netlist, np.int64) * 4 + np.asarray(circuits.kind, np.int64)
    _, start, size = np.unique(code, return_index=True, return_counts=True)
    place = np.searchsorted(code[start], code[nodes])
    return start[place].astype(np.int64), size[place].astype(np.int64)


def _codes(pairs: Indices, span: int) -> Indices:
    """One number for every unordered pair."""
    low, high = np.sort(pairs, axis=1).T
    return np.asarray(low * span + high, dtype=np.int64)
