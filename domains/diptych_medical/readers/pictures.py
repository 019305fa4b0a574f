"""PNG, TIFF, JPEG and BMP, read with Pillow: axes are rows and columns; 16 bits and floats are kept.

The resolution that such files may state is of printing, not of the patient, and is left out of account.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_medical.geometry import diagonal, from_codes
from diptych_medical.image import Affine, Image, ImageHeader, Reading
from diptych_medical.readers import name_of
from diptych_medical.readers.values import AnyArray, channels_of, coloured, whole_numbers, wrong_axes

_BROKEN: tuple[type[Exception], ...] = (
    *MALFORMED,
    SyntaxError,
    zlib.error,
    UserWarning,
    Pillow.DecompressionBombError,
)
_DAMAGED = ("Tag data larger than file", "Truncated File Read", "Corrupt EXIF data", "Metadata Warning")
_GREY = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_PNG_DEPTH = 24  # byte of a PNG file that holds the bits per channel (its IHDR chunk always comes first)


def find(files: Sequence[Path], root: Path, reading: Reading) -> list[Item]:
    """One item per file."""
    return [Item(path=path, name=name_of(path, root), files=(path,)) for path in files]


def read_header(item: Item, reading: Reading) -> ImageHeader:
    """Rows and columns; with ``dims`` 3 the pages of a file come first. Raises Unreadable."""
    with _opened(item.path) as picture:
        return _header(picture, reading)


def read(item: Item, reading: Reading) -> Image:
    """The picture as float32, without scaling (8 bits: 0 to 255). Raises Unreadable."""
    with _opened(item.path) as picture:
        header = _header(picture, reading)
        colour = picture.mode not in _GREY
        values = _values(picture, reading, colour=colour)
    return Image(data=coloured(values, reading, colour=colour), header=header)


def read_mask(item: Item, reading: Reading) -> tuple[NDArray[np.int64], Affine]:
    """A picture of labels: grey values, or the numbers of its palette. Raises Unreadable."""
    with _opened(item.path) as picture:
        if picture.mode not in (*_GREY, "P"):
            raise Unreadable("label map: a colour picture (expected one number per pixel)")
        shape, affine = _grid(picture, reading)
        values = np.stack([np.asarray(page) for page in _pages(picture)])
    return whole_numbers(values.reshape(shape)), affine


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with warnings.catch_warnings():
            # Scanned slides are larger than what Pillow takes for an attack; beyond twice that it refuses.
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            for message in _DAMAGED:  # Pillow goes on without the damaged part
                warnings.filterwarnings("error", message=message, category=UserWarning)
            with Pillow.open(path) as picture:
                yield picture
    except _BROKEN as error:
        raise malformed("picture", error) from None


def _header(picture: Any, reading: Reading) -> ImageHeader:
    shape, affine = _grid(picture, reading)
    colour = picture.mode not in _GREY
    if colour and _deep(picture):
        raise Unreadable("colour depth: more than 8 bits per colour channel cannot be read without loss")
    return ImageHeader(
        shape=shape, channels=channels_of(3 if colour else 1, reading, colour=colour), affine=affine
    )


def _grid(picture: Any, reading: Reading) -> tuple[tuple[int, ...], Affine]:
    pages = int(getattr(picture, "n_frames", 1))
    spacing = reading.spacing or (1.0,) * reading.dims
    if (pages > 1) != (reading.dims == 3):
        raise wrong_axes(3 if pages > 1 else 2, reading.dims)
    columns, rows = picture.size
    if reading.dims == 2:
        return (rows, columns), diagonal(spacing)
    return (pages, rows, columns), from_codes(reading.orientation or "RAS", spacing)


def _values(picture: Any, reading: Reading, *, colour: bool) -> AnyArray:
    """(channels, *space)."""
    if not colour:
        pages = np.stack([np.asarray(page, dtype=np.float32) for page in _pages(picture)])
        return pages if reading.dims == 2 else pages[None]
    pages = np.stack([_red_green_blue(page) for page in _pages(picture)])
    stack = np.moveaxis(pages, -1, 0)
    return stack[:, 0] if reading.dims == 2 else stack


def _pages(picture: Any) -> Iterator[Any]:
    for page in range(int(getattr(picture, "n_frames", 1))):
        picture.seek(page)
        picture.load()
        yield picture


def _red_green_blue(page: Any) -> NDArray[np.float32]:
    if page.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in page.info:
        whole = page.convert("RGBA")
        if np.asarray(whole)[..., 3].min() < 255:
            raise Unreadable("transparency: pixels that are partly see-through have no value of their own")
        page = whole
    return np.asarray(page.convert("RGB"), dtype=np.float32)


def _deep(picture: Any) -> bool:
    """Whether Pillow cut the channels of a colour picture to 8 bits."""
    if picture.format == "PNG":
        with Path(picture.filename).open("rb") as file:
            return file.read(_PNG_DEPTH + 1)[-1] == 16
    bits = getattr(picture, "tag_v2", {}).get(258, (8,))
    return bool(max(bits if isinstance(bits, tuple) else (bits,)) > 8)
