"""Rows and sums over the processes of a distributed run, with gradient; the identity in a single process.

Every process calls these in the same order. A loss returned on each process is such that the mean over
processes, which is what DistributedDataParallel makes of gradients, is the loss of one process that holds all
rows, and so is its gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from diptych.types import Rows


def processes() -> int:
    """How many processes take part; 1 outside a distributed run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def row_counts(n: int, device: torch.device) -> list[int]:
    """How many rows each process holds. Waits for the device: they set the shape of what is received."""
    if processes() == 1:
        return [n]
    own = torch.tensor([n], device=device)
    counts = [torch.empty_like(own) for _ in range(processes())]
    dist.all_gather(counts, own)
    return [int(count) for count in torch.cat(counts).tolist()]


def gather(tensor: Tensor, dim: int = 0, counts: Sequence[int] | None = None) -> Tensor:
    """Concatenate over processes along ``dim``, whose length may differ between processes.

    The backward pass adds what every process asks of these rows and returns the own slice. ``counts`` saves
    asking for the lengths again (:func:`row_counts`).
    """
    if processes() == 1:
        return tensor
    if counts is None:
        counts = row_counts(tensor.shape[dim], tensor.device)
    gathered: Tensor = _Gather.apply(tensor.movedim(dim, 0), tuple(counts))  # type: ignore[no-untyped-call]
    return gathered.movedim(0, dim)


def gather_rows(rows: Rows) -> Rows:
    """Concatenate rows over processes along the row dimension, ids with them; leading scopes stay apart."""
    if processes() == 1:
        return rows
    counts = row_counts(rows.z.shape[-2], rows.z.device)
    return Rows(
        gather(rows.z, -2, counts),
        gather(rows.group, -1, counts),
        gather(rows.row, -1, counts),
        None if rows.scope is None else gather(rows.scope, -1, counts),
    )


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Add up a tensor of one shape over all processes, with gradient."""
    if processes() == 1:
        return tensor
    summed: Tensor = _Sum.apply(tensor)  # type: ignore[no-untyped-call]
    return summed


def mean_over_processes(total: Tensor, weight: Tensor) -> Tensor:
    """This process's share of (sum of totals) / (sum of weights): the mean over processes is that value.

    ``total`` is a scalar with gradient, ``weight`` a scalar count. Where no process has weight, 0 with zero
    gradient.
    """
    weight = weight.detach().to(total.dtype)
    world = processes()
    if world > 1:
        weight = weight.clone()
        dist.all_reduce(weight)
    return total * torch.where(weight > 0, world / torch.where(weight > 0, weight, 1.0), 0.0)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, counts: tuple[int, ...]) -> Tensor:
        ctx.counts = counts
        most = max(counts)
        padded = tensor.new_zeros(most, *tensor.shape[1:])
        padded[: tensor.shape[0]] = tensor
        received = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(received, padded)
        return torch.cat([part[:count] for part, count in zip(received, counts, strict=True)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        rank = dist.get_rank()
        start = sum(ctx.counts[:rank])
        return gradient[start : start + ctx.counts[rank]], None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        summed = tensor.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient
