"""Hand-made features of nodes and pairs: statistics of a node, its devices and its net; how far two nodes are apart.

The classical rows of the tables are fitted on these, and heads may have them beside embeddings.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from diptych.evaluation.metrics import Floats
from diptych.study import Indices

FARTHEST = 6  # hops; pairs beyond are alike
BLOCK = 2048  # sources whose surroundings are held at once
PAIR_FEATURES = f"hops between both ends up to {FARTHEST}, devices in common, whether they share a net"

Kinds = NDArray[np.int64]


class Surroundings:
    """What each node touches, as sparse matrices: its neighbours, devices and nets.

    A device's own row of ``devices`` is itself, a pin's its device, a net's those whose pins are on it; likewise
    ``nets``.

    Args:
        edges: (2, e) between neighbours, in both directions.
        kind: (n,) kinds of nodes.
        net: The number of the kind net.
        device: The number of the kind device.
    """

    def __init__(self, edges: Indices, kind: Kinds, *, net: int, device: int) -> None:
        n = len(kind)
        ones = np.ones(edges.shape[1], dtype=np.float32)
        self.neighbours = _binary(sparse.csr_matrix((ones, (edges[1], edges[0])), shape=(n, n)))
        within = self.neighbours + sparse.identity(n, dtype=np.float32, format="csr")
        self.devices = self._reach(within, kind == device)
        self.nets = self._reach(within, kind == net)

    @staticmethod
    def _reach(within: sparse.csr_matrix, chosen: NDArray[np.bool_]) -> sparse.csr_matrix:
        """(n, n) which chosen nodes lie within two hops; a chosen node reaches itself alone."""
        columns = sparse.diags(chosen.astype(np.float32), format="csr")
        reached = _binary(within @ (within @ columns))
        others = sparse.diags((~chosen).astype(np.float32), format="csr")
        return sparse.csr_matrix(others @ reached + columns)


def with_context(statistics: Floats, around: Surroundings) -> Floats:
    """(n, 3 columns): a node's statistics, and the means of those of its devices and of its nets."""
    return np.concatenate(
        [statistics, *(_mean(each, statistics) for each in (around.devices, around.nets))], axis=1
    )


def pair_features(around: Surroundings, first: Indices, second: Indices) -> Floats:
    """(p, FARTHEST + 4) features of pairs of nodes; both orders of a pair have the same.

    Columns: one for every distance from 0 to FARTHEST and one for beyond, log(1 + devices in common), and whether
    they touch a net in common.
    """
    distance = hops(around, first, second)
    far = np.zeros((len(first), FARTHEST + 2))
    far[np.arange(len(first)), distance] = 1.0
    devices, nets = (_common(each, first, second) for each in (around.devices, around.nets))
    return np.column_stack([far, np.log1p(devices), nets > 0])


def hops(around: Surroundings, first: Indices, second: Indices, limit: int = FARTHEST) -> Indices:
    """(p,) edges on the shortest way between two nodes, and limit + 1 where it is longer than ``limit``.

    The surroundings of the first ends grow hop by hop, so the cost is that of the surroundings and not of the graph.
    """
    distance = np.full(len(first), limit + 1, dtype=np.int64)
    sources, source = np.unique(first, return_inverse=True)
    for start in range(0, len(sources), BLOCK):
        pairs = np.flatnonzero((source >= start) & (source < start + BLOCK))
        chosen = sources[start : start + BLOCK]
        n = around.neighbours.shape[0]
        entries = (np.ones(len(chosen), dtype=np.float32), (np.arange(len(chosen)), chosen))
        reached = sparse.csr_matrix(entries, shape=(len(chosen), n))
        for hop in range(limit + 1):
            inside = np.asarray(reached[source[pairs] - start, second[pairs]]).ravel() > 0
            distance[pairs[inside]] = hop
            pairs = pairs[~inside]
            if not len(pairs) or hop == limit:
                break
            reached = _binary(reached + reached @ around.neighbours)
    return distance


def _binary(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    matrix.data[:] = 1.0
    return matrix


def _common(matrix: sparse.csr_matrix, first: Indices, second: Indices) -> Floats:
    return np.asarray(matrix[first].multiply(matrix[second]).sum(axis=1), dtype=np.float64).ravel()


def _mean(matrix: sparse.csr_matrix, statistics: Floats) -> Floats:
    number = np.asarray(matrix.sum(axis=1)).ravel()
    return np.asarray(matrix @ statistics / np.maximum(number, 1.0)[:, None], dtype=np.float64)
