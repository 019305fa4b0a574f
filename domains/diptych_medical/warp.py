"""Reading an image at other places than its voxels: the one place of the medical domain that interpolates.

Coordinates and flows are in voxels; component i belongs to array axis i. A flow (n, d, *space) moves backward:
the warped image at voxel p is the image at p + flow(p), so that it lies in the frame the flow is defined on.

Letters: n images, c channels, d = 2 or 3 dimensions, ``*space`` their voxels (H, W) or (D, H, W).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

Convention = Literal["aligned", "official"]
"""Where a coordinate points: "aligned" to the voxel of that index; "official" to coordinate * S / (S - 1) - 1/2, as
the released GEMINI code does by scaling for corners and sampling for voxel centres, so that its zero flow magnifies
the image by S / (S - 1) about its centre."""
Mode = Literal["linear", "nearest"]
Padding = Literal["zeros", "border"]


def grid(space: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """The coordinates of all voxels, (d, *space) float32: component i counts along array axis i."""
    axes = [torch.arange(size, dtype=torch.float32, device=device) for size in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def sample_at(
    x: Tensor,
    coordinates: Tensor,
    *,
    mode: Mode = "linear",
    padding: Padding = "zeros",
    convention: Convention = "aligned",
) -> Tensor:
    """Read images at any places, (n, c, *out).

    Linear sampling is done in float32 (float64 for float64 images) whatever the autocast and returns that type;
    nearest sampling (halves round to even) copies values exactly and keeps the type, integers too.

    Args:
        x: images (n, c, *space); n or 1 of them.
        coordinates: places (n, d, *out) in voxels of x, component i along array axis i.
        mode: "linear" weighs the 2^d voxels around a place; "nearest" takes the closest, for label maps.
        padding: what lies outside, 0 ("zeros") or the closest voxel of the border.
        convention: "aligned", or "official" for weights and figures of the released GEMINI code.

    Raises:
        ValueError: shapes that do not fit, an unknown option, integers to be weighed, or an axis of one voxel
            in the official convention.
    """
    _check(x, coordinates, mode, padding, convention)
    exact = torch.promote_types(x.dtype, torch.float32) if x.is_floating_point() else torch.float32
    if x.shape[0] != coordinates.shape[0]:
        x = x.expand(coordinates.shape[0], *x.shape[1:])
    if mode == "nearest":
        return _nearest(x, source(coordinates.to(exact), x.shape[2:], convention), padding)
    normalised = torch.stack(_normalised(coordinates.to(exact), x.shape[2:], convention)[::-1], -1)
    out, dims = coordinates.shape[2:], x.ndim - 2
    if len(out) != dims:  # a list of places, or a grid of other dimensions than the image
        normalised = normalised.reshape(len(normalised), -1, *[1] * (dims - 1), dims)
    with torch.autocast(x.device.type, enabled=False):
        found = functional.grid_sample(
            x.to(exact), normalised, mode="bilinear", padding_mode=padding, align_corners=False
        )
    return found if len(out) == dims else found.reshape(*found.shape[:2], *out)


def warp(x: Tensor, flow: Tensor, **same: Any) -> Tensor:
    """Read images (n, c, *space) at every voxel plus its flow (n, d, *space): (n, c, *space).

    Takes the options of :func:`sample_at`; with ``mode="nearest"`` for label maps.
    """
    return sample_at(x, grid(flow.shape[2:], flow.device) + flow, **same)


def inside(flow: Tensor, *, convention: Convention = "aligned") -> Tensor:
    """Where a warp reads within the image: (n, 1, *space), float32 1 or 0, without gradient.

    A voxel counts where the one nearest to its place exists (halves round to even): what warping an image of
    ones with ``mode="nearest"`` gives, without sampling.
    """
    places = grid(flow.shape[2:], flow.device) + flow.detach().float()
    rounded = source(places, flow.shape[2:], convention).round()
    exists = [
        (at >= 0) & (at <= size - 1) for at, size in zip(rounded.unbind(1), flow.shape[2:], strict=True)
    ]
    return torch.stack(exists, 1).all(1, keepdim=True).float()


def source(coordinates: Tensor, space: Sequence[int], convention: Convention) -> Tensor:
    """The voxel coordinates (n, d, *out) that a convention really reads.

    Raises:
        ValueError: an axis of one voxel in the official convention, which divides by its size minus 1.
    """
    if convention == "aligned":
        return coordinates
    normalised = _normalised(coordinates, space, convention)
    return torch.stack([((at + 1) * size - 1) / 2 for at, size in zip(normalised, space, strict=True)], 1)


def _normalised(coordinates: Tensor, space: Sequence[int], convention: Convention) -> list[Tensor]:
    """Per axis what ``grid_sample`` takes for voxel centres: -1 and 1 are the outer faces of the border voxels.

    In the official convention every rounding is that of the released code: a place that rounds across a voxel
    has another slope. Sizes stay numbers of the host, so that a GPU needs none of them copied and waited for.
    """
    axes = list(zip(coordinates.unbind(1), space, strict=True))
    if convention == "aligned":
        return [(2 * at + 1) / size - 1 for at, size in axes]
    if min(space) < 2:
        raise ValueError(
            f"the official convention needs at least 2 voxels along every axis, got {tuple(space)}; "
            "use convention aligned"
        )
    return [2 * (at / (size - 1) - 0.5) for at, size in axes]


def source_gradient(gradient: Tensor, space: Sequence[int], convention: Convention) -> Tensor:
    """The gradient (n, d, *out) of coordinates from that of what :func:`source` made of them."""
    if convention == "aligned":
        return gradient
    scaled = [by * (size / (size - 1)) for by, size in zip(gradient.unbind(1), space, strict=True)]
    return torch.stack(scaled, 1)


class _ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, whose gradient is multiplied by ``factor`` on the way back."""
    scaled: Tensor = _ScaledGradient.apply(x, factor)  # type: ignore[no-untyped-call]
    return scaled


def _nearest(x: Tensor, places: Tensor, padding: Padding) -> Tensor:
    space = x.shape[2:]
    index = torch.zeros_like(places[:, 0], dtype=torch.int64)
    exists = torch.ones_like(index, dtype=torch.bool)
    for axis, size in enumerate(space):
        rounded = places[:, axis].round()
        exists = exists & (rounded >= 0) & (rounded <= size - 1)
        index = index * size + rounded.clamp(0, size - 1).nan_to_num().to(torch.int64)
    flat = index.flatten(1)[:, None].expand(-1, x.shape[1], -1)
    found = x.flatten(2).gather(2, flat).view(*x.shape[:2], *places.shape[2:])
    return found if padding == "border" else found * exists[:, None].to(x.dtype)


def _check(x: Tensor, coordinates: Tensor, mode: str, padding: str, convention: str) -> None:
    dims = x.ndim - 2
    if dims not in (2, 3) or coordinates.ndim < 3 or coordinates.shape[1] != dims:
        raise ValueError(
            "expected images (n, c, *space) of 2 or 3 dimensions and coordinates (n, d, *out), "
            f"got {tuple(x.shape)} and {tuple(coordinates.shape)}"
        )
    if x.shape[0] not in (1, coordinates.shape[0]):
        raise ValueError(f"got {x.shape[0]} images and coordinates for {coordinates.shape[0]}")
    if (
        mode not in ("linear", "nearest")
        or padding not in ("zeros", "border")
        or convention not in ("aligned", "official")
    ):
        raise ValueError(
            "expected mode linear or nearest, padding zeros or border, convention aligned or official; "
            f"got {mode!r}, {padding!r}, {convention!r}"
        )
    if mode == "linear" and not x.is_floating_point():
        raise ValueError(
            f"only nearest sampling keeps integers, got {x.dtype} to be weighed; use mode nearest"
        )
