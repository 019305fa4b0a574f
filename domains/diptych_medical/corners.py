"""The 2^d voxels around places, as rows to gather and weights to give them.

Letters: r places, d = 2 or 3 dimensions, k = 2^d corners (the last axis changes fastest), w width of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Corners(NamedTuple):
    """Of r places among the voxels of images that follow each other as rows."""

    row: Tensor  # (r, k) int64: the corner's row; for a corner outside its image some row inside
    weights: Tensor  # (r, k): its share by linear interpolation, 0 outside
    along: tuple[Tensor, ...]  # per axis (2, r): shares of lower and upper corner along it
    exists: tuple[Tensor, ...]  # per axis (2, r): 1 where that corner lies inside along it, else 0
    before: tuple[Tensor, ...]  # per axis (2^axis, r): product of the shares along the axes before it


def corners(places: Tensor, space: Sequence[int], first: Tensor | int = 0) -> Corners:
    """Corners of places (d, r) in voxels of images of shape ``space``.

    Args:
        places: component i along array axis i.
        space: voxels of an image.
        first: (r,) the row of the first voxel of the image that each place reads.
    """
    lower = places.floor()
    fraction = places - lower
    index = torch.zeros_like(places[:1], dtype=torch.int64) + first
    weights = torch.ones_like(places[:1])
    along, exists, before = [], [], []
    for axis, size in enumerate(space):
        pair = torch.stack([lower[axis], lower[axis] + 1])
        inside = ((pair >= 0) & (pair <= size - 1)).to(places.dtype)
        share = torch.stack([1 - fraction[axis], fraction[axis]]) * inside
        step = pair.clamp(0, size - 1).nan_to_num().to(torch.int64)
        stride = 1
        for further in space[axis + 1 :]:
            stride *= further
        before.append(weights)
        along.append(share)
        exists.append(inside)
        index = (index[:, None] + step * stride).flatten(0, 1)
        weights = (weights[:, None] * share).flatten(0, 1)
    return Corners(
        index.t().contiguous(), weights.t().contiguous(), tuple(along), tuple(exists), tuple(before)
    )


def gathered(rows: Tensor, at: Corners) -> Tensor:
    """Rows (r, w) interpolated at the places, with gradient to ``at.weights`` where that asks for it."""
    return functional.embedding_bag(at.row, rows, mode="sum", per_sample_weights=at.weights)


def places_gradient(by_weights: Tensor, at: Corners) -> Tensor:
    """The gradient (d, r) of places from that of their corners' weights (r, k)."""
    found: list[Tensor] = []
    corner = by_weights.t()
    for axis in reversed(range(len(at.along))):
        low, high = corner.reshape(-1, 2, corner.shape[-1]).unbind(1)
        rise = high * at.exists[axis][1] - low * at.exists[axis][0]
        found.append((rise * at.before[axis]).sum(0))
        corner = low * at.along[axis][0] + high * at.along[axis][1]
    return torch.stack(found[::-1])


def spread(by_rows: Tensor, gradient: Tensor, at: Corners, factor: float) -> None:
    """Add ``factor`` times the gradient (r, w) of gathered rows to that of the rows, in place."""
    shares = (at.weights.detach() * factor)[:, :, None] * gradient[:, None]
    by_rows.index_add_(0, at.row.view(-1), shares.flatten(0, 1))
