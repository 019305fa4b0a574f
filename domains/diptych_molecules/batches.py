"""Batches of molecules that are alike, hard to tell apart, drawn anew each epoch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
_MASK = (1 << 64) - 1


class SimilarBatches:
    """Every molecule once an epoch, in batches that are consecutive slices of shuffled clusters.

    The order of the clusters and that inside each are drawn anew each epoch, so with clusters larger than a
    batch a molecule meets others of its kind each time. The idea of hard negatives by fingerprint is that of
    KCL (Fang et al. 2022), whose release reads clusters in one order for all epochs.

    A last batch of one molecule alone is left out, since it has nothing to be contrasted with.

    Args:
        indices: (n,) the molecules to load.
        clusters: (n,) code of the cluster of each.
        batch_size: molecules of a batch.
        seed: every seed has its own batches.
    """

    def __init__(self, indices: Indices, clusters: Indices, *, batch_size: int, seed: int) -> None:
        self.indices = np.asarray(indices, np.int64)
        self.clusters = np.unique(clusters, return_inverse=True)[1]
        self.batch_size, self.seed = batch_size, seed

    def batches(self, epoch: int) -> list[Indices]:
        """The batches of one epoch."""
        generator = np.random.default_rng((self.seed & _MASK, epoch))
        shuffled = generator.permutation(len(self.indices))
        turn = generator.permutation(int(self.clusters.max(initial=-1)) + 1)
        order = shuffled[np.argsort(turn[self.clusters[shuffled]], kind="stable")]
        batches = [
            self.indices[order[start : start + self.batch_size]]
            for start in range(0, len(order), self.batch_size)
        ]
        if len(batches) > 1 and len(batches[-1]) == 1:
            del batches[-1]
        return batches
