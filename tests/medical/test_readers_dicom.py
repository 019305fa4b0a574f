"""DICOM series become volumes by the positions of their slices; what cannot be one says why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import (
    REPORT,
    SECONDARY,
    X_RAY,
    cut,
    data_set,
    noise,
    put_pixels,
    save,
    write_enhanced,
    write_series,
    write_slice,
)
from pydicom.dataelem import DataElement
from pydicom.uid import JPEGLSLossless

from diptych.data.readable import Item, Unreadable
from diptych_medical import geometry, readers
from diptych_medical.image import Image, Reading

PLAIN = Reading()
TURNED = (0.0, 0.8, 0.6, 0.0, -0.6, 0.8)  # rows and columns that lie along no axis of the patient


def items(folder: Path, reading: Reading = PLAIN) -> list[Item]:
    found = readers.find(sorted(folder.rglob("*")), folder, reading=reading).items
    assert all(kind == "dicom" for kind, _ in found)
    return [item for _, item in found]


def load(folder: Path, **how: Any) -> Image:
    reading = Reading(**how)
    (item,) = items(folder, reading)
    image = readers.read("dicom", item, reading)
    header = readers.read_header("dicom", item, reading)
    assert header.shape == image.header.shape
    assert np.array_equal(header.affine, image.header.affine)
    return image


def reason(folder: Path, **how: Any) -> str:
    reading = Reading(**how)
    (item,) = items(folder, reading)
    with pytest.raises(Unreadable) as error:
        readers.read("dicom", item, reading)
    assert "Secret" not in str(error.value)
    return str(error.value)


def field(world: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """A field that is linear in RAS mm; linear interpolation keeps it."""
    return world @ np.array([31.0, -17.0, 23.0]) + 50


def slices_of_field(heights: list[float], drift: tuple[float, float], rows: int, columns: int) -> Any:
    """Stored values of :func:`field` in slices with pixels of 1 mm from the origin, with a slope of 0.5."""
    row, column = np.array(TURNED).reshape(2, 3)
    normal = np.cross(row, column)
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    stack = []
    for height in heights:
        first = height * (normal + drift[0] * row + drift[1] * column)
        lps = first + j[..., None] * row + i[..., None] * column
        stack.append(np.rint(field(lps * [-1, -1, 1]) / 0.5))
    return np.stack(stack).astype(np.int16)


def test_a_voxel_lies_where_the_header_puts_it(tmp_path: Path) -> None:
    volume = noise((5, 6, 4))
    write_series(
        tmp_path, volume, [0, 2, 4, 6, 8], origin=(10, -20, 30), directions=TURNED, pixel=(0.5, 0.75)
    )
    image = load(tmp_path)
    assert image.data.shape == (1, 4, 6, 5)
    assert np.allclose(image.header.spacing, (0.75, 0.5, 2))
    row, column = np.array(TURNED).reshape(2, 3)
    for x, y, z in ((0, 0, 0), (3, 5, 4), (1, 2, 3)):
        assert image.data[0, x, y, z] == volume[z, y, x]
        lps = np.array([10, -20, 30]) + 0.75 * x * row + 0.5 * y * column + 2 * z * np.cross(row, column)
        ras = image.header.affine @ [x, y, z, 1]
        assert np.allclose(ras, [-lps[0], -lps[1], lps[2], 1])


def test_slices_stored_from_head_to_foot_give_the_same_volume(tmp_path: Path) -> None:
    volume = noise((4, 3, 3))
    write_series(tmp_path / "up", volume, [0, 1, 2, 3])
    write_series(tmp_path / "down", volume[::-1], [3, 2, 1, 0])
    up, down = load(tmp_path / "up"), load(tmp_path / "down")
    assert np.array_equal(up.data, down.data)
    assert np.array_equal(up.header.affine, down.header.affine)


def test_every_slice_has_its_own_rescaling(tmp_path: Path) -> None:
    volume = noise((3, 4, 4))
    for k, (slope, intercept) in enumerate([(1, 0), (2, -1024), (0.5, 7)]):
        tags = {"RescaleSlope": slope, "RescaleIntercept": intercept}
        write_slice(tmp_path / f"{k}.dcm", volume[k], (0, 0, k), **tags)
    data = load(tmp_path).data[0]
    for k, (slope, intercept) in enumerate([(1, 0), (2, -1024), (0.5, 7)]):
        assert np.array_equal(data[..., k], volume[k].T * np.float32(slope) + intercept)


@pytest.mark.parametrize("heights", [[0, 2, 4, 8, 10, 14], [0, 4, 8, 9.25, 16.5, 23.0, 30]])
@pytest.mark.parametrize("drift", [(0, 0), (0, -0.35), (0.2, 0.1)])
def test_a_linear_field_is_kept_when_gaps_and_tilt_are_corrected(
    tmp_path: Path, heights: list[float], drift: tuple[float, float]
) -> None:
    stored = slices_of_field(heights, drift, rows=14, columns=12)
    write_series(
        tmp_path, stored, heights, drift, directions=TURNED, RescaleSlope="0.5", RescaleIntercept="0"
    )
    image = load(tmp_path, gaps="resample", tilt="correct")
    assert geometry.shear(image.header.affine) < 1e-4
    grid = np.stack(np.meshgrid(*map(np.arange, image.header.shape), indexing="ij"), axis=-1)
    world = grid @ image.header.affine[:3, :3].T + image.header.affine[:3, 3]
    covered = image.data[0] > image.data.min()
    assert covered.sum() == covered.size - 1 if drift == (0, 0) else covered.mean() > 0.3
    assert np.abs(image.data[0] - field(world))[covered].max() < 0.6  # stored values are rounded to 0.5


def test_tilt_may_be_kept_as_a_sheared_affine(tmp_path: Path) -> None:
    heights = [0.0, 3, 6, 9]
    stored = slices_of_field(heights, (0, 0.4), rows=8, columns=8)
    write_series(tmp_path, stored, heights, (0, 0.4), directions=TURNED, RescaleSlope="0.5")
    image = load(tmp_path, tilt="ignore")
    assert geometry.shear(image.header.affine) == pytest.approx(np.degrees(np.arctan(0.4)), abs=1e-3)
    grid = np.stack(np.meshgrid(*map(np.arange, image.header.shape), indexing="ij"), axis=-1)
    world = grid @ image.header.affine[:3, :3].T + image.header.affine[:3, 3]
    assert np.abs(image.data[0] - field(world)).max() < 0.3


def test_gaps_and_tilt_are_rejected_by_default(tmp_path: Path) -> None:
    volume = noise((6, 4, 4))
    write_series(tmp_path / "missing", volume, [0, 1, 2, 5, 6, 7])
    assert reason(tmp_path / "missing") == "missing slices: 2 between 6 evenly spaced ones"
    write_series(tmp_path / "unequal", volume, [0, 4, 8, 9, 16, 23])
    assert reason(tmp_path / "unequal", tilt="correct") == "unequal gaps: slices lie 1 to 7 mm apart"
    write_series(tmp_path / "tilt", volume, [0, 2, 4, 6, 8, 10], drift=(0, 0.5))
    assert reason(tmp_path / "tilt", gaps="resample").startswith(
        "gantry tilt: slices are stacked 26.6 degrees"
    )


def test_a_hole_in_a_series_is_not_made_up(tmp_path: Path) -> None:
    write_series(tmp_path / "hole", noise((6, 4, 4)), [0, 1, 2, 8, 9, 10])
    assert reason(tmp_path / "hole", gaps="resample").startswith("too wide a gap: 6 mm")
    write_series(tmp_path / "small", noise((6, 4, 4)), [0, 1, 2, 6, 7, 8])
    assert load(tmp_path / "small", gaps="resample").header.shape == (4, 4, 9)


def test_one_missing_slice_among_many_is_seen_wherever_it_is(tmp_path: Path) -> None:
    for lost in (1, 20, 38):
        heights = [float(k) for k in range(40) if k != lost]
        write_series(tmp_path / str(lost), noise((39, 2, 2)), heights)
        assert reason(tmp_path / str(lost)).startswith("missing slices: 1 ")


def test_rounded_positions_are_no_gaps(tmp_path: Path) -> None:
    heights = [round(0.625 * k, 1) for k in range(9)]
    write_series(tmp_path, noise((9, 3, 3)), heights)
    assert load(tmp_path).header.spacing[2] == pytest.approx(0.625)


def test_slices_shifted_along_no_line_are_rejected_unless_corrected(tmp_path: Path) -> None:
    volume = np.tile(noise((1, 9, 9)), (3, 1, 1))
    for k, shift in enumerate([0, 3, 0]):
        write_slice(tmp_path / f"{k}.dcm", volume[k], (shift, 0, k))
    for tilt in ("reject", "ignore"):
        assert reason(tmp_path, tilt=tilt).startswith("irregular positions:")
    data = load(tmp_path, tilt="correct").data[0]
    assert np.array_equal(data[3:, :, 1], volume[1].T)
    assert np.array_equal(data[:9, :, 0], volume[0].T)


def test_duplicate_positions_and_single_slices_are_rejected(tmp_path: Path) -> None:
    write_series(tmp_path / "two", noise((4, 3, 3)), [0, 1, 1, 2])
    assert reason(tmp_path / "two", gaps="resample").startswith("duplicate positions: 1 of 4 slices")
    write_series(tmp_path / "one", noise((1, 3, 3)))
    assert reason(tmp_path / "one").startswith("too few slices:")


def test_series_are_told_apart_by_their_uid(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / f"a{k}.dcm", noise((3, 3), 1), (0, 0, k), series="first", patient="A")
        write_slice(tmp_path / f"b{k}.dcm", noise((3, 3), 2), (0, 0, k), series="second", patient="B")
    found = items(tmp_path)
    assert [len(item.files) for item in found] == [3, 3]
    headers = [readers.read_header("dicom", item, Reading()) for item in found]
    assert [header.patient for header in headers] == ["A", "B"]
    assert "A" not in repr(headers[0]).replace("ImageHeader", "").replace("Affine", "")


def test_two_patients_in_one_series_are_rejected(tmp_path: Path) -> None:
    for k, patient in enumerate("AAB"):
        write_slice(tmp_path / f"{k}.dcm", noise((3, 3)), (0, 0, k), patient=patient)
    assert reason(tmp_path) == "two patients: the slices of one series belong to 2"


def test_a_localiser_in_the_series_is_set_apart(tmp_path: Path) -> None:
    volume = noise((3, 4, 4))
    write_series(tmp_path, volume)
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}
    write_slice(tmp_path / "scout.dcm", noise((9, 9)), (0, 0, 1), (0, 1, 0, 0, 0, 1), **scout)
    image, localiser = sorted(items(tmp_path), key=lambda item: len(item.files), reverse=True)
    assert np.array_equal(readers.read("dicom", image, Reading()).data[0], volume.transpose(2, 1, 0))
    with pytest.raises(Unreadable, match=r"^localiser: "):
        readers.read_header("dicom", localiser, Reading())


def test_secondary_captures_are_rejected_unless_wanted(tmp_path: Path) -> None:
    write_series(tmp_path, noise((3, 4, 4)), kind=SECONDARY)
    assert reason(tmp_path).startswith("secondary capture:")
    assert load(tmp_path, secondary="keep").header.shape == (4, 4, 3)


def test_files_without_pixels_are_rejected(tmp_path: Path) -> None:
    save(data_set(REPORT), tmp_path / "report" / "a.dcm")
    assert reason(tmp_path / "report").startswith("no pixel data:")
    for k in range(2):
        data = data_set(
            "1.2.840.10008.5.1.4.1.1.2",
            ImagePositionPatient=[0, 0, k],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
        )
        data.PixelSpacing = [1, 1]
        put_pixels(data, noise((3, 3)))
        del data.PixelData
        save(data, tmp_path / "empty" / f"{k}.dcm")
    assert reason(tmp_path / "empty").startswith("no pixel data:")


def test_broken_files_are_rejected(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "cut", noise((3, 40, 40))):
        cut(path, 0.7)
    assert reason(tmp_path / "cut").startswith("malformed DICOM")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("Secret: no DICOM at all " * 40)
    assert reason(tmp_path / "text").startswith("malformed DICOM file")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "a.dcm").write_bytes(b"")
    assert reason(tmp_path / "nothing").startswith("malformed DICOM file")


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"pixel": (0, 0)}, "bad spacing:"),
        ({"pixel": (-1, 1)}, "bad spacing:"),
        ({"directions": (1, 0, 0, 1, 0, 0)}, "bad orientation:"),
        ({"directions": (0, 0, 0, 0, 0, 0)}, "bad orientation:"),
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "bad rescaling:"),
    ],
)
def test_headers_that_make_no_sense_are_rejected(tmp_path: Path, tags: dict[str, Any], expected: str) -> None:
    for k in range(3):
        write_slice(tmp_path / f"{k}.dcm", noise((3, 3)), (0, 0, k), **tags)
    assert reason(tmp_path).startswith(expected)


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("PixelSpacing", "missing spacing:"),
        ("ImagePositionPatient", "missing position:"),
        ("ImageOrientationPatient", "missing position:"),
    ],
)
def test_headers_that_lack_geometry_are_rejected(tmp_path: Path, tag: str, expected: str) -> None:
    for k in range(3):
        data = data_set("1.2.840.10008.5.1.4.1.1.2", ImagePositionPatient=[0, 0, k])
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        put_pixels(data, noise((3, 3)))
        delattr(data, tag)
        save(data, tmp_path / f"{k}.dcm")
    assert reason(tmp_path).startswith(expected)


def test_mixed_slices_are_rejected(tmp_path: Path) -> None:
    for k, size in enumerate([4, 4, 5]):
        write_slice(tmp_path / "size" / f"{k}.dcm", noise((size, 4)), (0, 0, k))
    assert reason(tmp_path / "size").startswith("mixed slices:")
    for k, length in enumerate([1, 1, 1.1]):
        write_slice(tmp_path / "pixel" / f"{k}.dcm", noise((4, 4)), (0, 0, k), pixel=(length, 1))
    assert reason(tmp_path / "pixel").startswith("mixed slices:")
    for k, turn in enumerate([(1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, 1)]):
        write_slice(tmp_path / "turn" / f"{k}.dcm", noise((4, 4)), (0, 0, k), turn)
    assert reason(tmp_path / "turn").startswith("mixed slices:")


def test_an_enhanced_file_is_the_series_it_stands_for(tmp_path: Path) -> None:
    volume, heights, slopes = noise((4, 5, 6)), [9.0, 3.0, 0.0, 6.0], [1.0, 2.0, 3.0, 4.0]
    write_enhanced(tmp_path / "enhanced" / "a.dcm", volume, heights, slopes=slopes)
    for k in range(4):
        place, tags = (0, 0, heights[k]), {"RescaleSlope": slopes[k], "RescaleIntercept": 0}
        write_slice(tmp_path / "classic" / f"{k}.dcm", volume[k], place, **tags)
    enhanced, classic = load(tmp_path / "enhanced"), load(tmp_path / "classic")
    assert np.array_equal(enhanced.data, classic.data)
    assert np.array_equal(enhanced.header.affine, classic.header.affine)


def test_a_film_of_frames_without_places_is_no_volume(tmp_path: Path) -> None:
    data = data_set(SECONDARY, ImagePositionPatient=[0, 0, 0], ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    data.PixelSpacing = [1, 1]
    put_pixels(data, noise((5, 4, 4)))
    save(data, tmp_path / "film.dcm")
    assert reason(tmp_path, secondary="keep").startswith("missing position:")
    assert reason(tmp_path, secondary="keep", dims=2) == "axes: 3D where 2D is expected"


def test_padding_gets_the_lowest_value_of_the_image(tmp_path: Path) -> None:
    volume = noise((3, 4, 4))
    volume[:, 0, 0] = -2000
    unsigned = DataElement("PixelPaddingValue", "US", 63536)  # -2000, as some scanners write it
    write_series(tmp_path, volume, RescaleSlope=2, RescaleIntercept=10, PixelPaddingValue=unsigned)
    data = load(tmp_path).data[0]
    assert (data[0, 0] == 2 * np.delete(volume.reshape(3, -1), 0, axis=1).min() + 10).all()
    assert np.array_equal(data[1:], 2.0 * volume.transpose(2, 1, 0)[1:] + 10)


def test_x_rays_are_one_image_a_file(tmp_path: Path) -> None:
    pixels = [np.abs(noise((6, 4), k)).astype(np.uint16) for k in range(2)]
    for k, view in enumerate(["PA", "LL"]):
        data = data_set(
            X_RAY, ViewPosition=view, PatientSex="F", PatientAge="061Y", ImagerPixelSpacing=[0.2, 0.3]
        )
        data.Modality = "DX"
        data.PhotometricInterpretation = "MONOCHROME1" if k else "MONOCHROME2"
        put_pixels(data, pixels[k])
        save(data, tmp_path / f"{view}.dcm")
    reading = Reading(dims=2)
    left, front = (readers.read("dicom", item, reading) for item in items(tmp_path, reading))
    assert front.header.shape == (6, 4)
    assert front.header.spacing == (0.2, 0.3)
    assert front.header.modality == "DX"
    assert {
        "ViewPosition": "PA",
        "PatientSex": "F",
        "PatientAge": "061Y",
    }.items() <= front.header.fields.items()
    assert np.array_equal(front.data[0], pixels[0])
    assert np.array_equal(left.data[0], 65535.0 - pixels[1])  # MONOCHROME1: low values are white


def test_colour_is_rejected_made_grey_or_kept(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    write_slice(tmp_path / "a.dcm", pixels)
    assert reason(tmp_path, dims=2) == "colour: a colour image where grey is expected"
    assert np.array_equal(load(tmp_path, dims=2, colour="rgb", channels=3).data, pixels.transpose(2, 0, 1))
    grey = load(tmp_path, dims=2, colour="grey").data[0]
    assert np.allclose(grey, pixels @ [0.299, 0.587, 0.114], atol=1e-4)


def test_a_compression_without_decoder_is_named(tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate

    for k in range(2):
        data = data_set("1.2.840.10008.5.1.4.1.1.2", ImagePositionPatient=[0, 0, k])
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        put_pixels(data, noise((3, 3)))
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = encapsulate([b"\xff\xd8\xff\xf7 nothing"])
        data["PixelData"].is_undefined_length = True
        save(data, tmp_path / f"{k}.dcm")
    assert reason(tmp_path).startswith("cannot be decompressed: JPEG-LS Lossless")


def test_an_unknown_compression_is_not_quoted(tmp_path: Path) -> None:
    for path in write_series(tmp_path, noise((2, 3, 3))):
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.Secret.here.it\0\0"))
    assert reason(tmp_path).startswith("malformed DICOM pixel data")


def test_label_maps_are_never_interpolated(tmp_path: Path) -> None:
    labels = np.zeros((6, 10, 10), np.uint8)
    labels[1:5, 3:7, 3:7] = 7
    write_series(tmp_path, labels, [0, 2, 4, 8, 10, 14], drift=(0, 0.3))
    reading = Reading(gaps="resample", tilt="correct")
    (item,) = items(tmp_path, reading)
    mask, affine = readers.read_mask("dicom", item, reading)
    assert mask.dtype == np.int64
    assert set(np.unique(mask)) == {0, 7}
    header = readers.read_header("dicom", item, reading)
    assert mask.shape == header.shape
    assert np.array_equal(affine, header.affine)


def test_files_are_known_by_their_mark_where_suffixes_say_nothing(tmp_path: Path) -> None:
    for k in range(3):
        write_slice(tmp_path / f"1.2.840.{k}", noise((3, 3)), (0, 0, k))
    write_slice(tmp_path / "DICOMDIR", noise((3, 3)))
    (tmp_path / "README").write_text("no image")
    found = readers.find(sorted(tmp_path.iterdir()), tmp_path)
    assert [item.name for _, item in found.items] == ["1.2.840.0"]
    assert len(found.items[0][1].files) == 3
    assert {path.name for path in found.other} == {"DICOMDIR", "README"}


def test_files_without_the_mark_are_read(tmp_path: Path) -> None:
    volume = noise((3, 4, 5))
    for path in write_series(tmp_path, volume):
        path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(load(tmp_path).data[0], volume.transpose(2, 1, 0))


def test_damage_is_said_without_the_path(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    path = tmp_path / "Jane_Doe.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 400)
    found = readers.find([path], tmp_path, reading=Reading(dims=3))
    with pytest.raises(Unreadable) as refused:
        readers.read_header(*found.items[0], Reading(dims=3))
    said = [str(refused.value), caplog.text, *(str(each.message) for each in recwarn)]
    assert not any("Jane" in text for text in said)
