"""What lies in a folder: recordings, their headers and checksums; and the pool that works through them."""

from __future__ import annotations

import fnmatch
import multiprocessing
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

from diptych.data.identity import file_key
from diptych.data.manifest import Checksum, Manifest, checksums
from diptych.data.quarantine import Quarantine, Rejected
from diptych.errors import ConfigError, DataError
from diptych_biosignals import pieces, readers
from diptych_biosignals.pieces import Job, Piece, Plan
from diptych_biosignals.readers import ArrayFacts, Format
from diptych_biosignals.recording import Header, Item, Unreadable
from diptych_biosignals.settings import Source

_LONG = 10.0  # seconds of remaining work for which processes are started
_ENOUGH = 4  # tasks after which the time for the rest is estimated

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, kw_only=True)
class Scanned:
    """One recording whose header could be read."""

    kind: Format
    item: Item
    header: Header


@dataclass(frozen=True, kw_only=True)
class Scan:
    """All recordings of a source."""

    root: Path
    scanned: tuple[Scanned, ...]
    rejected: tuple[Rejected, ...]
    checksums: dict[str, Checksum]  # of every file that recordings depend on, by path below the root
    other: Counter[str]  # files that belong to no recording, by suffix

    def relative(self, path: Path) -> str:
        """A path below the root, posix."""
        return path.relative_to(self.root).as_posix()


def expand(path: str, setting: str) -> Path:
    """A path with ~ and $NAME replaced. Raises ConfigError for a variable that is not set."""
    text = os.path.expandvars(path)
    if unset := re.search(r"\$\{?(\w+)", text):
        raise ConfigError(f"{setting}: the environment variable {unset[1]} is not set")
    return Path(text).expanduser()


def locate(source: Source) -> tuple[Path, list[Path], Manifest | None]:
    """The root folder, the files to look at, and the manifest if the source is one.

    Raises ConfigError where the path is not there, DataError where files of a manifest are missing.
    """
    path = expand(source.path, "data.path")
    if path.suffix in (".csv", ".parquet") and path.is_file():
        manifest = Manifest.read(path)
        files = [manifest.root / entry.path for entry in manifest.entries]
        lost = [entry.path for entry, file in zip(manifest.entries, files, strict=True) if not file.is_file()]
        if lost:
            named = ", ".join(file_key(each) for each in lost[:5])
            raise DataError(
                f"{len(lost)} of {len(files)} files of the manifest are missing ({named}); run inspect again"
            )
        return manifest.root, files, manifest
    if path.is_dir():
        return path, list(_walk(path)), None
    for file in (path, path.with_name(path.name + ".hea")):
        if file.is_file():
            return file.parent, [file], None
    raise ConfigError(f"data.path: there is no file or folder {source.path!r}")


def scan(source: Source, *, workers: int | None = None) -> Scan:
    """Find recordings, hash their files and read their headers. Raises DataError where there are none."""
    root, files, manifest = locate(source)
    found = readers.find(sorted(files), root, source.format)
    other = Counter(path.suffix.lower() or "no suffix" for path in found.other)
    items = [
        (kind, item) for kind, item in found.items if _wanted(item.path.relative_to(root).as_posix(), source)
    ]
    if not items:
        raise DataError(_nothing_found(source, other, len(found.items)))
    paths = sorted(
        {file.relative_to(root).as_posix() for _, item in items for file in item.files or (item.path,)}
    )
    lost = Quarantine()
    sums = checksums(root, paths, quarantine=lost)
    if manifest is not None:
        _compare(manifest, sums)
    headers = in_pool(partial(_header, arrays=source.arrays), items, workers=workers, what="Reading headers")
    scanned, rejected = [], list(lost.rows)
    unread = {row.path for row in lost.rows}
    for (kind, item), header in zip(items, headers, strict=True):
        path = item_path(item, root)
        if isinstance(header, Header) and not unread & {f.relative_to(root).as_posix() for f in item.files}:
            scanned.append(Scanned(kind=kind, item=item, header=header))
        elif not isinstance(header, Header):
            rejected.append(Rejected(path, header))
    if not scanned:
        reasons = Counter(row.reason for row in rejected).most_common(3)
        listed = "; ".join(f"{reason} ({count})" for reason, count in reasons)
        raise DataError(f"none of {len(items)} recordings can be read: {listed}")
    return Scan(root=root, scanned=tuple(scanned), rejected=tuple(rejected), checksums=sums, other=other)


def item_path(item: Item, root: Path) -> str:
    """How a recording is named in quarantine: its file's path, with the row of an array."""
    return item.path.relative_to(root).as_posix() + ("" if item.part is None else f"[{item.part}]")


def run_jobs(
    jobs: Sequence[Job], plan: Plan, folder: Path, *, workers: int | None = None
) -> list[tuple[Path, Piece | list[str]]]:
    """For every job its piece, made now or found in the cache, or the reasons why all was rejected.

    Raises DataError where the cache cannot be written.
    """
    targets = [folder / (key := job.key(plan))[:2] / key for job in jobs]
    have = [pieces.load(target) for target in targets]
    missing = [i for i, piece in enumerate(have) if piece is None]
    tasks = [(jobs[i], targets[i]) for i in missing]
    try:
        for parent in {target.parent for _, target in tasks}:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = in_pool(partial(_store, plan=plan), tasks, workers=workers, what="Preparing recordings")
    except OSError as error:
        raise DataError(
            f"prepared signals cannot be written below {str(folder)!r}: {error.strerror}; "
            "free some space there or set another cache folder"
        ) from error
    reasons = dict(zip(missing, made, strict=True))
    results: list[tuple[Path, Piece | list[str]]] = []
    for i, target in enumerate(targets):
        rejected = reasons.get(i)
        piece = have[i] or pieces.load(target) if rejected is None else None
        if piece is None and rejected is None:
            raise DataError(
                f"a prepared signal below {str(folder)!r} was removed while it was in use; run again"
            )
        results.append((target, piece if piece is not None else rejected or []))
    return results


def in_pool(
    work: Callable[[_In], _Out], tasks: Sequence[_In], *, workers: int | None, what: str
) -> list[_Out]:
    """``work`` on all tasks, in order; in processes once it is seen that the rest would take long in this one.

    Starting processes takes seconds, for they import what the work needs. The bar shows on terminals only.
    """
    count = workers if workers is not None else _processors()
    results: list[_Out] = []
    began = 0.0
    with tqdm(total=len(tasks), desc=what, leave=False, disable=None, unit="recording") as bar:
        for task in tasks:
            results.append(work(task))
            bar.update()
            done = len(results)
            if done == 1:
                began = time.monotonic()  # the first one also imported libraries: it says nothing of the rest
            elif done >= _ENOUGH and count > 1:
                each = (time.monotonic() - began) / (done - 1)
                if each * (len(tasks) - done) > _LONG:
                    break
        rest = tasks[len(results) :]
        if rest:
            # Not forked from here: this process may hold threads of torch and of the linear algebra.
            clean = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            context = multiprocessing.get_context(clean)
            context.set_forkserver_preload(["diptych_biosignals.scan"])
            chunk = max(1, min(16, len(rest) // (4 * count)))
            with ProcessPoolExecutor(min(count, len(rest)), mp_context=context) as pool:
                for result in pool.map(work, rest, chunksize=chunk):
                    results.append(result)
                    bar.update()
    return results


def _processors() -> int:
    """Processors that this process may use: fewer than there are, on shared machines."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _header(task: tuple[Format, Item], *, arrays: ArrayFacts) -> Header | str:
    kind, item = task
    try:
        return readers.read_header(kind, item, arrays)
    except Unreadable as error:
        return str(error)


def _store(task: tuple[Job, Path], *, plan: Plan) -> list[str] | None:
    job, target = task
    return pieces.store(job, plan, target)


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder, links followed, hidden ones left out."""
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def _wanted(path: str, source: Source) -> bool:
    included = any(fnmatch.fnmatchcase(path, pattern) for pattern in source.include)
    return included and not any(fnmatch.fnmatchcase(path, pattern) for pattern in source.exclude)


def _nothing_found(source: Source, other: Counter[str], before: int) -> str:
    if before:
        return (
            f"data.include and data.exclude leave none of the {before} recordings in {source.path!r}; "
            "patterns are matched against paths below the folder"
        )
    seen = ", ".join(f"{suffix} ({count})" for suffix, count in other.most_common(5)) or "nothing"
    kinds = "WFDB (.hea), EDF/BDF (.edf, .bdf), NumPy (.npy, .npz), DICOM (.dcm)"
    return f"no recordings in {source.path!r}: expected {kinds}; found {seen}"


def _compare(manifest: Manifest, sums: dict[str, Checksum]) -> None:
    """Raise DataError where a file is not what the manifest says."""
    changed = [
        entry.path
        for entry in manifest.entries
        if entry.path in sums and (entry.size, entry.sha256) != tuple(sums[entry.path])
    ]
    if changed:
        named = ", ".join(file_key(path) for path in changed[:5])
        raise DataError(
            f"{len(changed)} of {len(manifest)} files are not what the manifest says ({named}); "
            "restore them or run inspect again"
        )
