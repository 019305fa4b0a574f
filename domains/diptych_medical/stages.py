"""The parts of GEMINI's networks: convolution, group norm and LeakyReLU, alone, after one another, and in decoders.

Each gives what plain modules of the same weights give, and keeps less for the backward pass: a convolution of an
activated map keeps the map before the norm and activates it again, a decoder's convolution keeps the two maps it
joins and not the joined one. On a CPU maps have their channels last in memory, which halves most of the time.

Convolutions run in the type of autocast where that is on, norms in float32.

Letters: n images, c channels, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from diptych_medical.upsampled import conv_of_upsampled, conv_of_upsampled_gradients, upsample, worthwhile

SLOPE = 0.2  # of LeakyReLU below 0
CHANNELS_A_GROUP = 8


def laid_out(x: Tensor) -> Tensor:
    """The same map with its channels last in memory on a CPU, first on other devices: what group norms there take."""
    if x.device.type != "cpu":
        return x.contiguous()
    return x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def convolution_type(x: Tensor) -> torch.dtype:
    """The type that convolutions of x run in: that of autocast where it is on."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution of 3 (2D or 3D by the shape) that keeps the size of the map."""
    run = functional.conv3d if x.ndim == 5 else functional.conv2d
    return run(x, weight, bias, padding=1)


def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of a convolution's input, weight and bias, as far as they are needed."""
    ones = [1] * (x.ndim - 2)
    found: tuple[Tensor | None, Tensor | None, Tensor | None] = torch.ops.aten.convolution_backward(
        grad, x, weight, [weight.shape[0]], ones, ones, ones, False, [0] * len(ones), 1, list(needed)
    )
    return found


def _full(x: Tensor) -> Tensor:
    """x in at least single precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _OfActivated(torch.autograd.Function):
    """``conv(leaky_relu(group_norm(h)))``, of which h is kept and the activated map is made again."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        scale: Tensor,
        shift: Tensor,
        groups: int,
        weight: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(h, scale, shift, weight)
        ctx.groups, ctx.dtype = groups, dtype
        with torch.autocast(h.device.type, enabled=False):
            active, _, _ = _activated(h, scale, shift, groups)
            return convolve(active.to(dtype), weight.to(dtype), bias.to(dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, scale, shift, weight = ctx.saved_tensors
        with torch.autocast(h.device.type, enabled=False):
            active, mean, deviation = _activated(h, scale, shift, ctx.groups)
            cast = active.to(ctx.dtype)
            of_active, of_weight, of_bias = _gradients(
                grad, cast, weight.to(ctx.dtype), [True, ctx.needs_input_grad[4], ctx.needs_input_grad[5]]
            )
            assert of_active is not None
            of_norm = laid_out(of_active.to(active.dtype))
            torch.ops.aten.leaky_relu_backward.grad_input(of_norm, active, SLOPE, True, grad_input=of_norm)
            del active, cast, of_active
            n, channels = h.shape[:2]
            of_h, of_scale, of_shift = torch.ops.aten.native_group_norm_backward(
                of_norm,
                laid_out(_full(h)),
                mean,
                deviation,
                scale,
                n,
                channels,
                h[0, 0].numel(),
                ctx.groups,
                [True] * 3,
            )
        return (
            of_h.to(h.dtype),
            of_scale,
            of_shift,
            None,
            None if of_weight is None else of_weight.to(weight.dtype),
            None if of_bias is None else of_bias.to(weight.dtype),
            None,
        )


def _activated(h: Tensor, scale: Tensor, shift: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """leaky_relu(group_norm(h)), and the mean and 1 / deviation of every group."""
    n, channels = h.shape[:2]
    normed, mean, deviation = torch.ops.aten.native_group_norm(
        laid_out(_full(h)), scale, shift, n, channels, h[0, 0].numel(), groups, 1e-5
    )
    return functional.leaky_relu_(normed, SLOPE), mean, deviation


class _OfJoined(torch.autograd.Function):
    """``conv(cat(skip, upsample(small)))``, of which skip and small are kept."""

    @staticmethod
    def forward(
        ctx: Any,
        skip: Tensor,
        small: Tensor,
        weight_skip: Tensor,
        weight_small: Tensor,
        bias: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(skip, small, weight_skip, weight_small)
        ctx.dtype = dtype
        ctx.apart = worthwhile(small.to(dtype), len(bias))
        with torch.autocast(skip.device.type, enabled=False):
            skip, small, of_skip, of_small, bias = (
                each.to(dtype) for each in (skip, small, weight_skip, weight_small, bias)
            )
            if ctx.apart:
                return convolve(skip, of_skip, bias).add_(conv_of_upsampled(small, of_small))
            return convolve(torch.cat([skip, upsample(small)], 1), torch.cat([of_skip, of_small], 1), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        inputs = ctx.saved_tensors
        with torch.autocast(grad.device.type, enabled=False):
            skip, small, weight_skip, weight_small = (each.to(ctx.dtype) for each in inputs)
            if ctx.apart:
                grads = [None, *conv_of_upsampled_gradients(grad, small, weight_small)]
                of_skip, of_weight, of_bias = _gradients(grad, skip, weight_skip, [True] * 3)
                found = [of_skip, grads[1], of_weight, grads[2]]
            else:
                split = [skip.shape[1], small.shape[1]]
                joined = torch.cat([skip, upsample(small)], 1)
                of_joined, of_weight, of_bias = _gradients(
                    grad, joined, torch.cat([weight_skip, weight_small], 1), [True] * 3
                )
                assert of_joined is not None
                assert of_weight is not None
                of_skip, of_large = torch.split(of_joined, split, 1)
                found = [of_skip, _upsample_gradient(of_large, small), *torch.split(of_weight, split, 1)]
        cast = [each.to(given.dtype) for each, given in zip(found, inputs, strict=True) if each is not None]
        return (*cast, None if of_bias is None else of_bias.to(inputs[2].dtype), None)


def _upsample_gradient(grad: Tensor, small: Tensor) -> Tensor:
    """The gradient of ``small`` from that of ``upsample(small)``."""
    with torch.enable_grad():
        leaf = small.detach().requires_grad_()
        (found,) = torch.autograd.grad(upsample(leaf), leaf, grad)
    return found


class ConvNorm(nn.Module):
    """A convolution of 3 and a group norm of 8 channels a group (or ``groups``), then LeakyReLU of slope 0.2.

    The weights are ``conv.weight``, ``conv.bias``, ``norm.weight`` and ``norm.bias``. Called on a map it gives the
    activated one; :meth:`before` and :meth:`after` take it apart.
    """

    def __init__(self, inputs: int, outputs: int, dims: int, *, groups: int | None = None) -> None:
        super().__init__()
        self.conv = (nn.Conv2d if dims == 2 else nn.Conv3d)(inputs, outputs, 3, padding=1)
        self.norm = nn.GroupNorm(groups or outputs // CHANNELS_A_GROUP, outputs)
        kaiming(self.conv)

    def before(self, x: Tensor) -> Tensor:
        """The convolution alone, before the norm."""
        return laid_out(self.conv(x))

    def after(self, h: Tensor) -> Tensor:
        """The norm and the activation of what a convolution gave, in at least float32."""
        with torch.autocast(h.device.type, enabled=False):
            normed = functional.group_norm(
                _full(h), self.norm.num_groups, self.norm.weight, self.norm.bias, self.norm.eps
            )
            return functional.leaky_relu_(normed, SLOPE)

    def joined(self, skip: Tensor, small: Tensor, *, skip_first: bool) -> Tensor:
        """The convolution of two maps joined by channel, ``small`` upsampled; before the norm.

        ``skip_first`` says whose channels come first in the weights.
        """
        weight, first = self.conv.weight, (skip if skip_first else small).shape[1]
        parts = [weight[:, :first], weight[:, first:]]
        dtype = convolution_type(skip)
        h: Tensor = _OfJoined.apply(  # type: ignore[no-untyped-call]
            skip, small, *(parts if skip_first else parts[::-1]), self.conv.bias, dtype
        )
        return h

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, c, *space) to activated ones (n, outputs, *space)."""
        return self.after(self.before(x))


def conv_of_activated(h: Tensor, norm: nn.GroupNorm, conv: nn.Module) -> Tensor:
    """``conv(leaky_relu(norm(h)))`` for a convolution of 3; of it only h is kept for the backward pass."""
    result: Tensor = _OfActivated.apply(  # type: ignore[no-untyped-call]
        h, norm.weight, norm.bias, norm.num_groups, conv.weight, conv.bias, convolution_type(h)
    )
    return result


class DoubleConv(nn.Module):
    """Two :class:`ConvNorm` after one another, ``first`` and ``second``."""

    def __init__(self, inputs: int, outputs: int, dims: int) -> None:
        super().__init__()
        self.first = ConvNorm(inputs, outputs, dims)
        self.second = ConvNorm(outputs, outputs, dims)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n, inputs, *space) to (n, outputs, *space)."""
        return self._second(self.first.before(x))

    def joined(self, skip: Tensor, small: Tensor) -> Tensor:
        """The stage of a decoder: skip (n, c, *space) before the upsampled ``small``."""
        return self._second(self.first.joined(skip, small, skip_first=True))

    def _second(self, h: Tensor) -> Tensor:
        return self.second.after(conv_of_activated(h, self.first.norm, self.second.conv))


def kaiming(conv: nn.Conv2d | nn.Conv3d) -> None:
    """He's normal initialisation of a convolution's weights; biases stay as torch draws them."""
    nn.init.kaiming_normal_(conv.weight)


def downsample(x: Tensor) -> Tensor:
    """The maximum of every 2^d voxels: (n, c, *space) to half the size."""
    return functional.max_pool3d(x, 2) if x.ndim == 5 else functional.max_pool2d(x, 2)


def pad_to_multiple(x: Tensor, multiple: int) -> tuple[Tensor, tuple[slice, ...]]:
    """Zeros around maps up to a multiple of every axis, the smaller half in front; and where the maps lie in it."""
    missing = [-size % multiple for size in x.shape[2:]]
    inner = (
        slice(before, before + size)
        for before, size in zip((each // 2 for each in missing), x.shape[2:], strict=True)
    )
    place = (slice(None), slice(None), *inner)
    if not any(missing):
        return x, place
    sides = [side for each in reversed(missing) for side in (each // 2, each - each // 2)]
    return functional.pad(x, sides), place
