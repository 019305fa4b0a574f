"""What readers of files have in common: which recordings lie in a folder, and why one of them is none."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# What the libraries behind the readers raise on malformed files. Their messages quote headers, so that
# only the type of the error is passed on (see :func:`malformed`).
MALFORMED: tuple[type[Exception], ...] = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    NotImplementedError,
    AssertionError,
    EOFError,
    OSError,
    struct.error,
)


class Unreadable(Exception):
    """A file that is no usable recording. The text never holds header content: it is written to reports."""


def malformed(what: str, error: Exception) -> Unreadable:
    """The reason for a file that a library failed on: names the type of the error, not its text."""
    return Unreadable(f"malformed {what} ({type(error).__name__})")


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recording that a reader found: a file, and which part of it when a file holds several."""

    path: Path  # the header or the one file; what the user would name
    name: str  # text that rules match, such as "patient01/s0010_re": path below the root without its suffix
    part: int | None = None  # row of a big array or multiplex group; None: the file is one recording
    files: tuple[Path, ...] = ()  # all files whose bytes the recording depends on; empty: ``path`` alone


@dataclass(frozen=True, kw_only=True)
class Header:
    """What rules may read of a header. Texts about the patient stay in memory only."""

    patient: str | None = field(default=None, repr=False)  # patient id as the header has it
    comments: tuple[str, ...] = field(default=(), repr=False)  # lines of free text
    fields: Mapping[str, str] = field(default_factory=dict, repr=False)  # other texts by name
