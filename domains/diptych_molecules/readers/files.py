"""Which files hold molecules, and in what form."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pyarrow.parquet as pq

from diptych.data.folder import compare_with_manifest, expand, walk, wanted
from diptych.data.manifest import COLUMNS, Checksum, Manifest, checksums
from diptych.data.quarantine import Quarantine
from diptych.errors import ConfigError, DataError

FileForm = Literal["csv", "tsv", "parquet", "smi", "sdf"]
SUFFIXES: dict[str, FileForm] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".smi": "smi",
    ".smiles": "smi",
    ".sdf": "sdf",
    ".sd": "sdf",
}


class Found(NamedTuple):
    """The files of a source, with their checksums by path below the root."""

    root: Path
    files: list[tuple[str, FileForm]]  # path below the root, posix
    checksums: dict[str, Checksum]
    other: Counter[str]  # files of no known form, by suffix


def form_of(path: Path) -> FileForm | None:
    """The form that a file's name says: the suffix before a final ``.gz``."""
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return SUFFIXES.get(name.suffix.lower())


def find(
    path: str, include: Sequence[str], exclude: Sequence[str], form: FileForm | None, quarantine: Quarantine
) -> Found:
    """The files of a source.

    Args:
        path: a folder, one file, a manifest written by inspect, or ``package:NAME/FILE`` for a file or folder
            that an installed package ships. $NAME is replaced by the environment variable.
        include: patterns of paths below the folder to read.
        exclude: patterns of those to leave out.
        form: read all files as this; by default as their suffixes say.
        quarantine: takes files that cannot be read at all.

    Raises:
        ConfigError: there is no such path.
        DataError: no files of molecules there, or files that are not what the manifest says.
    """
    place = expand(path, "data.path")
    manifest = None
    if place.is_dir():
        root, files = place, list(walk(place))
    elif place.is_file() and _is_manifest(place):
        manifest = Manifest.read(place)
        root, files = manifest.root, [manifest.root / entry.path for entry in manifest.entries]
    elif place.is_file():
        root, files = place.parent, [place]
    else:
        raise ConfigError(f"data.path: there is no file or folder {path!r}")
    named = [(each.relative_to(root).as_posix(), form or form_of(each)) for each in sorted(files)]
    other = Counter(Path(name).suffix.lower() or "no suffix" for name, kind in named if kind is None)
    known = [(name, kind) for name, kind in named if kind is not None]
    alone = place.is_file() and manifest is None  # one file that is named is read, whatever the patterns
    chosen = [(name, kind) for name, kind in known if alone or wanted(name, include, exclude)]
    if not chosen:
        raise DataError(_nothing(path, len(known), other))
    sums = checksums(root, [name for name, _ in chosen], quarantine=quarantine)
    if manifest is not None:
        compare_with_manifest(manifest, sums)
    return Found(root, [(name, kind) for name, kind in chosen if name in sums], sums, other)


def _is_manifest(path: Path) -> bool:
    """Whether a table is one that inspect wrote, and not one of molecules."""
    expected = ("root", *COLUMNS)
    if path.suffix == ".csv":
        with path.open("rb") as file:
            return file.readline(200).decode("utf-8", "replace").startswith(",".join(expected))
    if path.suffix == ".parquet":
        try:
            return set(expected) <= set(pq.read_schema(path).names)
        except (OSError, ValueError):
            return False
    return False


def _nothing(path: str, before: int, other: Counter[str]) -> str:
    if before:
        return f"data.include and data.exclude leave none of the {before} files of molecules in {path!r}"
    seen = ", ".join(f"{suffix} ({count})" for suffix, count in other.most_common(5)) or "nothing"
    return (
        f"no files of molecules in {path!r}: expected {', '.join(SUFFIXES)}, each also as .gz; found {seen}; "
        "data.form names the form of files with other suffixes"
    )
