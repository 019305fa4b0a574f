"""One module per format, each with ``find``, ``read_header``, ``read`` and ``read_mask``.

Libraries are imported when a format is met, so that reading pictures needs no pydicom and NIfTI no pynrrd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import Item
from diptych.data.scan import Found
from diptych_medical.image import Affine, Image, ImageHeader, Reading

Format = Literal["nifti", "nrrd", "dicom", "picture", "numpy"]

_MODULES: dict[Format, str] = {
    "nifti": "diptych_medical.readers.nifti",
    "nrrd": "diptych_medical.readers.nrrd_files",
    "dicom": "diptych_medical.readers.dicom",
    "picture": "diptych_medical.readers.pictures",
    "numpy": "diptych_medical.readers.arrays",
}
_SUFFIXES: dict[str, Format] = {
    ".nii": "nifti", ".nii.gz": "nifti", ".hdr": "nifti", ".nrrd": "nrrd", ".nhdr": "nrrd", ".dcm": "dicom",
    ".dicom": "dicom", ".ima": "dicom", ".png": "picture", ".tif": "picture", ".tiff": "picture",
    ".jpg": "picture", ".jpeg": "picture", ".bmp": "picture", ".npy": "numpy", ".npz": "numpy",
}  # fmt: skip
EXPECTED = "NIfTI (.nii, .nii.gz, .hdr), NRRD (.nrrd, .nhdr), DICOM, PNG, TIFF, JPEG, BMP or NumPy files"


def suffix_of(path: Path) -> str:
    """The suffix in lower case; ".nii.gz" counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def name_of(path: Path, root: Path) -> str:
    """The text that rules match: the path below the root without its suffix."""
    relative = path.relative_to(root).as_posix()
    suffix = suffix_of(path)  # one of no format is no suffix: "1.2.840.113" is a UID
    return relative[: -len(suffix)] if suffix in _SUFFIXES else relative


def format_of(path: Path) -> Format | None:
    """The format of a file by its suffix, or by the DICOM mark where it has none of these; None: no image."""
    if (known := _SUFFIXES.get(suffix_of(path))) is not None:
        return known
    if path.name.upper() == "DICOMDIR":
        return None
    tail = path.suffix[1:]
    if not tail or tail.isdigit():  # scanners name files "IM0001" or by their UID "1.2.840.113"
        with path.open("rb") as file:
            return "dicom" if file.read(132)[128:] == b"DICM" else None
    return None


def find(
    files: Sequence[Path],
    root: Path,
    only: Format | Literal["auto"] = "auto",
    *,
    reading: Reading | None = None,
) -> Found:
    """Sort files into images of the known formats, or of one of them.

    Args:
        files: What to look at.
        root: The folder below which names are counted.
        only: One format, or all.
        reading: Decides what one image is: with ``dims`` 3 the slices of a DICOM series are one, with 2 every
            file; an array with one axis more than an image has holds many. By default ``Reading()``.
    """
    by_format: dict[Format, list[Path]] = {name: [] for name in _MODULES}
    for path in files:
        kind = format_of(path)
        if kind is not None and only in ("auto", kind):
            by_format[kind].append(path)
    items: list[tuple[str, Item]] = [
        (kind, item)
        for kind, paths in by_format.items()
        if paths
        for item in _module(kind).find(paths, root, reading or Reading())
    ]
    items.sort(key=lambda each: (each[1].path, each[1].part or 0))
    used = {file for _, item in items for file in (item.path, *item.files)}
    return Found(items=tuple(items), other=tuple(path for path in files if path not in used))


def read_header(kind: str, item: Item, reading: Reading) -> ImageHeader:
    """The header of one image. Raises Unreadable."""
    header: ImageHeader = _module(kind).read_header(item, reading)
    return header


def read(kind: str, item: Item, reading: Reading) -> Image:
    """One image, (channels, *shape) float32 in the units of the file, not turned to RAS. Raises Unreadable."""
    image: Image = _module(kind).read(item, reading)
    return image


def read_mask(kind: str, item: Item, reading: Reading) -> tuple[NDArray[np.int64], Affine]:
    """A label map (*shape) as whole numbers, never interpolated, and its affine as in ImageHeader.

    ``reading`` is that of the images; colour and channels are left out of account, since a map has neither.
    Raises Unreadable, also where values are no whole numbers.
    """
    plain = replace(reading, channels=1, colour="reject", array_axes="space", array_name=reading.mask_name)
    mask: tuple[NDArray[np.int64], Affine] = _module(kind).read_mask(item, plain)
    return mask


def _module(kind: str) -> Any:
    return import_module(_MODULES[cast(Format, kind)])
