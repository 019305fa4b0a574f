"""How the logits of a contrast are cut into tiles, and what is done to one tile.

The logits of n anchors and m keys are never held at once: the forward pass keeps one number per anchor and
the backward pass makes the tiles again, so memory grows with n and time gains from tiles that stay in cache
(row-blocked softmax with recomputation: Dao et al., FlashAttention, 2022, section 3.1).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil, isqrt
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.losses.matching import Pairs, Tile

# Logits of a tile: 1 MB of float32 stays in a core's cache; an accelerator wants fewer, larger products.
CPU_TILE = 2**18
DEVICE_TILE = 2**24


class Plan(NamedTuple):
    """How the logits of (scopes, n, m) are cut into tiles."""

    scopes: int
    rows: int
    columns: int
    bounded: bool  # every |logit| is small enough for exp without a shift

    def chunks(self, scopes: int) -> Iterator[slice]:
        """Runs of scopes that are worked on together."""
        return _cuts(scopes, self.scopes)

    def tiles(self, chunk: slice, n: int, m: int) -> Iterator[Tile]:
        """Every tile of a run of scopes."""
        return (Tile(chunk, i, j) for i in _cuts(n, self.rows) for j in _cuts(m, self.columns))

    def triangle(self, chunk: slice, n: int) -> Iterator[Tile]:
        """The tiles on and above the diagonal of symmetric logits."""
        return (tile for tile in self.tiles(chunk, n, n) if not tile.below_diagonal)

    def buffer(self, like: Tensor) -> Tensor:
        """Room for one tile."""
        return like.new_empty(self.scopes * self.rows * self.columns)


def _cuts(n: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def plan(z: Tensor, n_keys: int, *, bounded: bool, block: int | None = None, tile: int | None = None) -> Plan:
    """Cut the logits of ``z`` (scopes, n, width) against ``n_keys`` keys into near-equal tiles.

    A tile has about ``tile`` logits; ``block`` sets the rows and columns of a tile instead.
    """
    scopes, n, _ = z.shape
    tile = tile or (CPU_TILE if z.device.type == "cpu" else DEVICE_TILE)
    edge = block or isqrt(tile)
    rows, columns = (ceil(size / ceil(size / edge)) if size > edge else max(size, 1) for size in (n, n_keys))
    together = max(1, min(scopes, tile // (rows * columns)))
    return Plan(together, rows, columns, bounded)


def logits(left: Tensor, right: Tensor, buffer: Tensor) -> Tensor:
    """Dot products of (scopes, rows, width) and (scopes, columns, width), written into the buffer."""
    scopes, rows, columns = left.shape[0], left.shape[1], right.shape[1]
    out = buffer[: scopes * rows * columns].view(scopes, rows, columns)
    return torch.bmm(left, right.mT, out=out)


def log_sum_exp(logits: Tensor, dim: int, scratch: Tensor) -> Tensor:
    """Log-sum-exp over one dimension with the maximum subtracted; -inf where all are -inf."""
    largest = logits.amax(dim, keepdim=True).clamp_(min=torch.finfo(logits.dtype).min)
    out = scratch[: logits.numel()].view(logits.shape)
    return torch.sub(logits, largest, out=out).exp_().sum(dim).log_().add_(largest.squeeze(dim))


def merge(total: Tensor, part: Tensor) -> None:
    """Add the exponentials of ``part`` to those of ``total``."""
    torch.logaddexp(total, part, out=part)
    total.copy_(part)


def finite(lse: Tensor) -> Tensor:
    """Log-sum-exps for the backward pass: an anchor without candidates has logits of -inf only."""
    return torch.where(lse == -torch.inf, 0.0, lse)


def refuse_second_derivative() -> None:
    """Raise in a backward pass that is recorded for another one.

    torch's ``once_differentiable`` lets it pass where the incoming gradient is constant, as a mean's is, and
    the second derivative would then be silently wrong.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("a contrast can be differentiated once: call backward without create_graph=True")


def one_over(count: Tensor, like: Tensor) -> Tensor:
    """1 / count, and 0 for anchors without positives."""
    return torch.where(count > 0, 1 / count.clamp(min=1).to(like.dtype), 0.0)


def add_listed(
    positive: Tensor, tile_logits: Tensor, tile: Tile, pairs: Pairs, *, symmetric: bool = False
) -> None:
    """Add the logits of a tile's listed pairs to their anchors, ``positive`` (scopes, n).

    Of symmetric logits a tile above the diagonal stands for its mirror image too.
    """
    places, i, j = pairs.inside(tile)
    if len(places):
        found = tile_logits.flatten(1).index_select(1, places)
        positive.index_add_(1, i, found)
        if symmetric and tile.above_diagonal:
            positive.index_add_(1, j, found)


def weigh_listed(h: Tensor, weight: Tensor, tile: Tile, pairs: Pairs, *, symmetric: bool = False) -> None:
    """Add each listed pair's weight, that of its anchor in ``weight`` (scopes, n), to its place in ``h``."""
    places, i, j = pairs.inside(tile)
    if len(places):
        weights = weight.index_select(1, i)
        if symmetric:
            weights += weight.index_select(1, j)
        h.flatten(1).index_add_(1, places, weights)
