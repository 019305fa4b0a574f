"""Alike features at corresponding places, without ever holding a warped feature map.

GEMINI pulls the features of a pair together along the flow between them, and the flow towards alike features, with
two weights. Warping both maps whole costs several maps of memory and, channels first, a cache miss for every value.
Here blocks of voxels are read channels last, a voxel's features being one row: sampled, compared, and their gradient
spread back, while they are in the cache.

Letters: m = 2 n images (n pairs), w width of features, d = 2 or 3 dimensions, p voxels of an image, k = 2^d corners.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diptych_medical.corners import Corners, corners, gathered, places_gradient, spread
from diptych_medical.similarity import inverse_length
from diptych_medical.warp import Convention, grid, source, source_gradient

# Values (voxels times width) read at a time: on a CPU what fits its cache, elsewhere what keeps a device busy.
CPU_BLOCK, DEVICE_BLOCK = 2**17, 2**24
# Voxels whose features are held channels last at a time.
CPU_CHUNK, DEVICE_CHUNK = 2**18, 2**22


def warped_similarity(
    features: Tensor,
    flow: Tensor,
    mask: Tensor,
    *,
    feature_weight: float = 0.1,
    flow_weight: float = 1.0,
    convention: Convention = "aligned",
) -> Tensor:
    """Geometric semantic similarity of pairs, both directions: the sum over them of
    ``feature_weight * c(W(f, sg(flow)), g) + flow_weight * c(W(sg(f), flow), sg(g))``.

    c is :func:`diptych_medical.similarity.geometric_similarity` of one direction, W warps with zeros outside and
    sg stops gradients: features are pulled together with one weight where the flow says, the flow with another
    to where features agree (He et al. 2025, IEEE T-PAMI; weights of the released code). The value is that of the
    formula; features shorter than 1e-12 have cosine 0 and no gradient. It can be differentiated once.

    Args:
        features: (m, w, *space); images i and i + m / 2 are a pair.
        flow: (m, d, *space) voxels; flow i carries image i into the frame of its partner.
        mask: (m, 1, *space), 1 where flow i reads within the image (:func:`diptych_medical.warp.inside`).
        feature_weight: of the gradient of the features.
        flow_weight: of the gradient of the flow.
        convention: see :data:`diptych_medical.warp.Convention`.

    Raises:
        ValueError: shapes that do not fit, or an odd number of images.
    """
    m, space = features.shape[0], features.shape[2:]
    if m % 2 or flow.shape != (m, len(space), *space) or mask.shape != (m, 1, *space):
        raise ValueError(
            "expected features (m, w, *space) of m / 2 pairs, flows (m, d, *space) and masks (m, 1, *space), "
            f"got {tuple(features.shape)}, {tuple(flow.shape)} and {tuple(mask.shape)}"
        )
    exact = torch.promote_types(features.dtype, torch.float32)
    loss: Tensor = _WarpedSimilarity.apply(  # type: ignore[no-untyped-call]
        features,
        flow.to(exact),
        mask.detach().to(exact),
        feature_weight,
        flow_weight,
        convention,
        torch.is_grad_enabled(),
    )
    return loss


class _WarpedSimilarity(torch.autograd.Function):
    """Gradients are found on the way forward, so that blocks are read once and no warped map is kept.

    The first backward pass hands them on and forgets them; a second one, of a retained graph, finds them anew.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        flow: Tensor,
        mask: Tensor,
        feature_weight: float,
        flow_weight: float,
        convention: Convention,
        graded: bool,
    ) -> Tensor:
        ctx.options = (feature_weight, convention, [graded and each for each in ctx.needs_input_grad[:2]])
        ctx.flow_weight = flow_weight
        ctx.save_for_backward(features, flow, mask)
        agreement, ctx.found = _compared(features, flow, mask, *ctx.options)
        return (feature_weight + flow_weight) * (2 - agreement)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        features, flow, mask = ctx.saved_tensors
        found, ctx.found = ctx.found, None
        rows, by_places = found or _compared(features, flow, mask, *ctx.options)[1]
        by_flow = None
        if by_places is not None:
            by_flow = source_gradient(by_places.view_as(flow), flow.shape[2:], ctx.options[1])
            by_flow = by_flow * (gradient * ctx.flow_weight)
        return _channels_first(rows, features, gradient), by_flow, None, None, None, None, None


class _Found(NamedTuple):
    """Gradients of minus the agreement; None where nobody asks."""

    by_rows: list[Tensor] | None  # of the features, per chunk of images (images * p, w), already weighed
    by_places: Tensor | None  # (m, d, p): of where voxels are read


class _Work(NamedTuple):
    """What the blocks read and write."""

    space: Sequence[int]
    features: Tensor  # (m, w, p)
    places: Tensor  # (m, d, p): where a voxel's partner is read
    weights: Tensor  # (m, p): of a voxel in the mean of its direction
    feature_weight: float
    found: _Found


def _compared(
    features: Tensor,
    flow: Tensor,
    mask: Tensor,
    feature_weight: float,
    convention: Convention,
    wanted: Sequence[bool],
) -> tuple[Tensor, _Found]:
    """The mean cosines of both directions, added, and their gradients."""
    space, width = features.shape[2:], features.shape[1]
    totals = mask.view(2, -1).sum(1).clamp(min=1.0)  # a direction is one mean over its half of the images
    weights = (mask.view(2, -1) / totals[:, None]).view(mask.shape[0], -1)
    places = source(grid(space, flow.device) + flow, space, convention).flatten(2)
    chunks = _chunks(places)
    sizes = [(images.stop - images.start) * places.shape[2] for images in chunks]
    found = _Found(
        [places.new_zeros(size, width) for size in sizes] if wanted[0] else None,
        torch.empty_like(places) if wanted[1] else None,
    )
    work = _Work(space, features.flatten(2), places, weights, feature_weight, found)
    with torch.autocast(flow.device.type, enabled=False):
        agreements = [_direct(work, chunks, number) for number in range(len(chunks))]
    return torch.stack(agreements).sum(), found


def _chunks(places: Tensor) -> list[slice]:
    """Images whose features are held channels last together: as many, one for one, of either direction."""
    half, p = places.shape[0] // 2, places.shape[2]
    together = max(1, (CPU_CHUNK if places.device.type == "cpu" else DEVICE_CHUNK) // p)
    starts = range(0, half, together)
    return [slice(s + b, min(s + together, half) + b) for b in (0, half) for s in starts]


def _direct(work: _Work, chunks: Sequence[slice], number: int) -> Tensor:
    """The weighted cosines of a chunk of images with their partners, summed; adds to the gradients."""
    images, other = chunks[number], (number + len(chunks) // 2) % len(chunks)
    count, (_, width, p) = images.stop - images.start, work.features.shape
    rows = _as_rows(work.features[images], work.places.dtype)
    step = max((CPU_BLOCK if rows.device.type == "cpu" else DEVICE_BLOCK) // (width * count), 1)
    first = (torch.arange(count, device=rows.device) * p)[:, None]
    agreements = []
    for start in range(0, p, step):
        at = slice(start, min(start + step, p))
        read = work.places[images, :, at].transpose(0, 1).flatten(1)
        around = corners(read, work.space, first.expand(-1, at.stop - start).reshape(-1))
        fixed = _as_rows(work.features[chunks[other], :, at], rows.dtype)
        weights = work.weights[images, at].reshape(-1, 1)
        by_rows, by_places = work.found
        compared = _agreement(rows, around, fixed, weights, by_places is not None)
        agreements.append(compared.total)
        if by_places is not None:
            moved = places_gradient(compared.by_weights, around)
            by_places[images, :, at] = moved.view(-1, count, at.stop - start).transpose(0, 1)
        if by_rows is not None:
            spread(by_rows[number], compared.by_moved, around, work.feature_weight)
            own = by_rows[other].view(count, p, width)[:, at]
            own.add_(compared.by_fixed.view_as(own), alpha=work.feature_weight)
    return torch.stack(agreements).sum()


def _as_rows(maps: Tensor, dtype: torch.dtype) -> Tensor:
    """(images, w, voxels) as (images * voxels, w)."""
    return maps.transpose(1, 2).to(dtype).reshape(-1, maps.shape[1])


def _channels_first(rows: list[Tensor] | None, features: Tensor, factor: Tensor) -> Tensor | None:
    """Rows of all chunks times a factor, laid out like the features; each chunk is let go when copied."""
    if rows is None:
        return None
    whole = torch.empty_like(features)
    done = 0
    while rows:
        chunk = rows.pop(0).mul_(factor).view(-1, *features.shape[2:], features.shape[1])
        whole[done : done + len(chunk)] = chunk.movedim(-1, 1)
        done += len(chunk)
    return whole


class _Agreement(NamedTuple):
    total: Tensor  # weighted cosines, summed
    by_moved: Tensor  # (r, w): gradients of minus the total
    by_fixed: Tensor  # (r, w)
    by_weights: Tensor  # (r, k)


def _agreement(rows: Tensor, around: Corners, fixed: Tensor, weights: Tensor, places: bool) -> _Agreement:
    """Compare interpolated rows with fixed ones (r, w), each voxel weighing ``weights`` (r, 1)."""
    with torch.set_grad_enabled(places):
        shares = around.weights.requires_grad_(places)
        sampled = gathered(rows, around)
    moved = sampled.detach()
    one, two = inverse_length(moved), inverse_length(fixed)
    moved, fixed = moved * one, fixed * two
    cosine = (moved * fixed).sum(1, keepdim=True)
    by_moved = torch.addcmul(fixed, cosine, moved, value=-1).mul_(-weights * one)
    by_fixed = torch.addcmul(moved, cosine, fixed, value=-1).mul_(-weights * two)
    by_shares = torch.autograd.grad(sampled, shares, by_moved)[0] if places else shares
    return _Agreement((cosine * weights).sum(), by_moved, by_fixed, by_shares)
