"""One process at a time, where two would prepare the same files."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from diptych.errors import DataError

log = logging.getLogger("diptych")


@contextmanager
def exclusive(folder: Path, what: str) -> Iterator[None]:
    """No two processes are within such a block of one folder; the others wait, and say what for.

    The lock is the operating system's: a process that is killed gives it back.

    Args:
        folder: It gets a file ".lock", which stays.
        what: What the process that holds the lock does, for the message: "prepares molecules".

    Raises:
        DataError: the folder cannot be written, or its file system knows no locks.
    """
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process %s below %s; waiting for it to end", what, folder)
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{str(folder)!r} cannot be locked: {reason}; make it writable or set another cache folder"
        ) from error
    try:
        yield
    finally:
        lock.release()
