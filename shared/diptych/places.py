"""Where the positions of dense maps lie in what was viewed, and which of them are taken where maps are large.

An affine view is a matrix (n, d, d + 1) from its voxels to those of the original, component i along array axis i,
(0, ..., 0) being the centre of the first voxel. A dense map of the view has cells: its positions, each of which
stands for size / cells voxels of the view along every axis.

Letters: n samples, w width of features, d dimensions, *space voxels of a view, *cells positions of its map, p = all
of them, k of them taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Located(NamedTuple):
    """An affine view with its place in what was viewed."""

    view: Any  # what the encoder takes
    space: tuple[int, ...]  # its size in voxels
    matrix: Tensor  # (n, d, d + 1) float32: voxel of the view -> voxel of the original
    extent: tuple[int, ...]  # size of the original in voxels
    points: Tensor | None = None  # (n, k, d) float32: voxels of the view to read a large map at


def places(matrix: Tensor, space: Sequence[int], cells: Sequence[int] | None = None) -> Tensor:
    """Where the middle of every cell lies in the original: (n, d, *cells), in voxels, float32.

    Without ``cells`` every voxel of the view is one.
    """
    n, d, _ = matrix.shape
    cells = space if cells is None else cells
    matrix = matrix.float()
    column = (n, d) + (1,) * d
    # Sums of broadcast products instead of a matrix product, which autocast would round to half precision.
    total = matrix[:, :, d].view(column)
    for axis, (size, count) in enumerate(zip(space, cells, strict=True)):
        step = size / count
        along = torch.arange(count, device=matrix.device, dtype=torch.float32) * step + (step - 1) / 2
        line = along.view(*(count if each == axis else 1 for each in range(d)))
        total = total + matrix[:, :, axis].view(column) * line
    return total


def cell_diagonal(matrix: Tensor, space: Sequence[int], cells: Sequence[int]) -> Tensor:
    """The diagonal of a cell in voxels of the original, (n,): the root of the sum of its squared edges.

    That is the diagonal wherever the view keeps right angles.
    """
    matrix = matrix.float()
    edges = [
        matrix[:, :, axis] * (size / count)
        for axis, (size, count) in enumerate(zip(space, cells, strict=True))
    ]
    return torch.stack([edge.square().sum(1) for edge in edges]).sum(0).sqrt()


def within(at: Tensor, space: Sequence[int]) -> Tensor:
    """Whether places (n, d, *any) lie on voxels of a map of size ``space``: (n, *any) bool."""
    inside = [(each > -0.5) & (each < size - 0.5) for each, size in zip(at.unbind(1), space, strict=True)]
    return torch.stack(inside).all(0)


def inverse(matrix: Tensor) -> Tensor:
    """The matrices (n, d, d + 1) that undo those given, in float32 whatever the autocast."""
    with torch.autocast(matrix.device.type, enabled=False):
        linear = torch.linalg.inv_ex(matrix[:, :, :-1].float()).inverse
        return torch.cat([linear, -(linear @ matrix[:, :, -1:].float())], dim=2)


def moved(matrix: Tensor, points: Tensor) -> Tensor:
    """The points (n, k, d) where the matrices (n, d, d + 1) take them, in float32."""
    total = matrix[:, None, :, -1].float()
    for axis, along in enumerate(points.float().unbind(2)):
        total = total + along[..., None] * matrix[:, None, :, axis].float()
    return total


def common_points(
    matrices: Sequence[Tensor],
    space: Sequence[int],
    extent: Sequence[int],
    points: int,
    generator: torch.Generator | None = None,
    *,
    tries: int = 4,
) -> list[Tensor]:
    """The same ``points`` places of the original in every view: (n, points, d) voxels of each.

    They are drawn in the first view, ``tries`` times as many as asked for, and those that lie in all views and in
    the original come first; where there are too few, some lie outside.

    Args:
        matrices: one (n, d, d + 1) per view.
        space: size of the views.
        extent: size of the original.
        points: how many.
        generator: of random numbers.
        tries: how many are drawn for one.
    """
    n, d, _ = matrices[0].shape
    device = matrices[0].device
    unit = torch.rand(n, points * tries, d, device=device, generator=generator)
    drawn = torch.stack([part * size - 0.5 for part, size in zip(unit.unbind(2), space, strict=True)], dim=2)
    original = moved(matrices[0], drawn)
    views = [drawn, *(moved(inverse(matrix), original) for matrix in matrices[1:])]
    good = within(original.transpose(1, 2), extent)
    for each in views[1:]:
        good = good & within(each.transpose(1, 2), space)
    # A stable sort keeps the drawn, random order among the good ones.
    order = (
        good.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :points, None].expand(-1, -1, d)
    )
    return [each.gather(1, order) for each in views]


def cells_at(points: Tensor, space: Sequence[int], cells: Sequence[int]) -> Tensor:
    """The flat index (n, k) of the cell that each point (n, k, d) of a view lies in, or is closest to."""
    index = torch.zeros_like(points[..., 0], dtype=torch.int64)
    for along, size, count in zip(points.unbind(2), space, cells, strict=True):
        cell = ((along + 0.5) * (count / size)).floor().clamp(0, count - 1)
        index = index * count + cell.to(torch.int64)
    return index


def places_of(matrix: Tensor, space: Sequence[int], cells: Sequence[int], index: Tensor) -> Tensor:
    """As :func:`places`, for the cells of flat indices (n, k) only: (n, k, d)."""
    along = []
    for size, count in zip(reversed(space), reversed(cells), strict=True):
        step = size / count
        along.append((index % count) * step + (step - 1) / 2)
        index = index // count
    return moved(matrix, torch.stack(along[::-1], dim=2))


def random_cells(
    n: int, cells: int, taken: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """``taken`` different cells of each sample's ``cells``, every choice alike: flat indices (n, taken)."""
    return torch.rand(n, cells, device=device, generator=generator).topk(taken, dim=1).indices


def take(maps: Tensor, index: Tensor) -> Tensor:
    """The columns of maps (n, w, *cells) at flat indices (n, k), as rows (n, k, w)."""
    flat = maps.flatten(2)
    return flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)


def rows_of(maps: Tensor) -> Tensor:
    """All positions of maps (n, w, *cells) as rows (n, p, w)."""
    return maps.flatten(2).transpose(1, 2)
