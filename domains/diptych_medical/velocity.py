"""Flows that can be undone: stationary velocity fields, their inverses, and flows one after the other.

Letters: n images, d = 2 or 3 dimensions, ``*space`` their voxels; velocities and flows are (n, d, *space) in voxels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diptych_medical.warp import grid, sample_at


def integrate(velocity: Tensor, steps: int = 7) -> Tensor:
    """The flow after one unit of time along a velocity that does not change, by scaling and squaring.

    The velocity over 2^steps is a small displacement; composed with itself ``steps`` times it is the whole
    (Arsigny et al. 2006; Dalca et al. 2018, section 2.1). Small displacements do not fold and composing keeps
    that, up to interpolation: measure it with :func:`diptych_medical.jacobian.folding`. Beyond the border the
    velocity of the border goes on. Float32 (float64 stays) whatever the autocast.

    Args:
        velocity: (n, d, *space) in voxels per unit of time.
        steps: squarings; 0 takes the velocity as a plain displacement.

    Raises:
        ValueError: fewer than 0 steps.
    """
    if steps < 0:
        raise ValueError(f"integration needs 0 or more squarings, got {steps}")
    flow = velocity.to(torch.promote_types(velocity.dtype, torch.float32)) * 0.5**steps
    for _ in range(steps):
        flow = compose(flow, flow)
    return flow


def inverse(velocity: Tensor, steps: int = 7) -> Tensor:
    """The flow (n, d, *space) that undoes ``integrate(velocity, steps)``: time runs backward."""
    return integrate(-velocity, steps)


def compose(first: Tensor, second: Tensor) -> Tensor:
    """One flow for two: ``warp(x, compose(first, second))`` is ``warp(warp(x, first), second)`` up to interpolation.

    Flows are read between voxels and beyond the border as they are there: ``second(p) + first(p + second(p))``.
    Both are displacements in aligned coordinates; a flow for the official convention is none.
    """
    where = grid(second.shape[2:], second.device) + second
    return second + sample_at(first, where, padding="border")
