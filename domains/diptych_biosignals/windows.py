"""Trials and windows of one recording. Pure functions of arrays; times are samples unless named seconds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych_biosignals.filters import Normalisation, normalise
from diptych_biosignals.recording import Signal32

Integers = NDArray[np.int64]


class Cut(NamedTuple):
    """The windows of a recording as slices of one array, so that overlapping windows share their samples."""

    data: Signal32  # (rows, leads)
    starts: Integers  # (windows,) first row of each window
    trials: Integers  # (windows,) number of the trial within the recording
    times: NDArray[np.float64]  # (windows, 2) start and end, seconds from the beginning of the recording


def finite_runs(signal: Signal32) -> list[tuple[int, int]]:
    """The stretches [start, stop) in which every lead has a value."""
    whole = np.isfinite(signal).all(axis=1).astype(np.int8)
    edges = np.flatnonzero(np.diff(whole, prepend=0, append=0))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]


def window_starts(length: int, window: int, step: int) -> Integers:
    """All starts k * step of windows that end within ``length``."""
    return np.arange(0, length - window + 1, step, dtype=np.int64)


def cut_trials(
    signal: Signal32,
    rate: float,
    *,
    offset: int,
    trial: int | None,
    window: int,
    step: int,
    scale: Normalisation,
) -> Cut:
    """Windows within trials of a fixed length; what is left after the last whole trial is dropped.

    Args:
        signal: (time, leads), all finite: one run of a recording.
        rate: Hz.
        offset: Sample of the recording at which the run starts.
        trial: Length of a trial; None: the run is one trial.
        window: Length of a window.
        step: Samples between the starts of windows.
        scale: How every trial is normalised over its own time.
    """
    length = len(signal) if trial is None else trial
    count = len(signal) // length if length else 0
    pieces = [normalise(signal[i * length : (i + 1) * length], scale) for i in range(count)]
    within = window_starts(length, window, step)
    starts = (np.arange(count)[:, None] * length + within[None, :]).ravel()
    first = (starts + offset) / rate
    return Cut(
        data=np.concatenate(pieces) if pieces else signal[:0],
        starts=starts,
        trials=np.repeat(np.arange(count), len(within)),
        times=np.stack([first, first + window / rate], axis=1),
    )


def cut_beats(
    signal: Signal32,
    rate: float,
    *,
    offset: int,
    peaks: Integers,
    beats: int,
    window: int,
    scale: Normalisation,
) -> Cut:
    """One window per heartbeat, trials of ``beats`` consecutive ones; what is left over is dropped.

    A beat reaches half a median RR interval to both sides of its R peak and is centred in its window between
    zeros, as COMET prepares the PTB data (Wang et al. 2023, released code), with two differences: a beat cut off
    by the end of the recording is left out instead of shortened, and a trial is normalised before the zeros are
    put in, so that they stay zero. The caller makes sure that a median RR interval fits the window.
    """
    half = int(np.median(np.diff(peaks))) // 2 if len(peaks) > 1 else 0
    peaks = peaks[(peaks >= half) & (peaks + half <= len(signal))] if half else peaks[:0]
    peaks = peaks[: len(peaks) // beats * beats]
    data = np.zeros((len(peaks), window, signal.shape[1]), np.float32)
    left = (window - 2 * half) // 2
    for first in range(0, len(peaks), beats):
        rows = peaks[first : first + beats, None] + np.arange(-half, half)
        values = normalise(signal[rows].reshape(-1, signal.shape[1]), scale)
        data[first : first + beats, left : left + 2 * half] = values.reshape(beats, 2 * half, -1)
    return Cut(
        data=data.reshape(-1, signal.shape[1]),
        starts=np.arange(len(peaks), dtype=np.int64) * window,
        trials=np.arange(len(peaks), dtype=np.int64) // beats,
        times=np.stack([peaks + offset - half, peaks + offset + half], axis=1) / rate,
    )


def join(cuts: list[Cut], leads: int) -> Cut:
    """The cuts of a recording's runs as one; trials keep their order and get new numbers."""
    rows = np.cumsum([0] + [len(cut.data) for cut in cuts])
    counts = np.cumsum([0] + [int(cut.trials.max()) + 1 if len(cut.trials) else 0 for cut in cuts])
    if not cuts:
        none = np.zeros(0, np.int64)
        return Cut(np.zeros((0, leads), np.float32), none, none, np.zeros((0, 2)))
    return Cut(
        data=np.concatenate([cut.data for cut in cuts]),
        starts=np.concatenate([cut.starts + row for cut, row in zip(cuts, rows, strict=False)]),
        trials=np.concatenate([cut.trials + first for cut, first in zip(cuts, counts, strict=False)]),
        times=np.concatenate([cut.times for cut in cuts]),
    )
