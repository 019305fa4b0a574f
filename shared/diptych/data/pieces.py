"""Prepared recordings in a cache: each piece is made once, in parallel, and found again by its key."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from diptych.data.pool import in_pool
from diptych.errors import DataError

Job = TypeVar("Job")
Piece = TypeVar("Piece")


def cache_folder(cache: str | Path | None, domain: str) -> Path:
    """The cache folder: as given, else below ``DIPTYCH_CACHE``, else below the user's cache folder."""
    if cache is not None:
        return Path(cache).expanduser()
    if own := os.environ.get("DIPTYCH_CACHE"):
        return Path(own).expanduser() / domain
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "diptych" / domain


def make_pieces(
    jobs: Sequence[Job],
    keys: Sequence[str],
    folder: Path,
    *,
    load: Callable[[Path], Piece | None],
    store: Callable[[Job, Path], list[str] | None],
    unit: str = "recording",
    workers: int | None = None,
) -> list[tuple[Path, Piece | list[str]]]:
    """For every job its piece, made now or found in the cache, or the reasons why all of it was rejected.

    Args:
        jobs: What to make pieces of.
        keys: The name of each one's piece: a hash of the bytes and settings that it depends on.
        folder: The cache.
        load: The piece at a path without suffix; None where it is not there or not whole.
        store: Writes a job's piece to that path and returns None, or returns the reason for each recording of
            the job when all were rejected: those are not stored, so that a mended reader meets them again.
            Runs in processes: a function of a module or a partial of one.
        unit: What a recording is called on the bar.
        workers: Processes; by default one per CPU this process may use.

    Raises:
        DataError: the cache cannot be written, or a piece vanished.
    """
    targets = [folder / key[:2] / key for key in keys]
    have = [load(target) for target in targets]
    missing = [i for i, piece in enumerate(have) if piece is None]
    tasks = [(jobs[i], targets[i]) for i in missing]
    try:
        for parent in {target.parent for _, target in tasks}:
            parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = in_pool(
            partial(_store, store=store), tasks, workers=workers, what=f"Preparing {unit}s", unit=unit
        )
    except OSError as error:
        raise DataError(
            f"prepared {unit}s cannot be written below {str(folder)!r}: {error.strerror}; "
            "free some space there or set another cache folder"
        ) from error
    reasons = dict(zip(missing, made, strict=True))
    results: list[tuple[Path, Piece | list[str]]] = []
    for i, target in enumerate(targets):
        rejected = reasons.get(i)
        piece = have[i] or load(target) if rejected is None else None
        if piece is None and rejected is None:
            raise DataError(
                f"a prepared {unit} below {str(folder)!r} was removed while it was in use; run again"
            )
        results.append((target, piece if piece is not None else rejected or []))
    return results


def _store(task: tuple[Job, Path], *, store: Callable[[Job, Path], list[str] | None]) -> list[str] | None:
    return store(*task)
