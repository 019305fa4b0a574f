"""NIfTI-1 and NIfTI-2 (one file, compressed or not, or .hdr with .img), read with nibabel.

The affine is the sform where it is set, else the qform (NIfTI-1 standard, methods 3 and 2); lengths are turned
to mm where the header counts in metres or micrometres.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError, ImageDataError
from numpy.typing import NDArray

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_medical.geometry import check_affine, diagonal, from_codes
from diptych_medical.image import Affine, Image, ImageHeader, Reading
from diptych_medical.readers import name_of
from diptych_medical.readers.values import AnyArray, channels_of, coloured, whole_numbers, wrong_axes

_BROKEN: tuple[type[Exception], ...] = (
    *MALFORMED,
    zlib.error,
    ImageFileError,
    HeaderDataError,
    ImageDataError,
)
_MILLIMETRES = {
    0: 1.0,
    1: 1000.0,
    2: 1.0,
    3: 0.001,
}  # by the code of the unit: unknown, metre, mm, micrometre


def find(files: Sequence[Path], root: Path, reading: Reading) -> list[Item]:
    """One item per file; a .hdr depends on the .img beside it."""
    items = []
    for path in files:
        pair = [path.with_suffix(suffix) for suffix in (".img", ".IMG")] if path.suffix == ".hdr" else []
        voxels = [file for file in pair if file.is_file()][:1]
        items.append(Item(path=path, name=name_of(path, root), files=(path, *voxels)))
    return items


def read_header(item: Item, reading: Reading) -> ImageHeader:
    """Shape, channels (axes after the third) and affine. Raises Unreadable."""
    return _header(_open(item.path), item.path, reading)


def read(item: Item, reading: Reading) -> Image:
    """The voxels, scaled by the header's slope and intercept. Raises Unreadable."""
    image = _open(item.path)
    header = _header(image, item.path, reading)
    colour = image.get_data_dtype().fields is not None
    values = _values(image, whole=False)
    if colour:
        values = np.stack([values[name] for name in "RGB"], axis=-1)
    values = np.moveaxis(values.reshape(*header.shape, -1, order="F"), -1, 0)
    return Image(data=coloured(values, reading, colour=colour), header=header)


def read_mask(item: Item, reading: Reading) -> tuple[NDArray[np.int64], Affine]:
    """The label map and its affine. Raises Unreadable."""
    image = _open(item.path)
    header = _header(image, item.path, reading)
    values = _values(image, whole=True)
    return whole_numbers(values.reshape(header.shape, order="F")), header.affine


def _open(path: Path) -> Any:
    try:
        with (
            LoggingOutputSuppressor()
        ):  # what nibabel mends in a header is checked here, and it quotes values
            image = nibabel.load(path)
    except _BROKEN as error:
        raise malformed("NIfTI file", error) from None
    if not isinstance(image, nibabel.Nifti1Pair):  # a .hdr may be of Analyze, which knows no orientation
        raise Unreadable("malformed NIfTI file: it is of another format")
    return image


def _header(image: Any, path: Path, reading: Reading) -> ImageHeader:
    shape = tuple(int(size) for size in image.shape)
    spatial, rest = shape[:3], shape[3:]
    if reading.dims == 2 and len(spatial) == 3 and spatial[2] == 1:
        spatial = spatial[:2]
    if len(spatial) != reading.dims:
        raise wrong_axes(len(spatial), reading.dims)
    if min(shape) < 1:
        raise Unreadable("malformed NIfTI file: an axis without voxels")
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise Unreadable("complex values: expected real numbers")
    colour = dtype.fields is not None
    count = prod(rest)
    if count > 1 and reading.channels == 1:
        raise wrong_axes(4, reading.dims)
    channels = channels_of(3 if colour else count, reading, colour=colour)
    scale = _MILLIMETRES.get(int(image.header["xyzt_units"]) & 7, 1.0)
    spacing = _spacing(image, path, reading.dims) * scale
    affine = diagonal(spacing) if reading.dims == 2 else _affine(image, spacing, scale, reading.orientation)
    return ImageHeader(shape=spatial, channels=channels, affine=affine)


def _spacing(image: Any, path: Path, dims: int) -> NDArray[np.float64]:
    """The spacing that the file has: nibabel mends negative and zero ones without a word."""
    try:
        with ImageOpener(str(path)) as file:
            raw = type(image.header).from_fileobj(file, check=False)
    except _BROKEN as error:
        raise malformed("NIfTI file", error) from None
    spacing: NDArray[np.float64] = raw["pixdim"][1 : dims + 1].astype(np.float64)
    if not (np.isfinite(spacing) & (spacing > 0)).all():
        raise Unreadable("bad spacing: zero, negative or no finite number along an axis")
    return spacing


def _affine(image: Any, spacing: NDArray[np.float64], scale: float, orientation: str | None) -> Affine:
    header = image.header
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        if orientation is None:
            raise Unreadable("missing orientation: neither sform nor qform is set")
        return from_codes(orientation, spacing)
    try:
        affine = np.array(header.get_best_affine(), dtype=np.float64)
    except _BROKEN as error:
        raise Unreadable(f"bad affine: it cannot be computed ({type(error).__name__})") from None
    affine[:3] *= scale
    return check_affine(affine)


def _values(image: Any, *, whole: bool) -> AnyArray:
    """The voxels; whole numbers of label maps are not passed through float32."""
    try:
        if whole or image.get_data_dtype().fields is not None:
            return np.asanyarray(image.dataobj)
        return np.asarray(image.dataobj, dtype=np.float32)
    except _BROKEN as error:
        raise malformed("NIfTI file", error) from None
