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


@lru_cache(maxsize=64)
def _readings(size: int, corners: bool, dtype: torch.dtype) -> Tensor:
    """What every tap reads along an axis of ``size`` voxels: (TAPS, 2 size, size); rows beyond the border are 0."""
    lines = torch.eye(size, dtype=dtype)[:, None]
    spread = functional.interpolate(lines, scale_factor=2, mode="linear", align_corners=corners)[:, 0].T
    bordered = functional.pad(spread, (0, 0, 1, 1))
    return torch.stack([bordered[tap : tap + 2 * size] for tap in range(TAPS)])


def _last_axis(readings: Tensor) -> Tensor:
    """The readings of the innermost axis as one matrix (2 size, size * TAPS)."""
    return readings.permute(1, 2, 0).flatten(1)


def conv_of_upsampled(small: Tensor, weight: Tensor) -> Tensor:
    """``conv(upsample(small), weight, padding=1)``: (n, c, *small), (o, c, *3) to (n, o, *large), without gradient."""
    matrices = [_readings(size, small.ndim == 5, small.dtype) for size in small.shape[2:]]
    spread = _spread(small.movedim(1, -1).contiguous(), weight.movedim(0, -1), matrices)
    return spread.movedim(-1, 1)


def conv_of_upsampled_gradients(grad: Tensor, small: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of ``small`` and ``weight`` from that of :func:`conv_of_upsampled`."""
    matrices = [_readings(size, small.ndim == 5, small.dtype) for size in small.shape[2:]]
    of_small, of_weight = _gather(
        grad.movedim(1, -1).contiguous(),
        small.movedim(1, -1).contiguous(),
        weight.movedim(0, -1),
        matrices,
    )
    return of_small.movedim(-1, 1), of_weight.movedim(-1, 0)


def _spread(x: Tensor, weight: Tensor, matrices: Sequence[Tensor]) -> Tensor:
    """x (n, *small, c) and weight (c, *3, o) to (n, *large, o), one axis after the other."""
    n, size, (matrix, *inner) = x.shape[0], x.shape[1], matrices
    outputs = weight.shape[-1]
    if not inner:
        mixed = x.flatten(0, 1) @ weight.flatten(1)
        return torch.matmul(_last_axis(matrix), mixed.view(n, size * TAPS, outputs))
    large = [2 * each for each in x.shape[1:-1]]
    result = x.new_empty(n, large[0], prod(large[1:]) * outputs)
    for tap in range(TAPS):
        part = _spread(x.flatten(0, 1), weight[:, tap], inner).view(n, size, -1)
        result.baddbmm_(matrix[tap].expand(n, -1, -1), part, beta=0 if tap == 0 else 1)
    return result.view(n, *large, outputs)


def _gather(grad: Tensor, x: Tensor, weight: Tensor, matrices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The transpose of :func:`_spread`: grad (n, *large, o) to the gradients of x and of weight."""
    n, size, (matrix, *inner) = x.shape[0], x.shape[1], matrices
    outputs = weight.shape[-1]
    if not inner:
        mixed = torch.matmul(_last_axis(matrix).T, grad).view(n * size, TAPS * outputs)
        of_x = mixed @ weight.flatten(1).T
        return of_x.view_as(x), (x.flatten(0, 1).T @ mixed).view(weight.shape)
    of_x, of_weight = torch.zeros_like(x), torch.empty_like(weight)
    for tap in range(TAPS):
        part = torch.bmm(matrix[tap].T.expand(n, -1, -1), grad.reshape(n, 2 * size, -1))
        part = part.view(n * size, *grad.shape[2:-1], outputs)
        inside, of_tap = _gather(part, x.flatten(0, 1), weight[:, tap], inner)
        of_x += inside.view_as(x)
        of_weight[:, tap] = of_tap
    return of_x, of_weight


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
