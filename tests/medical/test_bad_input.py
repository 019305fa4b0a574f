"""Bad input: each kind has a clear error or a quarantine row, and nothing is lost or made up."""

from __future__ import annotations

import gzip
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from image_files import (
    REPORT,
    SECONDARY,
    cut,
    data_set,
    noise,
    put_pixels,
    save,
    write_nifti,
    write_series,
)
from numpy.typing import NDArray
from PIL import Image as Pillow

from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.errors import ConfigError, DataError
from diptych_medical.source import Imaging, Label, Masks, Prepared, Source, prepare

SHAPE = (10, 11, 12)
PLAIN = Imaging(intensity="minmax", max_quarantined=1.0)
FLAT = Imaging(dims=2, max_quarantined=1.0)


def run(
    folder: Path,
    imaging: Imaging = PLAIN,
    masks: Masks | None = None,
    labels: dict[str, Label] | None = None,
    **settings: Any,
) -> Prepared:
    source = Source(path=str(folder), **settings)
    return prepare(source, imaging, masks, labels or {}, Split(), cache=folder.parent / "cache", workers=1)


def quarantined(data: Prepared) -> dict[str, str]:
    return {row.path: row.reason for row in data.samples.quarantine.rows}


def patch_header(path: Path, **fields: Any) -> None:
    """Set fields of a NIfTI header as they are, which nibabel would mend."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    header = nibabel.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(bytes(content)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good volumes."""
    for seed in range(3):
        write_nifti(tmp_path / "data" / f"good{seed}.nii.gz", noise(SHAPE, seed))
    return tmp_path / "data"


def test_every_broken_volume_is_a_row_and_the_rest_goes_on(folder: Path) -> None:
    def volume(name: str, data: NDArray[Any] | None = None, **header: Any) -> Path:
        seed = sum(map(ord, name))
        path = write_nifti(folder / f"{name}.nii.gz", noise(SHAPE, seed) if data is None else data)
        if header:
            patch_header(path, **header)
        return path

    cut(volume("truncated"), 0.6)
    volume("zeroaffine", srow_x=0, srow_y=0, srow_z=0)
    volume("nanaffine", srow_y=np.nan)
    volume("flataffine", srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0], srow_z=[0, 0, 1, 0])
    volume("negative", pixdim=[1, 1, -2, 1, 0, 0, 0, 0])
    volume("nospacing", pixdim=[1, 0, 0, 0, 0, 0, 0, 0])
    volume("nowhere", sform_code=0, qform_code=0)
    volume("fourth", noise((6, 6, 6, 4)))
    volume("picture", noise((9, 9, 1))[..., 0])
    volume("constant", np.full(SHAPE, 3, np.int16))
    holes = noise(SHAPE, 50).astype(np.float32)
    holes[:2, 0, 0] = np.nan
    volume("holes", holes)
    (folder / "empty.nii.gz").write_bytes(b"")
    (folder / "notnifti.nii.gz").write_bytes(gzip.compress(b"not a volume" * 100))
    (folder / "notes.txt").write_text("no image")
    data = run(folder)
    assert len(data) == 3
    found = quarantined(data)
    expected = {
        "truncated": "malformed NIfTI file",
        "zeroaffine": "bad affine: ",
        "nanaffine": "bad affine: ",
        "flataffine": "bad affine: its axes lie in one plane",
        "negative": "bad spacing: ",
        "nospacing": "bad spacing: ",
        "nowhere": "missing orientation: ",
        "fourth": "axes: ",
        "picture": "axes: ",
        "constant": "constant image: all voxels have one value",
        "holes": "missing voxels: 0.15% of the values are NaN or infinite",
        "empty": "malformed NIfTI file",
        "notnifti": "malformed NIfTI file",
    }
    assert set(found) == {f"{name}.nii.gz" for name in expected}
    for name, begin in expected.items():
        assert found[f"{name}.nii.gz"].startswith(begin), found[f"{name}.nii.gz"]
    assert {entry.path for entry in data.samples.manifest.entries} == {f"good{i}.nii.gz" for i in range(3)}
    assert data.report["files of no image"] == ".txt (1)"
    with pytest.raises(
        DataError, match=re.escape("13 of 16 files (81%) cannot be used, more than 20% allowed")
    ):
        run(folder, replace(PLAIN, max_quarantined=0.2))


def test_masks_that_do_not_belong_to_their_image(folder: Path) -> None:
    good = (noise(SHAPE) > 0).astype(np.uint8)
    names = ("shape", "space", "value", "hollow", "broken", "half", "text")
    for seed, name in enumerate(names):
        write_nifti(folder / f"{name}.nii.gz", noise(SHAPE, 20 + seed))
        write_nifti(folder / f"{name}_mask.nii.gz", good)
    write_nifti(folder / "good0_mask.nii.gz", good)
    write_nifti(folder / "shape_mask.nii.gz", good[:-1])
    moved = np.eye(4)
    moved[0, 3] = 4
    write_nifti(folder / "space_mask.nii.gz", good, moved)
    write_nifti(folder / "value_mask.nii.gz", good * 7)
    write_nifti(folder / "hollow_mask.nii.gz", good * 0)
    cut(folder / "broken_mask.nii.gz", 0.5)
    write_nifti(folder / "half_mask.nii.gz", good * np.float32(0.5))
    (folder / "text_mask.nii.gz").write_bytes(b"label")
    data = run(folder, masks=Masks(files="{record}_mask.nii.gz", classes={"organ": 1}))
    assert data.report["masks"] == "1 of 3 images (organ)"
    found = {path.removesuffix(".nii.gz"): reason for path, reason in quarantined(data).items()}
    assert found.pop("half").startswith("label map: ") or "whole" in found["half"]
    assert found.pop("broken").startswith("malformed NIfTI file")
    assert found.pop("text").startswith("malformed NIfTI file")
    assert found == {
        "shape": "mask of another shape: 9 x 11 x 12 voxels, the image has 10 x 11 x 12",
        "space": "mask in another space: its affine puts it elsewhere than the image",
        "value": "label value outside the list: 7 (masks.classes lists 0, 1)",
        "hollow": "empty label: the mask holds background only (masks.empty: keep takes it)",
    }


def test_a_mask_that_is_mirrored_in_space_is_not_taken_for_its_image(folder: Path) -> None:
    write_nifti(folder / "good0_mask.nii.gz", np.ones(SHAPE, np.uint8), np.diag([-1.0, 1, 1, 1]))
    data = run(folder, masks=Masks(files="{record}_mask.nii.gz"))
    assert quarantined(data)["good0.nii.gz"].startswith("mask in another space")


def test_a_template_that_leads_nowhere_or_to_the_image_itself(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"masks.files: 'labels/\{record\}.nii.gz' leads to no file for any of the 3"
    ):
        run(folder, masks=Masks(files="labels/{record}.nii.gz"))
    with pytest.raises(
        ConfigError, match=r"masks.files: the template leads from 3 images to the image itself"
    ):
        run(folder, masks=Masks(files="{record}.nii.gz"))
    with pytest.raises(ConfigError, match=r"\{case\} is neither \{record\} nor a group of data.names"):
        run(folder, masks=Masks(files="{case}.nii.gz"))


def test_channels_that_are_missing_or_on_another_grid(folder: Path) -> None:
    write_nifti(folder / "good0_t2.nii.gz", noise(SHAPE, 30))
    write_nifti(folder / "good1_t2.nii.gz", noise((4, 4, 4), 31))
    both = replace(PLAIN, channels=2)
    data = run(folder, both, include=["*good[0-9].nii.gz"], channel_files=["{record}_t2.nii.gz"])
    assert data.image(0).shape == (2, *SHAPE)
    assert quarantined(data) == {
        "good1.nii.gz": "channel on another grid: 4 x 4 x 4, the first has 10 x 11 x 12; or it lies elsewhere",
        "good2.nii.gz": "missing channel: 1 of 1 files of data.channel_files are not there",
    }
    with pytest.raises(ConfigError, match="3 channels cannot come from 2 files"):
        run(folder, replace(PLAIN, channels=3), channel_files=["{record}_t2.nii.gz"])


def test_channel_counts_that_are_mixed(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, channels in (("three", 3), ("two", 2), ("one", 1)):
        np.save(tmp_path / "data" / f"{name}.npy", noise((channels, 8, 8), channels))
    data = run(tmp_path / "data", replace(FLAT, channels=2), array_axes="channels_first")
    assert len(data) == 1
    assert all(reason.startswith("channels: ") for reason in quarantined(data).values())
    assert set(quarantined(data)) == {"one.npy", "three.npy"}


def test_colour_where_grey_is_expected(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    colour = np.random.default_rng(0).integers(0, 255, (8, 9, 3)).astype(np.uint8)
    Pillow.fromarray(colour).save(tmp_path / "data" / "red.png")
    Pillow.fromarray(colour[..., 0]).save(tmp_path / "data" / "flat.png")
    data = run(tmp_path / "data", FLAT)
    assert len(data) == 1
    assert quarantined(data) == {"red.png": "colour: a colour image where grey is expected"}
    assert len(run(tmp_path / "data", replace(FLAT, colour="grey"))) == 2
    kept = run(tmp_path / "data", replace(FLAT, colour="rgb", channels=3))
    assert kept.batch(np.arange(2))[0].shape == (2, 3, 8, 9)


def test_dicom_files_that_are_no_images(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_series(folder / "good", noise((6, 8, 8)), series="good")
    save(data_set(REPORT, series="report"), folder / "report.dcm")
    capture = data_set(SECONDARY, series="capture")
    put_pixels(capture, noise((8, 8)))
    save(capture, folder / "shot.dcm")
    write_series(folder / "hole", noise((6, 8, 8), 1), [0, 1, 2, 5, 6, 7], series="hole")
    write_series(folder / "gap", noise((6, 8, 8), 3), [0, 1, 2.3, 3.3, 4.6, 5.6], series="gap")
    write_series(folder / "tilt", noise((6, 8, 8), 2), drift=(0.0, 0.3), series="tilt")
    (folder / "broken.dcm").write_bytes(b"\0" * 200)
    found = {
        path.split("/")[0]: reason for path, reason in quarantined(run(folder, patient="header")).items()
    }
    assert set(found) == {"report.dcm", "shot.dcm", "hole", "gap", "tilt", "broken.dcm"}
    assert found["report.dcm"].startswith("no pixel data")
    assert "secondary capture" in found["shot.dcm"]
    assert found["hole"].startswith("missing slices")
    assert found["gap"].startswith("unequal gaps")
    assert "tilt" in found["tilt"]
    kept = run(folder, replace(PLAIN, gaps="resample", tilt="correct"), patient="header")
    assert len(kept) == 4


def test_two_patients_in_one_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for seed, patient in enumerate(("Miller7", "Jones8")):
        write_series(folder / "both" / str(seed), noise((6, 8, 8), seed), series=f"s{seed}", patient=patient)
    write_series(folder / "own" / "0", noise((6, 8, 8), 5), series="s5", patient="Smith9")
    data = run(folder, patient="folder:2")
    assert len(data) == 1
    reasons = set(quarantined(data).values())
    assert reasons == {
        "two patients: 2 patient ids of the headers stand under one id of the rule 'folder:2'; "
        "set data.patient: header"
    }
    assert run(folder, patient="header").samples.ids["patient"].nunique() == 3
    mixed = tmp_path / "mixed"
    slices = noise((6, 8, 8), 6)
    write_series(mixed, slices[:3], [0, 1, 2], series="one", patient="Miller7")
    for path in mixed.glob("*.dcm"):
        path.rename(path.with_name(f"first{path.name}"))
    write_series(mixed, slices[3:], [3, 4, 5], series="one", patient="Jones8")
    write_series(mixed / "good", noise((6, 8, 8), 7), series="two", patient="Smith9")
    (reason,) = quarantined(run(mixed, patient="header")).values()
    assert reason == "two patients: the slices of one series belong to 2"


def test_volumes_smaller_than_the_crop(folder: Path) -> None:
    write_nifti(folder / "good00.nii.gz", noise((10, 6, 12), 40))  # not the last of all
    crop = replace(PLAIN, crop=(8.0, 8.0, 8.0), small="reject")
    assert quarantined(run(folder, crop)) == {
        "good00.nii.gz": "smaller than the crop: 10 x 6 x 12 voxels, the crop has 8 x 8 x 8 (image.small: pad keeps it)"
    }
    alone = run(folder, crop, include=["good2*"]).samples.ids
    rest = run(folder, crop)
    assert rest.samples.ids["recording"].tolist()[2] == alone["recording"][0]
    assert rest.samples.ids["recording"].nunique() == 3
    np.testing.assert_array_equal(rest.image(2), run(folder, crop, include=["good2*"]).image(0))
    padded = run(folder, replace(crop, small="pad"))
    assert len(padded) == 4
    small = next(i for i in range(4) if padded.shape(i) == (10, 6, 12))
    x, _ = padded.batch(np.array([small]))
    assert x.shape == (1, 1, 8, 8, 8)
    assert not x[0, 0, :, [0, 7]].any()
    assert x[0, 0, :, 1:7].std() > 0.1
    with pytest.raises(
        ConfigError, match=r"image.crop: every image \(4\) is smaller; the first: smaller than"
    ):
        run(folder, replace(crop, crop=(80.0, 8.0, 8.0)))


def test_the_same_voxels_under_two_ids(folder: Path) -> None:
    affine = np.diag([-1.0, -1, 1, 1])
    write_nifti(folder / "other.nii.gz", noise(SHAPE, 1).astype(np.float32), affine)
    with pytest.raises(DataError, match=r"1 images stand under several ids: .* hold the same voxels"):
        run(folder)
    assert quarantined(run(folder, copies="reject")) == {
        "other.nii.gz": "copy: the same voxels stand under another id"
    }


def test_nothing_that_can_be_used(tmp_path: Path) -> None:
    for seed in range(2):
        write_nifti(tmp_path / "data" / f"{seed}.nii.gz", np.full(SHAPE, seed, np.int16))
    with pytest.raises(
        DataError, match=r"no image can be used: constant image: all voxels have one value \(2\)"
    ):
        run(tmp_path / "data")
    for path in (tmp_path / "data").glob("*.gz"):
        cut(path, 0.05)
    with pytest.raises(DataError, match=r"none of 2 images can be read: malformed NIfTI file"):
        run(tmp_path / "data")


def test_an_empty_folder_and_one_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"no images in .*: expected NIfTI .*; found nothing"):
        run(tmp_path / "data")
    (tmp_path / "data" / "a.txt").write_text("x")
    with pytest.raises(DataError, match=re.escape("found .txt (1)")):
        run(tmp_path / "data")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.path: there is no file or folder"):
        run(tmp_path / "nowhere")


def test_no_patient_is_found(folder: Path) -> None:
    with pytest.raises(ConfigError, match="the rule 'header' finds a patient id for no image"):
        run(folder, patient="header")


def test_a_number_of_axes_that_no_file_has(folder: Path) -> None:
    with pytest.raises(DataError, match="none of 3 images can be read: axes: "):
        run(folder, FLAT)


def test_messages_name_no_file_or_patient(tmp_path: Path) -> None:
    for seed in range(2):
        write_nifti(tmp_path / "data" / f"MillerJohn{seed}.nii.gz", noise(SHAPE, 0))
    with pytest.raises(DataError) as error:
        run(tmp_path / "data")
    assert "Miller" not in str(error.value)
    assert salted_key(pseudonym_salt(), "MillerJohn0") in str(error.value)


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="prepared images cannot be written below"):
        prepare(Source(path=str(folder)), PLAIN, None, {}, Split(), cache=tmp_path / "file")
