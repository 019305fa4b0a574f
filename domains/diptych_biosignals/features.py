"""Hand-made features of ECG and EEG: the classical baseline that a pretrained encoder has to beat."""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.signal import welch

from diptych.data.atomic import replacing
from diptych.data.pool import in_pool
from diptych.study import Baseline, Indices
from diptych_biosignals.peaks import r_peaks
from diptych_biosignals.recording import Signal32
from diptych_biosignals.source import Prepared

Kind = Literal["ecg", "eeg"]
Vector = NDArray[np.float64]

RHYTHM = (
    "heart rate", "SDNN", "RMSSD", "pNN50", "RR variation", "RR step variation", "RR range", "P repeats",
    "fibrillatory power",
)  # fmt: skip
PER_LEAD = ("R", "S", "QRS range", "QRS width", "P", "ST", "T", "T range")
BANDS = {
    "delta": (1.0, 4.0),
    "theta": (4.0, 8.0),
    "alpha": (8.0, 13.0),
    "beta": (13.0, 30.0),
    "gamma": (30.0, 45.0),
}
RATIOS = (("theta", "alpha"), ("theta", "beta"), ("alpha", "beta"))

_VERSION = 2  # raise when the features change: stored ones are then computed anew
_NAMES: dict[Kind, str] = {"ecg": "HRV, QRS and wave amplitudes", "eeg": "band powers"}


def baseline(
    prepared: Prepared,
    indices: Indices,
    *,
    kind: Kind,
    unit: Literal["recording", "window"] = "recording",
    workers: int | None = None,
) -> Baseline:
    """Features of the windows at ``indices``, from signals in physical units, filtered as the prepared ones.

    Args:
        kind: ECG or EEG features.
        unit: Whether they are those of the whole recording (all its windows get the same row: the rhythm
            needs more than a few beats) or of the window alone.
    """
    if unit == "window":
        plain = prepared.unscaled
        rows = [
            (plain.store.files[file], start, start + plain.window)
            for file, start in zip(plain.store.file[indices], plain.store.start[indices], strict=True)
        ]
        return Baseline(name=_NAMES[kind], values=_table(prepared, rows, plain.rate, kind, workers))
    whole = prepared.physical
    table = whole.recordings
    rows = [
        (whole.store.files[file], first, last)
        for file, first, last in zip(table["file"], table["first"], table["last"], strict=True)
    ]
    values = _table(prepared, rows, whole.rate, kind, workers)
    place = {key: row for row, key in enumerate(table["recording"])}
    values = np.concatenate([values, np.full((1, values.shape[1]), np.nan)])  # row -1: not among them
    of = np.array([place.get(key, -1) for key in prepared.recordings["recording"]])
    return Baseline(name=_NAMES[kind], values=values[of[prepared.recording_of[indices]]])


def ecg_features(signal: Signal32, rate: float) -> Vector:
    """Rhythm, then the wave amplitudes and the QRS width of every lead; NaN where they cannot be computed.

    Args:
        signal: (time, leads) ECG in physical units.
        rate: Hz.

    Returns:
        (len(RHYTHM) + leads * len(PER_LEAD),). Times in seconds, amplitudes in the signal's unit, measured on
        the median beat against its level before the QRS complex.
    """
    peaks = r_peaks(signal, rate)
    rhythm = np.full(len(RHYTHM), np.nan)
    shape = np.full((signal.shape[1], len(PER_LEAD)), np.nan)
    before, after = round(0.3 * rate), round(0.5 * rate)
    inner = peaks[(peaks >= before) & (peaks + after <= len(signal))]
    if len(peaks) > 2:
        rhythm[:7] = _intervals(np.diff(peaks) / rate)
    if len(inner) > 1:
        beats = signal[inner[:, None] + np.arange(-before, after)].astype(np.float64)  # (beats, time, leads)
        median = np.median(beats, axis=0)
        shape = _waves(median, before, rate)
        rhythm[7:] = _atrial(beats, median, before, rate)
    return np.concatenate([rhythm, shape.ravel()])


def eeg_features(signal: Signal32, rate: float) -> Vector:
    """Logarithms of each channel's band powers, of their shares, and of their ratios (Welch, 2 s segments).

    Args:
        signal: (time, channels) EEG in physical units.
        rate: Hz. Bands above half of it are NaN.

    Returns:
        (channels * (2 * len(BANDS) + len(RATIOS)),), log10.
    """
    frequency, density = welch(
        signal.astype(np.float64), rate, nperseg=min(len(signal), round(2 * rate)), axis=0
    )
    powers = np.full((len(BANDS), signal.shape[1]), np.nan)
    for row, (low, high) in enumerate(BANDS.values()):
        inside = (frequency >= low) & (frequency < high)
        if high <= rate / 2 and inside.any():
            powers[row] = np.maximum(density[inside].sum(axis=0) * frequency[1], np.finfo(np.float64).tiny)
    logs = np.log10(powers)
    names = list(BANDS)
    ratios = np.stack([logs[names.index(one)] - logs[names.index(other)] for one, other in RATIOS])
    total = np.nansum(powers, axis=0)
    shares = logs - np.log10(np.where(total > 0, total, np.nan))
    return np.concatenate([logs, shares, ratios]).T.ravel()


def names(kind: Kind, leads: tuple[str, ...]) -> tuple[str, ...]:
    """The features' names, in order."""
    if kind == "ecg":
        return (*RHYTHM, *(f"{each} {lead}" for lead in leads for each in PER_LEAD))
    per_lead = [*BANDS, *(f"{band} share" for band in BANDS), *(f"{one}/{other}" for one, other in RATIOS)]
    return tuple(f"{each} {lead}" for lead in leads for each in per_lead)


def _intervals(intervals: Vector) -> Vector:
    """Heart rate (1/min), SDNN, RMSSD (s), pNN50, and three measures of irregularity without unit."""
    steps = np.diff(intervals)
    mean, deviation = intervals.mean(), intervals.std()
    rmssd = np.sqrt(np.mean(steps**2))
    spread = (intervals.max() - intervals.min()) / mean
    return np.array(
        [60 / mean, deviation, rmssd, np.mean(np.abs(steps) > 0.05), deviation / mean, rmssd / mean, spread]
    )


def _waves(median: Vector, r: int, rate: float) -> Vector:
    """(leads, PER_LEAD) of a median beat (time, leads) whose R peak is at sample ``r``."""

    def part(start: float, stop: float) -> Vector:
        return median[r + round(start * rate) : r + max(round(stop * rate), round(start * rate) + 1)]

    level = np.median(part(-0.12, -0.06), axis=0)  # PQ segment
    qrs = part(-0.06, 0.08) - level
    p_wave, t_wave = part(-0.28, -0.1) - level, part(0.16, 0.48) - level
    return np.stack(
        [
            qrs.max(axis=0),
            qrs.min(axis=0),
            np.ptp(qrs, axis=0),
            _spread(np.diff(part(-0.12, 0.14), axis=0) ** 2) / rate,
            np.take_along_axis(p_wave, np.abs(p_wave).argmax(axis=0)[None], 0)[0],
            np.mean(part(0.08, 0.12), axis=0) - level,
            np.take_along_axis(t_wave, np.abs(t_wave).argmax(axis=0)[None], 0)[0],
            np.ptp(t_wave, axis=0),
        ],
        axis=1,
    )


def _spread(weight: Vector) -> Vector:
    """Four standard deviations of the time (rows) at which weight lies: the width of a QRS by its steepness.

    Smooth in the signal, where the first and last crossing of a threshold would jump by whole samples.
    """
    total = weight.sum(axis=0)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    time = np.arange(len(weight))[:, None]
    centre = (share * time).sum(axis=0)
    spread: Vector = 4 * np.sqrt((share * (time - centre) ** 2).sum(axis=0))
    return spread


def _atrial(beats: Vector, median: Vector, r: int, rate: float) -> Vector:
    """How alike the P waves of all beats are (best lead), and the share of power that no beat repeats."""
    window = slice(r - round(0.28 * rate), r - round(0.08 * rate))
    p_waves = beats[:, window] - beats[:, window].mean(axis=1, keepdims=True)
    model = median[window] - median[window].mean(axis=0)
    above = np.einsum("btl,tl->bl", p_waves, model)
    below = np.sqrt((p_waves**2).sum(axis=1) * (model**2).sum(axis=0))
    alike = np.divide(above, below, out=np.zeros_like(above), where=below > 0).mean(axis=0)
    rest = (beats - median)[:, window].var(axis=(0, 1))
    total = beats.var(axis=(0, 1))
    share = np.divide(rest, total, out=np.zeros_like(rest), where=total > 0)
    return np.array([alike.max(), np.log10(share.mean() + 1e-12)])


def _table(
    prepared: Prepared, rows: list[tuple[Path, int, int]], rate: float, kind: Kind, workers: int | None
) -> Vector:
    """Features of stretches of stored signals, computed in processes and kept in the cache."""
    tasks = [(path, int(first), int(last)) for path, first, last in rows]
    text = json.dumps([_VERSION, kind, [(path.name, first, last) for path, first, last in tasks]])
    stored = prepared.cache / f"features-{hashlib.sha256(text.encode()).hexdigest()[:40]}.npy"
    if stored.is_file():
        return np.asarray(np.load(stored, allow_pickle=False))
    found = in_pool(partial(_one, rate=rate, kind=kind), tasks, workers=workers, what="Computing features")
    values = np.stack(found)
    with replacing(stored) as partial_file, partial_file.open("wb") as file:
        np.save(file, values, allow_pickle=False)
    return values


def _one(task: tuple[Path, int, int], *, rate: float, kind: Kind) -> Vector:
    path, first, last = task
    signal = np.array(np.load(path.with_suffix(".npy"), mmap_mode="r")[first:last])
    return ecg_features(signal, rate) if kind == "ecg" else eeg_features(signal, rate)
