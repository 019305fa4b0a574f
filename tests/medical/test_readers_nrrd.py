"""NRRD files are read into RAS mm, whatever space their headers name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nrrd
import numpy as np
import pytest
from image_files import cut, noise

from diptych.data.readable import Item, Unreadable
from diptych_medical import readers
from diptych_medical.image import Image, Reading

DIRECTIONS = np.array([[0, 1.5, 0], [-2, 0, 0.5], [0.6, 0, 2.4]])  # one row an axis
ORIGIN = np.array([10.0, -20, 30])


def write(path: Path, data: np.ndarray[Any, Any], **header: Any) -> Path:
    nrrd.write(str(path), data, header)
    return path


def item_of(path: Path) -> Item:
    ((kind, item),) = readers.find([path], path.parent).items
    assert kind == "nrrd"
    return item


def load(path: Path, **how: Any) -> Image:
    item, reading = item_of(path), Reading(**how)
    image = readers.read("nrrd", item, reading)
    assert np.array_equal(readers.read_header("nrrd", item, reading).affine, image.header.affine)
    return image


def reason(path: Path, **how: Any) -> str:
    with pytest.raises(Unreadable) as error:
        readers.read("nrrd", item_of(path), Reading(**how))
    return str(error.value)


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("LPS", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
    ],
)
@pytest.mark.parametrize("encoding", ["raw", "gzip", "ascii"])
def test_voxels_and_places_are_those_that_were_written(
    tmp_path: Path, space: str, signs: tuple[int, ...], encoding: str
) -> None:
    data = noise((3, 4, 5))
    header = {"space": space, "space directions": DIRECTIONS, "space origin": ORIGIN, "encoding": encoding}
    image = load(write(tmp_path / "a.nrrd", data, **header))
    assert np.array_equal(image.data[0], data)
    for index in ((0, 0, 0), (2, 3, 4), (1, 0, 2)):
        world = np.array(signs) * (ORIGIN + np.array(index) @ DIRECTIONS)
        assert np.allclose((image.header.affine @ [*index, 1])[:3], world)
    assert np.allclose(image.header.spacing, np.linalg.norm(DIRECTIONS, axis=1))


def test_a_detached_header_depends_on_its_data(tmp_path: Path) -> None:
    data = noise((3, 4, 5))
    write(tmp_path / "a.nhdr", data, space="RAS", **{"space directions": np.eye(3), "space origin": ORIGIN})
    found = readers.find(sorted(tmp_path.iterdir()), tmp_path)
    assert [path.name for path in found.items[0][1].files] == ["a.nhdr", "a.raw.gz"]
    assert found.other == ()
    assert np.array_equal(readers.read(*found.items[0], Reading()).data[0], data)
    (tmp_path / "a.raw.gz").unlink()
    assert reason(tmp_path / "a.nhdr").startswith("malformed NRRD file (")


@pytest.mark.parametrize("first", [True, False])
def test_channels_lie_on_the_axis_without_direction(tmp_path: Path, first: bool) -> None:
    data = noise((2, 3, 4, 5) if first else (3, 4, 5, 2))
    nowhere = np.full(3, np.nan)
    rows = [nowhere, *np.eye(3)] if first else [*np.eye(3), nowhere]
    kinds = ["vector", *["domain"] * 3] if first else [*["domain"] * 3, "vector"]
    header = {"space": "RAS", "space directions": np.array(rows), "space origin": ORIGIN, "kinds": kinds}
    path = write(tmp_path / "a.nrrd", data, **header)
    assert np.array_equal(load(path, channels=2).data, data if first else np.moveaxis(data, -1, 0))
    assert reason(path) == "axes: 4D where 3D is expected"


def test_colours_are_rejected_made_grey_or_kept(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 256, (3, 4, 5)).astype(np.uint8)
    path = write(tmp_path / "a.nrrd", data, kinds=["RGB-color", "domain", "domain"], spacings=[np.nan, 1, 2])
    assert np.array_equal(load(path, dims=2, channels=3, colour="rgb").data, data)
    assert np.allclose(
        load(path, dims=2, colour="grey").data[0], np.tensordot([0.299, 0.587, 0.114], data, 1), atol=1e-4
    )
    assert reason(path, dims=2) == "colour: a colour image where grey is expected"
    assert load(path, dims=2, colour="grey").header.spacing == (1, 2)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"spacings": [1.0, 2, 3]}, "missing orientation:"),
        ({"space": "3D-right-handed", "space directions": DIRECTIONS}, "missing orientation:"),
        ({"space": "RAS", "space directions": DIRECTIONS * [[0], [1], [1]]}, "bad spacing:"),
        ({"space": "RAS", "space directions": np.ones((3, 3))}, "bad affine:"),
        ({"spacings": [1.0, -2, 3]}, "bad spacing:"),
        ({"spacings": [1.0, 0, 3]}, "bad spacing:"),
        ({}, "missing spacing:"),
        ({"space": "RAS", "space directions": DIRECTIONS, "space units": ["inch"] * 3}, "bad spacing:"),
    ],
)
def test_headers_that_lack_geometry_are_rejected(
    tmp_path: Path, header: dict[str, Any], expected: str
) -> None:
    assert reason(write(tmp_path / "a.nrrd", noise((3, 4, 5)), **header)).startswith(expected)


def test_the_config_gives_what_the_header_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "a.nrrd", noise((3, 4, 5)), spacings=[1.0, 2, 3])
    assert np.array_equal(load(path, orientation="LAS").header.affine, np.diag([-1.0, 2, 3, 1]))
    bare = write(tmp_path / "b.nrrd", noise((3, 4, 5)))
    affine = load(bare, orientation="RAS", spacing=(4.0, 5.0, 6.0)).header.affine
    assert np.array_equal(affine, np.diag([4.0, 5, 6, 1]))


def test_lengths_are_turned_to_millimetres(tmp_path: Path) -> None:
    header = {
        "space": "RAS",
        "space directions": DIRECTIONS,
        "space origin": ORIGIN,
        "space units": ["cm"] * 3,
    }
    affine = load(write(tmp_path / "a.nrrd", noise((3, 4, 5)), **header)).header.affine
    assert np.allclose(affine[:3, :3], 10 * DIRECTIONS.T)
    assert np.allclose(affine[:3, 3], 10 * ORIGIN)


@pytest.mark.parametrize("share", [0.1, 0.6, 0.95])
def test_truncated_files_are_rejected(tmp_path: Path, share: float) -> None:
    header = {"space": "RAS", "space directions": DIRECTIONS, "space origin": ORIGIN}
    path = cut(write(tmp_path / "a.nrrd", noise((9, 9, 9)), **header), share)
    assert reason(path).startswith("malformed NRRD file (")


def test_label_maps_and_texts_of_the_header(tmp_path: Path) -> None:
    header = {"space": "RAS", "space directions": DIRECTIONS, "space origin": ORIGIN, "content": "lesion"}
    item = item_of(write(tmp_path / "a.nrrd", labels := np.abs(noise((3, 4, 5))) % 4, **header))
    mask, affine = readers.read_mask("nrrd", item, Reading())
    assert np.array_equal(mask, labels)
    assert np.allclose(affine[:3, :3], DIRECTIONS.T)
    assert readers.read_header("nrrd", item, Reading()).fields["content"] == "lesion"
