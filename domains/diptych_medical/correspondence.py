"""Alike features at corresponding places, without ever holding a warped feature map.

GEMINI pulls the features of a pair together along the flow between them, and the flow towards alike features, with
two weights. Warping both maps whole costs several maps of memory and, channels first, a cache miss for every value.
Here blocks of voxels are read channels last, a voxel's features being one row: sampled, compared, and their gradient
spread back, while they are in the cache.

Letters: m = 2 n images (n pairs), w width of features, d = 2 or 3 dimensions, p voxels of an image, k = 2^d corners.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diptych_medical.corners import Corners, by_places, corners, gathered, spread
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
    """Gradients are found on the way forward, so that blocks are read once and nothing else is kept."""

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
        wanted = [graded and needed for needed in ctx.needs_input_grad[:2]]
        work = _work(features, flow, mask, convention, wanted)
        with torch.autocast(flow.device.type, enabled=False):
            agreement = torch.stack([_direct(work, images, feature_weight) for images in _chunks(work)]).sum()
        by_features = None if work.by_features is None else work.by_features.view_as(features)
        by_flow = None if work.by_places is None else work.by_places.view_as(flow)
        if by_flow is not None:
            by_flow = source_gradient(by_flow, flow.shape[2:], convention).mul_(flow_weight)
        ctx.save_for_backward(None if by_features is None else by_features.to(features.dtype), by_flow)
        return (feature_weight + flow_weight) * (2 - agreement)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        found = [None if each is None else each * gradient.to(each.dtype) for each in ctx.saved_tensors]
        return *found, None, None, None, None, None


class _Work(NamedTuple):
    """What the blocks read and write; gradients are None where nobody asks."""

    space: Sequence[int]
    features: Tensor  # (m, w, p)
    places: Tensor  # (m, d, p): where a voxel's partner is read
    weights: Tensor  # (m, p): of a voxel in the mean of its direction
    by_features: Tensor | None  # (m, w, p): of the loss
    by_places: Tensor | None  # (m, d, p): of minus the agreement


def _work(
    features: Tensor, flow: Tensor, mask: Tensor, convention: Convention, wanted: Sequence[bool]
) -> _Work:
    space = features.shape[2:]
    totals = mask.view(2, -1).sum(1).clamp(min=1.0)  # a direction is one mean over its half of the images
    weights = (mask.view(2, -1) / totals[:, None]).view(mask.shape[0], -1)
    places = source(grid(space, flow.device) + flow, space, convention).flatten(2)
    flat = features.flatten(2)
    by_features = torch.zeros(flat.shape, dtype=flow.dtype, device=flat.device) if wanted[0] else None
    return _Work(space, flat, places, weights, by_features, torch.empty_like(places) if wanted[1] else None)


def _chunks(work: _Work) -> Iterator[slice]:
    """Images whose features are held channels last together; never of both directions."""
    m, p = work.weights.shape
    together = max(1, (CPU_CHUNK if work.places.device.type == "cpu" else DEVICE_CHUNK) // p)
    for begin in (0, m // 2):
        for start in range(begin, begin + m // 2, together):
            yield slice(start, min(start + together, begin + m // 2))


def _direct(work: _Work, images: slice, feature_weight: float) -> Tensor:
    """The weighted cosines of a chunk of images with their partners, summed; adds to the gradients."""
    m, width, p = work.features.shape
    half = m // 2
    partners = slice((images.start + half) % m, (images.start + half) % m + images.stop - images.start)
    count = images.stop - images.start
    rows = work.features[images].transpose(1, 2).to(work.places.dtype).reshape(count * p, width)
    by_rows = None if work.by_features is None else torch.zeros_like(rows)
    values = CPU_BLOCK if work.places.device.type == "cpu" else DEVICE_BLOCK
    step = max(values // (width * count), 1)
    first = (torch.arange(count, device=rows.device) * p)[:, None]
    agreements = []
    for start in range(0, p, step):
        at = slice(start, min(start + step, p))
        read = work.places[images, :, at].transpose(0, 1).flatten(1)
        around = corners(read, work.space, first.expand(-1, at.stop - start).reshape(-1))
        found = _agreement(
            rows,
            around,
            _as_rows(work.features[partners, :, at], rows.dtype),
            work.weights[images, at].reshape(-1, 1),
            work.by_places is not None,
        )
        agreements.append(found.total)
        if work.by_places is not None:
            moved = by_places(found.by_weights, around)
            work.by_places[images, :, at] = moved.view(-1, count, at.stop - start).transpose(0, 1)
        if work.by_features is not None and by_rows is not None:
            spread(by_rows, found.by_moved, around, feature_weight)
            own = found.by_fixed.view(count, at.stop - start, width).transpose(1, 2)
            work.by_features[partners, :, at].add_(own, alpha=feature_weight)
    if work.by_features is not None and by_rows is not None:
        work.by_features[images] += by_rows.view(count, p, width).transpose(1, 2)
    return torch.stack(agreements).sum()


def _as_rows(block: Tensor, dtype: torch.dtype) -> Tensor:
    """(images, w, voxels) as (images * voxels, w)."""
    return block.transpose(1, 2).to(dtype).reshape(-1, block.shape[1])


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
