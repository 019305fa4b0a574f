"""How central nodes are, by what is cheap to know: for views that spare what is central (Zhu et al. 2021, GCA).

Letters: m nodes.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_count, segment_max, segment_mean, segment_sum

Centrality = Literal["degree", "pagerank", "eigenvector"]


def centrality(batch: GraphBatch, kind: Centrality) -> Tensor:
    """The centrality of every node of a batch, (m,) float32, each graph for itself.

    "degree" counts the edges into a node; "pagerank" is 10 rounds of PageRank with damping 0.85, as in GCA;
    "eigenvector" is the leading eigenvector of A + I after 100 rounds, of length 1 in each graph.
    """
    if kind == "degree":
        return segment_count(batch.edges[1], len(batch.graph)).float()
    return pagerank(batch) if kind == "pagerank" else leading_eigenvector(batch)


def pagerank(batch: GraphBatch, rounds: int = 10, damping: float = 0.85) -> Tensor:
    """PageRank after some rounds from 1 / nodes (Page et al. 1999); the share of dead ends is lost, as in GCA."""
    m, (sources, targets) = len(batch.graph), batch.edges
    share = segment_count(sources, m).clamp(min=1).reciprocal()[sources]
    begin = segment_count(batch.graph, batch.graphs).clamp(min=1).reciprocal()[batch.graph]
    rank = begin
    for _ in range(rounds):
        rank = damping * segment_sum(rank[sources] * share, targets, m) + (1 - damping) * begin
    return rank


def leading_eigenvector(batch: GraphBatch, rounds: int = 100) -> Tensor:
    """Of A + I, whose leading vector is A's and whose other eigenvalues are smaller in size, by iteration."""
    sources, targets = batch.edges
    vector = torch.ones(len(batch.graph), device=batch.graph.device)
    for _ in range(rounds):
        vector = vector + segment_sum(vector[sources], targets, len(vector))
        length = segment_sum(vector.square(), batch.graph, batch.graphs).sqrt()
        vector = vector / length[batch.graph]
    return vector


def spared(scores: Tensor, graph: Tensor, graphs: int, fraction: float, most: float) -> Tensor:
    """The probability to drop each item, less for the central: min(fraction (max s - s) / (max s - mean s), most).

    With s = log ``scores`` and max and mean over the items of a graph (Zhu et al. 2021, GCA).
    Scores of 0 count as the lowest positive one; where all are the same, each item is dropped with ``fraction``.

    Args:
        scores: (items,), not negative.
        graph: (items,): which graph an item belongs to.
        graphs: how many there are.
        fraction: that is dropped on average.
        most: the highest probability.
    """
    positive = torch.where(scores > 0, scores, torch.inf)
    lowest = -segment_max(-positive, graph, graphs)[graph]
    s = torch.where(scores > 0, scores, torch.where(lowest.isfinite(), lowest, 1.0)).log()
    highest, mean = segment_max(s, graph, graphs)[graph], segment_mean(s, graph, graphs)[graph]
    spread = highest - mean
    same = spread <= 1e-6
    weights = torch.where(same, 1.0, (highest - s) / torch.where(same, 1.0, spread))
    return (fraction * weights).clamp(max=most)
