"""Anchors against keys whose positives are weighed or ordered one by one: each tile needs their mask."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from diptych.losses.matching import Exclusions, MaskedPositives, Tile
from diptych.losses.tiles import Plan, finite, log_sum_exp, logits, merge, one_over, refuse_second_derivative

Form = Literal["out", "in"]


class MaskedContrast(torch.autograd.Function):
    """As :class:`diptych.losses.kernel.CrossContrast`, for form "in" and for positives that come later."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor,
        exclusions: Exclusions,
        positives: MaskedPositives,
        form: Form,
        plan: Plan,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Log-sum-exp over candidates, positive logit, count of positives per anchor: (scopes, n)."""
        lse = anchors.new_full(anchors.shape[:2], -torch.inf)
        found = _Running(lse, form)
        buffer, scratch = plan.buffer(anchors), plan.buffer(anchors)
        for chunk in plan.chunks(anchors.shape[0]):
            for tile in plan.tiles(chunk, anchors.shape[1], keys.shape[1]):
                tile_logits = logits(anchors[chunk, tile.rows], keys[chunk, tile.columns], buffer)
                exclusions.apply(tile_logits, tile)
                found.add(tile_logits, positives.mask(tile), tile, scratch)
                merge(lse[chunk, tile.rows], log_sum_exp(tile_logits, -1, scratch))
        share = one_over(found.count, anchors)
        if form == "in":
            positive = torch.where(found.count > 0, found.total + share.log(), 0.0)
            share = (found.count > 0).to(anchors.dtype)
        else:
            positive = found.total * share
        ctx.save_for_backward(anchors, keys, finite(lse), finite(found.total), share)
        ctx.exclusions, ctx.positives, ctx.form, ctx.plan = exclusions, positives, form, plan
        ctx.mark_non_differentiable(found.count)
        return lse, positive, found.count

    @staticmethod
    def backward(ctx: Any, g: Tensor, p: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        """Each tile becomes g_i exp(s_ij - lse_i) plus p_i times the weight of each positive."""
        refuse_second_derivative()
        anchors, keys, lse, total, share = ctx.saved_tensors
        plan = ctx.plan
        grad_anchors, grad_keys = torch.zeros_like(anchors), torch.zeros_like(keys)
        buffer = plan.buffer(anchors)
        each, g = (p * share)[..., None], g[..., None]
        for chunk in plan.chunks(anchors.shape[0]):
            for tile in plan.tiles(chunk, anchors.shape[1], keys.shape[1]):
                _, rows, columns = tile
                a, k = anchors[chunk, rows], keys[chunk, columns]
                h = logits(a, k, buffer)
                ctx.exclusions.apply(h, tile)
                positive = ctx.positives.mask(tile) * each[chunk, rows]
                if ctx.form == "in":  # the clamp only touches pairs that are not positives: no inf * 0
                    positive *= (h - total[chunk, rows, None]).clamp_(max=0).exp_()
                h.sub_(lse[chunk, rows, None]).exp_().mul_(g[chunk, rows]).add_(positive)
                grad_anchors[chunk, rows].baddbmm_(h, k)
                grad_keys[chunk, columns].baddbmm_(h.mT, a)
        return grad_anchors, grad_keys, None, None, None, None


class _Running:
    """Running positive logits over tiles: their sum ("out") or log-sum-exp ("in"), and how many they are."""

    def __init__(self, like: Tensor, form: Form) -> None:
        self._form = form
        self.total = torch.full_like(like, -torch.inf) if form == "in" else torch.zeros_like(like)
        self.count = torch.zeros_like(like, dtype=torch.int64)

    def add(self, logits: Tensor, mask: Tensor, tile: Tile, scratch: Tensor) -> None:
        """Add one tile's positives, ``mask`` (scopes or 1, rows, columns), to their anchors."""
        at = tile.scopes, tile.rows
        self.count[at] += mask.sum(-1)
        if self._form == "in":
            merge(self.total[at], log_sum_exp(logits.masked_fill(~mask, -torch.inf), -1, scratch))
        else:
            self.total[at] += torch.where(mask, logits, 0.0).sum(-1)
