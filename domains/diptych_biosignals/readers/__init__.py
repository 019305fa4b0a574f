"""One module per format, each with ``claims``, ``find``, ``read_header`` and ``read``; tried in this order.

Libraries are imported when a format is met, so that reading arrays needs no MNE and EDF no pydicom.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from diptych.data.readable import Item
from diptych.data.scan import Found
from diptych_biosignals.recording import Header, Recording

Format = Literal["wfdb", "edf", "numpy", "dicom"]
Axes = Literal["time_leads", "leads_time"]

_MODULES: dict[str, str] = {
    "wfdb": "diptych_biosignals.readers.wfdb_records",
    "edf": "diptych_biosignals.readers.edf",
    "numpy": "diptych_biosignals.readers.arrays",
    "dicom": "diptych_biosignals.readers.dicom",
}
_SUFFIXES: dict[str, Format] = {
    ".hea": "wfdb", ".edf": "edf", ".bdf": "edf", ".npy": "numpy", ".npz": "numpy", ".dcm": "dicom",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ArrayFacts:
    """What the config says about arrays, which carry neither rate nor lead names."""

    rate: float | None = None  # Hz
    axes: Axes = "time_leads"
    lead_names: tuple[str, ...] | None = None


def format_of(path: Path) -> Format | None:
    """The format of a file by its suffix, or by the DICOM mark where it has none; None: no recording."""
    if path.suffix:
        return _SUFFIXES.get(path.suffix.lower())
    with path.open("rb") as file:
        return "dicom" if file.read(132)[128:] == b"DICM" else None


def find(files: Sequence[Path], root: Path, only: Format | Literal["auto"] = "auto") -> Found:
    """Sort files into recordings of the known formats, or of one of them."""
    by_format: dict[str, list[Path]] = {name: [] for name in _MODULES}
    for path in files:
        kind = format_of(path)
        if kind is not None and only in ("auto", kind):
            by_format[kind].append(path)
    items = [
        (kind, item) for kind, paths in by_format.items() if paths for item in _module(kind).find(paths, root)
    ]
    items.sort(key=lambda each: (each[1].path, each[1].part or 0))
    used = {file for _, item in items for file in (item.path, *item.files)}
    return Found(items=tuple(items), other=tuple(path for path in files if path not in used))


def read_header(kind: str, item: Item, arrays: ArrayFacts) -> Header:
    """The header of one recording. Raises Unreadable."""
    if kind == "numpy":
        extra = {"rate": arrays.rate, "axes": arrays.axes, "lead_names": arrays.lead_names}
    else:
        extra = {}
    header: Header = _module(kind).read_header(item, **extra)
    return header


def read(kind: str, item: Item, leads: Sequence[str], arrays: ArrayFacts) -> Recording:
    """The named leads of one recording, in that order, at one rate. Raises Unreadable."""
    if kind == "numpy":
        extra = {"header": read_header(kind, item, arrays), "axes": arrays.axes}
    else:
        extra = {}
    recording: Recording = _module(kind).read(item, leads, **extra)
    return recording


def _module(kind: str) -> Any:
    return import_module(_MODULES[kind])
