"""Where a node stands in its graph, as numbers beside its features."""

from __future__ import annotations

import torch
from torch import Tensor

from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_count, segment_sum


def positions(batch: GraphBatch) -> Tensor:
    """The place of every node within its graph, (m,) int64."""
    count = segment_count(batch.graph, batch.graphs)
    start = count.cumsum(0) - count
    return torch.arange(len(batch.graph), device=batch.graph.device) - start[batch.graph]


def random_walk_returns(batch: GraphBatch, steps: int, *, block: int = 64) -> Tensor:
    """How likely a random walk is back where it began after 1 to ``steps`` steps, (m, steps) float32.

    The diagonals of P, P^2, ... with P = D^-1 A and D the out-degrees (Dwivedi et al. 2022, "Graph Neural Networks
    with Learnable Structural and Positional Representations", RWPE), exactly: walks from the i-th
    nodes of all graphs are followed at once, ``block`` starts at a time. Memory grows with (m + e) block, time with
    (m + e) steps times the nodes of the largest graph. A node without out-edges is never returned to.
    """
    m, (sources, targets) = len(batch.graph), batch.edges
    degree = segment_count(sources, m)
    share = degree.clamp(min=1).reciprocal()[sources][:, None]
    place = positions(batch)
    largest = int(place.max()) + 1 if m else 0
    returns = torch.zeros(m, steps, device=batch.graph.device)
    for first in range(0, largest, block):
        own = place - first
        starts = (own >= 0) & (own < block)
        column = own.clamp(0, min(block, largest - first) - 1)[:, None]
        width = min(block, largest - first)
        at = torch.zeros(m, width, device=returns.device).scatter(1, column, starts[:, None].float())
        for step in range(steps):
            at = segment_sum(share * at[sources], targets, m)
            returns[:, step] += torch.where(starts, at.gather(1, column)[:, 0], 0.0)
    return returns
