"""NumPy arrays: one per recording, or one big array of recordings; memory-mapped where the file allows."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_biosignals.readers import Axes
from diptych_biosignals.recording import Header, Recording

_BROKEN: tuple[type[Exception], ...] = (*MALFORMED, zipfile.BadZipFile)


def find(files: Sequence[Path], root: Path) -> list[Item]:
    """One item per file, or per row of a file with three axes.

    A file that cannot be read stays one item, so that reading it says why.
    """
    items = []
    for path in files:
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            array = _load(path)[0]
            parts: Sequence[int | None] = range(len(array)) if array.ndim == 3 else [None]
        except Unreadable:
            parts = [None]
        items += [Item(path=path, name=name, part=part, files=(path,)) for part in parts]
    return items


def read_header(
    item: Item,
    *,
    rate: float | None = None,
    axes: Axes = "time_leads",
    lead_names: Sequence[str] | None = None,
) -> Header:
    """Shape and, from an archive, its own ``rate`` and ``leads``; the config gives what is lacking.

    Raises Unreadable where the sampling rate is in neither.
    """
    array, extra = _load(item.path)
    length, width = _one(array, item.part, axes).shape
    own_rate = float(extra["rate"]) if "rate" in extra else rate
    if own_rate is None:
        raise Unreadable("the sampling rate is missing: arrays carry none, so set data.rate (Hz)")
    names = tuple(str(name) for name in extra["leads"]) if "leads" in extra else tuple(lead_names or ())
    if names and len(names) != width:
        raise Unreadable(f"the array has {width} leads, but {len(names)} lead names are given")
    if width > length:
        raise Unreadable(
            f"the array has {width} leads and {length} samples: is data.axes ({axes!r}) the other way round?"
        )
    return Header(
        leads=names or tuple(str(i + 1) for i in range(width)),
        rates=(own_rate,) * width,
        units=("",) * width,
        seconds=length / own_rate,
    )


def read(item: Item, leads: Sequence[str], header: Header, *, axes: Axes = "time_leads") -> Recording:
    """One recording of the array as float32."""
    array, _ = _load(item.path)
    signal = _one(array, item.part, axes)
    chosen = [header.leads.index(lead) for lead in leads]
    return Recording(
        signal=np.ascontiguousarray(signal[:, chosen], dtype=np.float32),
        rate=header.rates[0],
        leads=tuple(leads),
        units=tuple(header.units[i] for i in chosen),
    )


def _load(path: Path) -> tuple[np.ndarray[Any, np.dtype[Any]], dict[str, Any]]:
    """The signal array, and what an archive says beside it. Object arrays are refused (they hold pickles)."""
    try:
        return _load_once(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise malformed("NumPy file", error) from None


@lru_cache(maxsize=1)
def _load_once(path: Path, _: int) -> tuple[np.ndarray[Any, np.dtype[Any]], dict[str, Any]]:
    """Loaded once for all rows of a big array, as long as the file's time of change (second argument) stays."""
    try:
        if path.suffix.lower() == ".npy":
            return _numeric(np.load(path, mmap_mode="r", allow_pickle=False)), {}
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            if "signal" not in archive:
                raise Unreadable("the .npz archive has no array named 'signal'")
            extra = {key: archive[key] for key in ("rate", "leads") if key in archive}
            return _numeric(archive["signal"]), extra
    except _BROKEN as error:
        raise malformed("NumPy file", error) from None


def _numeric(array: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    if array.dtype.kind not in "fiu" or array.ndim not in (1, 2, 3):
        raise Unreadable(f"expected numbers on 1 to 3 axes, found {array.ndim} axes of {array.dtype}")
    return array


def _one(
    array: np.ndarray[Any, np.dtype[Any]], part: int | None, axes: Axes
) -> np.ndarray[Any, np.dtype[Any]]:
    one = array if part is None else array[part]
    if one.ndim == 1:
        one = one[:, None]
    return one if axes == "time_leads" or array.ndim == 1 else one.T
