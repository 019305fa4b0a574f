"""Affine alignment: a head that predicts it, the flow it makes, and the classical registration as a baseline.

A matrix (n, d, d + 1) says where each voxel is read, ``input = matrix[:, :, :d] @ output + matrix[:, :, d]``, in
voxels, component i along array axis i, as in :mod:`diptych_medical.spatial`. It is built from a few parameters about
the centre of the image. Angles and shears are those of voxels: equal spacings are assumed.

Letters: n images, d = 2 or 3 dimensions, ``*space`` their voxels, k = 6 or 12 parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from diptych_medical.warp import grid, inside, warp

# The planes an image is turned in, by the axes that move.
_PLANES = {2: ((0, 1),), 3: ((1, 2), (2, 0), (0, 1))}
_START = 1e-5  # as small as VoxelMorph's first flows: near the identity, but no gradient is 0
_FLAT = 1e-12  # of the product of two variances: an even image correlates with nothing
_SHORTEST = 8  # voxels an axis keeps when images are shrunk


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far an affine map may go from the identity; those of GVSL (He et al. 2023, CVPR) but for the shift.

    Args:
        rotation: largest angle in each plane, degrees.
        scale: largest change of size along each axis, as a share.
        shear: largest angle of shearing between two axes, degrees.
        shift: largest translation along each axis, as a share of the image's size.
    """

    rotation: float = 20.0
    scale: float = 0.25
    shear: float = 10.0
    shift: float = 0.25


def parameter_count(dims: int) -> int:
    """Parameters of an affine map in 2 (6) or 3 (12) dimensions: rotations, scales, shears, shifts."""
    return 6 if dims == 2 else 12


def affine_matrix(parameters: Tensor, space: Sequence[int], limits: Limits | None = None) -> Tensor:
    """Matrices (n, d, d + 1) from parameters (n, k); all 0 is the identity, +-infinity the limits.

    The order is shear after scale after rotation, about the centre of the image, then the shift. Made by stacking,
    so that gradient reaches every parameter.

    Raises:
        ValueError: another number of parameters than the dimensions have.
    """
    limits, dims = limits or Limits(), len(space)
    if dims not in _PLANES or parameters.ndim != 2 or parameters.shape[1] != parameter_count(dims):
        raise ValueError(
            f"expected parameters (n, 6) for 2 or (n, 12) for 3 dimensions, got {tuple(parameters.shape)} for {dims}"
        )
    planes = _PLANES[dims]
    bounded = parameters.to(torch.promote_types(parameters.dtype, torch.float32)).tanh()
    turns, scales, shears, shifts = torch.split(bounded, [len(planes), dims, len(planes), dims], 1)
    with torch.autocast(parameters.device.type, enabled=False):
        linear = _rotations(turns * math.radians(limits.rotation), planes, dims)
        linear = (1 + limits.scale * scales)[:, :, None] * linear
        linear = _shears((shears * math.radians(limits.shear)).tan(), planes, dims) @ linear
        centre = torch.stack([shifts.new_full((), (size - 1) / 2) for size in space])
        moved = torch.stack(
            [part * (limits.shift * size) for part, size in zip(shifts.unbind(1), space, strict=True)], 1
        )
        offset = centre + moved - linear @ centre
    return torch.cat([linear, offset[:, :, None]], 2)


def affine_flow(matrix: Tensor, space: Sequence[int]) -> Tensor:
    """The flow (n, d, *space) in voxels of matrices (n, d, d + 1); float32 (float64 stays)."""
    matrix = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    voxels = grid(space, matrix.device).to(matrix.dtype)
    with torch.autocast(matrix.device.type, enabled=False):
        read = matrix[:, :, :-1] @ voxels.flatten(1) + matrix[:, :, -1:]
    return read.reshape(len(read), *voxels.shape) - voxels


class AffineHead(nn.Module):
    """Predicts from two deep feature maps how the first is carried onto the second.

    As in GVSL (He et al. 2023, CVPR): both maps side by side, two convolutions, their average, a linear layer;
    here bounded by tanh, of which every parameter keeps a gradient, and near the identity at the start.

    Args:
        width: channels of each of the two maps.
        dims: 2 for images, 3 for volumes.
        hidden: channels of the convolutions, a multiple of 8.
        limits: how far from the identity the map may go; None for those of GVSL.

    Raises:
        ValueError: hidden is not a multiple of 8, or not 2 or 3 dimensions.
    """

    def __init__(
        self, width: int, dims: Literal[2, 3], *, hidden: int = 256, limits: Limits | None = None
    ) -> None:
        super().__init__()
        if hidden < 8 or hidden % 8 or dims not in _PLANES:
            raise ValueError(
                f"expected 2 or 3 dimensions and hidden a multiple of 8, got {dims} and {hidden}"
            )
        self.limits = limits or Limits()
        convolution = nn.Conv3d if dims == 3 else nn.Conv2d
        layers: list[nn.Module] = []
        for inputs in (2 * width, hidden):
            layers += [convolution(inputs, hidden, 3, padding=1), nn.GroupNorm(hidden // 8, hidden)]
            layers.append(nn.LeakyReLU(0.2))
        self.features = nn.Sequential(*layers)
        self.parameters_of = nn.Linear(hidden, parameter_count(dims))
        nn.init.normal_(self.parameters_of.weight, std=_START)
        nn.init.zeros_(self.parameters_of.bias)

    def forward(self, moving: Tensor, fixed: Tensor) -> Tensor:
        """Parameters (n, k) from maps (n, width, *coarse) for :func:`affine_matrix`."""
        found: Tensor = self.features(torch.cat([moving, fixed], 1))
        parameters: Tensor = self.parameters_of(found.flatten(2).mean(2))
        return parameters

    def flow(self, moving: Tensor, fixed: Tensor, space: Sequence[int]) -> Tensor:
        """The affine flow (n, d, *space) that carries moving onto fixed in images of a shape."""
        return affine_flow(affine_matrix(self(moving, fixed), space, self.limits), space)


def register_affine(
    fixed: Tensor,
    moving: Tensor,
    *,
    steps: int = 100,
    rate: float = 0.05,
    measure: Literal["ncc", "mse"] = "ncc",
    factors: Sequence[int] = (4, 2),
    limits: Limits | None = None,
) -> Tensor:
    """Classical affine registration of n pairs by gradient descent: matrices (n, d, d + 1).

    Each pair is registered on its own, coarse to fine, all at once. The answer is the best of all steps at the last
    factor by the measure, the identity among them, so never worse than not moving. Gradient modes outside
    do not matter.

    Args:
        fixed: images (n, c, *space) to be matched.
        moving: images to be carried onto them.
        steps: of Adam (Kingma and Ba 2015) at each factor.
        rate: of Adam; parameters are shares of the limits, so that one rate serves all.
        measure: "ncc", 1 minus the correlation of the whole images; "mse", mean squared difference. Both
            only where the moved image has voxels.
        factors: what images are shrunk by, one after the other; an axis keeps at least 8 voxels if it has them.
        limits: how far a map may go; None for those of :class:`Limits`.

    Raises:
        ValueError: shapes that differ, no steps or no factors.
    """
    if fixed.shape != moving.shape or fixed.ndim not in (4, 5):
        raise ValueError(
            f"expected two images (n, c, *space), got {tuple(fixed.shape)} and {tuple(moving.shape)}"
        )
    if steps < 1 or not factors:
        raise ValueError(f"registration needs steps and factors, got {steps} and {list(factors)}")
    space, device = fixed.shape[2:], fixed.device
    with torch.inference_mode(False), torch.enable_grad():
        # Copies made here may be differentiated even where the originals come from inference.
        fixed, moving = fixed.detach().float().clone(), moving.detach().float().clone()
        best = torch.zeros(fixed.shape[0], parameter_count(len(space)), device=device)
        for factor in factors:
            pair = _shrunk(fixed, factor), _shrunk(moving, factor)
            identity = _dissimilarity(torch.zeros_like(best), *pair, measure, limits)
            found, lowest = _descend(best, *pair, steps, rate, measure, limits)
            best = torch.where((lowest < identity)[:, None], found, 0.0)
        return affine_matrix(best, space, limits)


def _descend(
    start: Tensor, fixed: Tensor, moving: Tensor, steps: int, rate: float, measure: str, limits: Limits | None
) -> tuple[Tensor, Tensor]:
    """The best parameters (n, k) of all steps from a start, and how dissimilar (n,) they leave each pair."""
    parameters = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([parameters], lr=rate)
    best, lowest = start, torch.full_like(start[:, 0], torch.inf)
    for step in range(steps + 1):
        losses = _dissimilarity(parameters, fixed, moving, measure, limits)
        better = losses.detach() < lowest
        lowest = torch.where(better, losses.detach(), lowest)
        best = torch.where(better[:, None], parameters.detach(), best)
        if step < steps:
            (parameters.grad,) = torch.autograd.grad(losses.sum(), parameters)
            optimizer.step()
    return best, lowest


def _dissimilarity(
    parameters: Tensor, fixed: Tensor, moving: Tensor, measure: str, limits: Limits | None
) -> Tensor:
    """Of each pair (n,), over the voxels that the moved image has."""
    flow = affine_flow(affine_matrix(parameters, fixed.shape[2:], limits), fixed.shape[2:])
    weight = inside(flow).expand_as(fixed).flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1.0)
    one, two = fixed.flatten(1), warp(moving, flow).flatten(1)
    if measure == "mse":
        return ((one - two).square() * weight).sum(1)
    one = one - (one * weight).sum(1, keepdim=True)
    two = two - (two * weight).sum(1, keepdim=True)
    spread = (one.square() * weight).sum(1) * (two.square() * weight).sum(1)
    return 1 - (one * two * weight).sum(1) * (spread + _FLAT).rsqrt()


def _shrunk(x: Tensor, factor: int) -> Tensor:
    """Averaged over blocks about ``factor`` voxels wide, evenly about the centre."""
    size = [max(axis // factor, min(axis, _SHORTEST)) for axis in x.shape[2:]]
    return functional.interpolate(x, size=size, mode="area")


def _rotations(angles: Tensor, planes: Sequence[tuple[int, int]], dims: int) -> Tensor:
    """(n, d, d): turned in the first plane, then in the next."""
    total = torch.eye(dims, dtype=angles.dtype, device=angles.device).expand(len(angles), dims, dims)
    for angle, (a, b) in zip(angles.unbind(1), planes, strict=True):
        cosine, sine = angle.cos(), angle.sin()
        entries = {(a, a): cosine, (b, b): cosine, (a, b): -sine, (b, a): sine}
        total = _matrix(entries, angle, dims) @ total
    return total


def _shears(slopes: Tensor, planes: Sequence[tuple[int, int]], dims: int) -> Tensor:
    """(n, d, d): one slope for each plane, above the diagonal."""
    upper = [(min(plane), max(plane)) for plane in planes]
    return _matrix(dict(zip(upper, slopes.unbind(1), strict=True)), slopes[:, 0], dims)


def _matrix(entries: Mapping[tuple[int, int], Tensor], like: Tensor, dims: int) -> Tensor:
    """(n, d, d) with entries (n,), elsewhere the identity."""
    ones, zeros = torch.ones_like(like), torch.zeros_like(like)
    rows = [[entries.get((i, j), ones if i == j else zeros) for j in range(dims)] for i in range(dims)]
    return torch.stack([torch.stack(row, 1) for row in rows], 1)
