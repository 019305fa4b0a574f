"""Convolving an image that is twice the size of another, without making it: for decoders of U-Nets.

A convolution of 3 after a linear upsampling by 2 is linear in the small map, axis by axis. So the channels are mixed
where the map is small, once for every tap, and what each tap reads along an axis is one matrix (the interpolation,
shifted by the tap). The result is that of upsampling and convolving, to rounding; at 64 x 64 x 64 voxels it takes
about half the time on a CPU, and the upsampled map is neither made nor kept for the backward pass.

Letters: n images, c channels in, o channels out, d = 2 or 3 dimensions, ``*small`` and ``*large`` the voxels of the
small map and of the result, twice as many along every axis. Maps have their channels last in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

TAPS = 3


def upsample(x: Tensor) -> Tensor:
    """Twice the size, as the released GEMINI networks do: (n, c, *small) to (n, c, *large).

    3D trilinear between the centres of the corner voxels, 2D bilinear between the image's edges. The difference has
    no reason but that released weights expect it.
    """
    volume = x.ndim == 5
    return functional.interpolate(
        x, scale_factor=2, mode="trilinear" if volume else "bilinear", align_corners=volume
    )


class Readings(NamedTuple):
    """What every tap reads along an axis of some voxels, and how its gradient goes back."""

    forth: Tensor  # (TAPS, 2 size, size); what lies beyond the border is 0
    back: Tensor  # (TAPS, size, 2 size): the transpose
    joined_forth: Tensor  # (2 size, size * TAPS): all taps at once
    joined_back: Tensor  # (size * TAPS, 2 size)


@lru_cache(maxsize=64)
def _readings(size: int, corners: bool, dtype: torch.dtype) -> Readings:
    """The readings of an axis, between the centres of its corner voxels or between its edges."""
    lines = torch.eye(size, dtype=dtype)[:, None]
    spread = functional.interpolate(lines, scale_factor=2, mode="linear", align_corners=corners)[:, 0].T
    bordered = functional.pad(spread, (0, 0, 1, 1))
    forth = torch.stack([bordered[tap : tap + 2 * size] for tap in range(TAPS)])
    joined = forth.permute(1, 2, 0).flatten(1)
    return Readings(forth, forth.mT.contiguous(), joined, joined.T.contiguous())


def _axes(small: Tensor) -> list[Readings]:
    return [_readings(size, small.ndim == 5, small.dtype) for size in small.shape[2:]]


def _taps_first(weight: Tensor) -> Tensor:
    """(o, c, *3) as (*3 of all axes but the last, c, 3 of the last axis, o)."""
    outer = range(2, weight.ndim - 1)
    return weight.permute(*outer, 1, weight.ndim - 1, 0).contiguous()


def _buffers(small: Tensor, outputs: int) -> list[Tensor]:
    """Room for what each axis hands to the one outside of it, and for the mixed channels; used for every tap again."""
    n, _, *sizes = small.shape
    rooms, outside = [], n
    for axis, size in enumerate(sizes[:-1]):
        outside *= size
        rooms.append(small.new_empty(outside, *(2 * each for each in sizes[axis + 1 :]), outputs))
    return [*rooms, small.new_empty(outside, sizes[-1] * TAPS, outputs)]


def conv_of_upsampled(small: Tensor, weight: Tensor) -> Tensor:
    """``conv(upsample(small), weight, padding=1)``: (n, c, *small), (o, c, *3) to (n, o, *large), without gradient."""
    n, _, *sizes = small.shape
    outputs = weight.shape[0]
    result = small.new_empty(n, *(2 * size for size in sizes), outputs)
    x = small.movedim(1, -1).contiguous()
    _spread(result, x, _taps_first(weight), _axes(small), _buffers(small, outputs))
    return result.movedim(-1, 1)


def conv_of_upsampled_gradients(grad: Tensor, small: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``small`` and ``weight`` from that of :func:`conv_of_upsampled`."""
    x, taps = small.movedim(1, -1).contiguous(), _taps_first(weight)
    of_x, of_taps = torch.zeros_like(x), torch.empty_like(taps)
    buffers = _buffers(small, weight.shape[0])
    _gather(of_x, of_taps, grad.movedim(1, -1).contiguous(), x, taps, _axes(small), buffers)
    axes = weight.ndim - 2
    return of_x.movedim(-1, 1), of_taps.permute(axes + 1, axes - 1, *range(axes - 1), axes)


def _spread(
    result: Tensor, x: Tensor, taps: Tensor, axes: Sequence[Readings], buffers: Sequence[Tensor]
) -> None:
    """Write what x (n, *small, c) and taps (*3, c, 3, o) make into result (n, *large, o), an axis inside another."""
    n, size = x.shape[:2]
    (axis, *inner), (buffer, *others) = axes, buffers
    if not inner:
        torch.mm(x.flatten(0, 1), taps.flatten(1), out=buffer.view(n * size, -1))
        torch.bmm(axis.joined_forth.expand(n, -1, -1), buffer, out=result)
        return
    lines = result.view(n, 2 * size, -1)
    for tap in range(TAPS):
        _spread(buffer, x.flatten(0, 1), taps[tap], inner, others)
        matrix = axis.forth[tap].expand(n, -1, -1)
        lines.baddbmm_(matrix, buffer.view(n, size, -1), beta=0 if tap == 0 else 1)


def _gather(
    of_x: Tensor,
    of_taps: Tensor,
    grad: Tensor,
    x: Tensor,
    taps: Tensor,
    axes: Sequence[Readings],
    buffers: Sequence[Tensor],
) -> None:
    """The transpose of :func:`_spread`: adds to of_x (n, *small, c) and writes of_taps, from grad (n, *large, o)."""
    n, size = x.shape[:2]
    (axis, *inner), (buffer, *others) = axes, buffers
    if not inner:
        torch.bmm(axis.joined_back.expand(n, -1, -1), grad, out=buffer)
        mixed = buffer.view(n * size, -1)
        of_x.view(n * size, -1).addmm_(mixed, taps.flatten(1).T)
        torch.mm(x.flatten(0, 1).T, mixed, out=of_taps.view(len(of_taps), -1))
        return
    for tap in range(TAPS):
        matrix = axis.back[tap].expand(n, -1, -1)
        torch.bmm(matrix, grad.view(n, 2 * size, -1), out=buffer.view(n, size, -1))
        of_inner = of_x.view(n * size, *of_x.shape[2:])
        _gather(of_inner, of_taps[tap], buffer, x.flatten(0, 1), taps[tap], inner, others)


def worthwhile(small: Tensor, outputs: int) -> bool:
    """Whether the matrices cost less than the convolution: on a CPU, in single precision, for axes not too long.

    The matrices are dense, so their cost per voxel grows with the axes (equal at about 200 voxels in 3D).
    """
    if small.device.type != "cpu" or small.dtype not in (torch.float32, torch.float64):
        return False
    sizes, channels = list(small.shape[2:]), small.shape[1]
    multiplications = prod(sizes) * channels * outputs * TAPS ** len(sizes)
    done = 1  # voxels of the axes outside, still small
    for axis, size in enumerate(sizes):
        inner = prod(2 * each for each in sizes[axis + 1 :])
        multiplications += done * TAPS ** (axis + 1) * 2 * size * size * inner * outputs
        done *= size
    plain = prod(2 * size for size in sizes) * channels * outputs * TAPS ** len(sizes)
    return bool(multiplications < plain)
