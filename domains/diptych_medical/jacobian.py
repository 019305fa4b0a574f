"""Does a flow fold, and does its partner undo it? Jacobian determinants of p + flow(p), figures and penalties.

A positive determinant everywhere means that the map is locally one to one and keeps orientation; at 0 or below, space
is torn or turned inside out. Central differences average over two voxels and miss folds that alternate from
voxel to voxel; the 2^d corner determinants, of forward or backward differences per axis, miss none of the grid's
(Liu et al. 2022, "On finite difference Jacobian computation in deformable image registration").

Letters: n images, d = 2 or 3 dimensions, ``*space`` their voxels; flows are (n, d, *space) in voxels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from diptych_medical.velocity import compose
from diptych_medical.warp import inside

# Determinants are clipped to this before the logarithm (Learn2Reg, Hering et al. 2022).
LOWEST_LOGGED = 1e-9


class Folding(NamedTuple):
    """What the determinants of each image say, (n,) each; NaN where no voxel counts."""

    central: Tensor  # share 0..1 of voxels whose central determinant is at most 0
    corner: Tensor  # share 0..1 of voxels with any corner determinant at most 0
    lowest: Tensor  # the lowest of all these determinants
    sd_log: Tensor  # standard deviation of the logarithm of central determinants, clipped to 1e-9 from below


def determinants_central(flow: Tensor) -> Tensor:
    """Determinants (n, *space) by central differences, one-sided at the border (as ``numpy.gradient``).

    Raises:
        ValueError: an axis of one voxel, or not 2 or 3 dimensions.
    """
    flow = _checked(flow)
    axes = tuple(range(2, flow.ndim))
    return _determinant([list(each.unbind(1)) for each in torch.gradient(flow, dim=axes)])


def determinants_corner(flow: Tensor) -> Tensor:
    """All 2^d determinants of every voxel, (n, 2^d, *space), by forward or backward differences per axis.

    Corner 0 is forward along all axes, the last axis changes fastest. At the border, where one of the two does not
    exist, the other stands for it.
    """
    return torch.stack(list(_corners(_checked(flow))), 1)


def folding(flow: Tensor, mask: Tensor | None = None) -> Folding:
    """How much each of n flows folds, over the interior (without the outermost voxels) and inside a mask.

    Args:
        flow: (n, d, *space) voxels.
        mask: (n, 1, *space), 1 or true where voxels count, such as the body; None counts the whole interior.
    """
    with torch.no_grad():
        central, corner = determinants_central(flow), None
        for each in _corners(_checked(flow)):
            corner = each if corner is None else torch.minimum(corner, each)
        assert corner is not None
        counts = torch.zeros_like(central)
        counts[(slice(None), *[slice(1, -1)] * (flow.ndim - 2))] = 1
        weight = (counts if mask is None else counts * (mask[:, 0] != 0)).flatten(1)
        total = weight.sum(1)
        central, corner = central.flatten(1), corner.flatten(1)

        def mean(x: Tensor) -> Tensor:
            return (x * weight).sum(1) / total

        # Logarithms are taken of counted voxels only: elsewhere they could be infinite, and 0 times that is NaN.
        logs = torch.where(weight > 0, central, 1.0).clamp(min=LOWEST_LOGGED).log()
        deviation = (logs - mean(logs)[:, None]).square()
        lowest = torch.where(weight > 0, torch.minimum(central, corner), torch.inf).amin(1)
        return Folding(
            mean((central <= 0).to(weight.dtype)),
            mean((corner <= 0).to(weight.dtype)),
            torch.where(total > 0, lowest, torch.nan),
            mean(deviation).sqrt(),
        )


def folding_penalty(flow: Tensor) -> Tensor:
    """Mean over voxels and their corners of relu(-det): 0 for a flow that folds nowhere.

    Pushes corners that are turned inside out back to 0 volume; gradients are found on the way forward, one corner
    at a time, so that only one map is kept. It can be differentiated once.
    """
    penalty: Tensor = _Penalty.apply(_checked(flow), torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return penalty


def round_trip(flow_ab: Tensor, flow_ba: Tensor, mask: Tensor | None = None) -> Tensor:
    """How far a voxel ends from where it began after both flows: mean distance per image, (n,) voxels.

    Args:
        flow_ab: (n, d, *space) carries a into the frame of b.
        flow_ba: carries b into the frame of a.
        mask: (n, 1, *space) in the frame of b, 1 where voxels count; None counts all whose way stays inside the
            image. NaN for an image of which none counts.
    """
    with torch.no_grad():
        weight = inside(flow_ab) if mask is None else inside(flow_ab) * mask
        distance = compose(flow_ba, flow_ab).square().sum(1, keepdim=True).sqrt()
        return (distance * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)


def inverse_consistency(flow_ab: Tensor, flow_ba: Tensor) -> Tensor:
    """Mean squared distance, in voxels, of where voxels end after both flows, averaged over both orders.

    The loss of Christensen and Johnson (2001, equation 2) in symmetric form; only voxels whose way stays inside
    the image count, 0 where none does. Gradient flows to both flows.
    """
    losses = []
    for first, second in ((flow_ba, flow_ab), (flow_ab, flow_ba)):
        weight = inside(second)
        squared = compose(first, second).square().sum(1, keepdim=True)
        losses.append((squared * weight).sum() / weight.sum().clamp(min=1.0))
    return torch.stack(losses).mean()


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flow: Tensor, graded: bool) -> Tensor:
        wanted = graded and ctx.needs_input_grad[0]
        leaf = flow.detach().requires_grad_(wanted)
        by_flow = torch.zeros_like(flow) if wanted else None
        corners, values = 2 ** (flow.ndim - 2), []
        for forward in product((True, False), repeat=flow.ndim - 2):
            with torch.set_grad_enabled(wanted):
                value = _corner(leaf, forward).neg().relu().mean() / corners
            values.append(value.detach())
            if by_flow is not None:
                by_flow += torch.autograd.grad(value, leaf)[0]
        ctx.save_for_backward(by_flow)
        return torch.stack(values).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None]:
        (by_flow,) = ctx.saved_tensors
        return None if by_flow is None else by_flow * gradient, None


def _corners(flow: Tensor) -> Iterator[Tensor]:
    for forward in product((True, False), repeat=flow.ndim - 2):
        yield _corner(flow, forward)


def _corner(flow: Tensor, forward: tuple[bool, ...]) -> Tensor:
    """Determinants (n, *space) of forward or backward differences along each axis."""
    columns = []
    for axis, ahead in enumerate(forward, start=2):
        steps = flow.diff(dim=axis)
        edge = steps.narrow(axis, -1 if ahead else 0, 1)
        columns.append(torch.cat([steps, edge] if ahead else [edge, steps], axis))
    return _determinant([list(each.unbind(1)) for each in columns])


def _determinant(slopes: list[list[Tensor]]) -> Tensor:
    """det(identity + slopes), slopes[j][i] being the change of component i along axis j."""
    j = [
        [slope + 1 if i == axis else slope for i, slope in enumerate(row)] for axis, row in enumerate(slopes)
    ]
    if len(j) == 2:
        return j[0][0] * j[1][1] - j[0][1] * j[1][0]
    minors = [j[1][(i + 1) % 3] * j[2][(i + 2) % 3] - j[1][(i + 2) % 3] * j[2][(i + 1) % 3] for i in range(3)]
    return j[0][0] * minors[0] + j[0][1] * minors[1] + j[0][2] * minors[2]


def _checked(flow: Tensor) -> Tensor:
    """The flow in float32 or better."""
    if flow.ndim not in (4, 5) or flow.shape[1] != flow.ndim - 2 or min(flow.shape[2:]) < 2:
        raise ValueError(
            "expected a flow (n, d, *space) of 2 or 3 dimensions with at least 2 voxels along each, "
            f"got {tuple(flow.shape)}"
        )
    return flow.to(torch.promote_types(flow.dtype, torch.float32))
