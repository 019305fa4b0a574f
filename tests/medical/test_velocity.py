"""Velocity fields: closed solutions, inverses, and far less folding than the same field taken as displacement."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diptych_medical.jacobian import folding, inverse_consistency, round_trip
from diptych_medical.velocity import compose, integrate, inverse
from diptych_medical.warp import grid, warp


def smooth_field(dims: int, size: int, rms: float, seed: int, images: int = 1) -> Tensor:
    """Random values every fourth voxel, linear between."""
    coarse = torch.randn(images, dims, *[size // 4] * dims, generator=torch.Generator().manual_seed(seed))
    mode = "bilinear" if dims == 2 else "trilinear"
    return rms * functional.interpolate(coarse, size=[size] * dims, mode=mode, align_corners=True)


def interior(x: Tensor, margin: int) -> Tensor:
    return x[(..., *[slice(margin, -margin)] * (x.ndim - 2))]


@pytest.mark.parametrize("dims", [2, 3])
def test_a_constant_velocity_shifts_and_0_stays(dims: int) -> None:
    velocity = torch.full((1, dims, *[6] * dims), 1.25)
    torch.testing.assert_close(integrate(velocity), velocity)
    assert not integrate(torch.zeros_like(velocity)).any()


def test_0_squarings_take_the_velocity_as_displacement() -> None:
    velocity = smooth_field(2, 12, 1.0, 0)
    assert torch.equal(integrate(velocity, 0), velocity)


def test_a_turning_velocity_turns() -> None:
    """v = angle * (y, -x) about the centre flows to the rotation by that angle."""
    size, angle = 41, 0.6
    from_centre = grid((size, size)) - (size - 1) / 2
    velocity = angle * torch.stack([-from_centre[1], from_centre[0]])[None]
    cosine, sine = math.cos(angle), math.sin(angle)
    turned = torch.stack(
        [
            cosine * from_centre[0] - sine * from_centre[1],
            sine * from_centre[0] + cosine * from_centre[1],
        ]
    )
    expected = (turned - from_centre)[None]
    errors = [(interior(integrate(velocity, steps) - expected, 12)).abs().max() for steps in (3, 5, 7)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


def test_compose_warps_by_the_first_and_then_by_the_second() -> None:
    x = grid((24, 20)).sum(0)[None, None]  # linear, so that interpolation is exact
    first, second = smooth_field(2, 24, 0.7, 0)[..., :20], smooth_field(2, 24, 0.7, 1)[..., :20]
    once = warp(x, compose(first, second))
    twice = warp(warp(x, first), second)
    torch.testing.assert_close(interior(once, 4), interior(twice, 4), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("dims", "size"), [(2, 48), (3, 20)])
def test_the_inverse_undoes_the_flow(dims: int, size: int) -> None:
    """To 0.1 voxel on average at 1.5 voxels rms, where the displacements alone miss by over 0.5."""
    velocity = smooth_field(dims, size, 1.5, 0, images=4)
    flow, back = integrate(velocity), inverse(velocity)
    for one, two in ((flow, back), (back, flow)):
        assert interior(compose(one, two), 4).square().sum(1).sqrt().mean() < 0.1
    assert interior(compose(velocity, -velocity), 4).square().sum(1).sqrt().mean() > 0.5
    gentle = integrate(0.2 * velocity), inverse(0.2 * velocity)
    assert interior(compose(*gentle), 4).square().sum(1).sqrt().mean() < 0.01


@pytest.mark.parametrize(
    ("dims", "size", "rms", "plain", "integrated"),
    [
        (2, 64, 2.0, 0.05, 0.0001),
        (2, 64, 4.0, 0.2, 0.005),
        (3, 24, 2.5, 0.05, 0.001),
        (3, 24, 6.0, 0.3, 0.05),
    ],
)
def test_integrated_velocities_fold_far_less(
    dims: int, size: int, rms: float, plain: float, integrated: float
) -> None:
    velocity = smooth_field(dims, size, rms, 3, images=4)
    assert folding(velocity).central.mean() > plain
    assert folding(integrate(velocity)).central.mean() < integrated
    assert folding(integrate(velocity)).corner.mean() < 0.5 * folding(velocity).corner.mean()


def test_gradient_of_the_integral() -> None:
    velocity = 0.5 * torch.randn(1, 2, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: integrate(v, 3), velocity.requires_grad_())


def test_round_trip_is_the_distance_after_both_flows() -> None:
    there = torch.zeros(2, 2, 9, 9)
    there[:, 0] = 1.0
    back = -there.clone()
    back[1, 1] = 0.75
    torch.testing.assert_close(round_trip(there, back), torch.tensor([0.0, 0.75]))
    assert round_trip(there, back, torch.zeros(2, 1, 9, 9)).isnan().all()


def test_inverse_consistency_is_the_mean_squared_round_trip_with_gradient_to_both() -> None:
    there = torch.zeros(1, 2, 9, 9)
    there[:, 0] = 1.0
    back = -0.5 * there
    there.requires_grad_()
    back.requires_grad_()
    loss = inverse_consistency(there, back)
    gradients = torch.autograd.grad(loss, (there, back))
    torch.testing.assert_close(loss.detach(), torch.tensor(0.25))
    assert all(each.abs().max() > 0 for each in gradients)
    assert inverse_consistency(there.detach() + 100, back.detach() + 100) == 0  # nothing stays inside


def test_half_precision_velocities_are_integrated_in_float32() -> None:
    velocity = smooth_field(2, 12, 1.0, 0).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = integrate(velocity)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, integrate(velocity.float()))


def test_fewer_than_0_steps_are_told() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        integrate(torch.zeros(1, 2, 4, 4), -1)
