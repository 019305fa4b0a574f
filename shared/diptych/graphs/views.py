"""Random views of graphs: each is a draw of what changes and a pure function that changes it.

A whole batch of graphs is drawn at once, on its device. Views that leave rows out have a size that only the device
knows, so on a GPU each waits for it once; views that are made where data is loaded cost nothing there.

Letters: m nodes, e edges, n graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from diptych.augment import check_range
from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.centrality import Centrality, centrality, spared
from diptych.graphs.segments import segment_count, segment_sum
from diptych.graphs.shares import least_in_segments, pair_numbers, tied_least_in_segments

Generator = torch.Generator | None


class GraphAugmentation(Protocol):
    """What makes a random view: ``apply(batch, draw(batch, generator))``.

    ``keeps_nodes`` says that row i of a view is the node of row i, which methods that compare nodes need.
    """

    keeps_nodes: bool

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Any:
        """Random parameters for a batch."""
        ...

    def apply(self, batch: GraphBatch, parameters: Any) -> GraphBatch:
        """The view that the parameters describe."""
        ...


def keep_nodes(batch: GraphBatch, kept: Tensor) -> GraphBatch:
    """The batch with only the rows ``kept`` (k,), ascending, and the edges between them.

    Roots must be among them.
    """
    m = len(batch.graph)
    place = torch.full((m,), -1, device=kept.device).index_copy(
        0, kept, torch.arange(len(kept), device=kept.device)
    )
    inside = (place[batch.edges] >= 0).all(0)
    edges = keep_edges(batch, inside.nonzero()[:, 0])
    return edges._replace(
        nodes=batch.nodes[kept],
        edges=place[edges.edges],
        graph=batch.graph[kept],
        roots=None if batch.roots is None else place[batch.roots],
    )


def keep_edges(batch: GraphBatch, kept: Tensor) -> GraphBatch:
    """The batch with only the columns ``kept`` of its edges."""
    features = None if batch.edge_features is None else batch.edge_features[kept]
    return batch._replace(edges=batch.edges[:, kept], edge_features=features)


@dataclass(frozen=True, kw_only=True)
class DropNodes:
    """Leaves floor(fraction n) random nodes of each graph out, with their edges (You et al. 2020, GraphCL).

    ``draw`` gives the rows that remain, ascending. Roots always remain.
    """

    fraction: float = 0.2
    keeps_nodes = False

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """The rows that remain, (k,) int64."""
        numbers = _uniform(len(batch.graph), batch, generator)
        if batch.roots is not None:
            numbers = numbers.index_fill(0, batch.roots, 2.0)  # the last to go
        quota = (segment_count(batch.graph, batch.graphs).double() * self.fraction).floor().long()
        gone = least_in_segments(numbers, batch.graph, quota) & (numbers < 2)
        return (~gone).nonzero()[:, 0]

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view of the remaining rows."""
        return keep_nodes(batch, parameters)


@dataclass(frozen=True, kw_only=True)
class DropEdges:
    """Leaves random edges out.

    Args:
        fraction: of the edges.
        paired: the two directions of an undirected edge go together.
        exact: floor(fraction e) edges (or pairs) of each graph go (Wang et al. 2022, MolCLR); else each goes with
            that probability (Zhu et al. 2020, GRACE).
        spare: by what centrality of nodes edges are spared (Zhu et al. 2021, GCA): that of an edge is its target's,
            with ``paired`` the mean of its ends'.
        most: the highest probability that ``spare`` may give an edge.
    """

    fraction: float = 0.2
    paired: bool = True
    exact: bool = False
    spare: Centrality | None = None
    most: float = 0.7
    keeps_nodes = True

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)
        check_range("the highest probability to drop", self.most)
        if self.exact and self.spare is not None:
            raise ConfigError("edges go by chance where central ones are spared; leave exact or spare out")

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """Which edges remain, (k,) int64."""
        edges, graph = batch.edges, batch.graph[batch.edges[1]]
        if self.paired:
            numbers = pair_numbers(edges, len(batch.graph), generator)
        else:
            numbers = _uniform(edges.shape[1], batch, generator)
        if self.exact:
            gone = tied_least_in_segments(numbers, graph, batch.graphs, self.fraction)
        else:
            gone = numbers < self._probability(batch, graph)
        return (~gone).nonzero()[:, 0]

    def _probability(self, batch: GraphBatch, graph: Tensor) -> Tensor | float:
        if self.spare is None:
            return self.fraction
        ends = centrality(batch, self.spare)[batch.edges]
        score = ends.mean(0) if self.paired else ends[1]
        return spared(score, graph, batch.graphs, self.fraction, self.most).double()

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view with the remaining edges."""
        return keep_edges(batch, parameters)


@dataclass(frozen=True, kw_only=True)
class MaskFeatures:
    """Overwrites features of nodes.

    Args:
        fraction: of what is masked.
        what: "columns" masks each column of features with that probability, for all nodes (Zhu et al. 2020, GRACE);
            "nodes" masks all features of floor(fraction n) nodes of each graph (You et al. 2020, GraphCL).
        least: nodes that are masked at least in a graph that has them (MolCLR masks 1).
        fill: what is written: one number, one for each column (the code that means "masked"), or the "mean" of a
            column over the batch.
        spare: by what centrality of nodes the columns that central nodes have are spared (Zhu et al. 2021, GCA).
        most: the highest probability that ``spare`` may give a column.
    """

    fraction: float = 0.2
    what: Literal["columns", "nodes"] = "columns"
    least: int = 0
    fill: float | Sequence[float] | Literal["mean"] = 0.0
    spare: Centrality | None = None
    most: float = 0.7
    keeps_nodes = True

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)
        check_range("the highest probability to mask", self.most)
        if self.what not in ("columns", "nodes"):
            raise ConfigError(f"what is masked must be columns or nodes, got {self.what!r}")
        if self.spare is not None and self.what == "nodes":
            raise ConfigError("only columns are spared by centrality; leave spare out, or mask columns")

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """What is masked, bool: (1, features) or (m, 1)."""
        if self.what == "nodes":
            count = segment_count(batch.graph, batch.graphs)
            quota = (count.double() * self.fraction).floor().long().clamp(min=self.least).minimum(count)
            return least_in_segments(_uniform(len(batch.graph), batch, generator), batch.graph, quota)[
                :, None
            ]
        columns = batch.nodes.shape[1]
        probability: Tensor | float = self.fraction
        if self.spare is not None:
            presence = (batch.nodes.abs().float() * centrality(batch, self.spare)[:, None]).sum(0)
            probability = spared(presence, torch.zeros_like(presence).long(), 1, self.fraction, self.most)
        return (_uniform(columns, batch, generator) < probability)[None]

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view with masked features."""
        nodes = batch.nodes
        if self.fill == "mean":
            fill = nodes.mean(0) if nodes.is_floating_point() else nodes.double().mean(0).round()
        else:
            fill = torch.tensor(self.fill, device=nodes.device)
        if fill.ndim and len(fill) != nodes.shape[1]:
            raise ConfigError(f"fill has {len(fill)} values, but nodes have {nodes.shape[1]} features")
        return batch._replace(nodes=torch.where(parameters, fill.to(nodes.dtype), nodes))


@dataclass(frozen=True, kw_only=True)
class Subgraph:
    """Keeps a connected part of each graph, grown from a random node to ceil(fraction n) nodes (GraphCL).

    One random neighbour of the part joins it at a time, all being as likely. That is the order in which nodes are
    reached when each waits an exponentially distributed time from the moment a neighbour has been reached, so all
    graphs grow at once by shortest paths. Where a part has no neighbours left it stays smaller. Edges lead from
    source to target; roots take the place of the random node, and remain.
    """

    fraction: float = 0.8
    keeps_nodes = False

    def __post_init__(self) -> None:
        check_range("the fraction of a subgraph", self.fraction)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """The rows that remain, (k,) int64."""
        count = segment_count(batch.graph, batch.graphs)
        if batch.roots is None:
            one = count.clamp(max=1)
            first = least_in_segments(_uniform(len(batch.graph), batch, generator), batch.graph, one)
        else:
            first = torch.zeros_like(batch.graph, dtype=torch.bool).index_fill(0, batch.roots, True)
        wait = -torch.log1p(-_uniform(len(batch.graph), batch, generator))
        reached = self._times(batch, torch.where(first, 0.0, torch.inf).to(wait.dtype), wait)
        quota = (count.double() * self.fraction).ceil().long()
        if batch.roots is not None:
            quota = quota.maximum(segment_sum(first.long(), batch.graph, batch.graphs))
        return (least_in_segments(reached, batch.graph, quota) & reached.isfinite()).nonzero()[:, 0]

    def _times(self, batch: GraphBatch, reached: Tensor, wait: Tensor) -> Tensor:
        """When each node is reached, by relaxing all edges until nothing changes."""
        sources, targets = batch.edges
        while True:
            sooner = reached.scatter_reduce(0, targets, reached[sources] + wait[targets], "amin")
            if torch.equal(sooner, reached):
                return reached
            reached = sooner

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view of the remaining rows."""
        return keep_nodes(batch, parameters)


class OneOf:
    """One of several augmentations, drawn anew for each batch (GraphCL's "random")."""

    def __init__(self, augmentations: Sequence[GraphAugmentation]) -> None:
        if not augmentations:
            raise ConfigError("one of no augmentations cannot be drawn; give at least one")
        self.augmentations = tuple(augmentations)
        self.keeps_nodes = all(each.keeps_nodes for each in augmentations)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> tuple[GraphAugmentation, Any]:
        """The augmentation and what it draws."""
        device = "cpu" if generator is None else generator.device
        number = int(torch.randint(len(self.augmentations), (), generator=generator, device=device))
        return self.augmentations[number], self.augmentations[number].draw(batch, generator)

    def apply(self, batch: GraphBatch, parameters: tuple[GraphAugmentation, Any]) -> GraphBatch:
        """The view that the drawn augmentation makes."""
        augmentation, drawn = parameters
        return augmentation.apply(batch, drawn)


class GraphViews(nn.Module):
    """Two views of a batch of graphs.

    Args:
        first: what the first view goes through, in this order; nothing leaves the graphs as they are.
        second: the same of the second view; None takes those of the first.
    """

    def __init__(
        self, first: Sequence[GraphAugmentation], second: Sequence[GraphAugmentation] | None = None
    ) -> None:
        super().__init__()
        self.first = tuple(first)
        self.second = self.first if second is None else tuple(second)
        if not self.first and not self.second:
            raise ConfigError("without augmentations both views are the same; give at least one")

    @property
    def keeps_nodes(self) -> bool:
        """Whether row i of both views is the node of row i."""
        return all(each.keeps_nodes for each in (*self.first, *self.second))

    @torch.no_grad()
    def forward(self, batch: GraphBatch, generator: Generator = None) -> tuple[GraphBatch, GraphBatch]:
        """Two views, drawn independently."""
        return self._view(batch, self.first, generator), self._view(batch, self.second, generator)

    @staticmethod
    def _view(
        batch: GraphBatch, augmentations: Sequence[GraphAugmentation], generator: Generator
    ) -> GraphBatch:
        for each in augmentations:
            batch = each.apply(batch, each.draw(batch, generator))
        return batch


def _uniform(count: int, batch: GraphBatch, generator: Generator) -> Tensor:
    """Numbers in [0, 1) in float64, where equal ones are as good as impossible."""
    return torch.rand(count, device=batch.graph.device, dtype=torch.float64, generator=generator)


def _check_fraction(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise ConfigError(f"a fraction to leave out must lie in 0..1 and below 1, got {fraction:g}")
