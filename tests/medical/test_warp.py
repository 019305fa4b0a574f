"""Warping: zero flow, shifts, both conventions, masks and label maps, against plain loops."""

from __future__ import annotations

import pytest
import torch
from references_deformation import warped
from torch import Tensor
from torch.nn import functional

from diptych_medical.corners import corners, gathered, places_gradient
from diptych_medical.warp import Convention, grid, inside, sample_at, scale_gradient, warp

CONVENTIONS: list[Convention] = ["aligned", "official"]
SPACES = [(7, 6), (5, 4, 6)]


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("space", [(64, 48), (16, 20, 33)])
def test_zero_flow_is_the_identity_in_the_aligned_convention_only(space: tuple[int, ...]) -> None:
    x = random(2, 3, *space).float()
    flow = torch.zeros(2, len(space), *space)
    torch.testing.assert_close(warp(x, flow), x, rtol=0, atol=2e-5)
    assert (warp(x, flow, convention="official") - x).abs().mean() > 0.1


@pytest.mark.parametrize("space", SPACES)
def test_the_official_identity_is_the_flow_that_undoes_its_magnification(space: tuple[int, ...]) -> None:
    voxels = grid(space).double()
    sizes = torch.tensor(space, dtype=torch.float64).view(-1, *[1] * len(space))
    flow = (voxels + 0.5) * (sizes - 1) / sizes - voxels
    x = random(1, 2, *space)
    torch.testing.assert_close(warp(x, flow[None], convention="official"), x)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_warp_equals_plain_loops(space: tuple[int, ...], convention: Convention) -> None:
    x, flow = random(2, 2, *space), random(2, len(space), *space, seed=1, scale=2)
    found = warp(x, flow, convention=convention)
    for n in range(2):
        for c in range(2):
            expected = torch.from_numpy(warped(x[n, c].numpy(), flow[n].numpy(), convention))
            torch.testing.assert_close(found[n, c], expected)


def test_component_i_moves_along_array_axis_i() -> None:
    x = random(1, 1, 5, 6, 7)
    for axis in range(3):
        flow = torch.zeros(1, 3, 5, 6, 7, dtype=torch.float64)
        flow[:, axis] = 1
        inner = [slice(None)] * 5
        inner[axis + 2] = slice(None, -1)
        torch.testing.assert_close(warp(x, flow)[tuple(inner)], x.roll(-1, axis + 2)[tuple(inner)])


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("space", SPACES)
def test_inside_is_bit_equal_to_warping_ones_to_the_nearest_voxel(
    space: tuple[int, ...], convention: Convention
) -> None:
    flow = random(4, len(space), *space, scale=1.5).float()
    flow[0] = flow[0].round() + 0.5  # halves round to even
    ones = torch.ones(4, 1, *space)
    mask = inside(flow, convention=convention)
    assert torch.equal(mask, warp(ones, flow, mode="nearest", convention=convention))
    axes = list(zip((grid(space) + flow).unbind(1), space, strict=True))
    if convention == "official":
        normalised = [2 * (at / (size - 1) - 0.5) for at, size in axes]
    else:
        normalised = [(2 * at + 1) / size - 1 for at, size in axes]
    places = torch.stack(normalised[::-1], -1)
    torchs = functional.grid_sample(ones[1:], places[1:], mode="nearest", align_corners=False)
    assert torch.equal(mask[1:], torchs)
    assert 0.1 < mask.mean() < 0.9


def test_label_maps_keep_their_values_and_type() -> None:
    labels = torch.randint(-1, 2**40, (2, 1, 6, 5), generator=torch.Generator().manual_seed(0))
    flow = random(2, 2, 6, 5, scale=1.5)
    found = warp(labels, flow, mode="nearest", padding="border")
    assert found.dtype == torch.int64
    rounded = (grid((6, 5)) + flow).round()
    for n in range(2):
        for i in range(6):
            for j in range(5):
                at = [int(rounded[n, a, i, j].clamp(0, size - 1)) for a, size in enumerate((6, 5))]
                assert found[n, 0, i, j] == labels[n, 0, at[0], at[1]]


def test_border_padding_goes_on_and_zeros_stop() -> None:
    x = torch.ones(1, 1, 4, 4)
    far = torch.full((1, 2, 4, 4), 10.0)
    assert torch.equal(warp(x, far, padding="border"), x)
    assert not warp(x, far).any()


def test_one_image_is_read_at_the_places_of_all() -> None:
    x, places = random(1, 2, 5, 6), random(3, 2, 11).abs()
    torch.testing.assert_close(sample_at(x, places), sample_at(x.repeat(3, 1, 1, 1), places))


def test_coordinates_stay_float32_under_autocast_and_for_half_images() -> None:
    x = random(1, 1, 6, 200).float()
    flow = torch.full((1, 2, 6, 200), 0.25)
    expected = warp(x, flow)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(warp(x, flow), expected)
    half = warp(x.half(), flow)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_gradients_of_image_and_flow(convention: Convention) -> None:
    x, flow = random(1, 2, 4, 5).requires_grad_(), random(1, 2, 4, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: warp(a, b, convention=convention), (x, flow))


@pytest.mark.parametrize("space", SPACES)
def test_corners_interpolate_as_sampling_does_and_give_its_gradient(space: tuple[int, ...]) -> None:
    x = random(1, 4, *space)
    places = (grid(space).double()[None] + random(1, len(space), *space, seed=2, scale=3)).requires_grad_()
    around = corners(places.detach()[0].flatten(1), space)
    around.weights.requires_grad_()
    found, expected = gathered(x[0].flatten(1).t().contiguous(), around), sample_at(x, places)
    torch.testing.assert_close(found.t().view(1, 4, *space), expected)
    weight = random(*found.shape, seed=3)
    (by_weights,) = torch.autograd.grad((found * weight).sum(), around.weights)
    (by_places,) = torch.autograd.grad((expected[0].flatten(1).t() * weight).sum(), places)
    torch.testing.assert_close(places_gradient(by_weights, around), by_places[0].flatten(1))


def test_scaled_gradient_keeps_the_value() -> None:
    x = random(5).requires_grad_()
    y = scale_gradient(x, 0.1)
    assert torch.equal(y, x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 0.1))


def test_places_that_are_not_numbers_spoil_the_value_and_nothing_else() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    flow[0, 0, 1, 2] = torch.nan
    flow[0, 1, 3, 3] = torch.inf
    assert inside(flow).sum() == 14
    found = warp(torch.ones(1, 1, 4, 4, dtype=torch.int64), flow, mode="nearest")
    assert found.sum() == 14


@pytest.mark.parametrize(
    ("x", "coordinates", "options", "message"),
    [
        (torch.zeros(2, 1, 4), torch.zeros(2, 1, 4), {}, "2 or 3 dimensions"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, 3, 4, 4), {}, "coordinates"),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, 2, 4, 4), {}, "2 images and coordinates for 3"),
        (torch.zeros(1, 1, 4, 4).long(), torch.zeros(1, 2, 4, 4), {}, "mode nearest"),
        (torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), {"mode": "cubic"}, "expected mode"),
        (torch.zeros(1, 1, 1, 4), torch.zeros(1, 2, 1, 4), {"convention": "official"}, "at least 2 voxels"),
    ],
)
def test_misuse_is_told(x: Tensor, coordinates: Tensor, options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_at(x, coordinates, **options)  # type: ignore[arg-type]


def test_an_axis_of_one_voxel_is_read_in_the_aligned_convention() -> None:
    x = random(1, 1, 1, 5)
    torch.testing.assert_close(warp(x, torch.zeros(1, 2, 1, 5, dtype=torch.float64)), x)
