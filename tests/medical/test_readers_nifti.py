"""NIfTI files are read as nibabel and the standard have them; headers that lie are rejected with the reason."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from image_files import cut, noise, write_nifti

from diptych.data.readable import Item, Unreadable
from diptych_medical import geometry, readers
from diptych_medical.image import Image, Reading
from diptych_medical.readers import EXPECTED

OBLIQUE = np.array([[0, -1.9, 0.5, 10], [1.5, 0, 0, -20], [0, 0.6, 2.4, 30], [0, 0, 0, 1]])


def item_of(path: Path) -> Item:
    ((kind, item),) = readers.find([path], path.parent).items
    assert kind == "nifti"
    return item


def load(path: Path, **how: Any) -> Image:
    item, reading = item_of(path), Reading(**how)
    image = readers.read("nifti", item, reading)
    header = readers.read_header("nifti", item, reading)
    assert (header.shape, header.channels) == (image.header.shape, image.header.channels)
    assert np.array_equal(header.affine, image.header.affine)
    return image


def reason(path: Path, **how: Any) -> str:
    with pytest.raises(Unreadable) as error:
        readers.read("nifti", item_of(path), Reading(**how))
    return str(error.value)


def patch(path: Path, offset: int, content: bytes) -> Path:
    """Overwrite bytes of the header."""
    whole = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    whole = whole[:offset] + content + whole[offset + len(content) :]
    path.write_bytes(gzip.compress(whole) if path.suffix == ".gz" else whole)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "case.01.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_voxels_and_affine_are_those_that_were_written(tmp_path: Path, name: str, dtype: type) -> None:
    data = np.abs(noise((3, 4, 5)) // 8).astype(dtype)
    image = load(write_nifti(tmp_path / name, data, OBLIQUE))
    assert image.data.dtype == np.float32
    assert np.array_equal(image.data[0], data)
    assert np.allclose(image.header.affine, OBLIQUE, atol=1e-6)
    assert np.allclose(image.header.spacing, np.linalg.norm(OBLIQUE[:3, :3], axis=0))
    assert item_of(tmp_path / name).name == name.split(".nii")[0]


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(np.linspace(-3, 5, 60).reshape(3, 4, 5), np.eye(4))
    made.set_data_dtype(np.int16)
    nibabel.save(made, tmp_path / "a.nii")
    assert np.allclose(load(tmp_path / "a.nii").data[0], np.linspace(-3, 5, 60).reshape(3, 4, 5), atol=1e-3)


def test_nifti_2_and_pairs_are_read(tmp_path: Path) -> None:
    data = noise((3, 4, 5))
    nibabel.save(nibabel.Nifti2Image(data, OBLIQUE), tmp_path / "two.nii.gz")
    assert np.array_equal(load(tmp_path / "two.nii.gz").data[0], data)
    (tmp_path / "pair").mkdir()
    nibabel.save(nibabel.Nifti1Pair(data, OBLIQUE), tmp_path / "pair" / "a.img")
    found = readers.find(sorted((tmp_path / "pair").iterdir()), tmp_path)
    assert [path.name for path in found.items[0][1].files] == ["a.hdr", "a.img"]
    assert found.other == ()
    assert np.array_equal(readers.read(*found.items[0], Reading()).data[0], data)


def test_more_channels_lie_on_the_fourth_axis(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", data := noise((3, 4, 5, 2)))
    image = load(path, channels=2)
    assert np.array_equal(image.data, np.moveaxis(data, -1, 0))
    assert reason(path) == "axes: 4D where 3D is expected"
    assert reason(path, channels=3) == "channels: 2 where 3 are expected"
    one = write_nifti(tmp_path / "b.nii.gz", noise((3, 4, 5, 1)))
    assert load(one).header.shape == (3, 4, 5)


def test_flat_files_are_pictures_and_no_volumes(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", data := noise((3, 4)), np.diag([0.5, 0.25, 1, 1]))
    image = load(path, dims=2)
    assert np.array_equal(image.data[0], data)
    assert image.header.spacing == (0.5, 0.25)
    assert reason(path) == "axes: 2D where 3D is expected"
    assert (
        reason(write_nifti(tmp_path / "b.nii", noise((3, 4, 5))), dims=2) == "axes: 3D where 2D is expected"
    )
    assert load(write_nifti(tmp_path / "c.nii", noise((3, 4, 1))), dims=2).header.shape == (3, 4)


def test_colour_voxels_are_rejected_made_grey_or_kept(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3)).astype(np.uint8)
    coloured = values.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    path = write_nifti(tmp_path / "a.nii", coloured)
    assert reason(path) == "colour: a colour image where grey is expected"
    assert np.array_equal(load(path, colour="rgb", channels=3).data, np.moveaxis(values, -1, 0))
    assert np.allclose(load(path, colour="grey").data[0], values @ [0.299, 0.587, 0.114], atol=1e-4)


def test_lengths_are_turned_to_millimetres(tmp_path: Path) -> None:
    for unit, factor in (("micron", 1e-3), ("mm", 1.0), ("meter", 1e3)):
        made = nibabel.Nifti1Image(noise((3, 4, 5)), OBLIQUE)
        made.header.set_xyzt_units(unit)
        nibabel.save(made, tmp_path / f"{unit}.nii")
        affine = load(tmp_path / f"{unit}.nii").header.affine
        assert np.allclose(affine[:3], OBLIQUE[:3] * factor, rtol=1e-5)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_truncated_files_are_rejected(tmp_path: Path, name: str, share: float) -> None:
    path = cut(write_nifti(tmp_path / name, noise((12, 13, 14))), share)
    assert reason(path).startswith("malformed NIfTI file (")


def test_files_that_are_no_nifti_are_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"not an image " * 100)
    assert reason(tmp_path / "a.nii").startswith("malformed NIfTI file")
    (tmp_path / "b.nii.gz").write_bytes(b"")
    assert reason(tmp_path / "b.nii.gz").startswith("malformed NIfTI file")
    nibabel.save(nibabel.Spm99AnalyzeImage(noise((3, 4, 5)), np.eye(4)), tmp_path / "c.img")
    assert reason(tmp_path / "c.hdr") == "malformed NIfTI file: it is of another format"


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, np.inf])
def test_bad_spacing_is_rejected(tmp_path: Path, value: float) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", noise((3, 4, 5)))
    patch(path, 76 + 4 * 2, struct.pack("<f", value))  # pixdim[2]
    assert reason(path).startswith("bad spacing:")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (np.zeros((3, 4)), "bad affine: the spacing along an axis is zero"),
        (np.diag([1.0, np.nan, 1])[:, [0, 1, 2, 2]], "bad affine: it has values that are no finite numbers"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]), "bad affine: its axes lie in one plane"),
    ],
)
def test_bad_affines_are_rejected(tmp_path: Path, rows: np.ndarray[Any, Any], expected: str) -> None:
    path = write_nifti(tmp_path / "a.nii.gz", noise((3, 4, 5)))
    patch(path, 280, rows.astype("<f4").tobytes())  # srow_x, srow_y, srow_z
    assert reason(path) == expected


def test_a_file_without_orientation_is_rejected_unless_the_config_gives_one(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a.nii", noise((3, 4, 5)), np.diag([2.0, 3, 4, 1]))
    patch(path, 252, struct.pack("<hh", 0, 0))  # qform_code, sform_code
    assert reason(path).startswith("missing orientation:")
    affine = load(path, orientation="LPS").header.affine
    assert np.array_equal(affine, np.diag([-2.0, -3, 4, 1]))


def test_the_qform_is_taken_where_there_is_no_sform(tmp_path: Path) -> None:
    made = nibabel.Nifti1Image(noise((3, 4, 5)), None)
    rectangular = np.array([[0, -2.0, 0, 10], [1.5, 0, 0, -20], [0, 0, 3, 30], [0, 0, 0, 1]])
    made.set_qform(rectangular, code=1)
    nibabel.save(made, tmp_path / "a.nii")
    assert np.allclose(load(tmp_path / "a.nii").header.affine, rectangular, atol=1e-5)


def test_label_maps_are_whole_numbers(tmp_path: Path) -> None:
    labels = np.arange(60).reshape(3, 4, 5) % 7
    for name, dtype in (("u", np.uint8), ("f", np.float32)):
        item = item_of(write_nifti(tmp_path / f"{name}.nii.gz", labels.astype(dtype), OBLIQUE))
        mask, affine = readers.read_mask("nifti", item, Reading(colour="rgb", channels=3))
        assert mask.dtype == np.int64
        assert np.array_equal(mask, labels)
        assert np.allclose(affine, OBLIQUE, atol=1e-6)
    big = np.array([[[2**31 - 1, 2**24 + 1]]], np.int32)  # float32 would round them
    assert np.array_equal(
        readers.read_mask("nifti", item_of(write_nifti(tmp_path / "b.nii", big)), Reading())[0], big
    )


def test_label_maps_with_fractions_or_gaps_are_rejected(tmp_path: Path) -> None:
    for value, expected in ((0.5, "no whole numbers"), (np.nan, "no finite numbers")):
        labels = np.zeros((3, 4, 5), np.float32)
        labels[1, 1, 1] = value
        with pytest.raises(Unreadable, match=f"^label map: .*{expected}"):
            readers.read_mask("nifti", item_of(write_nifti(tmp_path / "a.nii", labels)), Reading())
    with pytest.raises(Unreadable, match=r"^axes: 4D where 3D"):
        readers.read_mask("nifti", item_of(write_nifti(tmp_path / "a.nii", noise((3, 4, 5, 2)))), Reading())


def test_complex_values_are_rejected(tmp_path: Path) -> None:
    assert reason(write_nifti(tmp_path / "a.nii", np.ones((3, 4, 5), np.complex64))).startswith(
        "complex values"
    )


def test_an_image_turned_to_ras_lies_where_it_lay(tmp_path: Path) -> None:
    image = load(write_nifti(tmp_path / "a.nii", noise((3, 4, 5)), OBLIQUE))
    turn = geometry.orientation_of(image.header.affine)
    data = geometry.turn(image.data, turn)[0]
    expected = nibabel.as_closest_canonical(nibabel.load(tmp_path / "a.nii"))
    assert np.array_equal(data, expected.get_fdata())
    affine = geometry.turned_affine(image.header.affine, image.header.shape, turn)
    assert np.allclose(affine, expected.affine)


def test_every_suffix_is_known_by_its_format() -> None:
    known = {
        "x.nii": "nifti", "x.NII.GZ": "nifti", "x.hdr": "nifti", "x.nrrd": "nrrd", "x.nhdr": "nrrd", "x.dcm": "dicom",
        "x.IMA": "dicom", "x.png": "picture", "x.TIF": "picture", "x.jpeg": "picture", "x.npy": "numpy",
        "x.npz": "numpy", "x.csv": None, "x.img": None, "x.gz": None,
    }  # fmt: skip
    assert {name: readers.format_of(Path(name)) for name in known} == known
    assert all(suffix in EXPECTED for suffix in (".nii.gz", ".nrrd", "DICOM", "PNG", "NumPy"))
