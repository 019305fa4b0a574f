"""What a data set consists of: every file with its checksum, whose it is, and plain facts about it."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from diptych.data.atomic import replacing, write_text
from diptych.data.identity import file_key, salt_fingerprint, salt_is_secret
from diptych.data.quarantine import Quarantine
from diptych.errors import ConfigError, DataError

COLUMNS = ("path", "size", "sha256", "patient", "recording")
FACT = "facts."  # prefix of the columns that hold facts, each as JSON


class Checksum(NamedTuple):
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file.

    ``patient`` and ``recording`` are salted keys. ``facts`` are plain values (text, numbers, lists of them):
    shape, rate, leads, and where the domain decodes it ``content``, a hash of the decoded signal. A file that
    carries no signal and may be the same for many patients (annotations) has the fact ``sidecar: true``.
    """

    path: str  # relative to the root, posix
    size: int  # bytes
    sha256: str
    patient: str
    recording: str
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = PurePosixPath(self.path)
        if path.is_absolute() or ".." in path.parts or path.as_posix() != self.path or self.path == ".":
            raise ValueError("the path of a manifest entry is relative to the root, posix and without '..'")
        try:
            plain = json.loads(_json(dict(self.facts)))
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"facts are text, finite numbers, booleans, None and lists of these: {error}"
            ) from error
        object.__setattr__(self, "facts", plain)  # tuples become lists, as they are after reading


def checksum(path: Path) -> Checksum:
    """Size and SHA-256 of one file, read as a stream."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Checksum(file.tell(), digest)


def checksums(
    root: str | Path,
    paths: Sequence[str],
    *,
    quarantine: Quarantine | None = None,
    threads: int | None = None,
) -> dict[str, Checksum]:
    """Checksums of many files, in threads (hashing and reading release the interpreter lock).

    Args:
        root: The data folder.
        paths: Files relative to it, posix.
        quarantine: Takes the files that cannot be read, which are then missing from the result; without one
            the first OSError is raised.
        threads: Number of threads; by default twice the CPUs, at most 16.
    """

    def one(path: str) -> Checksum | OSError:
        try:
            return checksum(Path(root) / path)
        except OSError as error:
            return error

    found: dict[str, Checksum] = {}
    with ThreadPoolExecutor(threads or min(16, 2 * (os.cpu_count() or 1))) as pool:
        for path, result in zip(paths, pool.map(one, paths), strict=True):
            if isinstance(result, Checksum):
                found[path] = result
            elif quarantine is None:
                raise result
            else:
                quarantine.add(path, f"cannot be read: {result.strerror}")
    return found


@dataclass(frozen=True)
class Manifest:
    """The files of one data set below ``root``, one entry a file, sorted by path."""

    root: Path
    entries: tuple[Entry, ...]

    def __init__(self, root: str | Path, entries: Iterable[Entry]) -> None:
        object.__setattr__(self, "root", Path(root))
        object.__setattr__(self, "entries", tuple(sorted(entries, key=lambda entry: entry.path)))
        for one, other in zip(self.entries, self.entries[1:], strict=False):
            if one.path == other.path:
                raise ValueError(f"file {file_key(one.path)} is in the manifest twice")

    def __len__(self) -> int:
        return len(self.entries)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over what is in the files: their checksums, sizes and facts.

        It depends neither on where the data lie, nor on file names, nor on the pseudonym salt.
        """
        lines = sorted(_json([entry.sha256, entry.size, entry.facts]) for entry in self.entries)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    def changed(self, root: str | Path | None = None, *, threads: int | None = None) -> list[tuple[str, str]]:
        """Compare the files with their checksums; [] when nothing changed, else (path, what) by path."""
        root = self.root if root is None else Path(root)
        unreadable = Quarantine()
        present = [entry.path for entry in self.entries if (root / entry.path).is_file()]
        now = checksums(root, present, quarantine=unreadable, threads=threads)
        reasons = {row.path: row.reason for row in unreadable.rows}
        found: list[tuple[str, str]] = []
        for entry in self.entries:
            if entry.path in reasons:
                found.append((entry.path, reasons[entry.path]))
            elif entry.path not in now:
                found.append((entry.path, "missing"))
            elif now[entry.path].size != entry.size:
                found.append((entry.path, f"has {now[entry.path].size} bytes instead of {entry.size}"))
            elif now[entry.path].sha256 != entry.sha256:
                found.append((entry.path, "has other contents of the same size"))
        return found

    def write(self, path: str | Path) -> None:
        """Write one row a file to ``.csv`` or ``.parquet``. It holds paths: keep it out of run folders.

        The column ``root`` is relative to the manifest where the data lie in its folder, so that both can be
        moved together, and absolute otherwise.
        """
        path = Path(path)
        write = {".csv": _write_csv, ".parquet": _write_parquet}.get(path.suffix)
        if write is None:
            raise ConfigError(f"a manifest is a .csv or .parquet file; got {path.name!r}")
        here, root = path.resolve().parent, self.root.resolve()
        place = root.relative_to(here).as_posix() if root.is_relative_to(here) else root.as_posix()
        facts = sorted({name for entry in self.entries for name in entry.facts})
        header = ["root", *COLUMNS, *(FACT + name for name in facts)]
        rows = [
            [place, *(str(getattr(entry, column)) for column in COLUMNS)]
            + [_json(entry.facts[name]) if name in entry.facts else "" for name in facts]
            for entry in self.entries
        ]
        with replacing(path) as partial:
            write(partial, header, rows)

    @staticmethod
    def read(path: str | Path, root: str | Path | None = None) -> Manifest:
        """Read what :meth:`write` wrote; ``root`` says where the data lie now, if they moved.

        Raises DataError when the file is not a manifest, ConfigError for another suffix.
        """
        path = Path(path)
        read = {".csv": _read_csv, ".parquet": _read_parquet}.get(path.suffix)
        if read is None:
            raise ConfigError(f"a manifest is a .csv or .parquet file; got {path.name!r}")
        try:
            header, rows = read(path)
        except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
            raise DataError(f"the manifest {path.name!r} cannot be read: {error}") from error
        missing = [column for column in ("root", *COLUMNS) if column not in header]
        if missing:
            raise DataError(
                f"{path.name!r} is not a manifest: it has no column {', '.join(missing)}; "
                f"write one with 'inspect'"
            )
        records = [dict(zip(header, row, strict=True)) for row in rows]
        places = {record["root"] for record in records}
        if root is None:
            if len(places) != 1:
                raise DataError(f"the manifest {path.name!r} names {len(places)} data folders; expected one")
            root = path.resolve().parent / places.pop()
        return Manifest(
            root, [_entry(record, path.name, line) for line, record in enumerate(records, start=2)]
        )

    def write_public(self, path: str | Path) -> None:
        """Write JSON for a run folder: everything but the paths, which may carry names (see ``file_key``)."""
        files = [
            {
                "file": file_key(entry.path),
                **{name: getattr(entry, name) for name in (*COLUMNS[1:], "facts")},
            }
            for entry in self.entries
        ]
        content = {
            "digest": self.digest,
            "files": len(self.entries),
            "bytes": sum(entry.size for entry in self.entries),
            "salt": {"fingerprint": salt_fingerprint(), "secret": salt_is_secret()},
            "entries": sorted(files, key=lambda each: str(each["file"])),
        }
        write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _entry(record: Mapping[str, str], name: str, line: int) -> Entry:
    try:
        facts = {
            column.removeprefix(FACT): json.loads(cell)
            for column, cell in record.items()
            if column.startswith(FACT) and cell != ""
        }
        size = int(record["size"])
        return Entry(
            **{column: record[column] for column in COLUMNS if column != "size"}, size=size, facts=facts
        )
    except (TypeError, ValueError) as error:
        raise DataError(f"row {line} of the manifest {name!r} is not valid: {error}") from error


def _write_csv(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(encoding="utf-8", newline="") as file:
        table = list(csv.reader(file))
    if not table:
        raise ValueError("it is empty")
    for line, row in enumerate(table, start=1):
        if len(row) != len(table[0]):
            raise ValueError(f"row {line} has {len(row)} cells, the header has {len(table[0])}")
    return table[0], table[1:]


def _write_parquet(path: Path, header: list[str], rows: list[list[str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(header))]
    pq.write_table(pa.table(columns, names=header), path)


def _read_parquet(path: Path) -> tuple[list[str], list[list[str]]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    columns = [[str(cell) for cell in column.to_pylist()] for column in table.columns]
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]
