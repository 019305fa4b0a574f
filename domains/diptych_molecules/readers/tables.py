"""One file of molecules as a table of texts. What is no row of it is listed with its number and a reason."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from diptych.data.readable import Unreadable
from diptych_molecules.readers.files import FileForm

STRUCTURE, NAME = "smiles", "name"  # columns of .smi files, and of SD files beside their own


class Rows(NamedTuple):
    """The rows of one file."""

    table: pa.Table  # texts, missing where a cell is empty
    numbers: NDArray[
        np.int64
    ]  # (rows,) of each row its number in the file, counted from 0 without the header
    rejected: list[tuple[int, str]]  # rows that are none: (number, reason)
    notes: list[str]  # how it was read, where that was not as usual


def read(path: Path, form: FileForm, delimiter: str | None = None) -> Rows:
    """Read one file whole. Raises Unreadable with the reason where it is damaged."""
    if form == "parquet":
        return _parquet(path)
    raw = _bytes(path)
    data, notes = _utf8(raw)
    if form in ("csv", "tsv"):
        return _separated(data, delimiter or ("\t" if form == "tsv" else _delimiter(data)), notes)
    return _smi(data, notes) if form == "smi" else _sdf(data, notes)


def _bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except EOFError:
        raise Unreadable(
            "truncated: the compressed file ends before its end; copy or download it again"
        ) from None
    except (zlib.error, gzip.BadGzipFile) as error:
        raise Unreadable(f"damaged: it cannot be decompressed ({error})") from None


def _utf8(raw: bytes) -> tuple[bytes, list[str]]:
    """The text as UTF-8 without a mark of byte order; Latin-1 is taken where it is no UTF-8."""
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw.decode("utf-16").encode(), ["read as UTF-16"]
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    try:
        raw.decode("utf-8")
        return raw, []
    except UnicodeDecodeError:
        return raw.decode("latin-1").encode(), ["read as Latin-1, since it is no UTF-8"]


def _delimiter(data: bytes) -> str:
    """A comma, or what stands in the first line where no comma does."""
    first = data.split(b"\n", 1)[0]
    return next((mark for mark in (",", ";", "\t") if mark.encode() in first), ",")


def _separated(data: bytes, delimiter: str, notes: list[str]) -> Rows:
    if not data.strip():
        raise Unreadable("empty: the file has no lines")
    wrong: list[tuple[int, str]] = []

    def reject(row: pc.InvalidRow) -> str:
        cells = f"{row.actual_columns} cells, the header has {row.expected_columns}"
        wrong.append((len(wrong) if row.number is None else row.number - 2, f"not a row: {cells}"))
        return "skip"

    try:
        header = pc.read_csv(
            pa.BufferReader(data.split(b"\n", 1)[0] + b"\n"),
            parse_options=pc.ParseOptions(delimiter=delimiter),
        ).column_names
        table = pc.read_csv(
            pa.BufferReader(data),
            read_options=pc.ReadOptions(use_threads=False),  # else bad rows have no numbers
            parse_options=pc.ParseOptions(
                delimiter=delimiter, newlines_in_values=True, invalid_row_handler=reject
            ),
            convert_options=pc.ConvertOptions(
                column_types={name: pa.large_string() for name in header},
                strings_can_be_null=True,
                null_values=[""],
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowInvalid as error:
        raise Unreadable(f"damaged: no table of separated values ({_line(error)})") from None
    used = np.ones(table.num_rows + len(wrong), np.bool_)
    used[[number for number, _ in wrong]] = False
    return Rows(_named(table), np.flatnonzero(used), wrong, notes)


def _named(table: pa.Table) -> pa.Table:
    """The table with its columns' names stripped. Raises Unreadable where two columns have one name."""
    names = [name.strip() for name in table.column_names]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Unreadable(f"ambiguous: {len(twice)} names stand over several columns")
    return table.rename_columns(names)


def _parquet(path: Path) -> Rows:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise Unreadable(f"damaged: no whole Parquet file ({_line(error)})") from None
    plain = [
        (name, column)
        for name, column in zip(table.column_names, table.columns, strict=True)
        if not pa.types.is_nested(column.type)
    ]
    texts = pa.table([column.cast(pa.large_string()) for _, column in plain], [name for name, _ in plain])
    return Rows(_named(texts), np.arange(table.num_rows), [], [])


def _smi(data: bytes, notes: list[str]) -> Rows:
    """Lines of a SMILES, blanks and a name. A first line that says so is a header; blank lines are no rows."""
    lines = [line.strip() for line in data.decode().splitlines()]
    if lines and re.match(r"(canonical_?)?smiles\b", lines[0], re.IGNORECASE):
        lines = lines[1:]
    numbers = [number for number, line in enumerate(lines) if line]
    cells = [[*lines[number].split(None, 1), ""][:2] for number in numbers]
    table = pa.table(
        {
            STRUCTURE: pa.array([smiles for smiles, _ in cells], pa.large_string()),
            NAME: pa.array([name or None for _, name in cells], pa.large_string()),
        }
    )
    return Rows(table, np.array(numbers, np.int64), [], notes)


def _sdf(data: bytes, notes: list[str]) -> Rows:
    """Records that end with ``$$$$``: the structure is the connection table, the columns are the data items."""
    records = re.split(r"^\$\$\$\$[^\n]*\n?", data.decode().replace("\r\n", "\n"), flags=re.MULTILINE)
    if records and not records[-1].strip():
        records.pop()
    blocks, names, items = [], [], []
    for record in records:
        block, end, rest = record.partition("M  END")
        blocks.append(block + end)
        names.append(record.split("\n", 1)[0].strip() or None)
        found = re.findall(
            r"^>[^<\n]*<([^>\n]+)>[^\n]*\n(.*?)(?=\n\s*\n|\n>|\Z)", rest, re.DOTALL | re.MULTILINE
        )
        items.append({name.strip(): value.strip() or None for name, value in found})
    columns = dict.fromkeys(name for item in items for name in item)
    table = {
        NAME: pa.array(names, pa.large_string()),
        **{name: pa.array([item.get(name) for item in items], pa.large_string()) for name in columns},
        STRUCTURE: pa.array(blocks, pa.large_string()),  # last: an item of this name is not the structure
    }
    return Rows(pa.table(table), np.arange(len(records)), [], notes)


def _line(error: Exception) -> str:
    """The first sentence of a library's message, which quotes no cells."""
    return " ".join(str(error).split(":", 1)[0].split())[:80]


def column(table: pa.Table, name: str) -> str | None:
    """The table's column of this name, or the only one that differs in upper and lower case."""
    if name in table.column_names:
        return name
    alike = [each for each in table.column_names if each.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def texts(table: pa.Table, name: str) -> Sequence[str | None]:
    """A column's texts, missing ones as None."""
    values: Sequence[str | None] = table.column(name).to_pylist()
    return values
