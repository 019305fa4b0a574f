"""DICOM images: the slices of a series are one volume, or with 2 dimensions every file is one image.

Series are told apart by SeriesInstanceUID, wherever their files lie. Scouts within a series are set apart as an
item of their own. What is no image (reports, structures, screenshots, scouts) stays an item too, so that
quarantine says what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.config
from numpy.typing import NDArray

from diptych.data.readable import Item, Unreadable, malformed
from diptych_medical.geometry import check_affine, diagonal
from diptych_medical.image import Affine, Image, ImageHeader, Reading
from diptych_medical.readers import name_of
from diptych_medical.readers.frames import (
    BROKEN,
    Frame,
    check_image,
    decode,
    fields_of,
    frames_of,
    is_localiser,
    open_file,
    tolerant,
)
from diptych_medical.readers.stack import Stack, assemble, plan
from diptych_medical.readers.values import channels_of, coloured, whole_numbers, wrong_axes

# pydicom warns of values that do not keep to the standard and may quote them: names must not reach a log.
_UNCHECKED = pydicom.config.disable_value_validation()

_UNREAD: tuple[type[Exception], ...] = (Unreadable, *BROKEN)
_TURN = 1e-3  # by which directions may differ within a series, and from unit vectors at right angles
_PIXEL = 1e-3  # relative difference of pixel sizes within a series


@_UNCHECKED
@tolerant()
def find(files: Sequence[Path], root: Path, reading: Reading) -> list[Item]:
    """One item per series, named after its first file; with 2 dimensions one per file."""
    if reading.dims == 2:
        return [Item(path=path, name=name_of(path, root), files=(path,)) for path in files]
    series: dict[tuple[str, bool], list[Path]] = {}
    for path in files:
        try:
            data = open_file(path)
            key = (str(data.get("SeriesInstanceUID") or path), is_localiser(data))
        except _UNREAD:
            key = (str(path), False)  # alone, so that reading it says why
        series.setdefault(key, []).append(path)
    return [Item(path=min(paths), name=name_of(min(paths), root), files=tuple(sorted(paths)))
            for paths in series.values()]  # fmt: skip


@_UNCHECKED
@tolerant()
def read_header(item: Item, reading: Reading) -> ImageHeader:
    """Shape and affine of what :func:`read` gives; patient, modality and texts of the header. Raises Unreadable."""
    header, _, _ = _header(item, reading)
    return header


@_UNCHECKED
@tolerant()
def read(item: Item, reading: Reading) -> Image:
    """The voxels in physical units; padding pixels get the lowest value of the others. Raises Unreadable."""
    header, frames, stack = _header(item, reading)
    values = _values(frames)
    colour = frames[0].colour
    known = ~np.isnan(values)
    if not known.all():
        if not known.any():
            raise Unreadable("no voxels: all pixels are padding")
        values = np.where(known, values, values[known].min())
    values = np.moveaxis(values, -1, 0) if colour else values[None]  # (channels, frames, rows, columns)
    if stack is None:
        data = values[:, 0]
    else:
        fill = float(values.min())
        data = np.stack([assemble(each.transpose(0, 2, 1), stack, fill=fill) for each in values])
    return Image(data=coloured(data, reading, colour=colour), header=header)


@_UNCHECKED
@tolerant()
def read_mask(item: Item, reading: Reading) -> tuple[NDArray[np.int64], Affine]:
    """A label map that is stored as an image series: whole numbers, padding and uncovered voxels 0."""
    header, frames, stack = _header(item, reading)
    labels = whole_numbers(np.nan_to_num(_values(frames)))
    if stack is None:
        return labels[0], header.affine
    return assemble(labels.transpose(0, 2, 1), stack, fill=0, nearest=True), header.affine


def _header(item: Item, reading: Reading) -> tuple[ImageHeader, list[Frame], Stack | None]:
    try:
        frames, facts = _frames(item, reading)
    except BROKEN as error:
        raise malformed("DICOM header", error) from None
    colour = frames[0].colour
    if any(frame.colour != colour or frame.size != frames[0].size for frame in frames):
        raise Unreadable("mixed slices: their sizes or numbers of channels differ")
    channels = channels_of(3 if colour else 1, reading, colour=colour)
    shape, affine, stack = _place(frames, reading)
    return ImageHeader(shape=shape, channels=channels, affine=affine, **facts), frames, stack


def _frames(item: Item, reading: Reading) -> tuple[list[Frame], dict[str, Any]]:
    """All frames of the files but scouts, and what the header says of patient and image."""
    frames: list[Frame] = []
    patients: set[str] = set()
    facts: dict[str, Any] = {}
    for path in item.files:
        data = open_file(path)
        check_image(data, secondary=reading.secondary == "keep")
        frames += frames_of(path, data)
        patients.add(str(data.get("PatientID") or ""))
        facts = facts or {"modality": str(data.get("Modality") or "") or None, "fields": fields_of(data)}
    if len(patients) > 1:
        raise Unreadable(f"two patients: the slices of one series belong to {len(patients)}")
    frames = [frame for frame in frames if not frame.localiser]
    if not frames:
        raise Unreadable("localiser: a scout that plans other series")
    return frames, {**facts, "patient": patients.pop() or None}


def _place(frames: list[Frame], reading: Reading) -> tuple[tuple[int, ...], Affine, Stack | None]:
    columns, rows = frames[0].size
    if reading.dims == 2:
        if len(frames) > 1:
            raise wrong_axes(3, 2)
        pixel = frames[0].pixel
        spacing = reading.spacing or (1.0, 1.0) if pixel is None else (pixel[1], pixel[0])
        return (rows, columns), diagonal(spacing), None
    if any(frame.pixel is None for frame in frames):
        raise Unreadable("missing spacing: slices without a size of their pixels")
    if any(frame.position is None or frame.directions is None for frame in frames):
        raise Unreadable("missing position: slices that do not say where they lie")
    pixels = np.array([frame.pixel for frame in frames])
    directions = np.array([frame.directions for frame in frames]).reshape(-1, 2, 3)
    if np.abs(directions - directions[0]).max() > _TURN:
        raise Unreadable("mixed slices: they are turned in different directions")
    if np.abs(pixels / pixels[0] - 1).max() > _PIXEL:
        raise Unreadable("mixed slices: their pixels differ in size")
    row, column = directions[0]
    if np.abs(directions[0] @ directions[0].T - np.eye(2)).max() > _TURN:
        raise Unreadable("bad orientation: rows and columns are no unit vectors at a right angle")
    positions = np.array([frame.position for frame in frames])
    stack = plan(positions, row, column, pixels[0], (columns, rows), reading)
    return stack.shape, check_affine(stack.affine), stack


def _values(frames: list[Frame]) -> NDArray[np.float32]:
    """(frames, rows, columns[, 3]) of all frames, in their order; each file is decoded once."""
    by_file: dict[Path, list[Frame]] = {}
    for frame in frames:
        by_file.setdefault(frame.path, []).append(frame)
    decoded = []
    for path, members in by_file.items():
        data = open_file(path, pixels=True)
        if not any(name in data for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
            raise Unreadable("no pixel data: the DICOM file has none")
        decoded.append(decode(data, members))
    if len({each.shape[1:] for each in decoded}) > 1:
        raise Unreadable("mixed slices: their sizes or numbers of channels differ")
    return np.concatenate(decoded)
