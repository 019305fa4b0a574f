"""Determinants against plain loops, folds that are known, and the penalty's gradient."""

from __future__ import annotations

import pytest
import torch
from references_deformation import central_determinants, corner_determinants
from torch import Tensor

from diptych_medical.jacobian import determinants_central, determinants_corner, folding, folding_penalty
from diptych_medical.warp import grid

SPACES = [(6, 7), (5, 4, 6)]


def random(space: tuple[int, ...], seed: int = 0, images: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.6 * torch.randn(images, len(space), *space, generator=generator, dtype=torch.float64)


def inner(x: Tensor, dims: int) -> Tensor:
    return x[(..., *[slice(1, -1)] * dims)]


def checkerboard(space: tuple[int, ...], height: float) -> Tensor:
    """Neighbours move by +height and -height along axis 0 in turn."""
    flow = torch.zeros(1, len(space), *space)
    flow[:, 0] = height * (1 - 2 * (grid(space).sum(0) % 2))
    return flow


@pytest.mark.parametrize("space", SPACES)
def test_determinants_equal_plain_loops(space: tuple[int, ...]) -> None:
    flow = random(space)
    central, corner = determinants_central(flow)[0], determinants_corner(flow)[0]
    torch.testing.assert_close(central, torch.from_numpy(central_determinants(flow[0].numpy())))
    expected = torch.from_numpy(corner_determinants(flow[0].numpy()))
    torch.testing.assert_close(inner(corner, len(space)), expected)


@pytest.mark.parametrize("space", SPACES)
def test_a_linear_map_has_its_determinant_everywhere(space: tuple[int, ...]) -> None:
    dims = len(space)
    matrix = 0.3 * torch.randn(dims, dims, generator=torch.Generator().manual_seed(2))
    flow = torch.einsum("ij,j...->i...", matrix, grid(space))[None]
    expected = torch.linalg.det(torch.eye(dims) + matrix)
    central, corner = determinants_central(flow), determinants_corner(flow)
    torch.testing.assert_close(central, expected.expand_as(central), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(corner, expected.expand_as(corner), rtol=1e-4, atol=1e-5)
    found = folding(flow)
    torch.testing.assert_close(found.lowest, expected[None], rtol=1e-4, atol=1e-5)
    assert float(found.sd_log) < 1e-4


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_corners_see_the_checkerboard_folds_that_central_differences_miss(space: tuple[int, ...]) -> None:
    found = folding(checkerboard(space, 0.6))  # neighbours swap places: 1 - 1.2 < 0
    assert found.central == 0
    assert found.corner == 1
    assert float(found.lowest) == pytest.approx(-0.2, abs=1e-5)
    assert found.sd_log == 0  # central differences see the identity
    assert folding(checkerboard(space, 0.4)).corner == 0


def test_no_flow_does_not_fold_and_a_mirrored_one_folds_everywhere() -> None:
    still = folding(torch.zeros(1, 3, 5, 5, 5))
    assert [float(each) for each in still] == [0, 0, 1, 0]
    mirrored = torch.zeros(1, 2, 6, 6)
    mirrored[:, 1] = -2 * torch.arange(6.0)
    assert [float(each) for each in folding(mirrored)] == [1, 1, -1, 0]


def test_only_the_interior_inside_the_mask_counts_for_each_image_alone() -> None:
    flow = torch.zeros(3, 2, 9, 9)
    flow[0, 0, 4, 4] = -3.0  # folds around one voxel
    flow[1, 0, 0] = 9.0  # folds at the border: forward at voxel 0, backward at voxel 1
    mask = torch.ones(3, 1, 9, 9)
    found = folding(flow, mask)
    assert found.corner[0] * 49 == pytest.approx(2)
    assert found.central[0] * 49 == pytest.approx(1)
    assert found.corner[2] == 0
    mask[0, 0, 3:6, 4] = 0
    mask[1, 0, 1] = 0
    mask[2] = 0
    found = folding(flow, mask)
    assert found.corner[:2].tolist() == [0, 0]
    assert found.lowest[:2].tolist() == [1, 1]
    assert all(each[2].isnan() for each in found)


def test_the_spread_of_log_determinants() -> None:
    flow = random((7, 8), seed=4, images=2) * 0.4
    central = inner(determinants_central(flow), 2).flatten(1).clamp(min=1e-9).log()
    torch.testing.assert_close(folding(flow).sd_log, central.std(1, correction=0))


@pytest.mark.parametrize("space", SPACES)
def test_the_penalty_is_the_mean_negative_part_of_all_corners(space: tuple[int, ...]) -> None:
    flow = (1.2 * random(space, images=2)).requires_grad_()
    expected = determinants_corner(flow).neg().relu().mean()
    found = folding_penalty(flow)
    torch.testing.assert_close(found, expected)
    assert found > 0
    (one,), (two,) = torch.autograd.grad(3 * found, flow), torch.autograd.grad(3 * expected, flow)
    torch.testing.assert_close(one, two)


def test_the_penalty_leaves_flows_that_do_not_fold_alone() -> None:
    flow = (0.05 * random((6, 6))).requires_grad_()
    loss = folding_penalty(flow)
    (gradient,) = torch.autograd.grad(loss, flow)
    assert loss == 0
    assert not gradient.any()
    with torch.no_grad():
        assert not folding_penalty(flow).requires_grad


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (1, 2, 4), (1, 2, 1, 4)])
def test_what_is_no_flow_is_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected a flow"):
        determinants_central(torch.zeros(shape))
    with pytest.raises(ValueError, match="expected a flow"):
        folding_penalty(torch.zeros(shape))
