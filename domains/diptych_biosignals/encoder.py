"""COMET's encoder of time series: a stack of dilated convolutions that keeps every time step.

Source: Wang et al. 2023, "Contrast Everything: A Hierarchical Contrastive Framework for Medical Time-Series"
(COMET); the architecture is that of Yue et al. 2022 (TS2Vec). Layout and names of the parameters are those of
the released checkpoints, which therefore load as they are.

Letters: n windows, T time steps, C channels, H hidden units. Inside the stack maps are **time-major**, (T, n,
H): the steps that a tap at offset o reaches are then one contiguous block of rows, and a dilated convolution
is a sum of plain matrix products

    y[t] = bias + sum_k W_k x[t + o_k],    o_k = (k - kernel // 2) * dilation,    0 <= t + o_k < T

in which a tap with ``|o_k| >= T``, which would only ever read zero padding, simply does not occur.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from diptych.errors import DataError
from diptych.types import Encoded


class Tap(NamedTuple):
    """Tap ``k`` of a kernel reads the input steps ``source`` for the output steps ``target``."""

    k: int
    source: slice
    target: slice


def live_taps(kernel: int, dilation: int, steps: int) -> Iterator[Tap]:
    """The taps of a length-preserving convolution that meet the series at all, the central one first."""
    for k in sorted(range(kernel), key=lambda k: abs(k - kernel // 2)):
        offset = (k - kernel // 2) * dilation
        if abs(offset) < steps:
            first, last = max(0, -offset), min(steps, steps - offset)
            yield Tap(k, slice(first + offset, last + offset), slice(first, last))


def add_convolution(y: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Adds to y (T, n, O) the time-major ``conv1d`` of x (T, n, I) with weight (O, I, kernel)."""
    taps = weight.permute(2, 1, 0).contiguous()  # (kernel, I, O)
    for tap in live_taps(weight.shape[2], dilation, x.shape[0]):
        y[tap.target].flatten(0, 1).addmm_(x[tap.source].flatten(0, 1), taps[tap.k])
    return y


def convolution(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """The time-major ``conv1d`` of x (T, n, I) with weight (O, I, kernel) and bias (O,): (T, n, O)."""
    return add_convolution(bias.expand(*x.shape[:2], -1).contiguous(), x, weight, dilation)


def input_gradient(grad: Tensor, weight: Tensor, dilation: int, out: Tensor) -> Tensor:
    """The gradient (T, n, I) of a convolution's input from that of its output (T, n, O), written into out."""
    taps = weight.permute(2, 0, 1).contiguous()  # (kernel, O, I)
    for tap in live_taps(weight.shape[2], dilation, grad.shape[0]):
        first = tap.k == weight.shape[2] // 2  # the central tap reaches every step, so it need not find zeros
        rows = grad[tap.target].flatten(0, 1)
        out[tap.source].flatten(0, 1).addmm_(rows, taps[tap.k], beta=0 if first else 1)
    return out


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """The gradient (O, I, kernel) of a convolution's weight; exactly zero at dead taps."""
    outputs, inputs, kernel = weight.shape
    taps = weight.new_zeros(kernel, outputs, inputs)
    for tap in live_taps(kernel, dilation, x.shape[0]):
        taps[tap.k].addmm_(grad[tap.target].flatten(0, 1).t(), x[tap.source].flatten(0, 1))
    return taps.permute(1, 2, 0).contiguous()


def gelu(x: Tensor, out: Tensor | None = None) -> Tensor:
    """The exact GELU, x * Phi(x), into ``out`` where a buffer of the shape is at hand."""
    if out is None or out.shape != x.shape:
        return F.gelu(x)
    written: Tensor = torch.ops.aten.gelu.out(x, out=out)
    return written


def gelu_gradient_(grad: Tensor, x: Tensor) -> Tensor:
    """Multiplies grad by the derivative of the GELU at x, in place."""
    written: Tensor = torch.ops.aten.gelu_backward.grad_input(grad, x, grad_input=grad)
    return written


class _ResidualBlock(torch.autograd.Function):
    """``conv2(gelu(conv1(gelu(h)))) + skip(h)``, of which only h is kept for the backward pass.

    Making conv1's output once more costs a tenth of the time and saves half of the memory.
    """

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight1: Tensor,
        bias1: Tensor,
        weight2: Tensor,
        bias2: Tensor,
        projection: Tensor | None,
        projection_bias: Tensor | None,
        dilation: int,
    ) -> Tensor:
        active = gelu(h)
        middle = convolution(active, weight1, bias1, dilation)
        if projection is None or projection_bias is None:
            y = h + bias2
        else:
            y = F.linear(h, projection[:, :, 0], projection_bias + bias2)
        add_convolution(y, gelu(middle, out=middle), weight2, dilation)
        ctx.save_for_backward(h, weight1, bias1, weight2, projection)
        ctx.dilation = dilation
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        h, weight1, bias1, weight2, projection = ctx.saved_tensors
        needs: tuple[bool, ...] = ctx.needs_input_grad
        grad = grad.contiguous()
        rows = grad.flatten(0, 1)
        grads: list[Tensor | None] = [None] * 8
        middle = convolution(gelu(h), weight1, bias1, ctx.dilation)
        active = gelu(middle)
        if needs[3]:
            grads[3] = weight_gradient(grad, active, weight2, ctx.dilation)
        if needs[4]:
            grads[4] = rows.sum(0)
        inner = input_gradient(grad, weight2, ctx.dilation, out=torch.empty_like(middle))
        gelu_gradient_(inner, middle)
        active = gelu(h, out=active)
        if needs[1]:
            grads[1] = weight_gradient(inner, active, weight1, ctx.dilation)
        if needs[2]:
            grads[2] = inner.flatten(0, 1).sum(0)
        if projection is not None and needs[5]:
            grads[5] = (rows.t() @ h.flatten(0, 1)).unsqueeze(-1)
        if projection is not None and needs[6]:
            grads[6] = rows.sum(0)
        if needs[0]:
            outer = input_gradient(inner, weight1, ctx.dilation, out=active)
            gelu_gradient_(outer, h)
            if projection is None:
                outer += grad
            else:
                outer.flatten(0, 1).addmm_(rows, projection[:, :, 0])
            grads[0] = outer
        return tuple(grads)


class _Dropout(torch.autograd.Function):
    """``x * keep * scale``; the boolean mask is all that is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.scale = scale
        return torch.mul(x, keep).mul_(scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (keep,) = ctx.saved_tensors
        return torch.mul(grad, keep).mul_(ctx.scale), None, None


def draw_keep(
    shape: tuple[int, ...], p: float, device: torch.device, generator: torch.Generator | None = None
) -> tuple[Tensor, float]:
    """A boolean dropout mask (True = keep) and the factor 1/(1 - p) that goes with it.

    p is rounded to 1/65536, and the factor belongs to the rounded p, so that the mean is kept exactly: four
    16-bit numbers come out of every random word, which is ten times faster than one Bernoulli draw an
    element.
    """
    threshold = min(round(p * 65536), 65535)
    count = int(torch.Size(shape).numel())
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    keep = words.view(torch.int16)[:count].view(shape) >= threshold - 32768
    return keep, 65536 / (65536 - threshold)


def dropout(x: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """Element-wise dropout of x with probability p (to 1/65536), by :func:`draw_keep`."""
    if p <= 0:
        return x
    keep, scale = draw_keep(tuple(x.shape), p, x.device, generator)
    dropped: Tensor = _Dropout.apply(x, keep, scale)  # type: ignore[no-untyped-call]
    return dropped


class Convolution(nn.Module):
    """Holds the weights of one convolution under the released name ``conv``."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, padding=dilation * (kernel // 2))


class ResidualBlock(nn.Module):
    """Two dilated convolutions, each after an exact GELU, and a skip connection (1x1 where ``last``)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int, *, last: bool) -> None:
        super().__init__()
        self.dilation = dilation
        self.conv1 = Convolution(inputs, outputs, kernel, dilation)
        self.conv2 = Convolution(outputs, outputs, kernel, dilation)
        self.projector = nn.Conv1d(inputs, outputs, 1) if last else None

    def forward(self, h: Tensor) -> Tensor:
        """Time-major (T, n, inputs) -> (T, n, outputs), in the dtype of h."""
        weights = [self.conv1.conv.weight, self.conv1.conv.bias, self.conv2.conv.weight, self.conv2.conv.bias]
        weights += [None, None] if self.projector is None else [self.projector.weight, self.projector.bias]
        cast = [None if weight is None else weight.to(h.dtype) for weight in weights]
        y: Tensor = _ResidualBlock.apply(h, *cast, self.dilation)  # type: ignore[no-untyped-call]
        return y


class DilatedStack(nn.Module):
    """The residual blocks under the released name ``net``, with dilations 1, 2, 4, ..."""

    def __init__(self, hidden: int, width: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.net = nn.ModuleList(
            ResidualBlock(hidden, width if i == depth else hidden, kernel, 2**i, last=i == depth)
            for i in range(depth + 1)
        )

    def forward(self, h: Tensor) -> Tensor:
        """Time-major (T, n, hidden) -> (T, n, width)."""
        for block in self.net:
            h = block(h)
        return h


class DilatedEncoder(nn.Module):
    """Windows (n, T, C) to one embedding per time step and, by their maximum over time, one per window.

    A linear map of each step to ``hidden`` units, an optional mask on these, ``depth`` + 1 dilated residual
    blocks (dilations 1, 2, ..., 2^depth) of which the last widens to ``width``, and dropout on the result.
    Outputs and gradients equal those of ``conv1d`` modules of the same weights; taps that only read padding
    cost nothing and get a gradient of zeros (not None, so that weight decay treats them as it would have).

    Nothing is masked unless a mask is given, in training as in evaluation. (The released code masks half of
    the steps in training mode by default, also during fine-tuning; see ``finetune.py``.)

    Args:
        channels: C, the number of leads.
        width: size of the embedding, K in the paper.
        hidden: units H inside the stack.
        depth: exponent of the last dilation; the stack has depth + 1 blocks.
        kernel: taps per convolution, odd.
        dropout: probability of dropping an element of the final map.
    """

    def __init__(
        self,
        channels: int,
        width: int = 320,
        hidden: int = 64,
        depth: int = 10,
        kernel: int = 3,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd to keep the length of a series, got {kernel}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.channels, self.width, self.p = channels, width, dropout
        self.input_fc = nn.Linear(channels, hidden)
        self.feature_extractor = DilatedStack(hidden, width, depth, kernel)

    def trunk(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Everything before the dropout: x (n, T, C), mask (n, T) or (n, T, H) with True = keep -> (T, n,
        width).

        Raises DataError when x is not (n, T, C) with this encoder's number of channels.
        """
        if x.ndim != 3 or x.shape[2] != self.channels or x.shape[1] == 0:
            raise DataError(
                f"this encoder takes windows of shape (n, time steps, {self.channels} channels), got "
                f"{tuple(x.shape)}; select the leads it was built for, or build it with "
                f"channels={x.shape[-1]}"
            )
        device = x.device.type
        dtype = (
            torch.get_autocast_dtype(device)
            if torch.is_autocast_enabled(device)
            else self.input_fc.weight.dtype
        )
        with torch.autocast(device, enabled=False):
            h = F.linear(
                x.transpose(0, 1).to(dtype), self.input_fc.weight.to(dtype), self.input_fc.bias.to(dtype)
            )
            if mask is not None:
                keep = mask.transpose(0, 1)
                h = h * (keep if keep.ndim == 3 else keep.unsqueeze(-1))
            out: Tensor = self.feature_extractor(h)
        return out

    def dropout(self, z: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One draw of the dropout on a map from :meth:`trunk`; the map itself in evaluation mode."""
        return dropout(z, self.p, generator) if self.training else z

    @staticmethod
    def encoded(z: Tensor) -> Encoded:
        """A time-major map (T, n, width) as whole, its maximum over time, and grid (n, width, T), a view."""
        return Encoded(whole=z.amax(0), grid=z.permute(1, 2, 0))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Encoded:
        """x (n, T, C) -> whole (n, width), grid (n, width, T)."""
        return self.encoded(self.dropout(self.trunk(x, mask)))

    def layers(self) -> list[nn.Module]:
        """The parts from input to output, for learning rates that grow with depth."""
        return [self.input_fc, *self.feature_extractor.net]
