"""Affine views: where each voxel is read, that ranges are kept, and that a view shows what its matrix says."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.places import inverse, moved
from diptych_medical.spatial import Spatial, about, positions, rotation

CPU = torch.device("cpu")
SPACES = [(9, 12), (7, 10, 8)]
STILL = {"rotation": (0.0,), "scale": (1.0, 1.0)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(spatial: Spatial, space: tuple[int, ...], n: int = 400) -> Tensor:
    return spatial.draw((n, *space), CPU, generator())


def ramps(space: tuple[int, ...]) -> Tensor:
    """An image whose channel i is the voxel's coordinate on axis i: (1, d, *space)."""
    return torch.stack(torch.meshgrid(*(torch.arange(float(size)) for size in space), indexing="ij"))[None]


@pytest.mark.parametrize("space", SPACES)
def test_a_view_that_moves_nothing_is_the_image(space: tuple[int, ...]) -> None:
    x = torch.rand(2, 3, *space, generator=generator())
    matrix = Spatial(**STILL).draw((2, *space), CPU)
    torch.testing.assert_close(positions(matrix, space), ramps(space).expand(2, -1, *space))
    torch.testing.assert_close(Spatial.apply(x, matrix), x, atol=1e-5, rtol=0)
    labels = torch.randint(-1, 5, (2, 1, *space), generator=generator())
    assert torch.equal(Spatial.apply(labels, matrix, mode="nearest"), labels)


@pytest.mark.parametrize("space", SPACES)
def test_positions_are_the_matrix_times_each_voxel(space: tuple[int, ...]) -> None:
    matrix = drawn(Spatial(translation=0.2, shear=10, flips=(1,), crop=(0.3, 1)), space, 3)
    at = positions(matrix, space)
    for sample, *voxel in itertools.product(range(3), *(range(0, size, 3) for size in space)):
        expected = [
            sum(float(row[axis]) * each for axis, each in enumerate(voxel)) + float(row[-1])
            for row in matrix[sample]
        ]
        assert at[(sample, slice(None), *voxel)].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_a_view_of_coordinates_shows_its_positions(space: tuple[int, ...]) -> None:
    matrix = drawn(Spatial(crop=(0.2, 0.9), rotation=(0.0,), scale=(1.0, 1.5)), space, 4)
    at = positions(matrix, space)
    assert (at >= -1e-4).all(), "a crop and a magnification read inside the image"
    assert all((at[:, axis] <= size - 1 + 1e-4).all() for axis, size in enumerate(space))
    torch.testing.assert_close(
        Spatial.apply(ramps(space).expand(4, -1, *space), matrix), at, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("space", SPACES)
def test_flips_mirror_half_of_the_views_and_nothing_else(space: tuple[int, ...]) -> None:
    spatial = Spatial(**STILL, flips=(1,))
    matrix = drawn(spatial, space)
    signs = torch.diagonal(matrix[:, :, :-1], dim1=1, dim2=2)
    assert signs[:, 1].mean().item() == pytest.approx(0, abs=0.15)
    assert (signs[:, 0] == 1).all()
    x = torch.rand(1, 1, *space, generator=generator())
    mirrored = matrix[signs[:, 1] < 0][:1]
    torch.testing.assert_close(Spatial.apply(x, mirrored), x.flip(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_magnification_lies_in_its_range_and_keeps_the_centre(space: tuple[int, ...]) -> None:
    matrix = drawn(Spatial(rotation=(0.0,), scale=(0.5, 2.0)), space)
    magnification = 1 / torch.diagonal(matrix[:, :, :-1], dim1=1, dim2=2)
    assert magnification.min() >= 0.5 - 1e-5
    assert magnification.max() <= 2 + 1e-5
    assert magnification.max() > 1.9
    centre = torch.tensor([(size - 1) / 2 for size in space])
    torch.testing.assert_close(
        moved(matrix, centre.expand(len(matrix), 1, -1))[:, 0], centre.expand(len(matrix), -1)
    )


def test_angles_are_those_about_each_axis() -> None:
    turned = rotation(torch.tensor([[math.pi / 2, 0, 0], [0, math.pi / 2, 0], [0, 0, math.pi / 2]]))
    unit = torch.eye(3)
    for axis in range(3):
        following, last = (axis + 1) % 3, (axis + 2) % 3
        torch.testing.assert_close(turned[axis] @ unit[axis], unit[axis])
        torch.testing.assert_close(turned[axis] @ unit[following], unit[last], atol=1e-6, rtol=0)
    quarter = rotation(torch.tensor([[math.pi / 2]]))[0]
    torch.testing.assert_close(quarter, torch.tensor([[0.0, -1.0], [1.0, 0.0]]), atol=1e-6, rtol=0)


def test_rotations_stay_below_their_angle_and_keep_lengths() -> None:
    matrix = drawn(Spatial(rotation=(20.0,), scale=(1.0, 1.0)), (9, 12))[:, :, :2]
    angle = torch.rad2deg(torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0]))
    assert 19 < angle.abs().max() <= 20.001
    only_first = drawn(Spatial(rotation=(30.0, 0.0, 0.0), scale=(1.0, 1.0)), (7, 10, 8))[:, :, :3]
    torch.testing.assert_close(only_first[:, 0], torch.tensor([1.0, 0, 0]).expand(400, -1))
    torch.testing.assert_close(only_first @ only_first.mT, torch.eye(3).expand(400, 3, 3), atol=1e-5, rtol=0)


def test_a_crop_shows_its_share_of_the_area() -> None:
    share = torch.linalg.det(drawn(Spatial(**STILL, crop=(0.25, 0.5)), (9, 12))[:, :, :2])
    assert share.min() >= 0.25 - 1e-5
    assert share.max() <= 0.5 + 1e-5
    assert share.max() - share.min() > 0.2


def test_shifts_and_shears_stay_in_their_range() -> None:
    space = (20, 10)
    matrix = drawn(Spatial(**STILL, translation=0.1, shear=10), space)
    centre = torch.tensor([9.5, 4.5])
    shift = moved(matrix, centre.expand(len(matrix), 1, 2))[:, 0] - centre
    assert (shift.abs().amax(0) <= torch.tensor([2.0, 1.0]) + 1e-4).all()
    assert (shift.abs().amax(0) > torch.tensor([1.9, 0.9])).all()
    assert matrix[:, 0, 1].abs().max() <= math.tan(math.radians(10)) + 1e-6
    assert matrix[:, 1, 0].eq(0).all()


def test_a_drawn_view_replays_and_samples_have_draws_of_their_own() -> None:
    spatial = Spatial(flips=(0, 2), crop=(0.5, 1.0), shear=5, translation=0.1)
    first, again = (spatial.draw((50, 7, 10, 8), CPU, generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert len({tuple(each.flatten().tolist()) for each in first}) == 50


def test_coordinates_stay_precise_under_autocast() -> None:
    spatial = Spatial(shear=5)
    plain = positions(spatial.draw((2, 40, 50, 60), CPU, generator()), (40, 50, 60))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = positions(spatial.draw((2, 40, 50, 60), CPU, generator()), (40, 50, 60))
    assert mixed.dtype == torch.float32
    assert torch.equal(plain, mixed)


def test_an_inverse_undoes_its_matrix() -> None:
    matrix = drawn(Spatial(shear=10, translation=0.2, crop=(0.3, 1)), (7, 10, 8), 20)
    points = torch.rand(20, 5, 3, generator=generator()) * 8
    torch.testing.assert_close(moved(inverse(matrix), moved(matrix, points)), points, atol=1e-4, rtol=0)


def test_a_matrix_about_a_point_takes_it_where_it_should() -> None:
    linear = torch.rand(3, 2, 2, generator=generator())
    centre, to = torch.rand(2, 3, 2, generator=generator())
    torch.testing.assert_close(moved(about(linear, to, centre), centre[:, None])[:, 0], to)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rotation": (10.0, 5.0)}, r"one angle or three, of 0 to 180 degrees, got \(10.0, 5.0\)"),
        ({"rotation": (-1.0,)}, "of 0 to 180 degrees"),
        ({"scale": (1.2, 0.8)}, r"0 < least <= largest, got \(1.2, 0.8\)"),
        ({"scale": (0.0, 0.8)}, "scale must be 0 < least"),
        ({"translation": 2.0}, "share of 0 to 1, got 2"),
        ({"shear": 90.0}, "angle of 0 to below 90 degrees, got 90"),
        ({"crop": (0.5, 1.5)}, "crop must be 0 < least <= largest <= 1"),
        ({"flips": (3,)}, r"different array axes among 0, 1, 2, got \(3,\)"),
        ({"flips": (1, 1)}, "different array axes"),
    ],
)
def test_ranges_that_cannot_be_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Spatial(**settings)  # type: ignore[arg-type]


def test_settings_for_volumes_are_refused_for_pictures() -> None:
    with pytest.raises(ConfigError, match="2D images are turned by one angle"):
        Spatial(rotation=(1.0, 2.0, 3.0)).draw((1, 8, 8), CPU)
    with pytest.raises(ConfigError, match=r"2D images have the axes 0 to 1, but flips are \(2,\)"):
        Spatial(flips=(2,)).draw((1, 8, 8), CPU)
