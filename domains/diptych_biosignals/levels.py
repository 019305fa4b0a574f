"""COMET's four levels of contrast as objectives: observation, sample, trial and patient.

Source: Wang et al. 2023, "Contrast Everything" (COMET), as their released code computes them. Every level is
a case of the core's one kernel:

=============  =========================  ====================  ==============================================
level          rows of a scope            positives             logits
=============  =========================  ====================  ==============================================
observation    2T steps of one window     same time step        dot product, every scale of time
sample         2B windows at one step     same window           dot product, every scale of time
trial          B windows, other view's B  same trial, later     mean over channels of the cosine along time /
0.1 patient        the same                   same patient, later   the same
=============  =========================  ====================  ==============================================

Letters: B windows of the batch, T time steps, K width. Maps are time-major, (T, B, K), as the encoder makes
    them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from diptych.distributed import gather_rows, processes, row_counts
from diptych.errors import DataError
from diptych.losses.contrast import contrast, mean_over_anchors, mean_over_pairs
from diptych.types import Encoded, Rows, Views

Order = Literal["as_released", "order_free"]


def time_major(view: Encoded) -> Tensor:
    """The grid (B, K, T) of a view as (T, B, K)."""
    if view.grid is None or view.grid.ndim != 3:
        raise DataError(
            "COMET's levels contrast time steps and need an encoder whose grid is (windows, width, time "
            f"steps), got {None if view.grid is None else tuple(view.grid.shape)}; use DilatedEncoder"
        )
    return view.grid.permute(2, 0, 1)


class _HalveTime(torch.autograd.Function):
    """Max-pool with kernel and stride 2 along the first dimension; of equal values the first wins."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        even, odd = z[0 : 2 * (len(z) // 2) : 2], z[1::2]
        ctx.save_for_backward(even >= odd)
        ctx.steps = len(z)
        return torch.maximum(even, odd)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (first,) = ctx.saved_tensors
        out = grad.new_empty(ctx.steps, *grad.shape[1:])
        torch.mul(grad, first, out=out[0 : 2 * len(grad) : 2])
        torch.sub(grad, out[0 : 2 * len(grad) : 2], out=out[1::2])
        if ctx.steps % 2:
            out[-1].zero_()
        return out


def halve_time(z: Tensor) -> Tensor:
    """(T, ...) to (T // 2, ...) by the maximum of each two steps; an odd last step is dropped."""
    halved: Tensor = _HalveTime.apply(z)  # type: ignore[no-untyped-call]
    return halved


def mean_over_scales(one_scale: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """The mean of a loss over T, T // 2, T // 4, ... steps of z (T, ...), down to the last length above 1.

    Raises DataError for a single step, where no scale is left (the released code divides 0 by 0).
    """
    if len(z) < 2:
        raise DataError(
            f"COMET's observation and sample levels need windows of at least 2 time steps, got {len(z)}; use "
            "longer windows, or set the weights of these two levels to 0"
        )
    losses = [one_scale(z)]
    while len(z) // 2 > 1:
        z = halve_time(z)
        losses.append(one_scale(z))
    return torch.stack(losses).mean()


def observation_loss(z: Tensor, windows: int) -> Tensor:
    """One scale of the observation level for both views stacked, (T, 2, B, K).

    mean over windows b and the 2T vectors V_bm of [ logsumexp_{n != m} <V_bm, V_bn> - <V_bm, V_b,pos(m)> ],
    where pos(m) is the same step of the other view. The mean is over the ``windows`` of all processes: B of
    them contribute their share of it here.
    """
    steps, _, here, width = z.shape
    rows = z.permute(2, 1, 0, 3).reshape(here, 2 * steps, width)
    step = torch.arange(steps, device=z.device).repeat(2)
    row = torch.arange(2 * steps, device=z.device)
    found = contrast(Rows(rows, step, row), temperature=1.0, similarity="dot")
    return (found.candidates - found.positives).sum() * (processes() / (2 * steps * windows))


# Bytes of float32 rows that are contrasted at once: they and their gradient then stay in cache.
BLOCK_BYTES = 2**24


class _ByWindows(torch.autograd.Function):
    """A loss that is a sum over windows, a block of windows at a time, its gradient made along with it.

    So neither stacked views nor scales of all windows are ever held, only the gradients of both views.
    """

    @staticmethod
    def forward(ctx: Any, first: Tensor, second: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
        steps, windows, width = first.shape
        needed = any(ctx.needs_input_grad)
        total = first.new_zeros((), dtype=torch.promote_types(first.dtype, torch.float32))
        gradients = [torch.empty_like(view) for view in (first, second)] if needed else []
        block = max(1, BLOCK_BYTES // (8 * steps * width))
        for start in range(0, windows, block):
            at = slice(start, start + block)
            with torch.set_grad_enabled(needed):
                parts = [view[:, at].detach().requires_grad_(needed) for view in (first, second)]
                part = loss(_stack(parts))
            total += part.detach()
            for gradient, of_part in zip(
                gradients, torch.autograd.grad(part, parts) if needed else (), strict=True
            ):
                gradient[:, at] = of_part
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        first, second = (gradient * grad.to(gradient.dtype) for gradient in ctx.saved_tensors)
        return first, second, None


def sample_loss(z: Tensor, positions: Tensor, windows: int) -> Tensor:
    """One scale of the sample level for both views stacked, (T, 2, B, K).

    mean over steps t and the 2B vectors W_tm of [ logsumexp_{n != m} <W_tm, W_tn> - <W_tm, W_t,pos(m)> ],
    where pos(m) is the same window in the other view. Windows of all processes are compared.

    Args:
        positions: (B,) place of each window in the batch of all processes.
        windows: size of that batch.
    """
    group = positions.repeat(2)
    anchors = Rows(z.flatten(1, 2), group, torch.cat([positions, positions + windows]))
    gathered = gather_rows(anchors)
    keys = None if gathered is anchors else gathered
    return mean_over_anchors(contrast(anchors, keys, temperature=1.0, similarity="dot"))


class _UnitInTime(torch.autograd.Function):
    """Every channel divided by its norm along time, then every window by the norm of all its channels.

    The second norm counts the channels that are not zero, so it has no gradient of its own.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, factor: float) -> Tensor:
        norm = torch.linalg.vector_norm(z, dim=0)  # (B, K)
        clamped = norm.clamp_min(1e-12)
        length = torch.linalg.vector_norm(norm / clamped, dim=1, keepdim=True).clamp_min(1e-12)  # (B, 1)
        scale = (factor / (clamped * length)).unsqueeze(1)
        u = z.new_empty(z.shape[1], z.shape[0], z.shape[2])
        torch.mul(z.transpose(0, 1), scale, out=u)
        ctx.save_for_backward(u, scale, (length / factor).square_().unsqueeze(1))
        return u.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        u, scale, square = ctx.saved_tensors  # (B, T, K), (B, 1, K), (B, 1, 1)
        grad = grad.view(u.shape)
        out = grad * u
        along = out.sum(1, keepdim=True).mul_(square)
        torch.addcmul(grad, u, along, value=-1, out=out).mul_(scale)
        return out.transpose(0, 1), None


def unit_in_time(z: Tensor, factor: float = 1.0) -> Tensor:
    """u_b = flatten(z_b / ||z_b||_time) as rows of length ``factor``: (T, B, K) to (B, T K).

    The product of two such rows of factor 1 is the cosine of COMET's trial and patient levels. A channel that
    is zero throughout stays zero; norms are clamped at 1e-12 as in the released code.
    """
    u: Tensor = _UnitInTime.apply(z, factor)  # type: ignore[no-untyped-call]
    return u


def id_loss(u: Tensor, w: Tensor, ids: Tensor, positions: Tensor, order: Order) -> Tensor:
    """The trial or patient level: u, w (B, T K) from :func:`unit_in_time`, with S = u w^T the logits.

    up   = mean over pairs (a, b) of [ logsumexp_j S[a, j] - S[a, b] ],
    down = mean over pairs (a, b) of [ logsumexp_j S[j, a] - S[b, a] ],    loss = (up + down) / 2,

    over pairs with one id and a < b in batch order ("as_released": only the earlier window is an anchor) or
    a != b ("order_free"). The window itself (j = a) is a candidate and never a positive. No pair: 0.
    Windows of all processes are compared.
    """
    own = Rows(u, ids, positions), Rows(w, ids, positions)
    everyone = gather_rows(own[0]), gather_rows(own[1])
    with torch.autocast(u.device.type, enabled=False):
        s_up = u @ everyone[1].z.t()  # (B, windows of all processes)
        s_down = s_up.t() if processes() == 1 else w @ everyone[0].z.t()
    # T K is far wider than a batch is long, so the kernel is given the logits themselves, as rows that are
    # compared with unit vectors, rather than the rows they come from.
    keys = Rows(torch.eye(len(everyone[0].z), dtype=u.dtype, device=u.device), *everyone[0][1:])
    up, down = (
        mean_over_pairs(
            contrast(
                Rows(logits, ids, positions),
                keys,
                temperature=1.0,
                similarity="dot",
                positives="later" if order == "as_released" else "others",
                keep_self=True,
            )
        )
        for logits in (s_up, s_down)
    )
    return (up + down) / 2


def batch_positions(n: int, device: torch.device) -> tuple[Tensor, int]:
    """The places (n,) of this process's windows in the batch of all processes, and that batch's size."""
    here = torch.arange(n, device=device)
    if processes() == 1:
        return here, n
    counts = row_counts(n, device)
    return here + sum(counts[: dist.get_rank()]), sum(counts)


@dataclass(frozen=True, kw_only=True)
class ObservationLevel:
    """Time steps of a window against each other, at all scales of time.

    ``pair`` are the places of its two views among the pass's encoded views.
    """

    pair: tuple[int, int] = (0, 1)

    def __call__(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of ``online[i].grid`` (B, K, T) for the two views of ``pair``."""
        first, second = (time_major(online[i]) for i in self.pair)
        _, windows = batch_positions(first.shape[1], first.device)
        loss: Tensor = _ByWindows.apply(  # type: ignore[no-untyped-call]
            first, second, lambda z: mean_over_scales(lambda scale: observation_loss(scale, windows), z)
        )
        return loss


@dataclass(frozen=True, kw_only=True)
class SampleLevel:
    """Windows of the batch against each other at every time step, at all scales of time."""

    pair: tuple[int, int] = (0, 1)

    def __call__(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of ``online[i].grid`` (B, K, T) for the two views of ``pair``."""
        z = stacked(online, self.pair)
        positions, windows = batch_positions(z.shape[2], z.device)
        return mean_over_scales(lambda scale: sample_loss(scale, positions, windows), z)


@dataclass(frozen=True, kw_only=True)
class IdLevel:
    """Windows with one id of ``level`` ("trial", "patient") against all others of the batch, in both
    directions.

    Args:
        level: name of the grouping in the batch's ids; -1 there means nobody's positive.
        temperature: divides the cosines.
        order: "as_released" takes of two windows only the earlier one of the batch as an anchor, so the value
            depends on the order of the batch; "order_free" takes both.
        pair: places of the two views among the pass's encoded views.
    """

    level: str
    temperature: float = 0.1
    order: Order = "as_released"
    pair: tuple[int, int] = (0, 1)

    def __call__(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of ``online[i].grid`` (B, K, T) for the two views of ``pair``."""
        if self.level not in batch.groups:
            raise DataError(
                f"the {self.level} level needs an id {self.level!r} for every window; this data has only "
                f"{', '.join(sorted(batch.groups))}; name its column or set the level's weight to 0"
            )
        views = [time_major(online[i]) for i in self.pair]
        views = [view.float() if view.dtype in (torch.float16, torch.bfloat16) else view for view in views]
        u, w = (unit_in_time(view, self.temperature**-0.5) for view in views)
        ids = batch.groups[self.level]
        positions, _ = batch_positions(len(ids), u.device)
        return id_loss(u, w, ids, positions, self.order)


def stacked(online: tuple[Encoded, ...], pair: tuple[int, int]) -> Tensor:
    """Both views of a pair as one (T, 2, B, K), in float32 or better."""
    return _stack([time_major(online[i]) for i in pair])


def _stack(views: Sequence[Tensor]) -> Tensor:
    z = torch.stack(tuple(views), dim=1)
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
