"""Hand-made features: shapes, what they must not depend on, and a baseline that a model can use."""

from __future__ import annotations

import numpy as np
import pytest

from diptych_medical.features import BINS, QUANTILES, baseline, image_features, surroundings, voxel_features


class Pictures:
    """Synthetic images; the odd ones are brighter in one corner."""

    def __init__(self, number: int) -> None:
        draws = np.random.default_rng(0)
        self.values = draws.uniform(0.2, 0.6, size=(number, 1, 12, 15)).astype(np.float32)
        self.values[1::2, :, :4, :4] += 0.3

    def image(self, index: int) -> np.ndarray:
        found: np.ndarray = self.values[index]
        return found


@pytest.mark.parametrize("space", [(9, 11), (7, 9, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_voxel_has_its_intensities_means_gradient_and_place(
    space: tuple[int, ...], channels: int
) -> None:
    image = np.random.default_rng(0).random((channels, *space)).astype(np.float32)
    found = voxel_features(image)
    assert found.shape == (5 * channels + len(space), *space)
    assert found.dtype == np.float32
    assert (found[:channels] == image).all()
    for axis, size in enumerate(space):
        place = found[5 * channels + axis]
        expected = (np.arange(size) + 0.5) / size
        assert np.moveaxis(place, axis, -1).reshape(-1, size) == pytest.approx(
            np.tile(expected, (place.size // size, 1)), abs=1e-6
        )


def test_a_constant_image_has_no_gradient_and_equals_its_means() -> None:
    found = surroundings(np.full((1, 8, 8, 8), 0.3, np.float32))
    assert found[:4] == pytest.approx(0.3, abs=1e-6)
    assert found[4] == pytest.approx(0.0, abs=1e-6)


def test_a_ramp_has_the_gradient_of_its_slope() -> None:
    ramp = np.broadcast_to(0.01 * np.arange(30, dtype=np.float32)[:, None], (30, 20))[None]
    assert surroundings(ramp)[4, 8:-8] == pytest.approx(0.01, rel=1e-3)


def test_surroundings_move_with_the_image_and_places_do_not() -> None:
    image = np.random.default_rng(1).random((1, 40, 40)).astype(np.float32)
    moved = np.roll(image, 3, axis=1)
    inner = (slice(None), slice(18, 22), slice(18, 22))
    outer = (slice(None), slice(21, 25), slice(18, 22))
    assert surroundings(moved)[outer] == pytest.approx(surroundings(image)[inner], abs=1e-5)
    assert (voxel_features(moved)[-2:] == voxel_features(image)[-2:]).all()


@pytest.mark.parametrize(("space", "cells"), [((16, 24), 64), ((3, 5), 64), ((8, 8, 12), 64)])
def test_a_row_holds_quantiles_histogram_and_a_small_copy(space: tuple[int, ...], cells: int) -> None:
    image = np.random.default_rng(2).random((2, *space)).astype(np.float32)
    row = image_features(image)
    each = len(QUANTILES) + BINS + 3 + cells
    assert row.shape == (2 * each,)
    for channel in range(2):
        own = row[channel * each : (channel + 1) * each]
        assert own[: len(QUANTILES)] == pytest.approx(np.quantile(image[channel], QUANTILES))
        assert own[len(QUANTILES) : len(QUANTILES) + BINS].sum() == pytest.approx(1)
        copy = own[-cells:]
        if all(size % round(cells ** (1 / len(space))) == 0 for size in space):
            assert copy.mean() == pytest.approx(image[channel].mean())
        assert copy.min() >= image[channel].min()
        assert copy.max() <= image[channel].max()


def test_intensities_outside_the_range_count_at_its_ends() -> None:
    image = np.array([[[-2.0, 0.5], [3.0, 4.0]]], np.float32)
    histogram = image_features(image)[len(QUANTILES) : len(QUANTILES) + BINS]
    assert histogram[0] == 0.25
    assert histogram[-1] == 0.5


def test_the_baseline_has_a_finite_row_for_every_sample_in_order() -> None:
    pictures = Pictures(6)
    found = baseline(pictures, np.array([4, 1]))
    assert found.name == "raw intensities"
    assert np.isfinite(found.values).all()
    assert (found.values[0] == image_features(pictures.image(4))).all()
    assert (found.values[1] == image_features(pictures.image(1))).all()


def test_the_baseline_tells_bright_corners_from_dark_ones() -> None:
    pictures = Pictures(40)
    values = baseline(pictures, np.arange(40)).values
    corner = values[:, len(QUANTILES) + BINS + 3]  # the first cell of the small copy
    assert corner[1::2].min() > corner[::2].max()
