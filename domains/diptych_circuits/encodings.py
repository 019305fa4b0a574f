"""Where nodes stand with respect to the anchors of their subgraph: DSPD and DRNL, for all subgraphs of a batch at once.

Distances are numbers of hops along the edges, found by stepping from the anchors over all edges at once, at most
``farthest`` - 1 times. A node that is ``farthest`` hops away or more, or is not reached, has the distance ``farthest``.

Letters: m nodes and e edges of a batch of g subgraphs with k anchors each, 2 for links and 1 for nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch


def anchors_of(batch: GraphBatch) -> Tensor:
    """The anchors of every subgraph, (g, k): its roots, in the order in which they were given.

    Raises:
        DataError: no roots, or not 1 or 2 for each subgraph.
    """
    count = -1 if batch.roots is None else len(batch.roots)
    if batch.roots is None or count not in (batch.graphs, 2 * batch.graphs):
        raise DataError(
            f"distances to anchors need 1 or 2 roots in each of the {batch.graphs} subgraphs, got "
            f"{'none' if batch.roots is None else count}; sample a subgraph of its own for every node or link "
            "(disjoint), or leave the encoding out"
        )
    order = batch.graph[batch.roots].argsort(stable=True)
    return batch.roots[order].view(batch.graphs, -1)


def hop_distances(
    edges: Tensor, starts: Tensor, nodes: int, *, farthest: int, deleted: Tensor | None = None
) -> Tensor:
    """Hops from the nearest of some nodes to every node, (m, k) int64, for k sets of starts side by side.

    Args:
        edges: (2, e); an undirected edge is there in both directions.
        starts: (g, k): the j-th column is the j-th set.
        nodes: m.
        farthest: the distance of what is at least so far away or not reached.
        deleted: (g, k): nodes that are not there for the j-th set; their own distance is ``farthest``.
    """
    source, target = edges
    sets = torch.arange(starts.shape[1], device=edges.device)
    distance = torch.full((nodes, starts.shape[1]), farthest, device=edges.device)
    distance[starts, sets] = 0
    for hops in range(1, farthest):
        reached = (distance[source] == hops - 1).to(torch.int64)
        arrived = torch.zeros_like(distance).index_add(0, target, reached) > 0
        if deleted is not None:
            arrived[deleted, sets] = False
        distance = torch.where(arrived & (distance == farthest), hops, distance)
    return distance


def dspd(batch: GraphBatch, farthest: int) -> Tensor:
    """Hops of every node to both anchors, (m, 2) int64; a single anchor counts twice (CircuitGPS, 2025).

    Raises DataError without anchors, see :func:`anchors_of`.
    """
    anchors = anchors_of(batch)
    return hop_distances(batch.edges, anchors, len(batch.nodes), farthest=farthest).expand(-1, 2)


def drnl(batch: GraphBatch, farthest: int) -> Tensor:
    """The role of every node in the subgraph of a link, (m,) int64 (Zhang & Chen 2018, SEAL, equation 5).

    With a, b the distances to both anchors, each with the other anchor deleted, and d = a + b:
    z = 1 + min(a, b) + (d // 2) (d // 2 + d % 2 - 1). Anchors have 1; nodes at ``farthest`` from either 0.

    Raises DataError unless there are two anchors in each subgraph.
    """
    anchors = anchors_of(batch)
    if anchors.shape[1] != 2:
        raise DataError("DRNL describes links: it needs 2 roots in each subgraph, got 1; use DSPD for nodes")
    distance = hop_distances(
        batch.edges, anchors, len(batch.nodes), farthest=farthest, deleted=anchors.flip(1)
    )
    label = torch.where((distance < farthest).all(1), drnl_label(distance), 0)
    return label.index_fill(0, anchors.flatten(), 1)


def drnl_label(distance: Tensor) -> Tensor:
    """The number of a pair of distances (..., 2), which is another for every unordered pair."""
    total = distance.sum(-1)
    half = total // 2
    return 1 + distance.amin(-1) + half * (half + total % 2 - 1)


class DSPD(nn.Module):
    """Embeds both distances with one table, side by side: a GraphBatch to (m, width)."""

    def __init__(self, width: int, farthest: int = 10) -> None:
        super().__init__()
        if width % 2:
            raise ConfigError(f"DSPD shares its width between two distances; it must be even, got {width}")
        self.width, self.farthest = width, check_farthest(farthest)
        self.table = nn.Embedding(farthest + 1, width // 2)

    def forward(self, batch: GraphBatch) -> Tensor:
        """See :func:`dspd`."""
        embedded: Tensor = self.table(dspd(batch, self.farthest))
        return embedded.flatten(1)


class DRNL(nn.Module):
    """Embeds the roles of nodes in the subgraph of a link: a GraphBatch to (m, width)."""

    def __init__(self, width: int, farthest: int = 10) -> None:
        super().__init__()
        self.width, self.farthest = width, check_farthest(farthest)
        largest = int(drnl_label(torch.full((2,), farthest - 1)))
        self.table = nn.Embedding(max(1, largest) + 1, width)

    def forward(self, batch: GraphBatch) -> Tensor:
        """See :func:`drnl`."""
        embedded: Tensor = self.table(drnl(batch, self.farthest))
        return embedded


def check_farthest(farthest: int) -> int:
    """The number itself. Raises ConfigError below 1."""
    if farthest < 1:
        raise ConfigError(f"farthest is a number of hops of at least 1, got {farthest}")
    return farthest
