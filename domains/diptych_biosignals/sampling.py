"""Batches that hold windows of the same trial and patient, without which those levels have no positives.

Every plan is a :class:`diptych.data.loading.BatchPlan`: the batches of an epoch are a pure function of the
plan's seed and the epoch. Source of the orders "trial", "batch" and of ``fixed``: Wang et al. 2023 (COMET),
released code.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diptych.errors import ConfigError

Indices = NDArray[np.int64]
SampleOrder = Literal["trial", "batch", "random"]

_MASK = (1 << 64) - 1
_MEMBERSHIP, _INSIDE = 1, 2  # independent streams of one seed: who shares a batch, and in which order


class TrialBatches:
    """Every window once an epoch, in batches that are consecutive slices of one order.

    Args:
        indices: (n,) the windows to load.
        trials: (n,) the trial of each; any ids that can be sorted, unique over all patients.
        patients: (n,) the patient of each.
        batch_size: windows of a batch; the last one may hold fewer, and is left out when it holds one alone
            and there are others, since a single window has nothing to be contrasted with.
        seed: every seed has its own batches.
        order: "trial" shuffles the windows inside each trial and the order of the trials, and keeps the
            windows of a trial together; "batch" cuts the windows, sorted by trial, into n // batch_size
            nearly equal chunks and shuffles chunks and windows inside chunks; "random" ignores trials.
        trials_per_patient: with order "trial", up to this many trials of one patient follow each other, so
            that a batch has positives at the patient level that are not of one trial.
        fixed: as in the released code, draw who shares a batch once for all epochs and redraw only the order
            inside each batch; otherwise everything is drawn anew each epoch.

    Raises:
        ConfigError: unequal lengths, no windows, a batch size below 2, or a batch order with fewer windows
            than a batch.
    """

    def __init__(
        self,
        indices: Indices,
        trials: ArrayLike,
        patients: ArrayLike,
        *,
        batch_size: int,
        seed: int,
        order: SampleOrder = "trial",
        trials_per_patient: int = 1,
        fixed: bool = False,
    ) -> None:
        self.indices = np.asarray(indices, dtype=np.int64)
        self.trials = _numbered(trials)
        self.patients = _numbered(patients)
        self.batch_size, self.seed, self.order = batch_size, seed, order
        self.trials_per_patient, self.fixed = trials_per_patient, fixed
        self._check()

    def batches(self, epoch: int) -> list[Indices]:
        """The batches of one epoch, as indices of windows."""
        membership = self._generator(_MEMBERSHIP, 0 if self.fixed else epoch)
        order = self._order(membership)
        cuts = range(self.batch_size, len(order), self.batch_size)
        batches = np.split(order, list(cuts))
        if len(batches) > 1 and len(batches[-1]) == 1:
            del batches[-1]
        if self.fixed:
            inside = self._generator(_INSIDE, epoch)
            batches = [inside.permutation(batch) for batch in batches]
        return [self.indices[batch] for batch in batches]

    def _order(self, generator: np.random.Generator) -> Indices:
        """A permutation of 0..n-1."""
        n = len(self.indices)
        shuffled = generator.permutation(n)
        if self.order == "random":
            return shuffled
        if self.order == "batch":
            chunks = np.array_split(np.argsort(self.trials, kind="stable"), n // self.batch_size)
            turn = generator.permutation(len(chunks))
            return np.concatenate([generator.permutation(chunks[i]) for i in turn])
        place = self._trial_places(generator)
        return shuffled[np.argsort(place[self.trials[shuffled]], kind="stable")]

    def _trial_places(self, generator: np.random.Generator) -> Indices:
        """The place of every trial in the order of trials, (number of trials,)."""
        count = int(self.trials.max()) + 1
        turn = generator.permutation(count)
        if self.trials_per_patient > 1:
            patient = np.zeros(count, dtype=np.int64)
            patient[self.trials] = self.patients
            turn = _side_by_side(turn, patient[turn], self.trials_per_patient, generator)
        place = np.empty(count, dtype=np.int64)
        place[turn] = np.arange(count)
        return place

    def _generator(self, stream: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed & _MASK, stream, epoch))

    def _check(self) -> None:
        n = len(self.indices)
        if n == 0:
            raise ConfigError("there are no windows to make batches of; check the split and the filters")
        for name, ids in (("trials", self.trials), ("patients", self.patients)):
            if len(ids) != n:
                raise ConfigError(f"{n} windows came with {len(ids)} {name}; each window needs one")
        if self.order not in ("trial", "batch", "random"):
            raise ConfigError(f"order must be one of trial, batch, random, got {self.order!r}")
        if self.batch_size < 2:
            raise ConfigError(f"a contrast needs a batch size of at least 2, got {self.batch_size}")
        if self.order == "batch" and n < self.batch_size:
            raise ConfigError(
                f"order batch needs at least a batch of {self.batch_size} windows, got {n}; lower the batch "
                "size or use order trial"
            )
        if self.trials_per_patient < 1:
            raise ConfigError(f"trials_per_patient is at least 1, got {self.trials_per_patient}")


def _numbered(ids: ArrayLike) -> Indices:
    """Ids of any kind as 0, 1, 2, ... in sorted order."""
    return np.unique(np.asarray(ids), return_inverse=True)[1].reshape(-1).astype(np.int64)


def _side_by_side(turn: Indices, patient: Indices, size: int, generator: np.random.Generator) -> Indices:
    """Reorder shuffled trials so that up to ``size`` of one patient follow each other, groups in random
    order.

    ``patient`` (number of trials,) is that of each trial of ``turn``.
    """
    by_patient = np.argsort(patient, kind="stable")
    ordered = patient[by_patient]
    first = np.searchsorted(ordered, ordered)
    group = np.empty(len(turn), dtype=np.int64)
    group[by_patient] = _numbered(ordered * (len(turn) + 1) + (np.arange(len(turn)) - first) // size)
    place = generator.permutation(int(group.max()) + 1)
    return turn[np.argsort(place[group], kind="stable")]
