"""NumPy arrays: one image per file, or many along the first axis; memory-mapped where the file allows.

An .npz archive may hold several arrays of images ("train_images", "val_images") and texts or numbers that go with
them ("val_labels"): these become fields of the header, named without what both names begin with ("labels").
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_medical.geometry import diagonal, from_codes
from diptych_medical.image import Affine, Image, ImageHeader, Reading
from diptych_medical.readers import name_of
from diptych_medical.readers.values import AnyArray, channels_of, coloured, whole_numbers, wrong_axes

_BROKEN: tuple[type[Exception], ...] = (*MALFORMED, zipfile.BadZipFile, zlib.error, SyntaxError, TokenError)


def find(files: Sequence[Path], root: Path, reading: Reading) -> list[Item]:
    """One item per file, or per image of arrays that hold many, counted through all arrays of an archive.

    A file that cannot be read stays one item, so that reading it says why.
    """
    items = []
    for path in files:
        name = name_of(path, root)
        try:
            arrays = _images(_load(path), reading)
        except Unreadable:
            items.append(Item(path=path, name=name, files=(path,)))
            continue
        part = 0
        for key, array in arrays.items():
            many = array.ndim > _axes(reading)
            named = f"{name}/{key}" if len(arrays) > 1 else name
            for _ in range(len(array) if many else 1):
                alone = len(arrays) == 1 and not many
                items.append(Item(path=path, name=named, part=None if alone else part, files=(path,)))
                part += 1
    return items


def read_header(item: Item, reading: Reading) -> ImageHeader:
    """Shape and channels from the array; spacing and orientation as the config says. Raises Unreadable."""
    array, fields = _one(item, reading)
    return _header(array, fields, reading)


def read(item: Item, reading: Reading) -> Image:
    """One image of the array as float32. Raises Unreadable."""
    array, fields = _one(item, reading)
    header = _header(array, fields, reading)
    return Image(data=coloured(np.ascontiguousarray(array), reading, colour=len(array) == 3), header=header)


def read_mask(item: Item, reading: Reading) -> tuple[NDArray[np.int64], Affine]:
    """One label map of the array, and the affine that the config gives it. Raises Unreadable."""
    array, fields = _one(item, reading)
    return whole_numbers(array)[0], _header(array, fields, reading).affine


def _header(array: AnyArray, fields: Mapping[str, str], reading: Reading) -> ImageHeader:
    colour = len(array) == 3 and reading.colour != "reject"
    spacing = reading.spacing or (1.0,) * reading.dims
    if reading.dims == 2:
        affine = diagonal(spacing)
    else:
        affine = from_codes(reading.orientation or "RAS", spacing)
    return ImageHeader(
        shape=tuple(array.shape[1:]),
        channels=channels_of(len(array), reading, colour=colour),
        affine=affine,
        fields=fields,
    )


def _one(item: Item, reading: Reading) -> tuple[AnyArray, dict[str, str]]:
    """One image as (channels, *space), and the fields that go with it."""
    archive = _load(item.path)
    part = item.part or 0
    for key, array in _images(archive, reading).items():
        many = array.ndim > _axes(reading)
        count = len(array) if many else 1
        if part < count:
            image = array[part] if many else array
            if min(image.shape) < 1:
                raise Unreadable("malformed NumPy file: an axis without values")
            return _channels_first(image, reading), _fields(archive, key, part, count)
        part -= count
    raise Unreadable("malformed NumPy file: it holds fewer images than before")


def _axes(reading: Reading) -> int:
    return reading.dims + (reading.array_axes != "space")


def _channels_first(image: AnyArray, reading: Reading) -> AnyArray:
    if reading.array_axes == "space":
        return image[None]
    return np.moveaxis(image, -1, 0) if reading.array_axes == "channels_last" else image


def _images(archive: Mapping[str, AnyArray], reading: Reading) -> dict[str, AnyArray]:
    """The arrays that hold images, by name."""
    axes = _axes(reading)
    if reading.array_name is not None:
        if reading.array_name not in archive:
            raise Unreadable("missing array: the archive has none of the wanted name")
        archive = {reading.array_name: archive[reading.array_name]}
    numeric = {
        key: array
        for key, array in archive.items()
        if array.dtype.kind in "fiub" and array.ndim and len(array)
    }
    many = {key: array for key, array in numeric.items() if array.ndim == axes + 1}
    fitting = many or {key: array for key, array in numeric.items() if array.ndim == axes}
    if not fitting:
        if len(archive) == 1:
            (array,) = archive.values()
            if array.dtype.kind not in "fiub":
                raise Unreadable("malformed NumPy file: its values are no real numbers")
            raise wrong_axes(array.ndim, axes)
        raise Unreadable(f"axes: no array of the archive holds images with {axes} axes")
    return fitting


def _fields(archive: Mapping[str, AnyArray], key: str, row: int, count: int) -> dict[str, str]:
    """Values of arrays with one number or text per image, named without what both names begin with."""
    begin = _beginning(key)
    others = {_beginning(name) for name, array in archive.items() if array.ndim > 2} - {begin, ""}
    fields = {}
    for name, values in archive.items():
        goes_with = name != key and name.startswith(begin) and not name.startswith(tuple(others))
        if goes_with and values.ndim and values.size == count == len(values):
            fields[name.removeprefix(begin)] = str(values.reshape(-1)[row])
    return fields


def _beginning(name: str) -> str:
    return name[: name.rfind("_") + 1]


def _load(path: Path) -> dict[str, AnyArray]:
    """The arrays of a file by name. Object arrays are refused: they hold pickles."""
    try:
        return _load_once(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise malformed("NumPy file", error) from None


@lru_cache(maxsize=1)
def _load_once(path: Path, _: int) -> dict[str, AnyArray]:
    """Loaded once for all images of a file, as long as its time of change (second argument) stays."""
    try:
        if path.suffix.lower() == ".npy":
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
            return {"": array}
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive}
    except _BROKEN as error:
        raise malformed("NumPy file", error) from None
