"""Losses between the positions of two dense maps, whose tables of all pairs are never held at once.

DenseCL (Wang et al. 2021, "Dense Contrastive Learning for Self-Supervised Visual Pre-Training") finds each position's
partner by similarity, PixPro (Xie et al. 2021, "Propagate Yourself") by distance in the image.

Letters: n samples, p and q positions of two maps, w width, d dimensions, m anchors.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diptych.losses.contrast import contrast
from diptych.losses.similarity import full_precision, unit_rows
from diptych.losses.tiles import Plan, logits, plan, refuse_second_derivative
from diptych.types import Rows

LIFT = 1e-6  # a power below 1 has an infinite slope at 0


@torch.no_grad()
def match(anchors: Tensor, keys: Tensor, *, block: int | None = None) -> Tensor:
    """The key most like each anchor by cosine, (n, p) int64; the first of equals (DenseCL, equation 2).

    Args:
        anchors: (n, p, w), compared with the keys of the same sample.
        keys: (n, q, w).
        block: rows and columns of a tile; chosen from a memory budget when None.

    Raises:
        ValueError: shapes that do not fit, or no keys.
    """
    _check_pair(anchors, keys)
    a, k = unit_rows(anchors), unit_rows(keys)
    best = a.new_full(a.shape[:2], -torch.inf)
    index = torch.zeros(a.shape[:2], dtype=torch.int64, device=a.device)
    cuts = plan(a, k.shape[1], bounded=True, block=block)
    buffer = cuts.buffer(a)
    for chunk in cuts.chunks(a.shape[0]):
        for _, rows, columns in cuts.tiles(chunk, a.shape[1], k.shape[1]):
            found = logits(a[chunk, rows], k[chunk, columns], buffer).max(2)
            better = found.values > best[chunk, rows]
            best[chunk, rows] = torch.where(better, found.values, best[chunk, rows])
            index[chunk, rows] = torch.where(better, found.indices + columns.start, index[chunk, rows])
    return index


def paired_contrast(
    anchors: Rows,
    positives: Tensor,
    negatives: Rows,
    *,
    temperature: float | Tensor = 0.2,
    block: int | None = None,
) -> Tensor:
    """Each anchor against one positive of its own and shared negatives, unreduced: (m,).

    With s cosines / temperature: log(exp s(a, its positive) + sum over negatives exp s(a, negative)) - s(a, its
    positive) (DenseCL, equations 1 and 3; MoCo, He et al. 2020, equation 1). A negative under the anchor's own
    row id is left out; group ids play no part. Without any negative the loss is 0.

    Args:
        anchors: z (m, w) with row ids.
        positives: (m, w); gradient flows into them too.
        negatives: z (any, w) with row ids.
        temperature: above 0.
        block: rows and columns of a tile.

    Raises:
        ValueError: shapes that do not fit.
    """
    if positives.shape != anchors.z.shape:
        raise ValueError(
            f"every anchor needs one positive, got anchors {tuple(anchors.z.shape)} "
            f"and positives {tuple(positives.shape)}"
        )
    own = (unit_rows(anchors.z) * unit_rows(positives)).sum(-1) / temperature
    if not len(negatives.z):
        return own - own
    nobody = Rows(anchors.z, torch.full_like(anchors.row, -1), anchors.row)
    others = Rows(negatives.z, torch.full_like(negatives.row, -1), negatives.row)
    against = contrast(nobody, others, temperature=temperature, block=block).candidates
    return torch.logaddexp(against, own) - own


def propagate(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    power: float = 2.0,
    block: int | None = None,
) -> Tensor:
    """PixPro's smoothing: sum_j max(cos(query_i, key_j), 0)^power value_j / |value_j|, (n, p, w).

    Source: Xie et al. 2021, equations 4 and 5; as released, values are normalised and the sum is not divided. It
    is made in tiles, twice, so that memory grows with p and q, not with p q, and can be differentiated once.

    Args:
        queries: (n, p, width), keys (n, q, width), values (n, q, w); in PixPro queries are the keys.
        keys: see there.
        values: see there.
        power: sharpness, above 0; below 1 the cosines are raised by 1e-6, whose power has a finite slope.
        block: rows and columns of a tile; chosen from a memory budget when None.

    Raises:
        ValueError: shapes that do not fit, or a power not above 0.
    """
    _check_pair(queries, keys)
    if values.shape[:2] != keys.shape[:2]:
        raise ValueError(f"every key needs a value, got {tuple(keys.shape)} and {tuple(values.shape)}")
    if not power > 0:
        raise ValueError(f"power must be above 0, got {power}")
    a, k, v = unit_rows(queries), unit_rows(keys), unit_rows(values)
    dtype = torch.promote_types(torch.promote_types(a.dtype, k.dtype), v.dtype)
    cuts = plan(a, k.shape[1], bounded=True, block=block)
    smooth: Tensor = _Propagate.apply(a.to(dtype), k.to(dtype), v.to(dtype), power, cuts)  # type: ignore[no-untyped-call]
    return smooth


class _Propagate(torch.autograd.Function):
    """Sums over tiles of similarities, which the backward pass makes again; products go into buffers.

    With s_ij = max(cos, 0), f(s) = s^power and G the gradient of the output: that of v_j is sum_i f(s_ij) G_i, that of
    s_ij is f'(s_ij) G_i v_j.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, k: Tensor, v: Tensor, power: float, cuts: Plan) -> Tensor:
        """The sums (n, p, w) of unit rows a (n, p, width), k (n, q, width) and v (n, q, w)."""
        smooth = a.new_zeros(*a.shape[:2], v.shape[2])
        buffer = cuts.buffer(a)
        for chunk in cuts.chunks(a.shape[0]):
            for _, rows, columns in cuts.tiles(chunk, a.shape[1], k.shape[1]):
                similar = logits(a[chunk, rows], k[chunk, columns], buffer).clamp_(min=0)
                smooth[chunk, rows].baddbmm_(_raised_(similar, power), v[chunk, columns])
        ctx.save_for_backward(a, k, v)
        ctx.power, ctx.cuts = power, cuts
        return smooth

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        """Tiles again, each for its rows and its columns."""
        refuse_second_derivative()
        a, k, v = ctx.saved_tensors
        cuts, power = ctx.cuts, ctx.power
        grad_a, grad_k, grad_v = torch.zeros_like(a), torch.zeros_like(k), torch.zeros_like(v)
        buffer, other = cuts.buffer(a), cuts.buffer(a)
        for chunk in cuts.chunks(a.shape[0]):
            for _, rows, columns in cuts.tiles(chunk, a.shape[1], k.shape[1]):
                similar = logits(a[chunk, rows], k[chunk, columns], buffer).clamp_(min=0)
                raised = _raised_(other[: similar.numel()].view(similar.shape).copy_(similar), power)
                grad_v[chunk, columns].baddbmm_(raised.mT, g[chunk, rows])
                slope = _slope_(similar, power).mul_(logits(g[chunk, rows], v[chunk, columns], other))
                grad_a[chunk, rows].baddbmm_(slope, k[chunk, columns])
                grad_k[chunk, columns].baddbmm_(slope.mT, a[chunk, rows])
        return grad_a, grad_k, grad_v, None, None


def _raised_(similar: Tensor, power: float) -> Tensor:
    """Powers of numbers of 0 and more, in place."""
    if power == 2:
        return similar.square_()
    return similar if power == 1 else similar.add_(LIFT if power < 1 else 0).pow_(power)


def _slope_(similar: Tensor, power: float) -> Tensor:
    """The derivative of :func:`_raised_` in place; 0 at 0, where cosines are cut off."""
    if power == 2:
        return similar.mul_(2)
    positive = similar > 0
    if power == 1:
        return similar.copy_(positive)
    return similar.add_(LIFT if power < 1 else 0).pow_(power - 1).mul_(power).mul_(positive)


def consistency(
    predicted: Tensor,
    target: Tensor,
    places: Tensor,
    target_places: Tensor,
    limit: Tensor,
    *,
    block: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean cosine of all pairs of positions that lie close together in the image: (n,), and how many pairs (n,).

    A pair (i, j) counts where |place_i - place_j| < limit (PixPro, Xie et al. 2021, equation 2 and section 3.2); a
    place that is not finite is near nothing. The mean is 0 where no pair counts. As a mean of dot products it is
    computed from sums of the targets, without a table of all pairs: mean = sum_i x_i (sum_j near_ij y_j) / count.

    Args:
        predicted: (n, p, w), with gradient.
        target: (n, q, w); no gradient flows into it.
        places: (n, p, d), where positions lie in the image.
        target_places: (n, q, d).
        limit: (n,), in the units of the places.
        block: rows and columns of a tile.

    Raises:
        ValueError: shapes that do not fit.
    """
    _check_pair(predicted, target)
    if places.shape[:2] != predicted.shape[:2] or target_places.shape[:2] != target.shape[:2]:
        raise ValueError(
            f"every position needs a place, got {tuple(places.shape)} and {tuple(target_places.shape)} for "
            f"{tuple(predicted.shape)} and {tuple(target.shape)}"
        )
    x = unit_rows(predicted)
    sums, counts = _near_sums(unit_rows(target.detach()), places, target_places, limit, block)
    count = counts.sum(1)
    return (x * sums).sum((1, 2)) / count.clamp(min=1).to(x.dtype), count


@torch.no_grad()
def _near_sums(
    y: Tensor, places: Tensor, target_places: Tensor, limit: Tensor, block: int | None
) -> tuple[Tensor, Tensor]:
    """For every place the sum of the rows of y (n, q, w) near it, (n, p, w), and how many they are, (n, p)."""
    places, target_places = full_precision(places), full_precision(target_places)
    sums = y.new_zeros(*places.shape[:2], y.shape[2])
    counts = torch.zeros(places.shape[:2], dtype=torch.int64, device=y.device)
    squared = limit.to(places.dtype).square()[:, None, None]
    cuts = plan(places, y.shape[1], bounded=True, block=block)
    with torch.autocast(y.device.type, enabled=False):
        for chunk in cuts.chunks(y.shape[0]):
            for _, rows, columns in cuts.tiles(chunk, places.shape[1], y.shape[1]):
                # Differences, not dot products: those lose the digits of nearby places far from the origin.
                apart = torch.zeros((), dtype=places.dtype, device=places.device)
                for own, other in zip(
                    places[chunk, rows].unbind(2), target_places[chunk, columns].unbind(2), strict=True
                ):
                    apart = apart + (own[:, :, None] - other[:, None]).square_()
                near = apart < squared[chunk]
                sums[chunk, rows] += near.to(y.dtype) @ y[chunk, columns]
                counts[chunk, rows] += near.sum(2)
    return sums, counts


def _check_pair(anchors: Tensor, keys: Tensor) -> None:
    if anchors.ndim != 3 or keys.ndim != 3 or anchors.shape[::2] != keys.shape[::2] or not keys.shape[1]:
        raise ValueError(
            "expected rows (n, p, w) and (n, q, w) of the same n and w, with q at least 1, got "
            f"{tuple(anchors.shape)} and {tuple(keys.shape)}"
        )
