"""What a reader returns: one recording in physical units, or the reason why a file is none."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Signal32 = NDArray[np.float32]

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
    """What is known without decoding the signal. Texts about the patient stay in memory only."""

    leads: tuple[str, ...]
    rates: tuple[float, ...]  # Hz, one per lead; they may differ (EDF, WFDB with samples per frame)
    units: tuple[str, ...]
    seconds: float | None  # duration; None where the header does not say
    patient: str | None = field(default=None, repr=False)  # patient id as the header has it
    comments: tuple[str, ...] = field(default=(), repr=False)  # lines of free text

    def __post_init__(self) -> None:
        if not self.leads:
            raise Unreadable("the header lists no signals")
        if not len(self.leads) == len(self.rates) == len(self.units):
            raise ValueError("leads, rates and units must have the same length")
        if not all(np.isfinite(rate) and rate > 0 for rate in self.rates):
            raise Unreadable("the header has no usable sampling rate")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """One decoded recording: all leads at one rate."""

    signal: Signal32 = field(repr=False)  # (time, leads), physical units, NaN where samples are missing
    rate: float  # Hz
    leads: tuple[str, ...]
    units: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.signal.ndim != 2 or self.signal.shape[1] != len(self.leads):
            raise ValueError(f"signal of shape {self.signal.shape} for {len(self.leads)} leads")

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.signal) / self.rate


def at_one_rate(
    signals: list[NDArray[np.float32]], rates: list[float], leads: tuple[str, ...], units: tuple[str, ...]
) -> Recording:
    """Leads recorded at different rates, all resampled to the highest; lengths cut to the shortest."""
    from diptych_biosignals.filters import resample

    rate = max(rates)
    columns = [resample(x[:, None], old, rate)[:, 0] for x, old in zip(signals, rates, strict=True)]
    length = min(len(column) for column in columns)
    signal = np.stack([column[:length] for column in columns], axis=1).astype(np.float32, copy=False)
    return Recording(signal=signal, rate=rate, leads=leads, units=units)
