"""Pairs of images of different patients, which the methods that align images learn from.

The batches of an epoch are a pure function of the plan's seed and the epoch
(:class:`diptych.data.loading.BatchPlan`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from diptych.errors import ConfigError

Indices = NDArray[np.int64]

_MASK = (1 << 64) - 1
_ORDER, _PARTNERS, _LABELLED = 1, 2, 3  # independent streams of one seed


class PairBatches:
    """Every image once an epoch with a partner of its group, as batches (a0, b0, a1, b1, ...).

    The partner b is drawn anew each epoch, uniformly among the group's images of other patients. With
    ``labelled`` images every pair is followed by one of them, (a0, b0, l0, a1, b1, l1, ...), each as often as
    the others.

    Args:
        indices: (n,) the images to load.
        patients: (n,) the patient of each; any ids that can be sorted.
        groups: (n,) the group of each, such as "sex F, view PA"; both of a pair are of one group.
        batch_size: pairs of a batch; the last one may hold fewer.
        seed: every seed has its own batches.
        same_patient: the partner may be another image of the same patient.
        labelled: images with masks, of which one goes with each pair.
        drop_last: leave out the pairs that fill no batch; others are left out in the next epoch.

    Raises:
        ConfigError: no images, unequal lengths, a batch size below 1 or above the number of images with
            ``drop_last``, no labelled images where they are wanted, or an image without a possible partner:
            its group is named.
    """

    def __init__(
        self,
        indices: Indices,
        patients: ArrayLike,
        groups: ArrayLike,
        *,
        batch_size: int,
        seed: int,
        same_patient: bool = False,
        labelled: Indices | None = None,
        drop_last: bool = False,
    ) -> None:
        self.indices = np.asarray(indices, np.int64)
        self.patients = np.unique(np.asarray(patients), return_inverse=True)[1].reshape(-1)
        self.names, number = np.unique(np.asarray(groups), return_inverse=True)
        self.groups = number.reshape(-1)
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
        self.same_patient = same_patient
        self.labelled = None if labelled is None else np.asarray(labelled, np.int64)
        self._check()
        self._range()

    @property
    def size(self) -> int:
        """Images that belong together: 2, or 3 with labelled ones."""
        return 2 if self.labelled is None else 3

    def batches(self, epoch: int) -> list[Indices]:
        """The batches of one epoch, as indices of images."""
        rows = self._generator(_ORDER, epoch).permutation(len(self.indices))
        columns = [self.indices[rows], self.indices[self._partners(epoch)[rows]]]
        if self.labelled is not None:
            columns.append(self._with_labels(len(rows), epoch))
        together = np.stack(columns, axis=1)
        batches = [together[i : i + self.batch_size] for i in range(0, len(rows), self.batch_size)]
        if self.drop_last and len(batches[-1]) < self.batch_size:
            del batches[-1]
        return [batch.reshape(-1) for batch in batches]

    def _partners(self, epoch: int) -> Indices:
        """The place of each image's partner, (n,).

        The images are sorted by group and, within it, by patient, so that those a partner may not be of are
        one run of places, which the draw steps over.
        """
        draw = self._generator(_PARTNERS, epoch).integers(0, self.choices)
        place = self.group_start + draw
        return np.asarray(self.sorted[place + np.where(place >= self.skip_start, self.skip, 0)], np.int64)

    def _range(self) -> None:
        """Where each image's possible partners lie in the sorted order. Raises ConfigError where one has none."""
        n = len(self.indices)
        self.sorted = np.lexsort((np.arange(n), self.patients, self.groups))
        rank = np.empty(n, np.int64)
        rank[self.sorted] = np.arange(n)
        group = self.groups[self.sorted]
        first, last = np.searchsorted(group, self.groups), np.searchsorted(group, self.groups, side="right")
        owner = group * (int(self.patients.max()) + 1) + self.patients[self.sorted]
        own = self.groups * (int(self.patients.max()) + 1) + self.patients
        start, stop = np.searchsorted(owner, own), np.searchsorted(owner, own, side="right")
        self.group_start = first
        self.skip_start = rank if self.same_patient else start
        self.skip = np.ones(n, np.int64) if self.same_patient else stop - start
        self.choices = last - first - self.skip
        if (self.choices < 1).any():
            alone = self.names[np.unique(self.groups[self.choices < 1])]
            what = "a single image" if self.same_patient else "images of a single patient"
            raise ConfigError(
                f"{len(alone)} groups hold {what}, so that there is no pair to make: "
                f"{', '.join(repr(str(name)) for name in alone[:5])}. Set loader.same to fewer labels, or leave "
                "these images out"
            )

    def _with_labels(self, count: int, epoch: int) -> Indices:
        """Labelled images for ``count`` pairs: whole permutations one after the other."""
        assert self.labelled is not None
        generator = self._generator(_LABELLED, epoch)
        rounds = -(-count // len(self.labelled))
        return np.concatenate([generator.permutation(self.labelled) for _ in range(rounds)])[:count]

    def _generator(self, stream: int, epoch: int) -> np.random.Generator:
        return np.random.default_rng((self.seed & _MASK, stream, epoch))

    def _check(self) -> None:
        n = len(self.indices)
        if n == 0:
            raise ConfigError("there are no images to make pairs of; check the split and the filters")
        for name, ids in (("patients", self.patients), ("groups", self.groups)):
            if len(ids) != n:
                raise ConfigError(f"{n} images came with {len(ids)} {name}; each image needs one")
        if self.batch_size < 1:
            raise ConfigError(f"a batch holds at least 1 pair, got {self.batch_size}")
        if self.drop_last and n < self.batch_size:
            raise ConfigError(
                f"loader.drop_last with {n} images leaves no batch of {self.batch_size} pairs; lower "
                "loader.batch_size"
            )
        if self.labelled is not None and not len(self.labelled):
            raise ConfigError(
                "the method needs labelled images, and no training image has a mask; set masks.files"
            )
