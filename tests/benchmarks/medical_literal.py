"""GEMINI's losses of a pair of images, written formula by formula: what the library is measured against.

One warp for every warped thing, the mask by warping ones, box sums as a convolution with ones, normalised
features as tensors of their own, autograd for all. The official convention: coordinates scaled for corners,
sampled for voxel centres.

Letters: n pairs, c channels, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

WINDOW = 9


class Pair(NamedTuple):
    """Two images, their features and the flows between them."""

    a: Tensor  # (n, 1, *space) in [0, 1]
    b: Tensor
    features_a: Tensor  # (n, c, *space)
    features_b: Tensor
    flow_ab: Tensor  # (n, d, *space) voxels; carries a into the frame of b
    flow_ba: Tensor


def literal_warp(x: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """W(x, flow): 2 (loc / (S - 1) - 1/2), axes reversed, sampled for voxel centres with zeros outside."""
    space = x.shape[2:]
    axes = [torch.arange(size, dtype=flow.dtype) for size in space]
    loc = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None] + flow
    normalised = torch.stack([2 * (loc[:, i] / (space[i] - 1) - 0.5) for i in range(len(space))], -1)
    return functional.grid_sample(
        x, normalised.flip(-1), mode=mode, padding_mode="zeros", align_corners=False
    )


def literal_smoothness(flow: Tensor) -> Tensor:
    """(1 / d) sum_i mean((D_i flow)^2)."""
    axes = range(2, flow.ndim)
    return torch.stack([(flow.diff(dim=axis) ** 2).mean() for axis in axes]).mean()


def literal_ncc(fixed: Tensor, moved: Tensor, mask: Tensor) -> Tensor:
    """1 - sum(cc M) / (sum(M) + eps), cc = cross^2 / (I_v J_v + 1e-5) over windows of 9 voxels per axis."""
    dims = fixed.ndim - 2
    kernel = torch.ones(1, 1, *[WINDOW] * dims, dtype=fixed.dtype)
    convolve = functional.conv3d if dims == 3 else functional.conv2d
    taps = WINDOW**dims

    def box(x: Tensor) -> Tensor:
        return convolve(x, kernel, padding=WINDOW // 2)

    i_sum, j_sum = box(fixed), box(moved)
    cross = box(fixed * moved) - i_sum * j_sum / taps
    i_variance = box(fixed * fixed) - i_sum * i_sum / taps
    j_variance = box(moved * moved) - j_sum * j_sum / taps
    cc = cross * cross / (i_variance * j_variance + 1e-5)
    weight = (mask + 1e-6).sum() if dims == 3 else mask.sum() + 1e-5
    return 1 - (cc * mask).sum() / weight


def literal_gss(moved: Tensor, fixed: Tensor, mask: Tensor) -> Tensor:
    """1 - sum_p M(p) <x / |x|, y / |y|> / sum M."""
    x = functional.normalize(moved, dim=1, eps=1e-12)
    y = functional.normalize(fixed, dim=1, eps=1e-12)
    return 1 - ((x * y).sum(1, keepdim=True) * mask).sum() / mask.sum()


def literal_head(pair: Pair, ncc_type: torch.dtype = torch.float32) -> Tensor:
    """0.4 L_smo + 0.8 L_gss + 1.0 L_gvs of both directions.

    ``ncc_type`` float64 shows what the correlation would be without the cancellation of its variances.
    """
    smooth = literal_smoothness(pair.flow_ab) + literal_smoothness(pair.flow_ba)
    similarity, semantic = torch.zeros(()), torch.zeros(())
    directions = [
        (pair.a, pair.b, pair.features_a, pair.features_b, pair.flow_ab),
        (pair.b, pair.a, pair.features_b, pair.features_a, pair.flow_ba),
    ]
    for moving, fixed, moving_features, fixed_features, flow in directions:
        mask = literal_warp(torch.ones_like(moving), flow, "nearest").detach()
        warped = literal_warp(moving, flow)
        similarity = similarity + literal_ncc(warped.to(ncc_type), fixed.to(ncc_type), mask)
        semantic = semantic + 0.1 * literal_gss(
            literal_warp(moving_features, flow.detach()), fixed_features, mask
        )
        semantic = semantic + literal_gss(
            literal_warp(moving_features.detach(), flow), fixed_features.detach(), mask
        )
    return 0.4 * smooth + 0.8 * semantic + similarity


def random_pair(size: int, channels: int, dims: int = 3, seed: int = 0) -> Pair:
    """A pair of smooth random images, features and flows of about 1 voxel, with gradients asked for."""
    generator = torch.Generator().manual_seed(seed)
    space = [size] * dims

    def field(channels: int, scale: float) -> Tensor:
        coarse = torch.randn(1, channels, *[max(size // 4, 2)] * dims, generator=generator)
        mode = "trilinear" if dims == 3 else "bilinear"
        return scale * functional.interpolate(coarse, size=space, mode=mode, align_corners=True)

    def noise(channels: int, scale: float) -> Tensor:
        return scale * torch.randn(1, channels, *space, generator=generator)

    images = [(field(1, 1.0) + noise(1, 0.2)).sigmoid() for _ in range(2)]
    features = [(field(channels, 1.0) + noise(channels, 0.5)).requires_grad_() for _ in range(2)]
    flows = [(field(dims, 1.5) + noise(dims, 0.2)).requires_grad_() for _ in range(2)]
    return Pair(*images, *features, *flows)
