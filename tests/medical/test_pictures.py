"""What pictures show is where it should be: cuts, marked voxels, folded voxels, written files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic_images as synthetic
from matplotlib.figure import Figure
from matplotlib.image import imread

from diptych_medical.pictures import (
    Cut,
    Warped,
    cut_through,
    likeness_picture,
    middle_of,
    pair_picture,
)


def pair(space: tuple[int, ...], fold: bool = False) -> Warped:
    draws = np.random.default_rng(0)
    image, labels = synthetic.blobs(space, draws)
    partner, other = synthetic.blobs(space, draws)
    flow = draws.normal(size=(len(space), *space)).astype(np.float32)
    determinants = np.ones(space, np.float32)
    if fold:
        determinants[(slice(0, 2), *[slice(None)] * (len(space) - 1))] = -0.5
    return Warped(
        image=image[0], partner=partner[0], warped=partner[0], flow=flow, determinants=determinants,
        labels=(labels, other, other),
    )  # fmt: skip


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_voxel_is_drawn_where_its_mark_is(axis: int) -> None:
    """The one bright voxel of a volume is at the pixel that ``at`` names, in every plane."""
    point = (3, 5, 2)
    volume = np.zeros((7, 9, 6), np.float32)
    volume[point] = 1
    cut = cut_through(point, (1.0, 1.0, 2.0), axis)
    across, up = cut.at(point)
    rows = cut.of(volume)
    assert rows[up, across] == 1
    assert rows.sum() == 1


def test_pictures_are_drawn_as_they_lie() -> None:
    cut = cut_through((1, 4), (1.0, 1.0))
    image = np.arange(15.0).reshape(3, 5)
    assert (cut.of(image) == image).all()
    across, up = cut.at((1, 4))
    assert cut.of(image)[up, across] == image[1, 4]


def test_thick_slices_look_thick() -> None:
    """A coronal slice of voxels of 1 x 1 x 4 mm is 4 times as high for each voxel."""
    panel = Figure().subplots()
    Cut(axis=1, place=0, spacing=(1.0, 1.0, 4.0)).show(panel, np.zeros((8, 3, 8)))
    assert panel.get_aspect() == 4.0


@pytest.mark.parametrize("space", [(16, 18), (14, 15, 16)])
def test_pictures_of_pairs_are_written(space: tuple[int, ...], tmp_path: Path) -> None:
    cut = cut_through([size // 2 for size in space], [1.0] * len(space))
    pair_picture(tmp_path / "sub" / "pair.png", pair(space), cut)
    pixels = imread(tmp_path / "sub" / "pair.png")
    assert min(pixels.shape[:2]) > 300
    assert pixels.std() > 0.05
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["pair.png"]


def test_what_folds_is_black_and_changes_the_picture(tmp_path: Path) -> None:
    cut = cut_through((8, 9), (1.0, 1.0))
    for name, fold in (("plain", False), ("folded", True)):
        pair_picture(tmp_path / f"{name}.png", pair((16, 18), fold), cut)
    plain, folded = (imread(tmp_path / f"{name}.png")[..., :3] for name in ("plain", "folded"))
    black = (folded.max(-1) < 0.05) & (plain.max(-1) > 0.2)
    assert black.sum() > 100


@pytest.mark.parametrize("space", [(16, 18), (14, 15, 16)])
def test_the_most_alike_voxel_is_found(space: tuple[int, ...], tmp_path: Path) -> None:
    """The partner's features are the image's, moved: the best voxel is the moved point."""
    draws = np.random.default_rng(0)
    features = draws.normal(size=(5, *space)).astype(np.float32)
    moved = np.roll(features, 2, axis=1) * 3
    image = draws.random(space).astype(np.float32)
    point = tuple(size // 2 for size in space)
    best = likeness_picture(
        tmp_path / "likeness.png",
        (image, np.roll(image, 2, axis=0)),
        (features, moved),
        point,
        cut_through(point, [1.0] * len(space)),
    )
    assert best == (point[0] + 2, *point[1:])
    assert (tmp_path / "likeness.png").stat().st_size > 5_000


@pytest.mark.parametrize("point", [(16, 3), (-1, 3), (3, 3, 3)])
def test_a_point_outside_the_image_is_refused(point: tuple[int, ...], tmp_path: Path) -> None:
    image = np.zeros((16, 18), np.float32)
    features = np.ones((2, 16, 18), np.float32)
    cut = cut_through((0, 0), (1.0, 1.0))
    with pytest.raises(ValueError, match="lies outside"):
        likeness_picture(tmp_path / "x.png", (image, image), (features, features), point, cut)


def test_the_middle_lies_in_the_first_structure() -> None:
    labels = np.zeros((10, 12), np.int64)
    labels[1:9, 2] = labels[1:9, 9] = 1  # two bars: their common centre is outside both
    assert labels[middle_of(labels, labels.shape)] == 1
    assert middle_of(None, (10, 12)) == (5, 6)
    assert middle_of(np.zeros((10, 12), np.int64), (10, 12)) == (5, 6)
    assert middle_of(2 * labels, labels.shape)[1] in (2, 9)
