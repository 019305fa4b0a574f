"""The rows of all files of a source, in one order, with what their files say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from diptych.data.manifest import Checksum
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Unreadable
from diptych.errors import ConfigError, DataError
from diptych.nearest import nearest
from diptych_molecules.readers.files import FileForm, find
from diptych_molecules.readers.tables import STRUCTURE, Rows, column, read
from diptych_molecules.settings import Source

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One file's rows that are asked for."""

    path: str  # below the root, posix
    form: FileForm
    checksum: Checksum
    texts: pa.ChunkedArray  # structures; "" where the cell is empty
    table: pa.Table  # the other columns, as texts
    numbers: Integers  # of each row its number in the file
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """All rows, those of the first file first. A row's number here is its place in that order."""

    root: Path
    parts: list[Part]
    starts: Integers  # (files + 1,) first row of each
    total: int  # rows that were looked at, those in quarantine included
    other: Counter[str]

    def part_of(self, rows: Integers) -> Integers:
        """Which file each row is of."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def name(self, row: int) -> str:
        """How a row is named in quarantine: its file and its number there, counted from 0."""
        part = int(self.part_of(np.array([row], np.int64))[0])
        return f"{self.parts[part].path}[{self.parts[part].numbers[row - self.starts[part]]}]"

    def columns(self, rows: Integers) -> dict[str, Sequence[str | None]]:
        """The columns that all files have, their cells at ``rows`` as texts; read when asked for."""
        shared = [
            name
            for name in self.parts[0].table.column_names
            if all(name in part.table.column_names for part in self.parts)
        ]
        return {name: _Cells(self, name, rows) for name in shared}

    def need(self, name: str, setting: str, columns: Mapping[str, Sequence[str | None]]) -> None:
        """Raise ConfigError where there is no such column, naming the nearest."""
        if name in columns:
            return
        lacking = [part.path for part in self.parts if name not in part.table.column_names]
        if len(lacking) < len(self.parts) and len(self.parts) > 1:
            raise ConfigError(
                f"{setting}: {len(lacking)} files have no column {name!r}; the first: {lacking[0]!r}"
            )
        raise ConfigError(f"{setting}: there is no column {name!r}; {nearest(name, list(columns))}")


class _Cells(Sequence[str | None]):
    """The cells of one column at some rows, made texts of Python only when they are looked at."""

    def __init__(self, gathered: Gathered, name: str, rows: Integers) -> None:
        self._gathered, self._name, self._rows = gathered, name, rows
        self._texts: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if self._texts is None:
            whole = pa.chunked_array(
                [chunk for part in self._gathered.parts for chunk in part.table.column(self._name).chunks],
                pa.large_string(),
            )
            self._texts = whole.take(pa.array(self._rows)).to_pylist()
        return self._texts[place]


def gather(source: Source, quarantine: Quarantine) -> Gathered:
    """Read all files of a source. Damaged files and lines that are no rows go to quarantine.

    Raises:
        ConfigError: no such path or column of SMILES.
        DataError: no file can be read.
    """
    form = None if source.form == "auto" else source.form
    found = find(source.path, source.include, source.exclude, form, quarantine)
    parts, bad = [], 0
    for path, kind in found.files:
        try:
            rows = read(found.root / path, kind, source.delimiter)
        except Unreadable as error:
            quarantine.add(path, str(error))
            continue
        for number, reason in rows.rejected:
            quarantine.add(f"{path}[{number}]", reason)
        bad += len(rows.rejected)
        parts.append(_part(path, kind, found.checksums[path], rows, source))
    damaged = len(quarantine) - bad
    if not parts:
        reasons = "; ".join(f"{reason} ({count})" for reason, count in _counted(quarantine))
        raise DataError(f"none of {damaged} files of molecules can be read: {reasons}")
    if source.limit is not None:
        parts = _drawn(parts, source.limit)
    starts = np.cumsum([0] + [len(part.texts) for part in parts])
    return Gathered(
        root=found.root, parts=parts, starts=starts, total=int(starts[-1]) + bad + damaged, other=found.other
    )


def _part(path: str, form: FileForm, checksum: Checksum, rows: Rows, source: Source) -> Part:
    wanted = source.smiles if form in ("csv", "tsv", "parquet") else STRUCTURE
    name = column(rows.table, wanted)
    if name is None:
        hint = nearest(wanted, rows.table.column_names)
        raise ConfigError(f"data.smiles: {path!r} has no column {wanted!r}; {hint}")
    texts = pc.fill_null(rows.table.column(name), "")
    return Part(
        path=path,
        form=form,
        checksum=checksum,
        texts=texts,
        table=rows.table.drop_columns([name]),
        numbers=rows.numbers,
        notes=rows.notes,
    )


def _drawn(parts: Sequence[Part], limit: int) -> list[Part]:
    """At most ``limit`` rows of all files, drawn with a fixed seed, in their order."""
    sizes = [len(part.texts) for part in parts]
    if sum(sizes) <= limit:
        return list(parts)
    chosen = np.sort(np.random.default_rng(0).choice(sum(sizes), limit, replace=False))
    starts = np.cumsum([0, *sizes])
    drawn = []
    for part, start, stop in zip(parts, starts, starts[1:], strict=False):
        rows = chosen[(chosen >= start) & (chosen < stop)] - start
        drawn.append(
            Part(
                path=part.path,
                form=part.form,
                checksum=part.checksum,
                texts=part.texts.take(pa.array(rows)),
                table=part.table.take(pa.array(rows)),
                numbers=part.numbers[rows],
                notes=part.notes,
            )
        )
    return drawn


def _counted(quarantine: Quarantine) -> list[tuple[str, int]]:
    return Counter(row.reason for row in quarantine.rows).most_common(3)
