"""Small files of every format that readers of images know."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"
SECONDARY = "1.2.840.10008.5.1.4.1.1.7"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"


def noise(shape: Sequence[int], seed: int = 0) -> NDArray[np.int16]:
    """Whole numbers from -1000 to 999, other ones for every seed."""
    return np.random.default_rng(seed).integers(-1000, 1000, tuple(shape)).astype(np.int16)


def write_nifti(path: Path, data: NDArray[Any], affine: NDArray[np.float64] | None = None) -> Path:
    """One NIfTI-1 file; with the identity where no affine is given."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.eye(4) if affine is None else affine), path)
    return path


def data_set(kind: str, *, patient: str = "P1", series: str = "series", **tags: Any) -> FileDataset:
    """A data set without pixels; ``tags`` are written as they are, None leaves one out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(kind)
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID = UID(kind)
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID = generate_uid(entropy_srcs=[series])
    data.PatientID = patient
    data.PatientName = "Secret^Name"
    data.Modality = "CT"
    for name, value in tags.items():
        if isinstance(value, DataElement):
            data.add(value)
        elif value is not None:
            setattr(data, name, value)
    return data


def put_pixels(data: FileDataset, pixels: NDArray[Any]) -> None:
    """Stored values (rows, columns), (frames, rows, columns) or (rows, columns, 3)."""
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    if pixels.ndim == 3 and not colour:
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    data.SamplesPerPixel = 3 if colour else 1
    if "PhotometricInterpretation" not in data:
        data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()


def save(data: FileDataset, path: Path) -> Path:
    """Write a data set; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def write_slice(
    path: Path,
    pixels: NDArray[Any],
    position: Sequence[float] = (0, 0, 0),
    directions: Sequence[float] = (1, 0, 0, 0, 1, 0),
    pixel: Sequence[float] = (1, 1),
    kind: str = CT,
    **tags: Any,
) -> Path:
    """One classic file; ``pixel`` is PixelSpacing: between rows, then between columns."""
    data = data_set(kind, **tags)
    data.ImagePositionPatient = [float(f"{value:.9g}") for value in position]
    data.ImageOrientationPatient = [float(f"{value:.9g}") for value in directions]
    data.PixelSpacing = list(pixel)
    put_pixels(data, pixels)
    return save(data, path)


def write_series(
    folder: Path,
    volume: NDArray[Any],
    heights: Sequence[float] | None = None,
    drift: Sequence[float] = (0, 0),
    origin: Sequence[float] = (0, 0, 0),
    directions: Sequence[float] = (1, 0, 0, 0, 1, 0),
    **tags: Any,
) -> list[Path]:
    """Slices (n, rows, columns) at heights in mm, drifting along rows and columns by mm per mm of height.

    Names have nothing to do with places.
    """
    row, column = np.array(directions).reshape(2, 3)
    normal = np.cross(row, column)
    paths = []
    for k, pixels in enumerate(volume):
        height = k if heights is None else heights[k]
        place = np.array(origin) + height * (normal + drift[0] * row + drift[1] * column)
        name = f"IM{(k * 7 + 3) % 101:03d}.dcm"
        paths.append(write_slice(folder / name, pixels, place, directions, **tags))
    return paths


def write_enhanced(
    path: Path, volume: NDArray[Any], heights: Sequence[float], *, slopes: Sequence[float] | None = None
) -> Path:
    """One multi-frame file with a position and a rescaling per frame, pixels of 1 mm."""
    data = data_set(ENHANCED_CT)
    shared, measures, turn = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [1, 1]
    turn.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence = Items([measures])
    shared.PlaneOrientationSequence = Items([turn])
    data.SharedFunctionalGroupsSequence = Items([shared])
    groups = []
    for k, height in enumerate(heights):
        frame, place, values = Dataset(), Dataset(), Dataset()
        place.ImagePositionPatient = [0, 0, height]
        values.RescaleSlope = 1 if slopes is None else slopes[k]
        values.RescaleIntercept = 0
        values.RescaleType = "HU"
        frame.PlanePositionSequence = Items([place])
        frame.PixelValueTransformationSequence = Items([values])
        groups.append(frame)
    data.PerFrameFunctionalGroupsSequence = Items(groups)
    put_pixels(data, volume)
    return save(data, path)


def cut(path: Path, share: float) -> Path:
    """Keep the first share of a file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path
