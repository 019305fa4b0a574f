"""Real images are read whole and lie where their headers put them (with DIPTYCH_DATA)."""

from __future__ import annotations

import csv
import os
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from diptych.data.readable import Item, Unreadable
from diptych_medical import geometry, readers
from diptych_medical.image import Reading

DATA = os.environ.get("DIPTYCH_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="DIPTYCH_DATA is not set: real images are not part of the project"
)


def found(folder: str, reading: Reading) -> dict[str, tuple[str, Item]]:
    root = Path(DATA or "") / folder
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {item.name: (kind, item) for kind, item in readers.find(files, root, reading=reading).items}


def head(**how: Any) -> tuple[Item, Reading]:
    reading = Reading(**how)
    ((kind, item),) = found("ct3d/ge_head_ct_dicom", reading).values()
    assert (kind, len(item.files)) == ("dicom", 28)
    return item, reading


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, "unequal gaps: slices lie 1.08 to 7 mm apart"),
        ({"tilt": "correct"}, "unequal gaps: slices lie 1.08 to 7 mm apart"),
        ({"gaps": "resample"}, "gantry tilt: slices are stacked 18.5 degrees off their normal"),
    ],
)
def test_the_head_ct_is_rejected_with_the_reason_unless_corrected(how: dict[str, Any], expected: str) -> None:
    item, reading = head(**how)
    with pytest.raises(Unreadable) as error:
        readers.read_header("dicom", item, reading)
    assert str(error.value) == expected


def test_the_corrected_head_ct_has_every_pixel_where_its_header_puts_it() -> None:
    item, reading = head(gaps="resample", tilt="correct")
    image = readers.read("dicom", item, reading)
    assert geometry.shear(image.header.affine) < 1e-4
    assert geometry.codes_of(image.header.affine) == "LPS"
    assert np.allclose(image.header.spacing, (0.488, 0.488, 4.002), atol=1e-3)
    assert image.header.modality == "CT"
    to_index = np.linalg.inv(image.header.affine)
    errors = []
    for path in item.files:
        slice_ = pydicom.dcmread(path)
        first, row, column = (
            np.array(values, float)
            for values in (
                slice_.ImagePositionPatient, slice_.ImageOrientationPatient[:3], slice_.ImageOrientationPatient[3:],
            )
        )  # fmt: skip
        i, j = (
            each.ravel() for each in np.meshgrid(np.arange(40, 472, 9), np.arange(40, 472, 9), indexing="ij")
        )
        down, across = slice_.PixelSpacing
        lps = first[:, None] + down * i * column[:, None] + across * j * row[:, None]
        index = to_index @ np.stack([-lps[0], -lps[1], lps[2], np.ones(lps.shape[1])])
        smooth = ndimage.gaussian_filter(np.clip(slice_.pixel_array, -1000, 1000).astype(float), 2)
        volume = np.clip(image.data[0], -1000, 1000)
        height = index[2].mean()
        assert np.ptp(index[2]) < 1e-3  # a slice lies in one height of the grid
        assert -1e-3 < height < volume.shape[2]
        if abs(height - round(height)) > 0.02:
            continue  # between two heights of the grid the volume is a mixture of slices
        plane = ndimage.gaussian_filter(volume[..., round(height)], 2)
        ours = ndimage.map_coordinates(plane, index[:2], order=1)
        errors.append(np.abs(ours - smooth[i, j]).mean())
    assert len(errors) >= 14  # all thin slices, 4 mm apart
    assert max(errors) < 4  # HU; a shift by one pixel gives more (see below)
    assert float(image.data.max()) == pytest.approx(2120, abs=2)


def test_the_kept_tilt_and_the_corrected_one_put_the_head_at_one_place() -> None:
    centres = []
    for tilt in ("ignore", "correct"):
        item, reading = head(gaps="resample", tilt=tilt)
        image = readers.read("dicom", item, reading)
        density = np.clip(
            image.data[0].astype(np.float64) + 1000, 0, None
        )  # not thresholded: a linear measure
        centres.append((image.header.affine @ [*ndimage.center_of_mass(density), 1])[:3])
    assert np.abs(centres[0] - centres[1]).max() < 0.3  # mm


def test_hippocampi_are_read_with_their_masks() -> None:
    items = found("mri3d/msd_hippocampus", Reading())
    images = [name for name in items if name.startswith("imagesTr/")]
    assert len(images) == 160
    for name in images[::16]:
        image = readers.read(*items[name], Reading())
        mask, affine = readers.read_mask(*items[name.replace("imagesTr", "labelsTr")], Reading())
        assert np.array_equal(image.data[0], nibabel.load(items[name][1].path).get_fdata(dtype=np.float32))
        assert geometry.same_space(image.header.shape, image.header.affine, mask.shape, affine)
        assert set(np.unique(mask)) == {0, 1, 2}
        assert np.allclose(image.header.spacing, 1)


def test_lesions_lie_on_their_images() -> None:
    items = found("mri3d/pyradiomics_lesions", Reading())
    assert len(items) == 6
    for case, codes in (("brain1", "LAS"), ("brain2", "LAS"), ("breast1", "LPS")):
        image = readers.read(*items[f"{case}_image"], Reading())
        mask, affine = readers.read_mask(*items[f"{case}_label"], Reading())
        assert geometry.codes_of(image.header.affine) == codes
        assert geometry.same_space(image.header.shape, image.header.affine, mask.shape, affine)
        assert np.array_equal(image.data[0], nrrd.read(str(items[f"{case}_image"][1].path))[0])
        assert 0 < (mask > 0).mean() < 0.2


def test_nuclei_are_grey_and_coloured_pictures_with_numbered_masks() -> None:
    grey, rgb = Reading(dims=2), Reading(dims=2, colour="rgb", channels=3)
    items = found("img2d/dsb2018_nuclei", grey)
    images = {name: each for name, each in items.items() if name.startswith("images/")}
    assert len(images) == 324
    count: Counter[str] = Counter()
    for kind, item in images.values():
        assert readers.read_header(kind, item, rgb).channels == 3
        try:
            readers.read_header(kind, item, grey)
            count["grey"] += 1
        except Unreadable as error:
            count[str(error)] += 1
    assert count == {"grey": 266, "colour: a colour image where grey is expected": 58}
    with (Path(DATA or "") / "img2d/dsb2018_nuclei/index.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for name in sorted(images)[::40]:
        mask, _ = readers.read_mask(*items[name.replace("images", "labels")], grey)
        row = rows[name.removeprefix("images/")]
        assert mask.shape == (int(row["height"]), int(row["width"]))
        assert len(np.unique(mask)) - 1 == int(row["nuclei"])
        image = readers.read(*items[name], rgb)
        expected = np.asarray(Pillow.open(items[name][1].path).convert("RGB"))
        assert np.array_equal(image.data, np.moveaxis(expected, -1, 0))


def test_small_x_rays_have_their_label_in_the_archive() -> None:
    reading = Reading(dims=2)
    root = Path(DATA or "") / "img2d/pneumoniamnist_val_test"
    listed = readers.find(sorted(root.iterdir()), root, reading=reading).items
    assert len(listed) == 524 + 624
    labels: Counter[str] = Counter()
    with np.load(root / "pneumoniamnist_val_test.npz") as archive:
        expected = np.concatenate([archive["val_labels"], archive["test_labels"]])[:, 0]
        last = archive["test_images"][-1]
    for kind, item in listed:
        header = readers.read_header(kind, item, reading)
        assert header.shape == (28, 28)
        labels[header.fields["labels"]] += 1
    assert labels == {str(value): int((expected == value).sum()) for value in (0, 1)}
    assert np.array_equal(readers.read(*listed[-1], reading).data[0], last)
