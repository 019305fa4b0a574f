"""Batches of nodes that take the nodes of a netlist together."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diptych.study import Indices

Order = Literal["netlist", "random"]
_MASK = (1 << 64) - 1


class NetlistBatches:
    """Every node once an epoch: a :class:`diptych.data.loading.BatchPlan`.

    Args:
        indices: (n,) nodes.
        netlists: (n,) the netlist of each.
        batch_size: Nodes of a batch; the last one may hold fewer, and is left out when it holds one alone and there
            are others.
        seed: Every seed has its own batches.
        order: "netlist" shuffles netlists and the nodes inside each, and keeps the nodes of one together; "random"
            shuffles all nodes.
    """

    def __init__(
        self, indices: Indices, netlists: NDArray[np.integer], batch_size: int, seed: int, *, order: Order
    ) -> None:
        self.indices = np.asarray(indices, np.int64)
        self.netlists = np.unique(netlists, return_inverse=True)[1].reshape(-1)
        self.batch_size, self.seed, self.order = batch_size, seed, order

    def batches(self, epoch: int) -> list[Indices]:
        """The batches of one epoch, the same for the same seed and epoch."""
        generator = np.random.default_rng((self.seed & _MASK, epoch))
        order = generator.permutation(len(self.indices))
        if self.order == "netlist" and len(order):
            place = generator.permutation(int(self.netlists.max()) + 1)
            order = order[np.argsort(place[self.netlists[order]], kind="stable")]
        batches = np.split(self.indices[order], range(self.batch_size, len(order), self.batch_size))
        if len(batches) > 1 and len(batches[-1]) == 1:
            del batches[-1]
        return batches
