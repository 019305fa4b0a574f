"""Affine maps: closed forms, gradient to every parameter, and registration that finds a known map."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from torch import Tensor

from diptych_medical.affine import (
    AffineHead,
    Limits,
    affine_flow,
    affine_matrix,
    parameter_count,
    register_affine,
)
from diptych_medical.similarity import local_ncc
from diptych_medical.warp import grid, warp

FREE = Limits(rotation=180.0, scale=1.0, shear=80.0, shift=1.0)


def parameters(dims: int, at: int, value: float) -> Tensor:
    """All 0 but one, so that its bounded value is ``value``."""
    found = torch.zeros(1, parameter_count(dims), dtype=torch.float64)
    found[0, at] = math.atanh(value)
    return found


def blobs(images: int, space: tuple[int, ...], seed: int = 0) -> Tensor:
    """Smooth images (n, 1, *space) of 8 blobs each."""
    generator = torch.Generator().manual_seed(seed)
    voxels, sizes = grid(space), torch.tensor(space, dtype=torch.float32)
    found = torch.zeros(images, 1, *space)
    for image in range(images):
        for _ in range(8):
            centre = sizes * (0.25 + 0.5 * torch.rand(len(space), generator=generator))
            away = voxels - centre.view(-1, *[1] * len(space))
            radius = 2 + 2 * float(torch.rand((), generator=generator))
            found[image, 0] += torch.exp(-away.square().sum(0) / (2 * radius**2))
    return found


@pytest.mark.parametrize("space", [(5, 8), (4, 6, 5)])
def test_0_is_the_identity(space: tuple[int, ...]) -> None:
    dims = len(space)
    matrix = affine_matrix(torch.zeros(2, parameter_count(dims)), space)
    torch.testing.assert_close(matrix[:, :, :dims], torch.eye(dims).expand(2, dims, dims))
    assert affine_flow(matrix, space).abs().max() < 1e-6


def test_a_shift_is_a_share_of_its_own_axis() -> None:
    flow = affine_flow(affine_matrix(parameters(3, 9, 0.5), (8, 10, 12), Limits(shift=0.5)), (8, 10, 12))
    torch.testing.assert_close(flow[0, 0], torch.full((8, 10, 12), 2.0, dtype=torch.float64))
    assert flow[0, 1:].abs().max() < 1e-9


@pytest.mark.parametrize(("at", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_a_turn_keeps_its_axis_the_centre_and_all_lengths(at: int, plane: tuple[int, int]) -> None:
    space = (5, 7, 9)
    matrix = affine_matrix(parameters(3, at, 0.25), space, Limits(rotation=180.0))[0]
    linear = matrix[:, :3]
    torch.testing.assert_close(linear @ linear.T, torch.eye(3, dtype=torch.float64))
    assert float(linear[plane]) == pytest.approx(-math.sin(math.pi / 4))
    centre = torch.tensor([2.0, 3.0, 4.0], dtype=torch.float64)
    torch.testing.assert_close(linear @ centre + matrix[:, 3], centre)
    kept = next(axis for axis in range(3) if axis not in plane)
    assert float(linear[kept, kept]) == 1


def test_scale_and_shear() -> None:
    linear = affine_matrix(parameters(2, 1, 0.5), (6, 6), Limits(scale=0.4))[0, :, :2]
    torch.testing.assert_close(linear, torch.tensor([[1.2, 0.0], [0.0, 1.0]], dtype=torch.float64))
    linear = affine_matrix(parameters(2, 3, 0.5), (6, 6), Limits(shear=60.0))[0, :, :2]
    slope = math.tan(math.radians(30))
    torch.testing.assert_close(linear, torch.tensor([[1.0, slope], [0.0, 1.0]], dtype=torch.float64))


def test_a_flow_is_the_matrix_at_every_voxel() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(2, 3, 4, generator=generator)
    flow = affine_flow(matrix, (3, 4, 5))
    for n in range(2):
        for voxel in ((0, 0, 0), (2, 1, 4), (1, 3, 0)):
            p = torch.tensor(voxel, dtype=torch.float32)
            torch.testing.assert_close(
                p + flow[(n, slice(None), *voxel)], matrix[n, :, :3] @ p + matrix[n, :, 3]
            )


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_never_leave_the_limits(dims: int) -> None:
    far = torch.full((1, parameter_count(dims)), 100.0)
    matrix = affine_matrix(far, [10] * dims)
    assert torch.linalg.det(matrix[0, :, :dims]) == pytest.approx(1.25**dims, rel=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_reaches_every_parameter_of_the_head(dims: Literal[2, 3]) -> None:
    """The matrix is stacked of parameters: nothing on the way to the loss is detached."""
    torch.manual_seed(0)
    head = AffineHead(6, dims, hidden=8)
    space = (12, 10, 9)[:dims]
    moving, fixed = torch.randn(2, 2, 6, *[4] * dims).unbind(0)
    flow = head.flow(moving, fixed, space)
    assert 0 < flow.abs().max() < 0.1  # near the identity at the start
    images = blobs(2, space)
    loss = local_ncc(images.flip(0), warp(images, flow), window=5)
    gradients = torch.autograd.grad(loss, list(head.parameters()))
    assert all(each.isfinite().all() and each.abs().max() > 0 for each in gradients)
    assert (gradients[-1] != 0).all()  # of every rotation, scale, shear and shift
    assert gradients[-1].shape == (parameter_count(dims),)


@pytest.mark.parametrize("dims", [2, 3])
def test_gradient_of_the_matrix(dims: int) -> None:
    values = torch.randn(
        2, parameter_count(dims), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    assert torch.autograd.gradcheck(
        lambda each: affine_matrix(each, [5] * dims, FREE), 0.3 * values.requires_grad_()
    )


@pytest.mark.parametrize("measure", ["ncc", "mse"])
@pytest.mark.parametrize("space", [(32, 28), (20, 18, 16)])
def test_registration_finds_a_known_map(space: tuple[int, ...], measure: Literal["ncc", "mse"]) -> None:
    moving = blobs(3, space)
    dims = len(space)
    drawn = 0.5 * torch.randn(3, parameter_count(dims), generator=torch.Generator().manual_seed(3))
    drawn[2] = 0  # one pair that lies right already
    truth = affine_flow(affine_matrix(drawn, space), space)
    with torch.inference_mode():
        found = affine_flow(
            register_affine(warp(moving, truth), moving, measure=measure, steps=60, factors=(2, 1)), space
        )
    error = (found - truth).square().sum(1).sqrt().flatten(1).mean(1)
    before = truth.square().sum(1).sqrt().flatten(1).mean(1)
    assert (before[:2] > 1.5).all()
    assert (error < 0.3).all()


def test_pairs_are_registered_each_on_its_own() -> None:
    moving, fixed = blobs(2, (24, 24)), blobs(2, (24, 24), seed=5)
    both = register_affine(fixed, moving, steps=10)
    for i in range(2):
        alone = register_affine(fixed[i, None], moving[i, None], steps=10)
        torch.testing.assert_close(both[i, None], alone, rtol=1e-3, atol=1e-3)


def test_even_images_are_not_moved() -> None:
    even = torch.full((1, 1, 16, 16), 0.3)
    matrix = register_affine(even, even, steps=3)
    assert affine_flow(matrix, (16, 16)).abs().max() < 1e-5


def test_misuse_is_told() -> None:
    with pytest.raises(ValueError, match="parameters"):
        affine_matrix(torch.zeros(1, 6), (4, 4, 4))
    with pytest.raises(ValueError, match="multiple of 8"):
        AffineHead(4, 2, hidden=12)
    with pytest.raises(ValueError, match="two images"):
        register_affine(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
    with pytest.raises(ValueError, match="steps and factors"):
        register_affine(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4), factors=())
