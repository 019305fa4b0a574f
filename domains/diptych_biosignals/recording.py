"""What a reader returns: one recording in physical units, or the reason why a file is none."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diptych.data import readable
from diptych.data.readable import Unreadable

Signal32 = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Header(readable.Header):
    """What is known without decoding the signal."""

    leads: tuple[str, ...]
    rates: tuple[float, ...]  # Hz, one per lead; they may differ (EDF, WFDB with samples per frame)
    units: tuple[str, ...]
    seconds: float | None  # duration; None where the header does not say

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
