"""Affines: turning to RAS loses nothing, and a place in the world stays where it is on another grid."""

from __future__ import annotations

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
from image_files import noise

from diptych.data.readable import Unreadable
from diptych_medical import geometry

CODES = [
    "".join(pair[0] if flip else pair[1] for pair, flip in zip(order, flips, strict=True))
    for order in permutations(("RL", "AP", "SI"))
    for flips in product((False, True), repeat=3)
]


@pytest.mark.parametrize("codes", CODES)
def test_every_orientation_is_turned_to_ras_and_back(codes: str) -> None:
    data = noise((2, 3, 4, 5))
    affine = geometry.from_codes(codes, (1.0, 2.0, 3.0))
    affine[:3, 3] = (5, -6, 7)
    assert geometry.codes_of(affine) == codes == "".join(nibabel.aff2axcodes(affine))
    turn = geometry.orientation_of(affine)
    turned = geometry.turn(data, turn)
    new = geometry.turned_affine(affine, data.shape[1:], turn)
    assert geometry.codes_of(new) == "RAS"
    assert np.array_equal(geometry.turn_back(turned, turn), data)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(data[0], affine))
    assert np.array_equal(turned[0], canonical.get_fdata())
    assert np.allclose(new, canonical.affine)


def test_oblique_volumes_are_turned_to_the_nearest_axes() -> None:
    angle = np.radians(30)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert geometry.codes_of(affine) == "RAS"
    assert geometry.codes_of(affine @ np.diag([-1, 1, -1, 1])) == "LAI"
    assert geometry.shear(affine) == pytest.approx(0, abs=1e-6)


def test_lps_and_ras_differ_in_two_signs() -> None:
    affine = np.arange(16.0).reshape(4, 4)
    expected = affine * [[-1], [-1], [1], [1]]
    assert np.array_equal(geometry.from_lps(affine), expected)


def test_grids_are_one_where_no_voxel_is_elsewhere() -> None:
    affine = geometry.diagonal((1.0, 1.0, 2.0))
    moved = affine.copy()
    moved[0, 3] = 0.05
    assert geometry.same_space((9, 9, 9), affine, (9, 9, 9), moved)
    moved[0, 3] = 0.2
    assert not geometry.same_space((9, 9, 9), affine, (9, 9, 9), moved)
    assert not geometry.same_space((9, 9, 9), affine, (9, 9, 8), affine)
    scaled = geometry.diagonal((1.0, 1.0, 2.05))  # 0.4 mm at the last voxel
    assert not geometry.same_space((9, 9, 9), affine, (9, 9, 9), scaled)
    assert geometry.same_space((9, 9, 2), affine, (9, 9, 2), scaled)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.5, 2.0, 1.5), (3.0, 3.0, 3.0)])
def test_another_grid_covers_the_same_extent(spacing: tuple[float, ...]) -> None:
    affine = geometry.from_codes("LPS", (1.0, 1.5, 2.0))
    affine[:3, 3] = (7, 8, 9)
    shape, target = geometry.even_grid((12, 8, 6), affine, spacing)
    assert np.allclose(geometry.spacing_of(target), spacing)
    assert geometry.codes_of(target) == "LPS"
    centre = affine @ [*(np.array((12, 8, 6)) - 1) / 2, 1]
    assert np.allclose(target @ [*(np.array(shape) - 1) / 2, 1], centre)
    extent, old = np.array(shape) * spacing, np.array((12, 8, 6)) * (1.0, 1.5, 2.0)
    assert (np.abs(extent - old) <= np.array(spacing) / 2).all()


def test_a_linear_field_stays_what_it_is_on_another_grid() -> None:
    affine = np.array([[0, -1.5, 0, 3], [1, 0, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1.0]])
    weights = np.array([2.0, -3.0, 0.5, 10.0])

    def field(shape: tuple[int, ...], where: np.ndarray) -> np.ndarray:
        index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
        return np.concatenate([index, np.ones((*shape, 1))], axis=-1) @ where.T @ weights

    shape, target = geometry.even_grid((14, 12, 10), affine, (0.7, 1.1, 1.3))
    moved = geometry.resample(field((14, 12, 10), affine), affine, shape, target)
    inside = (slice(1, -1),) * 3
    assert np.allclose(moved[inside], field(shape, target)[inside])


def test_the_same_grid_gives_the_same_values_and_labels_stay_labels() -> None:
    affine = geometry.diagonal((1.0, 2.0, 3.0))
    values = noise((5, 6, 7)).astype(np.float32)
    assert np.array_equal(geometry.resample(values, affine, (5, 6, 7), affine), values)
    shape, target = geometry.even_grid((5, 6, 7), affine, (0.4, 1.3, 2.0))
    labels = geometry.resample(np.abs(noise((5, 6, 7))) % 3 * 50, affine, shape, target, nearest=True)
    assert set(np.unique(labels)) == {0, 50, 100}


def test_a_coarser_grid_holds_no_noise_of_the_finer_one() -> None:
    values = np.random.default_rng(0).normal(size=(40, 40))
    affine = geometry.diagonal((1.0, 1.0))
    shape, target = geometry.even_grid((40, 40), affine, (4.0, 4.0))
    assert geometry.resample(values, affine, shape, target).std() < 0.4 * values[::4, ::4].std()


def test_sheared_grids_have_no_even_grid() -> None:
    affine = np.eye(4)
    affine[1, 2] = np.tan(np.radians(18.5))
    assert geometry.shear(affine) == pytest.approx(18.5)
    with pytest.raises(Unreadable, match=r"^sheared affine:"):
        geometry.even_grid((5, 5, 5), affine, (1, 1, 1))
