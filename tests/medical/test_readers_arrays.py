"""NumPy files hold one image or many, and archives also what is known of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import cut, noise

from diptych.data.readable import Item, Unreadable
from diptych.errors import ConfigError
from diptych_medical import readers
from diptych_medical.image import Reading


def items(path: Path, reading: Reading) -> list[Item]:
    return [item for _, item in readers.find([path], path.parent, reading=reading).items]


def reason(path: Path, **how: Any) -> str:
    reading = Reading(**how)
    with pytest.raises(Unreadable) as error:
        readers.read("numpy", items(path, reading)[0], reading)
    return str(error.value)


def save(path: Path, array: np.ndarray[Any, Any]) -> Path:
    np.save(path, array)
    return path


@pytest.mark.parametrize("shape", [(4, 5), (3, 4, 5)])
def test_an_array_is_one_image_or_many(tmp_path: Path, shape: tuple[int, ...]) -> None:
    reading = Reading(dims=len(shape), spacing=tuple(range(1, len(shape) + 1)))  # type: ignore[arg-type]
    (one,) = items(save(tmp_path / "one.npy", data := noise(shape)), reading)
    assert one.part is None
    image = readers.read("numpy", one, reading)
    assert np.array_equal(image.data[0], data)
    assert image.header.spacing == reading.spacing
    many = items(save(tmp_path / "many.npy", stack := noise((6, *shape))), reading)
    assert [item.part for item in many] == list(range(6))
    for item in many:
        assert np.array_equal(readers.read("numpy", item, reading).data[0], stack[item.part])


@pytest.mark.parametrize("axes", ["channels_first", "channels_last"])
def test_channels_lie_where_the_config_says(tmp_path: Path, axes: Any) -> None:
    shape = (6, 2, 4, 5) if axes == "channels_first" else (6, 4, 5, 2)
    reading = Reading(dims=2, channels=2, array_axes=axes)
    found = items(save(tmp_path / "a.npy", data := noise(shape)), reading)
    assert len(found) == 6
    expected = data[3] if axes == "channels_first" else np.moveaxis(data[3], -1, 0)
    assert np.array_equal(readers.read("numpy", found[3], reading).data, expected)
    assert reason(tmp_path / "a.npy", dims=2, array_axes=axes) == "channels: 2 where 1 are expected"


def test_colours_of_arrays(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", data := noise((4, 5, 3)))
    grey = Reading(dims=2, array_axes="channels_last", colour="grey")
    values = readers.read("numpy", items(path, grey)[0], grey).data[0]
    assert np.allclose(values, data @ [0.299, 0.587, 0.114], atol=1e-3)


def test_archives_hold_several_arrays_and_labels_of_their_images(tmp_path: Path) -> None:
    arrays = {f"{part}_images": noise((n, 4, 5), n) for part, n in (("train", 3), ("val", 2))}
    labels = {"train_labels": np.array([[0], [1], [0]]), "val_labels": np.array([[1], [1]])}
    np.savez(tmp_path / "set.npz", **arrays, **labels, val_sex=np.array(["f", "m"]), note=np.array("by hand"))
    reading = Reading(dims=2)
    found = items(tmp_path / "set.npz", reading)
    assert [(item.name, item.part) for item in found] == [
        ("set/train_images", 0), ("set/train_images", 1), ("set/train_images", 2),
        ("set/val_images", 3), ("set/val_images", 4),
    ]  # fmt: skip
    images = [readers.read("numpy", item, reading) for item in found]
    assert np.array_equal(images[1].data[0], arrays["train_images"][1])
    assert np.array_equal(images[4].data[0], arrays["val_images"][1])
    fields = [dict(image.header.fields) for image in images]
    assert fields[:3] == [{"labels": "0"}, {"labels": "1"}, {"labels": "0"}]
    assert fields[3:] == [{"labels": "1", "sex": "f"}, {"labels": "1", "sex": "m"}]


def test_values_of_one_array_are_not_taken_for_those_of_another(tmp_path: Path) -> None:
    arrays = {"images": noise((2, 4, 5)), "extra_images": noise((2, 4, 5))}
    np.savez(tmp_path / "a.npz", **arrays, labels=np.array([3, 4]), extra_labels=np.array([5, 6]))
    reading = Reading(dims=2)
    fields = [
        dict(readers.read_header("numpy", item, reading).fields)
        for item in items(tmp_path / "a.npz", reading)
    ]
    assert fields == [{"labels": "3"}, {"labels": "4"}, {"labels": "5"}, {"labels": "6"}]


def test_archives_name_their_images_and_masks(tmp_path: Path) -> None:
    image, mask = noise((3, 4, 5)), np.abs(noise((3, 4, 5), 1)) % 3
    np.savez_compressed(tmp_path / "a.npz", image=image, mask=mask)
    reading = Reading(array_name="image", mask_name="mask", orientation="LPS", spacing=(1.0, 2.0, 3.0))
    (item,) = items(tmp_path / "a.npz", reading)
    read = readers.read("numpy", item, reading)
    assert np.array_equal(read.data[0], image)
    assert np.array_equal(read.header.affine, np.diag([-1.0, -2, 3, 1]))
    labels, affine = readers.read_mask("numpy", item, reading)
    assert np.array_equal(labels, mask)
    assert np.array_equal(affine, read.header.affine)
    assert reason(tmp_path / "a.npz", array_name="other").startswith("missing array:")


def test_label_maps_need_no_channels(tmp_path: Path) -> None:
    reading = Reading(dims=2, channels=3, array_axes="channels_last")
    save(tmp_path / "masks.npy", labels := np.abs(noise((6, 4, 5))) % 4)
    item = Item(path=tmp_path / "masks.npy", name="masks", part=2)
    assert np.array_equal(readers.read_mask("numpy", item, reading)[0], labels[2])


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.zeros(5), "axes: 1D where 3D is expected"),
        (np.zeros((2, 2, 2, 2, 2)), "axes: 5D where 3D is expected"),
        (np.full((2, 2, 2), "text"), "malformed NumPy file: its values are no real numbers"),
        (np.zeros((2, 2, 2), complex), "malformed NumPy file: its values are no real numbers"),
        (np.zeros((2, 0, 2)), "malformed NumPy file: an axis without values"),
    ],
)
def test_arrays_that_are_no_images_are_rejected(tmp_path: Path, array: Any, expected: str) -> None:
    assert reason(save(tmp_path / "a.npy", array)) == expected


def test_broken_files_and_pickles_are_rejected(tmp_path: Path) -> None:
    cut(save(tmp_path / "a.npy", noise((9, 9, 9))), 0.6)
    np.savez(tmp_path / "b.npz", image=noise((9, 9, 9)))
    cut(tmp_path / "b.npz", 0.6)
    np.save(tmp_path / "c.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("a.npy", "b.npz", "c.npy"):
        assert reason(tmp_path / name).startswith("malformed NumPy file")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": 4}, "dims: an image has 2 or 3 axes, not 4"),
        ({"channels": 0}, "channels: expected at least 1"),
        ({"colour": "rgb"}, "colour: 'rgb' gives 3 channels"),
        ({"spacing": (1.0, 2.0)}, "spacing: expected 3 positive numbers"),
        ({"spacing": (1.0, 2.0, -1.0)}, "spacing: expected 3 positive numbers"),
        ({"orientation": "RAR"}, "orientation: expected one letter of each"),
        ({"orientation": "XYZ"}, "orientation: expected one letter of each"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Reading(**settings)
