"""NRRD, attached (.nrrd) and detached (.nhdr with its data), read with pynrrd (format definition: Kindlmann 2008)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import nrrd
import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_medical.geometry import check_affine, diagonal, from_codes
from diptych_medical.image import Affine, Image, ImageHeader, Reading
from diptych_medical.readers import name_of
from diptych_medical.readers.values import AnyArray, channels_of, coloured, whole_numbers, wrong_axes

_BROKEN: tuple[type[Exception], ...] = (*MALFORMED, zlib.error, nrrd.NRRDError)
_TO_RAS = {
    "right-anterior-superior": (1.0, 1.0, 1.0), "ras": (1.0, 1.0, 1.0),
    "left-anterior-superior": (-1.0, 1.0, 1.0), "las": (-1.0, 1.0, 1.0),
    "left-posterior-superior": (-1.0, -1.0, 1.0), "lps": (-1.0, -1.0, 1.0),
}  # fmt: skip
_MILLIMETRES = {
    "mm": 1.0,
    "millimeter": 1.0,
    "millimetre": 1.0,
    "cm": 10.0,
    "m": 1000.0,
    "um": 0.001,
    "µm": 0.001,
}
_SPATIAL = ("domain", "space", "???", "none", "")
_COLOURS = ("RGB-color", "3-color")


def find(files: Sequence[Path], root: Path, reading: Reading) -> list[Item]:
    """One item per file; a detached header depends on the data files that it names, where they lie there."""
    return [Item(path=path, name=name_of(path, root), files=(path, *_detached(path, root))) for path in files]


def read_header(item: Item, reading: Reading) -> ImageHeader:
    """Shape, channels and affine; the header's own texts as fields. Raises Unreadable."""
    return _header(_read(item.path, nrrd.read_header), reading)


def read(item: Item, reading: Reading) -> Image:
    """The voxels as they are stored. Raises Unreadable."""
    values, texts = _read(item.path, nrrd.read)
    header = _header(texts, reading)
    spatial, colour = _axes(texts, reading.dims)
    data = _channels_first(values, spatial)
    return Image(data=coloured(data, reading, colour=colour), header=header)


def read_mask(item: Item, reading: Reading) -> tuple[NDArray[np.int64], Affine]:
    """The label map and its affine. Raises Unreadable."""
    values, texts = _read(item.path, nrrd.read)
    header = _header(texts, reading)
    spatial, _ = _axes(texts, reading.dims)
    return whole_numbers(_channels_first(values, spatial))[0], header.affine


def _detached(path: Path, root: Path) -> list[Path]:
    if path.suffix.lower() != ".nhdr":
        return []
    try:
        named = _read(path, nrrd.read_header).get("data file", "")
    except Unreadable:
        return []
    names = named if isinstance(named, list) else [named]
    files = [path.parent / str(name) for name in names if str(name)]
    return [file for file in files if file.is_file() and file.is_relative_to(root)]


def _read(path: Path, how: Any) -> Any:
    try:
        return how(str(path))
    except _BROKEN as error:
        raise malformed("NRRD file", error) from None


def _header(texts: Mapping[str, Any], reading: Reading) -> ImageHeader:
    try:
        spatial, colour = _axes(texts, reading.dims)
        sizes = [int(size) for size in texts["sizes"]]
        if min(sizes) < 1:
            raise Unreadable("malformed NRRD file: an axis without voxels")
        count = prod(size for axis, size in enumerate(sizes) if axis not in spatial)
        if count > 1 and not colour and reading.channels == 1:
            raise wrong_axes(len(sizes), reading.dims)
        return ImageHeader(
            shape=tuple(sizes[axis] for axis in spatial),
            channels=channels_of(count, reading, colour=colour),
            affine=_affine(texts, spatial, reading),
            fields={key: value for key, value in texts.items() if isinstance(value, str)},
        )
    except MALFORMED as error:
        raise malformed("NRRD file", error) from None


def _axes(texts: Mapping[str, Any], dims: int) -> tuple[list[int], bool]:
    """The axes in space, and whether the other one holds colours."""
    count = int(texts["dimension"])
    kinds = [str(kind) for kind in texts.get("kinds", [""] * count)]
    spatial = [axis for axis in range(count) if kinds[axis] in _SPATIAL]
    if (directions := _directions(texts)) is not None:
        spatial = [axis for axis in spatial if not np.isnan(directions[axis]).all()]
    elif count > dims and (spacings := texts.get("spacings")) is not None:
        spatial = [axis for axis in spatial if not np.isnan(spacings[axis])]
    if dims == 2 and len(spatial) == 3 and int(texts["sizes"][spatial[2]]) == 1:
        spatial = spatial[:2]
    if len(spatial) != dims or any(kind == "time" for kind in kinds):
        raise wrong_axes(count, dims)
    others = [axis for axis in range(count) if axis not in spatial and int(texts["sizes"][axis]) > 1]
    if len(others) > 1:
        raise wrong_axes(count, dims)
    return spatial, any(kinds[axis] in _COLOURS for axis in others)


def _directions(texts: Mapping[str, Any]) -> NDArray[np.float64] | None:
    """One row per axis, mm; rows of axes that lie in no space are NaN."""
    rows = texts.get("space directions")
    if rows is None:
        return None
    width = next((len(row) for row in rows if row is not None), 3)
    return np.array([[np.nan] * width if row is None else row for row in rows], dtype=np.float64)


def _affine(texts: Mapping[str, Any], spatial: list[int], reading: Reading) -> Affine:
    units = [str(unit) for unit in texts.get("space units", [])]
    if any(unit not in _MILLIMETRES for unit in units):
        raise Unreadable("bad spacing: the unit of the space is unknown")
    scale = _MILLIMETRES[units[0]] if units else 1.0
    directions = _directions(texts)
    if directions is not None:
        columns = directions[spatial].T * scale
        if not np.isfinite(columns).all():
            raise Unreadable("bad affine: it has values that are no finite numbers")
        spacing = np.sqrt((columns**2).sum(axis=0))
    else:
        columns, spacing = None, _spacings(texts, spatial, reading)
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise Unreadable("bad spacing: zero, negative or no finite number along an axis")
    if reading.dims == 2:
        return diagonal(spacing)
    signs = _TO_RAS.get(str(texts.get("space", "")).lower())
    if columns is None or signs is None:
        if reading.orientation is None:
            raise Unreadable("missing orientation: the header names no space of the patient with directions")
        return from_codes(reading.orientation, spacing)
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = np.asarray(texts.get("space origin", np.zeros(3)), dtype=np.float64) * scale
    return check_affine(np.diag([*signs, 1.0]) @ affine)


def _spacings(texts: Mapping[str, Any], spatial: list[int], reading: Reading) -> NDArray[np.float64]:
    if texts.get("spacings") is not None:
        return np.asarray(texts["spacings"], dtype=np.float64)[spatial]
    if reading.spacing is not None:
        return np.asarray(reading.spacing, dtype=np.float64)
    raise Unreadable("missing spacing: the header has neither directions nor spacings")


def _channels_first(values: AnyArray, spatial: list[int]) -> AnyArray:
    shape = [values.shape[axis] for axis in spatial]
    rest = [axis for axis in range(values.ndim) if axis not in spatial]
    return values.transpose(*rest, *spatial).reshape(-1, *shape)
