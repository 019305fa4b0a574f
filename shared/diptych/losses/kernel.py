"""Log-sum-exp over candidates and mean positive logit, one tile of logits at a time.

The logits of n anchors and m keys are never held at once: the forward pass keeps one number per anchor and
the backward pass makes the tiles again, so memory grows with n and time gains from tiles that stay in cache
(row-blocked softmax with recomputation: Dao et al., FlashAttention, 2022, section 3.1). Products are
written into buffers, which autocast leaves alone: both passes keep the precision of the rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diptych.losses.matching import Exclusions, GroupedPositives, Tile
from diptych.losses.tiles import (
    Plan,
    add_listed,
    finite,
    log_sum_exp,
    logits,
    merge,
    one_over,
    refuse_second_derivative,
    weigh_listed,
)


class SelfContrast(torch.autograd.Function):
    """Rows against themselves. The logits are symmetric, so tiles above the diagonal serve rows and columns.

    With s_ij the logits, g the gradient of the candidates and p that of the positives, the gradient is
    H z + (that of the positives), H_ij = g_i exp(s_ij - lse_i) + g_j exp(s_ij - lse_j).
    """

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, exclusions: Exclusions, positives: GroupedPositives, plan: Plan
    ) -> tuple[Tensor, Tensor]:
        """Log-sum-exp over candidates and mean positive logit of ``z`` (scopes, n, width): (scopes, n)."""
        lse = z.new_full(z.shape[:2], -torch.inf)
        positive = torch.zeros_like(lse)
        buffer, scratch = plan.buffer(z), plan.buffer(z)
        weight = one_over(positives.count, z)
        for chunk in plan.chunks(z.shape[0]):
            if positives.pairs is None:
                positive[chunk] = (z[chunk] * positives.key_sums(z[chunk], chunk)).sum(-1)
            for tile in plan.triangle(chunk, z.shape[1]):
                tile_logits = logits(z[chunk, tile.rows], z[chunk, tile.columns], buffer)
                exclusions.apply(tile_logits, tile)
                if positives.pairs is not None:
                    add_listed(positive[chunk], tile_logits, tile, positives.pairs, symmetric=True)
                _accumulate(lse[chunk], tile_logits, tile, plan.bounded, scratch)
        positive *= weight
        ctx.save_for_backward(z, finite(lse), weight)
        ctx.exclusions, ctx.positives, ctx.plan = exclusions, positives, plan
        return lse, positive

    @staticmethod
    def backward(ctx: Any, g: Tensor, p: Tensor) -> tuple[Tensor, None, None, None]:
        """Tiles again, each used for its rows and, above the diagonal, for its columns."""
        refuse_second_derivative()
        z, lse, weight = ctx.saved_tensors
        plan, positives = ctx.plan, ctx.positives
        grad = torch.zeros_like(z)
        buffer, scratch = plan.buffer(z), plan.buffer(z)
        each = p * weight
        factor = g * (-lse).exp() if plan.bounded else g
        for chunk in plan.chunks(z.shape[0]):
            part = z[chunk]
            if positives.pairs is None:
                weights = each[chunk, :, None]
                grad[chunk] = positives.key_sums(part, chunk).mul_(weights)
                grad[chunk] += positives.anchor_sums(part * weights, chunk)
            for tile in plan.triangle(chunk, z.shape[1]):
                _, rows, columns = tile
                h = logits(part[:, rows], part[:, columns], buffer)
                ctx.exclusions.apply(h, tile)
                _symmetric_weights(h, factor[chunk], lse[chunk], tile, plan.bounded, scratch)
                if positives.pairs is not None:
                    weigh_listed(h, each[chunk], tile, positives.pairs, symmetric=True)
                grad[chunk, rows].baddbmm_(h, part[:, columns])
                if tile.above_diagonal:
                    grad[chunk, columns].baddbmm_(h.mT, part[:, rows])
        return grad, None, None, None


def _accumulate(lse: Tensor, tile_logits: Tensor, tile: Tile, bounded: bool, scratch: Tensor) -> None:
    """Add a tile of symmetric logits to the sums of its rows and, above the diagonal, of its columns."""
    if bounded:
        tile_logits.exp_()
    for at, dim in ((tile.rows, -1), (tile.columns, -2)):
        if dim == -2 and not tile.above_diagonal:
            continue
        part = tile_logits.sum(dim).log_() if bounded else log_sum_exp(tile_logits, dim, scratch)
        merge(lse[:, at], part)


def _symmetric_weights(h: Tensor, g: Tensor, lse: Tensor, tile: Tile, bounded: bool, scratch: Tensor) -> None:
    """Turn a tile of logits into H in place; ``g`` carries exp(-lse) already where logits are bounded."""
    g_rows, g_columns = g[:, tile.rows, None], g[:, None, tile.columns]
    other = scratch[: h.numel()].view(h.shape)
    if bounded:
        h.exp_().mul_(torch.add(g_rows, g_columns, out=other))
        return
    torch.sub(h, lse[:, None, tile.columns], out=other).exp_().mul_(g_columns)
    h.sub_(lse[:, tile.rows, None]).exp_().mul_(g_rows).add_(other)


class CrossContrast(torch.autograd.Function):
    """Anchors against keys, with positives summed per group."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor,
        exclusions: Exclusions,
        positives: GroupedPositives,
        plan: Plan,
    ) -> tuple[Tensor, Tensor]:
        """Log-sum-exp over candidates and mean positive logit of every anchor, each (scopes, n)."""
        lse = anchors.new_full(anchors.shape[:2], -torch.inf)
        positive = torch.zeros_like(lse)
        buffer, scratch = plan.buffer(anchors), plan.buffer(anchors)
        weight = one_over(positives.count, anchors)
        for chunk in plan.chunks(anchors.shape[0]):
            a, k = anchors[chunk], keys[chunk]
            if positives.pairs is None:
                positive[chunk] = (a * positives.key_sums(k, chunk)).sum(-1)
            for tile in plan.tiles(chunk, a.shape[1], k.shape[1]):
                tile_logits = logits(a[:, tile.rows], k[:, tile.columns], buffer)
                exclusions.apply(tile_logits, tile)
                if positives.pairs is not None:
                    add_listed(positive[chunk], tile_logits, tile, positives.pairs)
                if plan.bounded:
                    part = tile_logits.exp_().sum(-1).log_()
                else:
                    part = log_sum_exp(tile_logits, -1, scratch)
                merge(lse[chunk, tile.rows], part)
        positive *= weight
        ctx.save_for_backward(anchors, keys, finite(lse), weight)
        ctx.exclusions, ctx.positives, ctx.plan = exclusions, positives, plan
        return lse, positive

    @staticmethod
    def backward(ctx: Any, g: Tensor, p: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """With P the softmax rows: P times keys for the anchors, P transposed times anchors for the keys."""
        refuse_second_derivative()
        anchors, keys, lse, weight = ctx.saved_tensors
        plan, positives = ctx.plan, ctx.positives
        to_anchors, to_keys = ctx.needs_input_grad[:2]
        grad_anchors = torch.zeros_like(anchors) if to_anchors else None
        grad_keys = torch.zeros_like(keys) if to_keys else None
        buffer = plan.buffer(anchors)
        each = p * weight
        factor = (g * (-lse).exp() if plan.bounded else g)[..., None]
        for chunk in plan.chunks(anchors.shape[0]):
            a, k = anchors[chunk], keys[chunk]
            if positives.pairs is None and grad_anchors is not None:
                grad_anchors[chunk] = positives.key_sums(k, chunk).mul_(each[chunk, :, None])
            if positives.pairs is None and grad_keys is not None:
                grad_keys[chunk] = positives.anchor_sums(a * each[chunk, :, None], chunk)
            for tile in plan.tiles(chunk, a.shape[1], k.shape[1]):
                _, rows, columns = tile
                h = logits(a[:, rows], k[:, columns], buffer)
                ctx.exclusions.apply(h, tile)
                if not plan.bounded:
                    h.sub_(lse[chunk, rows, None])
                h.exp_().mul_(factor[chunk, rows])
                if positives.pairs is not None:
                    weigh_listed(h, each[chunk], tile, positives.pairs)
                if grad_anchors is not None:
                    grad_anchors[chunk, rows].baddbmm_(h, k[:, columns])
                if grad_keys is not None:
                    grad_keys[chunk, columns].baddbmm_(h.mT, a[:, rows])
        return grad_anchors, grad_keys, None, None, None
