"""Losses of a registered pair: smooth flows, alike images (local NCC), alike features (geometric similarity).

GEMINI's (He et al. 2025, IEEE T-PAMI, doi 10.1109/TPAMI.2025.3540644) as its released code computes them. All are
computed in float32 (float64 stays) whatever the autocast, and can be differentiated once.

Letters: n images, c channels, w width of features, d = 2 or 3 dimensions, ``*space`` their voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diptych_medical.local_ncc import LocalNCC

# Shorter than this, a feature has no direction: its cosine is 0 and so is its gradient.
SHORTEST = 1e-12


def smoothness(flow: Tensor) -> Tensor:
    """Mean over axes of the mean squared forward difference of a flow (n, d, *space), in squared voxels.

    The diffusion term of VoxelMorph (Balakrishnan et al. 2019, equation 7) in GEMINI's scaling; an axis of one
    voxel counts 0.
    """
    flow = _full(flow)
    axes = [axis for axis in range(2, flow.ndim) if flow.shape[axis] > 1]
    squares = [flow.diff(dim=axis).square().mean() for axis in axes]
    return torch.stack(squares).sum() / (flow.ndim - 2) if squares else flow.sum() * 0


def local_ncc(
    fixed: Tensor,
    moved: Tensor,
    mask: Tensor | None = None,
    *,
    window: int = 9,
    guard: float = 1e-5,
) -> Tensor:
    """1 minus the mean squared local correlation of two images (n, c, *space) over the voxels of a mask.

    Around every voxel a window of ``window`` voxels per axis is correlated, zeros where it leaves the image
    (VoxelMorph, Balakrishnan et al. 2019, equation 3); channels are further samples of a window. Variances are
    merged pairwise, never subtracted, so that they are not negative and keep their digits on any level.

    Args:
        fixed: what is matched.
        moved: the warped image; gradient flows to both.
        mask: (n, 1, *space), 1 where the warp read within the image, without gradient; None counts all voxels.
        window: side of the window in voxels, odd.
        guard: added to the product of the two summed squared deviations of a window, so that flat windows
            count 0; noise of an empty background needs it.

    Raises:
        ValueError: shapes that differ, or an even window.
    """
    if fixed.shape != moved.shape or fixed.ndim not in (4, 5):
        raise ValueError(
            f"expected two images (n, c, *space), got {tuple(fixed.shape)} and {tuple(moved.shape)}"
        )
    if window < 1 or window % 2 == 0:
        raise ValueError(f"the window must be odd and at least 1, got {window}")
    fixed, moved = _full(fixed), _full(moved)
    weight = torch.ones_like(fixed[:, :1]) if mask is None else _full(mask).detach()
    loss: Tensor = LocalNCC.apply(fixed, moved, weight, window, guard, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return loss


def geometric_similarity(moved: Tensor, fixed: Tensor, mask: Tensor) -> Tensor:
    """1 minus the mean cosine of two feature maps (n, w, *space) over the voxels of a mask (n, 1, *space).

    1 where the mask is empty. For the loss of a whole pair :func:`diptych_medical.correspondence
    .warped_similarity` gives the same without ever holding a warped map.
    """
    moved, fixed, mask = _full(moved), _full(fixed), _full(mask)
    product = (moved * fixed).sum(1, keepdim=True)
    cosine = product * inverse_length(moved) * inverse_length(fixed)
    return 1 - (cosine * mask).sum() / mask.sum().clamp(min=1.0)


def inverse_length(x: Tensor, dim: int = 1) -> Tensor:
    """1 / |x| along a dimension, which is kept; 0, without gradient, where x has no direction."""
    squared = x.square().sum(dim, keepdim=True)
    directed = squared > SHORTEST**2
    return torch.where(directed, torch.where(directed, squared, 1.0).rsqrt(), 0.0)


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
