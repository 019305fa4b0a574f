"""The normalised adjacency of a graph, applied to rows of nodes without ever being a matrix.

Letters: m nodes, e edges.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_sum
from diptych.types import Encoded


class NormalisedAdjacency(NamedTuple):
    """The entries of D^-1/2 (A + I) D^-1/2: those of the edges, and the diagonal's."""

    edges: Tensor  # (e,)
    loops: Tensor  # (m,)


def normalised_adjacency(edges: Tensor, nodes: int, weights: Tensor | None = None) -> NormalisedAdjacency:
    """D^-1/2 (A + I) D^-1/2 with D the in-degrees of A + I (Kipf & Welling 2017).

    Args:
        edges: (2, e), sources above targets.
        nodes: m.
        weights: (e,) of the edges, not negative; 1 by default.
    """
    one = torch.ones(edges.shape[1], device=edges.device) if weights is None else weights
    scale = (segment_sum(one, edges[1], nodes) + 1).rsqrt()
    return NormalisedAdjacency(one * scale[edges[0]] * scale[edges[1]], scale.square())


def propagate(
    h: Tensor, edges: Tensor, *, hops: int = 1, adjacency: NormalisedAdjacency | None = None
) -> Tensor:
    """``hops`` times the normalised adjacency, applied to rows (m, width)."""
    adjacency = normalised_adjacency(edges, len(h)) if adjacency is None else adjacency
    weights, loops = adjacency.edges.to(h.dtype)[:, None], adjacency.loops.to(h.dtype)[:, None]
    for _ in range(hops):
        h = segment_sum(weights * h[edges[0]], edges[1], len(h)) + loops * h
    return h


class Smoothed(nn.Module):
    """An encoder whose rows of nodes are h + A^k h, with A the normalised adjacency and k = ``hops``.

    The topology constraint of representation scattering (He et al. 2024, SGRL), and what that paper embeds. The
    rows of graphs stay as they are.

    Raises:
        ConfigError: hops below 1.
    """

    def __init__(self, encoder: nn.Module, hops: int = 1) -> None:
        super().__init__()
        if hops < 1:
            raise ConfigError(f"smoothing over neighbours needs at least 1 hop, got {hops}")
        self.encoder = encoder
        self.hops = hops
        self.width = encoder.width

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch; parts (m, width) smoothed, and whole their rows where the batch has roots."""
        encoded: Encoded = self.encoder(batch)
        if encoded.parts is None:
            raise ConfigError(f"{type(self.encoder).__name__} returns no rows of nodes to smooth")
        parts = encoded.parts + propagate(encoded.parts, batch.edges, hops=self.hops)
        return Encoded(encoded.whole if batch.roots is None else parts[batch.roots], parts)
