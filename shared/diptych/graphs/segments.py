"""Sums, means, maxima and softmax over the rows of a segment: the nodes of a graph, the edges into a node.

``index`` (m,) says which of ``size`` segments each row belongs to, in any order. A segment without rows gives
0. On a GPU sums of one segment are added in no fixed order, as everywhere in torch, unless
``torch.use_deterministic_algorithms`` is on.
"""

from __future__ import annotations

import torch
from torch import Tensor


def segment_sum(values: Tensor, index: Tensor, size: int) -> Tensor:
    """(m, ...) to (size, ...)."""
    return values.new_zeros((size, *values.shape[1:])).index_add(0, index, values)


def segment_count(index: Tensor, size: int) -> Tensor:
    """How many rows each segment has, (size,) int64."""
    return torch.zeros(size, dtype=torch.int64, device=index.device).index_add(
        0, index, torch.ones_like(index, dtype=torch.int64)
    )


def segment_mean(values: Tensor, index: Tensor, size: int) -> Tensor:
    """(m, ...) to (size, ...)."""
    count = segment_count(index, size).clamp(min=1).to(values.dtype)
    return segment_sum(values, index, size) / count.view(-1, *[1] * (values.ndim - 1))


def segment_max(values: Tensor, index: Tensor, size: int) -> Tensor:
    """(m, ...) to (size, ...); ties share the gradient."""
    spread = index.view(-1, *[1] * (values.ndim - 1)).expand_as(values)
    return values.new_zeros((size, *values.shape[1:])).scatter_reduce(
        0, spread, values, "amax", include_self=False
    )


def segment_softmax(scores: Tensor, index: Tensor, size: int) -> Tensor:
    """Softmax of the scores (m, ...) within each segment, in float32 at least whatever the autocast."""
    wide = scores if scores.dtype == torch.float64 else scores.float()
    # index_select: the gradient of plain indexing is several times slower on a CPU
    shifted = (wide - segment_max(wide.detach(), index, size).index_select(0, index)).exp()
    return (shifted / segment_sum(shifted, index, size).index_select(0, index)).to(scores.dtype)
