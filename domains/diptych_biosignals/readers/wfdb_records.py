"""WFDB records (PhysioNet): one header ``X.hea`` and its signal files, single or multi-segment."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import wfdb

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_biosignals.recording import Header, Recording, at_one_rate

# Bytes per sample of the formats of fixed size (WFDB signal(5)); the FLAC formats 508, 516, 524 have none.
_BYTES = {
    "8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0,
    "212": 1.5, "310": 4 / 3, "311": 4 / 3,
}  # fmt: skip


def find(files: Sequence[Path], root: Path) -> list[Item]:
    """One item per record. Segments of a multi-segment record belong to it and are not items."""
    lines = {path: _lines(path) for path in files}
    segments = {path.parent / name for path, text in lines.items() for name in _segments(path, text)}
    return [
        Item(path=path, name=path.relative_to(root).with_suffix("").as_posix(), files=_files(path, lines))
        for path in files
        if path not in segments
    ]


def read_header(item: Item) -> Header:
    """Leads, rates and comments; for a multi-segment record those of all its segments together."""
    record = _parse_header(item.path)
    if not isinstance(record, wfdb.MultiRecord):
        return _single_header(record)
    found = [_parse_header(item.path.parent / f"{name}.hea") for name in record.seg_name if name != "~"]
    parts = [_single_header(segment) for segment in found]
    if not parts:
        raise Unreadable("the multi-segment header lists no segments")
    leads = list(dict.fromkeys(lead for part in parts for lead in part.leads))
    first = {lead: part for part in reversed(parts) for lead in part.leads}
    return Header(
        leads=tuple(leads),
        rates=tuple(first[lead].rates[first[lead].leads.index(lead)] for lead in leads),
        units=tuple(first[lead].units[first[lead].leads.index(lead)] for lead in leads),
        seconds=record.sig_len / record.fs if record.sig_len else None,
        comments=(*record.comments, *parts[0].comments),
    )


def read(item: Item, leads: Sequence[str]) -> Recording:
    """The record in physical units, restricted to ``leads``; gaps between segments and missing leads are NaN.

    Raises Unreadable on a missing or truncated signal file and on a checksum that does not match.
    """
    record = _parse_header(item.path)
    if not isinstance(record, wfdb.MultiRecord):
        return _decode(item.path, record, leads)
    blocks: list[np.ndarray[Any, np.dtype[np.float32]]] = []
    rates: set[float] = set()
    for name, length in zip(record.seg_name, record.seg_len, strict=True):
        if name == "~":
            blocks.append(np.full((length, len(leads)), np.nan, np.float32))
        elif length:
            path = item.path.parent / f"{name}.hea"
            segment = _parse_header(path)
            present = [lead for lead in leads if lead in segment.sig_name]
            block = np.full((length, len(leads)), np.nan, np.float32)
            if present:
                part = _decode(path, segment, present)
                scale = part.rate / record.fs
                block = np.full((round(length * scale), len(leads)), np.nan, np.float32)
                block[:, [leads.index(lead) for lead in present]] = part.signal
                rates.add(part.rate)
            blocks.append(block)
    if len(rates) > 1:
        raise Unreadable("segments of one record have different sampling rates")
    units = read_header(item)
    signal = np.concatenate(blocks) if blocks else np.empty((0, len(leads)), np.float32)
    return Recording(
        signal=signal,
        rate=rates.pop() if rates else float(record.fs),
        leads=tuple(leads),
        units=tuple(units.units[units.leads.index(lead)] for lead in leads),
    )


def _lines(path: Path) -> list[str]:
    """The non-comment lines of a header; none where it cannot be read (reported when it is read)."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _segments(path: Path, lines: Sequence[str]) -> list[str]:
    """Header file names of the segments of a multi-segment record: its first line is ``name/count ...``."""
    if not lines or not re.match(r"[^\s/]+/\d+\s", lines[0]):
        return []
    names = [line.split()[0] for line in lines[1:]]
    return [f"{name}.hea" for name in names if name != "~" and _plain(name)]


def _files(path: Path, lines: dict[Path, list[str]]) -> tuple[Path, ...]:
    """The header, its segments' headers and all signal files that exist."""
    segments = [path.parent / name for name in _segments(path, lines[path])]
    if segments:
        parts = [file for segment in segments for file in _files(segment, {segment: _lines(segment)})]
        return tuple(dict.fromkeys([path, *parts]))
    names = [line.split()[0] for line in lines[path][1:] if _plain(line.split()[0])]
    present = [file for file in (path.parent / name for name in dict.fromkeys(names)) if file.is_file()]
    return tuple(dict.fromkeys([path, *present])) if path.is_file() else tuple(present)


def _plain(name: str) -> bool:
    """Whether a name in a header is that of a file in the same folder, as it should be."""
    return Path(name).name == name and not name.startswith("..")


def _parse_header(path: Path) -> Any:
    if not path.is_file():
        raise Unreadable("a segment of the record has no header file")
    try:
        return wfdb.rdheader(str(path.with_suffix("")))
    except MALFORMED as error:
        raise malformed("WFDB header", error) from None


def _single_header(record: Any) -> Header:
    if not record.n_sig:
        raise Unreadable("the header lists no signals")
    if not record.fs:
        raise Unreadable("the header has no usable sampling rate")
    frames = [n or 1 for n in record.samps_per_frame]
    return Header(
        leads=tuple(name or f"signal {i}" for i, name in enumerate(record.sig_name)),
        rates=tuple(float(record.fs) * n for n in frames),
        units=tuple(unit or "mV" for unit in record.units),
        seconds=record.sig_len / record.fs if record.sig_len else None,
        comments=tuple(record.comments),
    )


def _decode(path: Path, record: Any, leads: Sequence[str]) -> Recording:
    """One single-segment record; all its signals are decoded, for the checksums, before leads are taken."""
    header = _single_header(record)
    _check_length(path, record)
    try:
        full = wfdb.rdrecord(str(path.with_suffix("")), physical=False, smooth_frames=False)
        stored = full.checksum
        samples = full.e_d_signal
        physical = full.dac(expanded=True, return_res=32)
    except MALFORMED as error:
        raise malformed("WFDB signal file", error) from None
    for lead, expected, values in zip(header.leads, stored, samples, strict=True):
        if expected is not None and (int(values.sum(dtype=np.int64)) - int(expected)) % 65536:
            raise Unreadable(f"wrong checksum in lead {header.leads.index(lead) + 1} of {len(header.leads)}")
    chosen = [header.leads.index(lead) for lead in leads]
    return at_one_rate(
        [physical[i] for i in chosen],
        [header.rates[i] for i in chosen],
        tuple(leads),
        tuple(header.units[i] for i in chosen),
    )


def _check_length(path: Path, record: Any) -> None:
    """Refuse a record whose signal files are missing or shorter than its header says."""
    for name in dict.fromkeys(record.file_name):
        file = path.parent / name
        if not file.is_file():
            raise Unreadable(
                f"header without data: the signal file ({file.suffix or 'no suffix'}) is missing"
            )
        of_file = [i for i, other in enumerate(record.file_name) if other == name]
        size = _BYTES.get(record.fmt[of_file[0]])
        if size is None or not record.sig_len:
            continue
        per_frame = sum(record.samps_per_frame[i] or 1 for i in of_file)
        offset = record.byte_offset[of_file[0]] or 0
        expected = offset + ceil(record.sig_len * per_frame * size)
        actual = file.stat().st_size
        if actual < expected:
            held = max(0, actual - offset) / size / per_frame / record.fs
            raise Unreadable(
                f"truncated signal file: {actual} of {expected} bytes, "
                f"{held:.1f} of {record.sig_len / record.fs:.1f} s"
            )
