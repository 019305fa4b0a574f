"""The ``data:`` and ``signal:`` sections of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diptych.data import source
from diptych.errors import ConfigError
from diptych_biosignals.filters import Normalisation
from diptych_biosignals.readers import ArrayFacts, Axes


@dataclass(frozen=True, kw_only=True)
class Source(source.Source):
    """Which recordings there are, whose they are, and the table that describes them.

    Args:
        format: Only files of this format; auto takes every known one.
        rate: Sampling rate in Hz of arrays, which carry none.
        axes: Order of the axes of arrays; a first axis before them counts recordings.
        lead_names: Names of the leads of arrays, in order.
    """

    format: Literal["auto", "wfdb", "edf", "numpy", "dicom"] = "auto"
    rate: float | None = None
    axes: Axes = "time_leads"
    lead_names: list[str] | None = None

    def __post_init__(self) -> None:
        if self.rate is not None and not self.rate > 0:
            raise ConfigError(f"data.rate is a sampling rate in Hz, above 0; got {self.rate:g}")
        super().__post_init__()

    @property
    def arrays(self) -> ArrayFacts:
        """What readers of arrays need to know."""
        names = None if self.lead_names is None else tuple(self.lead_names)
        return ArrayFacts(rate=self.rate, axes=self.axes, lead_names=names)


@dataclass(frozen=True, kw_only=True)
class Signal:
    """What is made of a recording: leads, rate, filters, normalisation, trials and windows.

    The order is: gaps and flat leads, resampling, band-pass, notch, normalisation of the recording, trials,
    normalisation of each trial, windows.

    Args:
        window: Length of a window in seconds: one sample of the data set.
        overlap: Share of a window that the next one repeats, from 0 to below 1.
        leads: Names of the leads, in this order ("II" finds MLII, "Fp1" finds "EEG Fp1-REF"); by default
            the leads that most recordings have.
        aliases: Names in the files and the leads they stand for, where the built-in spellings fail.
        missing_leads: A recording without one of the leads is put into quarantine, or the lead is zero.
        rate: Sampling rate in Hz to bring all recordings to; by default theirs, which must then be one.
        band: Lowest and highest frequency in Hz of a zero-phase band-pass; null leaves a side open.
        notch: Mains frequency in Hz to take out.
        normalise: How each lead is scaled over the recording.
        normalise_trial: How each lead is scaled over its trial.
        trial: What a trial is: the recording, a fixed length, or a run of heartbeats with one window a beat.
        trial_seconds: Length of a trial of fixed length.
        beats: Number of beats in a trial.
        gaps: A recording with missing samples is put into quarantine, or split at the gaps.
        flat_leads: A recording with a constant lead is put into quarantine, or kept with the lead at zero.
        max_quarantined: Largest share of recordings in quarantine, beyond which nothing is run.
    """

    window: float = 2.0
    overlap: float = 0.0
    leads: list[str] | None = None
    aliases: dict[str, str] = field(default_factory=dict)
    missing_leads: Literal["reject", "zero"] = "reject"
    rate: float | None = None
    band: tuple[float | None, float | None] | None = None
    notch: float | None = None
    normalise: Normalisation = "none"
    normalise_trial: Normalisation = "zscore"
    trial: Literal["recording", "fixed", "beats"] = "recording"
    trial_seconds: float | None = None
    beats: int = 10
    gaps: Literal["reject", "split"] = "reject"
    flat_leads: Literal["reject", "keep"] = "reject"
    max_quarantined: float = 0.2

    def __post_init__(self) -> None:
        faults = list(_faults(self))
        if faults:
            raise ConfigError("; ".join(faults))

    def samples(self, rate: float, seconds: float, setting: str) -> int:
        """A length in samples. Raises ConfigError where it is not whole, naming the nearest that are."""
        count = seconds * rate
        if abs(count - round(count)) > 1e-6 * max(1.0, count) or round(count) < 2:
            low, high = max(2, int(count)) / rate, (max(2, int(count)) + 1) / rate
            raise ConfigError(
                f"signal.{setting}: {seconds:g} s at {rate:g} Hz are {count:g} samples, not a whole number "
                f"of at least 2; take {low:g} or {high:g} s"
            )
        return round(count)


def _faults(signal: Signal) -> list[str]:
    """All faults of the section that can be seen without data."""
    found = []
    if not signal.window > 0:
        found.append(f"signal.window is a length in seconds, above 0; got {signal.window:g}")
    if not 0 <= signal.overlap < 1:
        found.append(f"signal.overlap is a share from 0 to below 1; got {signal.overlap:g}")
    if signal.rate is not None and not signal.rate > 0:
        found.append(f"signal.rate is a sampling rate in Hz, above 0; got {signal.rate:g}")
    if signal.leads is not None and len(set(signal.leads)) != max(1, len(signal.leads)):
        found.append("signal.leads names each lead once, and at least one")
    if (signal.trial == "fixed") != (signal.trial_seconds is not None):
        found.append("signal.trial_seconds goes with signal.trial: fixed, and only with it")
    elif signal.trial_seconds is not None and signal.trial_seconds < signal.window:
        found.append(
            f"signal.trial_seconds ({signal.trial_seconds:g}) is shorter than the window ({signal.window:g})"
        )
    if signal.beats < 1:
        found.append(f"signal.beats is the number of beats in a trial, at least 1; got {signal.beats}")
    if signal.trial == "beats" and signal.overlap:
        found.append("signal.overlap must be 0 with signal.trial: beats, whose windows are single beats")
    if signal.band is not None:
        low, high = signal.band
        if (low is not None and not low > 0) or (high is not None and not high > (low or 0)):
            found.append(f"signal.band is [lowest, highest] in Hz, above 0 and ascending; got {[low, high]}")
    return found
