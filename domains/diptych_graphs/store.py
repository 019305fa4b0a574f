"""All graphs of a data set side by side, and batches of them.

Letters: G graphs, N nodes and E edges in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.graphs.batch import GraphBatch
from diptych.graphs.neighbours import Adjacency, sample_neighbours
from diptych.study import Indices
from diptych_graphs.columns import Columns
from diptych_graphs.graph import Graph

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Store:
    """Graphs with the nodes and edges of each one after the other."""

    nodes: Array  # (N, columns) float32 or int64
    edges: Indices  # (2, E): numbers of nodes of the whole store
    edge_features: Array | None  # (E, columns)
    starts: Indices  # (G + 1,) first node of each graph
    edge_starts: Indices  # (G + 1,)
    columns: Columns

    @classmethod
    def of(cls, graphs: Sequence[Graph], codes: bool | None) -> Store:
        """Joins graphs of equal columns; ``codes`` says whether whole numbers are codes (None: see :func:`kind_of`)."""
        sizes = [len(each.nodes) for each in graphs]
        starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        counts = [each.edges.shape[1] for each in graphs]
        nodes, kind = kind_of([each.nodes for each in graphs], codes)
        edge_features = [each.edge_features for each in graphs if each.edge_features is not None]
        features, edge_kind = kind_of(edge_features, codes) if edge_features else (None, None)
        return cls(
            nodes=nodes,
            edges=np.concatenate(
                [each.edges + start for each, start in zip(graphs, starts, strict=False)], axis=1
            ),
            edge_features=features,
            starts=starts,
            edge_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            columns=Columns(nodes=kind, edges=edge_kind),
        )

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> Indices:
        """Nodes of each graph, (G,)."""
        return np.diff(self.starts)

    @cached_property
    def graph_of(self) -> Indices:
        """The graph of each node, (N,)."""
        return np.repeat(np.arange(len(self)), self.sizes)

    @cached_property
    def adjacency(self) -> Adjacency:
        """Edges into every node, made once when it is first needed."""
        return Adjacency.of(self.edges, len(self.nodes))

    def scaled(self, graphs: NDArray[np.bool_]) -> Store:
        """Numbers of nodes with mean 0 and deviation 1 over the chosen graphs; codes stay."""
        if self.nodes.dtype.kind != "f":
            return self
        rows = self.nodes[graphs[self.graph_of]]
        spread = rows.std(0)
        return replace(
            self, nodes=(self.nodes - rows.mean(0)) / np.where(spread > 0, spread, 1).astype(np.float32)
        )

    def whole(self, graphs: Indices) -> tuple[GraphBatch, Indices]:
        """(graphs in this order, the numbers of their nodes)."""
        nodes = _ranges(self.starts[graphs], self.sizes[graphs])
        edges = _ranges(self.edge_starts[graphs], np.diff(self.edge_starts)[graphs])
        sizes = self.sizes[graphs]
        shift = np.repeat(np.cumsum(sizes) - sizes - self.starts[graphs], np.diff(self.edge_starts)[graphs])
        batch = self._batch(
            nodes, self.edges[:, edges] + shift, edges, np.repeat(np.arange(len(graphs)), sizes), len(graphs)
        )
        return batch, nodes

    def around(
        self, roots: Indices, *, hops: int, limit: int | None, disjoint: bool, key: int
    ) -> tuple[GraphBatch, Indices]:
        """(the sampled surroundings of nodes, the numbers of their nodes); see ``sample_neighbours``."""
        found = sample_neighbours(self.adjacency, roots, hops=hops, limit=limit, disjoint=disjoint, key=key)
        # a shared sample falls apart into graphs, whose nodes ascend
        own = (
            found.owner
            if disjoint
            else np.unique(self.graph_of[found.nodes], return_inverse=True)[1].reshape(-1)
        )
        count = int(own[-1]) + 1 if len(own) else 0
        batch = self._batch(found.nodes, found.edges, found.edge_ids, own, count)
        return batch._replace(roots=torch.from_numpy(found.roots)), found.nodes

    def _batch(
        self, nodes: Indices, edges: Indices, edge_ids: Indices, graph: Indices, graphs: int
    ) -> GraphBatch:
        features = None if self.edge_features is None else torch.from_numpy(self.edge_features[edge_ids])
        return GraphBatch(
            nodes=torch.from_numpy(self.nodes[nodes]),
            edges=torch.from_numpy(np.ascontiguousarray(edges)),
            edge_features=features,
            graph=torch.from_numpy(graph),
            graphs=graphs,
        )


def kind_of(arrays: Sequence[Array], codes: bool | None) -> tuple[Array, int | tuple[int, ...]]:
    """(all rows as numbers, how many columns) or (all rows as codes, how many codes each column has).

    They are codes where every array holds whole numbers of at least 0, unless ``codes`` is False.
    """
    whole = all(array.dtype.kind == "i" and (not array.size or array.min() >= 0) for array in arrays)
    joined = np.concatenate(arrays)
    if whole and codes is not False:
        return joined, tuple((joined.max(0, initial=0) + 1).tolist())
    return joined.astype(np.float32), joined.shape[1]


def _ranges(starts: Indices, lengths: Indices) -> Indices:
    """The numbers of the ranges start..start + length, one after the other."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths), np.int64)
