"""Squared local correlation of two images with its gradient, in a few passes over the images.

Sums over windows come from merging neighbouring windows of 1, 2, 4, ... voxels along one axis after another. Squared
deviations are merged with Chan, Golub and LeVeque (1979, equation 2.1): those of both parts plus the squared
difference of their means. The textbook ``sum(I^2) - sum(I)^2 / n`` loses all digits where an image is bright and even.

Letters: n images, c channels, ``*space`` voxels, m = window^d * c samples in a window.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Moments(NamedTuple):
    """Of the samples in windows of two images."""

    sums: Tensor  # (2, n, c, *space)
    squares: Tensor  # (2, n, c, *space): summed squared deviations from the window's mean
    cross: Tensor  # (n, c, *space): summed products of deviations


def window_moments(fixed: Tensor, moved: Tensor, window: int) -> tuple[Moments, int]:
    """Moments (n, 1, *space) of the windows around all voxels, zeros outside, and how many samples each has."""
    sums = torch.stack([fixed, moved])
    found, count = Moments(sums, torch.zeros_like(sums), torch.zeros_like(fixed)), 1
    for axis in range(-1, 1 - fixed.ndim, -1):
        around = [0, 0] * (-axis - 1) + [window // 2] * 2
        found = _merged(Moments(*(functional.pad(each, around) for each in found)), axis, window, count)
        count *= window
    channels = 1 - fixed.ndim
    return _merged(found, channels, fixed.shape[1], count), count * fixed.shape[1]


def _merged(one: Moments, axis: int, length: int, count: int) -> Moments:
    """Windows of ``length`` neighbours along an axis (counted from the end), of ``count`` samples each.

    The binary digits of the length say which of the windows of 1, 2, 4, ... neighbours make it up.
    """
    doubled, power = one, 1
    while not length & power:
        doubled, power = _joined(doubled, power, doubled, power, axis, count), power * 2
    whole, covered = doubled, power
    while covered < length:
        doubled, power = _joined(doubled, power, doubled, power, axis, count), power * 2
        if length & power:
            whole, covered = _joined(whole, covered, doubled, power, axis, count), covered + power
    return whole


def _joined(first: Moments, a: int, second: Moments, b: int, axis: int, count: int) -> Moments:
    """Windows of a neighbours and those of b that follow them, as windows of a + b."""
    size = second.cross.shape[axis] - a
    left = Moments(*(each.narrow(axis, 0, size) for each in first))
    right = Moments(*(each.narrow(axis, a, size) for each in second))
    # The means differ by left / (a count) - right / (b count), which weighs a b count / (a + b).
    apart, weight = torch.sub(left.sums, right.sums, alpha=a / b), b / (a * (a + b) * count)
    return Moments(
        left.sums + right.sums,
        (left.squares + right.squares).addcmul_(apart, apart, value=weight),
        (left.cross + right.cross).addcmul_(apart[0], apart[1], value=weight),
    )


def window_sums(x: Tensor, window: int, dims: int) -> Tensor:
    """Sums over the windows around all voxels of x (..., *space), zeros outside."""
    for axis in range(-1, -dims - 1, -1):
        doubled = functional.pad(x, [0, 0] * (-axis - 1) + [window // 2] * 2)
        total, power, covered = doubled, 1, 1
        while covered < window:
            doubled = _neighbours(doubled, doubled, power, axis)
            power *= 2
            if window & power:
                total = _neighbours(total, doubled, covered, axis)
                covered += power
        x = total
    return x


def _neighbours(first: Tensor, second: Tensor, offset: int, axis: int) -> Tensor:
    size = second.shape[axis] - offset
    return first.narrow(axis, 0, size) + second.narrow(axis, offset, size)


class LocalNCC(torch.autograd.Function):
    """1 - sum(cc mask) / sum(mask). Its gradient is found on the way forward, so nothing else is kept."""

    @staticmethod
    def forward(
        ctx: Any, fixed: Tensor, moved: Tensor, mask: Tensor, window: int, guard: float, graded: bool
    ) -> Tensor:
        moments, samples = window_moments(fixed, moved, window)
        channels = fixed.shape[1]
        varied = moments.squares[0] * moments.squares[1] + guard * channels**2
        ratio = moments.cross / varied
        cc = moments.cross * ratio
        weight = mask / _total(mask)
        loss = 1 - (cc * weight).sum()
        wanted = [graded and needed for needed in ctx.needs_input_grad[:2]]
        gradients: list[Tensor | None] = [None, None]
        if any(wanted):
            along_cross = ratio.mul_(weight).mul_(-2)
            along_square = cc.mul_(weight).div_(varied)
        for image, own in enumerate((fixed, moved)):
            if wanted[image]:
                other = moved if image == 0 else fixed
                along_own = 2 * along_square * moments.squares[1 - image]
                gradients[image] = _gradient(
                    own,
                    other,
                    along_own,
                    along_cross,
                    moments.sums[[image, 1 - image]] / samples,
                    window,
                )
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = [None if each is None else each * gradient for each in ctx.saved_tensors]
        return *found, None, None, None, None


def _total(mask: Tensor) -> Tensor:
    """What the weighted mean divides by, never 0: as in the released code, with its two different guards."""
    return mask.sum() + (1e-6 * mask.numel() if mask.ndim == 5 else 1e-5)


def _gradient(
    own: Tensor, other: Tensor, along_own: Tensor, along_cross: Tensor, means: Tensor, window: int
) -> Tensor:
    """Of the loss by one image: every voxel q gathers from the windows p around it.

    d cross_p / d own_q = other_q - mean other_p and d square_p / d own_q = 2 (own_q - mean own_p). Both images
    are first brought near 0, which changes neither difference but keeps their digits.
    """
    levels = [each.mean(dim=tuple(range(1, each.ndim)), keepdim=True) for each in (own, other)]
    own, other = own - levels[0], other - levels[1]
    shared = along_cross * (means[1] - levels[1]) + along_own * (means[0] - levels[0])
    gathered = window_sums(torch.stack([along_own, along_cross, shared]), window, own.ndim - 2)
    return torch.addcmul(own * gathered[0] - gathered[2], other, gathered[1])
