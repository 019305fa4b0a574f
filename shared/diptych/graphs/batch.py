"""The batch that every domain of graphs gives: several graphs side by side, or neighbourhoods of chosen nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class GraphBatch(NamedTuple):
    """Graphs with their nodes one after the other, m nodes and e directed edges in all.

    An undirected edge is there in both directions. ``graph`` ascends, so the nodes of a graph are contiguous.
    """

    nodes: Tensor  # (m, features): integer codes (int64) or numbers (float32); the domain names the columns
    edges: Tensor  # (2, e) int64: sources and targets, as row numbers of ``nodes``
    edge_features: Tensor | None  # (e, features), integer codes or numbers
    graph: Tensor  # (m,) int64: which graph a node belongs to
    graphs: int  # how many there are, those without nodes counted
    roots: Tensor | None = None  # (n,) int64: the nodes that are asked for, where a batch is about nodes


def join(batches: Sequence[GraphBatch]) -> GraphBatch:
    """Several batches as one, their graphs in order. Roots are kept where all have them."""
    nodes = [len(each.nodes) for each in batches]
    node_starts = torch.tensor([0, *nodes]).cumsum(0).tolist()
    graph_starts = torch.tensor([0, *(each.graphs for each in batches)]).cumsum(0).tolist()
    features = [each.edge_features for each in batches]
    roots = [each.roots for each in batches]
    return GraphBatch(
        nodes=torch.cat([each.nodes for each in batches]),
        edges=torch.cat(
            [each.edges + start for each, start in zip(batches, node_starts, strict=False)], dim=1
        ),
        edge_features=None if any(each is None for each in features) else torch.cat(features),  # type: ignore[arg-type]
        graph=torch.cat([each.graph + start for each, start in zip(batches, graph_starts, strict=False)]),
        graphs=int(graph_starts[-1]),
        roots=None
        if any(each is None for each in roots)
        else torch.cat(
            [each + start for each, start in zip(roots, node_starts, strict=False) if each is not None]
        ),
    )
