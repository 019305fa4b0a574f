"""What lies in a folder: recordings, their headers and checksums."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from diptych.data.folder import compare_with_manifest, locate, wanted
from diptych.data.manifest import Checksum, checksums
from diptych.data.pool import in_pool
from diptych.data.quarantine import Quarantine, Rejected
from diptych.data.readable import Header, Item, Unreadable
from diptych.data.source import Source
from diptych.errors import DataError

AnyHeader = TypeVar("AnyHeader", bound=Header)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What lies in a folder: recordings with their formats, and the files of which no recording is made."""

    items: tuple[tuple[str, Item], ...]
    other: tuple[Path, ...]


class Find(Protocol):
    """Sorts the files below a root into recordings; reads no more of them than it must."""

    def __call__(self, files: Sequence[Path], root: Path, /) -> Found: ...


@dataclass(frozen=True, kw_only=True)
class Scanned(Generic[AnyHeader]):
    """One recording whose header could be read."""

    kind: str  # its format
    item: Item
    header: AnyHeader


@dataclass(frozen=True, kw_only=True)
class Scan(Generic[AnyHeader]):
    """All recordings of a source."""

    root: Path
    scanned: tuple[Scanned[AnyHeader], ...]
    rejected: tuple[Rejected, ...]
    checksums: dict[str, Checksum]  # of every file that recordings depend on, by path below the root
    other: Counter[str]  # files that belong to no recording, by suffix
    unit: str = "recording"  # what messages call one: "image"

    def relative(self, path: Path) -> str:
        """A path below the root, posix."""
        return path.relative_to(self.root).as_posix()


def scan(
    source: Source,
    find: Find,
    read_header: Callable[[str, Item], AnyHeader],
    *,
    expected: str,
    unit: str = "recording",
    suffixes: Sequence[str] = (),
    workers: int | None = None,
) -> Scan[AnyHeader]:
    """Find recordings, hash their files and read their headers.

    Args:
        source: Where to look.
        find: Sorts files into recordings.
        read_header: (format, item) to its header; raises Unreadable. Runs in processes: a function of a module.
        expected: The known formats, for the message when nothing is found.
        unit: What a recording is called in messages.
        suffixes: Of header files that may be named without (see ``locate``).
        workers: Processes; by default one per CPU this process may use.

    Raises:
        ConfigError: there is no such path.
        DataError: no recordings, none that can be read, or files that are not what the manifest says.
    """
    root, files, manifest = locate(source.path, suffixes)
    found = find(sorted(files), root)
    other = Counter(path.suffix.lower() or "no suffix" for path in found.other)
    items = [
        (kind, item)
        for kind, item in found.items
        if wanted(item.path.relative_to(root).as_posix(), source.include, source.exclude)
    ]
    if not items:
        raise DataError(_nothing_found(source, other, len(found.items), expected, unit))
    paths = sorted(
        {file.relative_to(root).as_posix() for _, item in items for file in item.files or (item.path,)}
    )
    lost = Quarantine()
    sums = checksums(root, paths, quarantine=lost)
    if manifest is not None:
        compare_with_manifest(manifest, sums)
    headers = in_pool(
        partial(_header, read=read_header), items, workers=workers, what="Reading headers", unit=unit
    )
    scanned, rejected = [], list(lost.rows)
    unread = {row.path for row in lost.rows}
    for (kind, item), header in zip(items, headers, strict=True):
        needed = {file.relative_to(root).as_posix() for file in item.files or (item.path,)}
        if isinstance(header, str):
            rejected.append(Rejected(item_path(item, root), header))
        elif not unread & needed:
            scanned.append(Scanned(kind=kind, item=item, header=header))
    if not scanned:
        reasons = Counter(row.reason for row in rejected).most_common(3)
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        raise DataError(f"none of {len(items)} {unit}s can be read: {listed}")
    return Scan(
        root=root, scanned=tuple(scanned), rejected=tuple(rejected), checksums=sums, other=other, unit=unit
    )


def item_path(item: Item, root: Path) -> str:
    """How a recording is named in quarantine: its file's path, with the row of an array."""
    return item.path.relative_to(root).as_posix() + ("" if item.part is None else f"[{item.part}]")


def _header(task: tuple[str, Item], *, read: Callable[[str, Item], AnyHeader]) -> AnyHeader | str:
    try:
        return read(*task)
    except Unreadable as error:
        return str(error)


def _nothing_found(source: Source, other: Counter[str], before: int, expected: str, unit: str) -> str:
    if before:
        return (
            f"data.include and data.exclude leave none of the {before} {unit}s in {source.path!r}; "
            "patterns are matched against paths below the folder"
        )
    seen = ", ".join(f"{suffix} ({count})" for suffix, count in other.most_common(5)) or "nothing"
    return f"no {unit}s in {source.path!r}: expected {expected}; found {seen}"
