"""Preparation: turned without loss, scaled as told, interpolated once, and labels find their way back."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow

from diptych.data.readable import Unreadable
from diptych.errors import ConfigError
from diptych_medical import geometry
from diptych_medical.image import Image, ImageHeader
from diptych_medical.intensity import check_voxels, content_hash, scaled
from diptych_medical.prepare import (
    Stored,
    classes_of,
    prepare_image,
    slices_of,
    to_input_space,
    write_prediction,
)
from diptych_medical.settings import Imaging, Masks, Source, reading

PLAIN = Imaging(intensity="none", precision="float32")
TURNS = [
    "".join(
        letter if keep else {"R": "L", "A": "P", "S": "I"}[letter]
        for letter, keep in zip(codes, flips, strict=True)
    )
    for codes in itertools.permutations("RAS")
    for flips in itertools.product([True, False], repeat=3)
]


def volume(
    shape: tuple[int, ...] = (5, 6, 7),
    affine: NDArray[np.float64] | None = None,
    seed: int = 0,
    channels: int = 1,
) -> Image:
    data = np.random.default_rng(seed).normal(size=(channels, *shape)).astype(np.float32)
    place = np.eye(len(shape) + 1) if affine is None else affine
    return Image(data=data, header=ImageHeader(shape=shape, channels=channels, affine=place))


def world_of(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Places of all voxels in mm, (*shape, 3), voxel by voxel."""
    out = np.zeros((*shape, 3))
    for index in np.ndindex(*shape):
        out[index] = (affine @ np.array([*index, 1.0]))[:3]
    return out


@pytest.mark.parametrize("codes", TURNS)
def test_every_orientation_is_turned_to_ras_with_each_voxel_at_its_place(codes: str) -> None:
    affine = geometry.from_codes(codes, (1.0, 2.0, 3.0))
    affine[:3, 3] = (11.0, -7.0, 5.0)
    world = world_of((4, 5, 6), affine)
    data = (world @ np.array([1.0, 100.0, 10000.0])).astype(np.float32)[None]
    labels = np.arange(120).reshape(4, 5, 6)
    image = Image(data=data, header=ImageHeader(shape=(4, 5, 6), channels=1, affine=affine))
    stored = prepare_image(image, labels, PLAIN)
    assert geometry.codes_of(stored.affine) == "RAS"
    after = world_of(stored.data.shape[1:], stored.affine)
    np.testing.assert_allclose(stored.data[0], after @ np.array([1.0, 100.0, 10000.0]), rtol=1e-6)
    assert stored.mask is not None
    back, place = to_input_space(stored.mask, stored)
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_array_equal(place, affine)


def test_an_oblique_volume_keeps_its_own_grid() -> None:
    angle = np.radians(20)
    affine = np.eye(4)
    affine[:2, :2] = 2 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    stored = prepare_image(volume(affine=affine), None, PLAIN)
    np.testing.assert_array_equal(stored.affine, affine)


def test_a_linear_field_survives_resampling_and_labels_are_not_mixed() -> None:
    affine = geometry.from_codes("LPS", (1.0, 1.0, 2.0))
    world = world_of((12, 14, 8), affine)
    data = (world @ np.array([1.0, 3.0, -2.0])).astype(np.float32)[None]
    image = Image(data=data, header=ImageHeader(shape=(12, 14, 8), channels=1, affine=affine))
    labels = np.where(world[..., 0] < -5, 7, 2)
    stored = prepare_image(
        image, labels, Imaging(intensity="none", precision="float32", spacing=(1.5, 0.7, 1.0))
    )
    np.testing.assert_allclose(geometry.spacing_of(stored.affine), (1.5, 0.7, 1.0), rtol=1e-12)
    assert stored.data.shape[1:] == (8, 20, 16)
    after = world_of(stored.data.shape[1:], stored.affine)
    inside = (slice(1, -1), slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(
        stored.data[0][inside], (after @ np.array([1.0, 3.0, -2.0]))[inside], rtol=0, atol=2e-5
    )
    assert stored.mask is not None
    assert set(np.unique(stored.mask)) == {2, 7}
    np.testing.assert_array_equal(stored.mask[inside] == 7, (after[..., 0] < -5)[inside])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SAL", "PIR"])
def test_labels_on_a_finer_grid_come_back_exactly(codes: str) -> None:
    affine = geometry.from_codes(codes, (2.0, 2.0, 2.0))
    labels = np.random.default_rng(0).integers(0, 5, (5, 6, 7))
    fine = Imaging(intensity="none", precision="float32", spacing=(0.5, 1.0, 0.4))
    stored = prepare_image(volume(affine=affine), labels, fine)
    assert stored.mask is not None
    assert stored.mask.size == 4 * 2 * 5 * labels.size
    back, place = to_input_space(stored.mask, stored)
    np.testing.assert_array_equal(back, labels)
    np.testing.assert_array_equal(place, affine)


def test_an_image_that_has_the_wanted_spacing_is_not_interpolated() -> None:
    image = volume(affine=geometry.from_codes("RAS", (0.7, 0.9, 1.1)))
    stored = prepare_image(
        image, None, Imaging(intensity="none", precision="float32", spacing=(0.7, 0.9, 1.1))
    )
    np.testing.assert_array_equal(stored.data, image.data)


def test_pictures_are_resized_with_their_labels_and_back() -> None:
    image = volume((6, 4), np.diag([0.5, 0.5, 1]))
    labels = np.arange(24).reshape(6, 4)
    stored = prepare_image(image, labels, Imaging(dims=2, size=(12, 12)))
    assert stored.data.shape == (1, 12, 12)
    np.testing.assert_allclose(geometry.spacing_of(stored.affine), (0.25, 1 / 6))
    assert stored.mask is not None
    np.testing.assert_array_equal(stored.mask, labels.repeat(2, axis=0).repeat(3, axis=1))
    np.testing.assert_array_equal(to_input_space(stored.mask, stored)[0], labels)


def test_a_prediction_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="labels of shape"):
        to_input_space(np.zeros((2, 2, 2), int), prepare_image(volume(), None, PLAIN))


def test_ct_is_cut_to_its_window() -> None:
    data = np.array([-1000, -160, 40, 240, 3000], np.float32).reshape(1, 5, 1, 1)
    out = scaled(data, Imaging(intensity="ct"))
    np.testing.assert_allclose(out.ravel(), [0, 0, 0.5, 1, 1])


def test_mr_is_scaled_by_percentiles_of_each_channel() -> None:
    data = np.random.default_rng(0).gamma(2, 100, (2, 6, 5, 4)).astype(np.float32)
    data[1] *= 30
    out = scaled(data, Imaging(intensity="mr", channels=2, percentiles=(2, 90)))
    for channel, result in zip(data, out, strict=True):
        values = sorted(float(v) for v in channel.ravel())
        edges = []
        for share in (0.02, 0.9):  # linear between order statistics
            place = share * (len(values) - 1)
            low = int(place)
            edges.append(values[low] + (place - low) * (values[low + 1] - values[low]))
        expected = [min(1, max(0, (float(v) - edges[0]) / (edges[1] - edges[0]))) for v in channel.ravel()]
        np.testing.assert_allclose(result.ravel(), expected, atol=1e-5)


def test_minmax_keeps_the_relation_of_channels() -> None:
    data = np.array([[[2, 4]], [[6, 10]]], np.float32)
    np.testing.assert_allclose(scaled(data, Imaging(dims=2)), [[[0, 0.25]], [[0.5, 1]]])


def test_no_scaling_keeps_every_value() -> None:
    image = volume()
    np.testing.assert_array_equal(prepare_image(image, None, PLAIN).data, image.data)


@pytest.mark.parametrize(
    ("data", "settings", "message"),
    [
        (np.full((1, 2, 2), np.nan), {}, r"missing voxels: 100.00% of the values are NaN or infinite"),
        (np.array([[[1, np.inf, 2, 3]]]), {}, r"missing voxels: 25.00%"),
        (np.full((1, 3, 2), 7.0), {}, "constant image: all voxels have one value"),
        (np.array([[[1.0, 2]], [[3, 3]]]), {}, "constant image: 1 of 2 channels have one value"),
        (
            np.array([[[-900.0, -800]]]),
            {"intensity": "ct"},
            "constant image: all voxels are equal within the window",
        ),
        (
            np.eye(40)[None],
            {"intensity": "mr", "percentiles": (1, 90)},
            "percentiles of a channel are one value",
        ),
    ],
)
def test_images_that_show_nothing_say_why(data: Any, settings: dict[str, Any], message: str) -> None:
    values = np.asarray(data, np.float32)
    header = ImageHeader(shape=values.shape[1:], channels=len(values), affine=np.eye(3))
    with pytest.raises(Unreadable, match=message):
        prepare_image(
            Image(data=values, header=header), None, Imaging(dims=2, channels=len(values), **settings)
        )


def test_a_colour_may_be_absent() -> None:
    data = np.zeros((3, 4, 4), np.float32)
    data[0] = np.arange(16).reshape(4, 4)
    check_voxels(data, colour=True)
    with pytest.raises(Unreadable, match="2 of 3 channels"):
        check_voxels(data, colour=False)


def test_the_content_hash_is_of_values_not_of_how_they_are_stored() -> None:
    data = np.array([[[0.0, 1.0], [2.0, 3.0]]], np.float32)
    assert content_hash(data) == content_hash(-np.asfortranarray(-data))
    assert content_hash(data) != content_hash(data.reshape(1, 4, 1))
    assert content_hash(data) != content_hash(np.nextafter(data, np.float32(9)))


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (Masks(files="{record}.png"), [0, 1, 1, 1, 1]),
        (Masks(files="{record}.png", classes={"a": [3, 5], "b": 1, "background": 4}), [0, 2, 1, 0, 1]),
        (Masks(files="{record}.png", classes={"a": [1, 3, 4]}, unlabelled=[5]), [0, 1, 1, 1, -1]),
        (Masks(files="{record}.png", unlabelled=[3]), [0, 1, -1, 1, 1]),
    ],
)
def test_values_of_a_mask_become_numbers_of_classes(masks: Masks, expected: list[int]) -> None:
    values = np.array([[0, 1, 3], [4, 5, 0]])
    table = dict(zip([0, 1, 3, 4, 5], expected, strict=True))
    assert classes_of(values, masks).tolist() == [[table[int(v)] for v in row] for row in values]


@pytest.mark.parametrize(
    ("values", "masks", "message"),
    [
        (
            [0, 1, 7],
            Masks(files="{record}.png", classes={"a": 1}),
            r"label value outside the list: 7 \(masks.classes lists 0, 1\)",
        ),
        ([0, -3], Masks(files="{record}.png"), "label value outside the list: -3"),
        ([0, 0], Masks(files="{record}.png"), "empty label: the mask holds background only"),
        ([0, 9], Masks(files="{record}.png", classes={"a": 1}, unlabelled=[9]), "empty label"),
    ],
)
def test_masks_that_do_not_fit_say_why(values: list[int], masks: Masks, message: str) -> None:
    with pytest.raises(Unreadable, match=message):
        classes_of(np.array(values), masks)


def test_an_empty_mask_may_be_kept() -> None:
    assert classes_of(np.zeros(4, int), Masks(files="{record}.png", empty="keep")).tolist() == [0] * 4


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_slices_are_planes_of_the_turned_volume(plane: Any, axis: int) -> None:
    affine = geometry.from_codes("PSL", (1.0, 2.0, 3.0))
    imaging = Imaging(dims=2, slices=plane, every=2, intensity="none", precision="float32")
    labels = np.random.default_rng(1).integers(0, 4, (5, 6, 7))
    stored = prepare_image(volume(affine=affine), labels, imaging)
    found = slices_of(stored, imaging)
    assert [each.facts["slice"] for each in found] == list(range(0, stored.data.shape[1 + axis], 2))
    spacing = geometry.spacing_of(stored.affine)
    for each in found:
        np.testing.assert_array_equal(each.data, stored.data.take(each.facts["slice"], axis=1 + axis))
        assert geometry.spacing_of(each.affine) == tuple(s for i, s in enumerate(spacing) if i != axis)
        assert each.mask is not None
        back, place = to_input_space(each.mask, each)
        turned = geometry.turn(back, geometry.orientation_of(place))
        rest = np.delete(turned, each.facts["slice"], axis=axis)
        np.testing.assert_array_equal(turned.take(each.facts["slice"], axis=axis), each.mask)
        assert not rest.any()


def test_constant_slices_are_left_out() -> None:
    image = volume()
    image.data[0, :, :, (0, 3)] = 1.5
    imaging = Imaging(dims=2, slices="axial", intensity="none", precision="float32")
    assert [each.facts["slice"] for each in slices_of(prepare_image(image, None, imaging), imaging)] == [
        1,
        2,
        4,
        5,
        6,
    ]


def test_resized_slices_find_their_way_back() -> None:
    imaging = Imaging(dims=2, slices="axial", size=(10, 18))
    labels = np.random.default_rng(1).integers(0, 4, (5, 6, 7))
    found = slices_of(prepare_image(volume(), labels, imaging), imaging)
    assert all(each.data.shape == (1, 10, 18) for each in found)
    total = sum(to_input_space(each.mask, each)[0] for each in found if each.mask is not None)
    np.testing.assert_array_equal(total, labels)


class Held:
    """A data set of what is given."""

    def __init__(self, images: list[Stored]) -> None:
        self.images = images

    def stored(self, index: int) -> Stored:
        return self.images[index]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_a_written_prediction_lies_over_the_image(tmp_path: Path, suffix: str) -> None:
    affine = geometry.from_codes("LIP", (1.0, 2.0, 1.5))
    affine[:3, 3] = (4, -5, 6)
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    stored = prepare_image(volume(affine=affine), labels, Imaging(spacing=(0.5, 0.5, 0.5)))
    assert stored.mask is not None
    path = write_prediction(tmp_path / "new" / f"a{suffix}", stored.mask, Held([stored]), 0)
    written = nibabel.load(path)
    np.testing.assert_allclose(written.affine, affine, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(written.dataobj), labels)
    assert written.get_data_dtype() == np.uint8
    assert (written.header["sform_code"], written.header["qform_code"]) == (1, 1)


def test_slices_of_one_volume_are_written_together(tmp_path: Path) -> None:
    imaging = Imaging(dims=2, slices="coronal")
    labels = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    found = slices_of(prepare_image(volume(), labels, imaging), imaging)
    chosen = [1, 4]
    maps = np.stack([np.asarray(found[i].mask) for i in chosen])
    path = write_prediction(tmp_path / "a.nii.gz", maps, Held(found), chosen)
    expected = np.zeros_like(labels)
    expected[:, chosen] = labels[:, chosen]
    np.testing.assert_array_equal(np.asarray(nibabel.load(path).dataobj), expected)
    other = slices_of(prepare_image(volume(seed=5), None, imaging), imaging)
    with pytest.raises(ValueError, match="slices of one volume"):
        write_prediction(tmp_path / "b.nii.gz", maps, Held([found[0], other[0]]), [0, 1])


@pytest.mark.parametrize(("most", "dtype"), [(200, np.uint8), (900, np.uint16)])
def test_predictions_of_pictures_are_png_with_a_number_a_pixel(
    tmp_path: Path, most: int, dtype: type
) -> None:
    labels = np.linspace(0, most, 24).astype(int).reshape(6, 4)
    stored = prepare_image(volume((6, 4)), None, Imaging(dims=2, size=(12, 8)))
    path = write_prediction(tmp_path / "a.png", labels.repeat(2, 0).repeat(2, 1), Held([stored]), 0)
    with Pillow.open(path) as picture:
        values = np.asarray(picture)
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, labels)
    with pytest.raises(ValueError, match=r"written to \.png; got 'a\.nii\.gz'"):
        write_prediction(tmp_path / "a.nii.gz", labels.repeat(2, 0).repeat(2, 1), Held([stored]), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"slices": "axial"}, "set image.dims: 2"),
        ({"every": 2}, "image.every counts slices"),
        ({"spacing": (1, 1)}, "image.spacing is a list of 3 numbers above 0"),
        ({"spacing": (1, 1, -1)}, "image.spacing is a list of 3 numbers above 0"),
        ({"dims": 2, "slices": "axial", "spacing": (1, 1)}, "image.spacing is a list of 3 numbers"),
        ({"crop": (20, float("nan"), 20)}, "image.crop is a list of 3 numbers"),
        ({"size": (8, 8)}, "image.size resizes 2D images"),
        ({"dims": 2, "size": (8, 8), "spacing": (1, 1)}, "leave out image.spacing"),
        ({"mixed_spacing": True, "crop": (8, 8, 8)}, "image.mixed_spacing goes with neither"),
        ({"window": (240, -160)}, r"image.window is \[lowest, highest\]"),
        ({"percentiles": (5, 5)}, "image.percentiles"),
        ({"channels": 0}, "image.channels is at least 1"),
        ({"colour": "rgb"}, "set image.channels: 3"),
        ({"intensity": "none"}, "set image.precision: float32"),
        ({"max_quarantined": 2}, "image.max_quarantined"),
    ],
)
def test_faults_of_the_image_section(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Imaging(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": {"a": 1, "b": [1, 2]}}, "the value 1 is listed twice"),
        ({"classes": {"a": 1}, "unlabelled": [1]}, "the value 1 is listed twice"),
        ({"classes": {"a": []}}, "'a' has no value"),
        ({"classes": {"background": 3}}, "names the background only"),
    ],
)
def test_faults_of_the_masks_section(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Masks(files="{record}.png", **settings)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{case}.nii", r"\{case\} is neither \{record\} nor a group of data.names \(groups: id\)"),
        ("mask.nii", "is one file for all images"),
        ("{record.nii", "is no template"),
    ],
)
def test_faults_of_templates(template: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Source(path=".", names="(?P<id>[0-9]+)", channel_files=[template])


def test_channels_are_shared_among_the_files_of_an_image() -> None:
    source = Source(path=".", channel_files=["{record}_b.nii", "{record}_c.nii"])
    assert reading(source, Imaging(channels=6)).channels == 2
    with pytest.raises(ConfigError, match="4 channels cannot come from 3 files an image"):
        reading(source, Imaging(channels=4))
