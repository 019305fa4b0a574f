"""What a DICOM file says of its frames: where each lies, and how stored values become physical ones.

Classic files hold one frame with its facts at the top; enhanced ones hold many, with facts in functional groups,
shared or one per frame (DICOM PS3.3 C.7.6.16).
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import UID, AllTransferSyntaxes

from diptych.data.readable import MALFORMED, Unreadable, malformed

BROKEN: tuple[type[Exception], ...] = (*MALFORMED, InvalidDicomError, BytesLengthException)
_SECONDARY = (
    "1.2.840.10008.5.1.4.1.1.7"  # Secondary Capture Image Storage, and its multi-frame kinds below it
)
_TOLERATED = (
    "Expected (explicit|implicit) VR, but found",
    "The pixel data is .* excess padding",
    "End of file reached before delimiter",  # said with the path; what is missing then is noticed
    ".*(unknown escape sequence|encod|Specific Character Set)",  # of texts such as names, which nobody sees
)
LOGGER = logging.getLogger("pydicom")
_FIELDS = (
    "PatientSex", "PatientAge", "BodyPartExamined", "ViewPosition", "Laterality", "ImageLaterality", "Modality",
    "StudyDescription", "SeriesDescription", "ProtocolName", "SequenceName", "ContrastBolusAgent", "Manufacturer",
    "ManufacturerModelName", "MagneticFieldStrength", "KVP", "ConvolutionKernel", "PatientPosition", "StationName",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One frame of a file. Vectors are LPS; lengths mm; None where the file does not say."""

    path: Path
    index: int
    position: tuple[float, ...] | None = field(repr=False)
    directions: tuple[float, ...] | None = field(repr=False)  # of rows, then of columns
    pixel: tuple[float, float] | None  # between columns, between rows
    size: tuple[int, int]  # columns, rows
    slope: float
    intercept: float
    colour: bool
    localiser: bool


@contextmanager
def tolerant() -> Iterator[None]:
    """Reads without words what pydicom understands though it does not keep to the standard."""
    with warnings.catch_warnings():
        for message in _TOLERATED:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        before, LOGGER.disabled = (
            LOGGER.disabled,
            True,
        )  # pydicom logs each warning too, with paths and header texts
        try:
            yield
        finally:
            LOGGER.disabled = before


def open_file(path: Path, *, pixels: bool = False) -> Any:
    """The data set of a file, also of one without the DICOM mark. Raises Unreadable."""
    try:
        try:
            data = pydicom.dcmread(path, stop_before_pixels=not pixels)
        except InvalidDicomError:  # files from before DICOM's part 10 begin with the data set
            data = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
            if not data.get("SOPClassUID"):
                raise
    except BROKEN as error:
        raise malformed("DICOM file", error) from None
    return data


def check_image(data: Any, *, secondary: bool) -> None:
    """Raises Unreadable where the data set is no image (reports, structures) or an unwanted secondary capture."""
    if not data.get("Rows") or not data.get("Columns"):
        raise Unreadable("no pixel data: the DICOM file holds no image")
    kind = str(data.get("SOPClassUID", ""))
    if not secondary and (kind == _SECONDARY or kind.startswith(_SECONDARY + ".")):
        raise Unreadable("secondary capture: a screenshot or scanned film")


def is_localiser(data: Any) -> bool:
    """Whether the file is a scout that plans other series (ImageType, PS3.3 C.8.2.1.1.1)."""
    return "LOCALIZER" in [str(value).upper() for value in data.get("ImageType") or []]


def fields_of(data: Any) -> dict[str, str]:
    """Header texts for rules ``header:NAME``; they stay in memory."""
    found = {name: data.get(name) for name in _FIELDS}
    return {name: str(value) for name, value in found.items() if value not in (None, "")}


def frames_of(path: Path, data: Any) -> list[Frame]:
    """All frames of a data set. Raises Unreadable where facts of them cannot be read."""
    try:
        count = int(data.get("NumberOfFrames") or 1)
        return [_frame(path, data, index, count) for index in range(count)]
    except BROKEN as error:
        raise malformed("DICOM header", error) from None


def _frame(path: Path, data: Any, index: int, count: int) -> Frame:
    place = _group(data, index, "PlanePositionSequence").get("ImagePositionPatient")
    turn = _group(data, index, "PlaneOrientationSequence").get("ImageOrientationPatient")
    measures = _group(data, index, "PixelMeasuresSequence")
    pixel = measures.get("PixelSpacing") or data.get("ImagerPixelSpacing")
    values = _group(data, index, "PixelValueTransformationSequence")
    slope, intercept = values.get("RescaleSlope"), values.get("RescaleIntercept")
    if count > 1 and not data.get("PerFrameFunctionalGroupsSequence"):
        place = turn = None  # a film: what is said at the top is true of no frame in particular
    slope, intercept = (1.0 if slope is None else float(slope)), float(intercept or 0)
    if not (np.isfinite(slope) and np.isfinite(intercept) and slope != 0):
        raise Unreadable("bad rescaling: the slope is zero or no finite number")
    return Frame(
        path=path,
        index=index,
        position=_numbers(place, 3, "position"),
        directions=_numbers(turn, 6, "orientation"),
        pixel=_pixel(pixel),
        size=(int(data.Columns), int(data.Rows)),
        slope=slope,
        intercept=intercept,
        colour=int(data.get("SamplesPerPixel") or 1) > 1
        or str(data.get("PhotometricInterpretation")) == "PALETTE COLOR",
        localiser=is_localiser(data) or is_localiser(_frame_type(data, index)),
    )


def _group(data: Any, index: int, name: str) -> Any:
    """The functional group of a frame: its own, else the shared one, else the top of a classic file."""
    per_frame = data.get("PerFrameFunctionalGroupsSequence")
    shared = data.get("SharedFunctionalGroupsSequence")
    for groups in (per_frame[index] if per_frame else None, shared[0] if shared else None):
        if groups is not None and groups.get(name):
            return groups[name][0]
    return data


def _frame_type(data: Any, index: int) -> dict[str, Any]:
    for name in ("CTImageFrameTypeSequence", "MRImageFrameTypeSequence", "PETFrameTypeSequence"):
        if (group := _group(data, index, name)) is not data:
            return {"ImageType": group.get("FrameType")}
    return {}


def _numbers(values: Any, count: int, what: str) -> tuple[float, ...] | None:
    if not values:
        return None
    numbers = tuple(float(value) for value in values)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise Unreadable(f"bad {what}: expected {count} finite numbers for every slice")
    return numbers


def _pixel(values: Any) -> tuple[float, float] | None:
    """PixelSpacing says the distance between rows first (PS3.3 10.7.1.3)."""
    numbers = _numbers(values, 2, "spacing")
    if numbers is None:
        return None
    if min(numbers) <= 0:
        raise Unreadable("bad spacing: zero or negative between pixels")
    return numbers[1], numbers[0]


def decode(data: Any, frames: list[Frame]) -> NDArray[np.float32]:
    """Values (frames, rows, columns) or (frames, rows, columns, 3) of a data set; padding pixels are NaN.

    Grey values are rescaled frame by frame to physical units (CT: HU); MONOCHROME1, where low values are
    white, is turned round, so that what is dense is bright in every X-ray.
    """
    try:
        stored = np.asarray(data.pixel_array)
        if str(data.get("PhotometricInterpretation")) == "PALETTE COLOR":
            looked_up = np.asarray(apply_color_lut(stored, data))
            stored = (looked_up >> 8 if looked_up.dtype.itemsize > 1 else looked_up).astype(np.uint8)
    except RuntimeError as error:  # also NotImplementedError: pydicom lacks what the compression needs
        syntax = data.file_meta.get("TransferSyntaxUID", UID("")) if "file_meta" in vars(data) else UID("")
        if syntax not in AllTransferSyntaxes or not syntax.is_compressed:
            raise malformed("DICOM pixel data", error) from None
        raise Unreadable(f"cannot be decompressed: {syntax.name} (pylibjpeg may be missing)") from None
    except BROKEN as error:
        raise malformed("DICOM pixel data", error) from None
    many = int(data.get("NumberOfFrames") or 1) > 1
    stored = stored if many else stored[None]
    if len(stored) < len(frames):
        raise Unreadable("malformed DICOM pixel data: fewer frames than the header says")
    stored = stored[[frame.index for frame in frames]]
    if stored.ndim == 4:
        return stored[..., :3].astype(np.float32)
    try:
        return _physical(stored, data, frames)
    except BROKEN as error:
        raise malformed("DICOM header", error) from None


def _physical(stored: NDArray[Any], data: Any, frames: list[Frame]) -> NDArray[np.float32]:
    if data.get("ModalityLUTSequence"):
        values = np.asarray(apply_modality_lut(stored, data), dtype=np.float32)
    else:
        turned = stored.astype(np.float64)
        if str(data.get("PhotometricInterpretation")) == "MONOCHROME1":
            bits = int(data.BitsStored)
            turned = (-1.0 if data.get("PixelRepresentation") else 2.0**bits - 1) - turned
        slope = np.array([frame.slope for frame in frames])[:, None, None]
        intercept = np.array([frame.intercept for frame in frames])[:, None, None]
        values = (turned * slope + intercept).astype(np.float32)
    if (padding := _padding(data)) is not None:
        values[(stored >= padding[0]) & (stored <= padding[1])] = np.nan
    return values


def _padding(data: Any) -> tuple[int, int] | None:
    """The range of stored values that mark pixels outside of the image (PS3.3 C.7.5.1.1.2)."""
    first = data.get("PixelPaddingValue")
    if first is None:
        return None
    limits = []
    for value in (first, data.get("PixelPaddingRangeLimit", first)):
        number = int.from_bytes(value[:2], "little") if isinstance(value, bytes) else int(value)
        bits = int(data.BitsAllocated)
        if data.get("PixelRepresentation") and number >= 1 << (
            bits - 1
        ):  # signed values written as unsigned ones
            number -= 1 << bits
        limits.append(number)
    return min(limits), max(limits)
