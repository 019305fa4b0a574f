"""Resampling, zero-phase filters and normalisation of (time, leads) signals. Pure functions of arrays."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal as sps

from diptych_biosignals.recording import Signal32

Normalisation = Literal["none", "zscore", "robust"]

_MAX_FACTOR = 10_000  # largest up- or down-sampling factor tried for the ratio of two rates
_SETTLE = 3.0  # periods of the lowest frequency
_NOTCH_QUALITY = 30.0  # centre frequency over bandwidth at -3 dB


def ratio(old: float, new: float) -> Fraction:
    """``new / old`` as a fraction of small integers, such as 25/36 for 360 Hz to 250 Hz."""
    return (
        Fraction(new).limit_denominator(10**6) / Fraction(old).limit_denominator(10**6)
    ).limit_denominator(_MAX_FACTOR)


def resampled_length(length: int, old: float, new: float) -> int:
    """Samples k with k / new < length / old: ceil(length * new / old), in exact arithmetic."""
    return ceil(length * ratio(old, new))


def resample(signal: Signal32, old: float, new: float) -> Signal32:
    """A (time, leads) signal at ``old`` Hz brought to ``new`` Hz with an anti-alias filter.

    Polyphase with scipy's Kaiser window filter (zero phase); beyond its ends the signal is continued by the
    line through its first and last sample, so that an offset leaves no step. The length is
    :func:`resampled_length`; sample k of the result is at time k / new.
    """
    factor = ratio(old, new)
    if factor == 1:
        return signal
    out = sps.resample_poly(signal, factor.numerator, factor.denominator, axis=0, padtype="line")
    return np.ascontiguousarray(out, dtype=np.float32)


def band_pass(
    signal: Signal32, rate: float, low: float | None, high: float | None, order: int = 4
) -> Signal32:
    """Zero-phase Butterworth filter of the given order, run forwards and backwards over time.

    ``low`` and ``high`` in Hz; None leaves that side open.
    """
    if low is None and high is None:
        return signal
    if low is None:
        sections = sps.butter(order, high, "lowpass", fs=rate, output="sos")
    elif high is None:
        sections = sps.butter(order, low, "highpass", fs=rate, output="sos")
    else:
        sections = sps.butter(order, [low, high], "bandpass", fs=rate, output="sos")
    lowest = low if low is not None else high
    return _both_ways(sections, signal, round(_SETTLE * rate / lowest) if lowest else 0)


def notch(signal: Signal32, rate: float, frequency: float) -> Signal32:
    """Zero-phase notch at ``frequency`` Hz (mains), quality 30."""
    numerator, denominator = sps.iirnotch(frequency, _NOTCH_QUALITY, fs=rate)
    return _both_ways(sps.tf2sos(numerator, denominator), signal, round(_NOTCH_QUALITY * rate / frequency))


def _both_ways(sections: NDArray[np.float64], signal: Signal32, reach: int) -> Signal32:
    """Filter forwards and backwards; ``reach`` samples are mirrored at both ends to let the filter settle."""
    out = np.empty_like(signal)
    for lead in range(signal.shape[1]):  # one at a time: a day of twelve leads in float64 would not fit
        column = signal[:, lead].astype(np.float64)
        out[:, lead] = sps.sosfiltfilt(sections, column, padlen=min(len(signal) - 1, reach))
    return out


def normalise(signal: Signal32, how: Normalisation) -> Signal32:
    """Every lead centred and scaled over time: mean and standard deviation, or median and scaled quartiles.

    A constant lead has divisor 1: it becomes zero, never NaN. ``robust`` divides by the interquartile range
    over 1.349, which is the standard deviation where values are normal.
    """
    if how == "none":
        return signal
    values = signal.astype(np.float64)
    if how == "zscore":
        centre, scale = values.mean(axis=0), values.std(axis=0)
    else:
        lower, centre, upper = np.percentile(values, [25, 50, 75], axis=0)
        scale = (upper - lower) / 1.349
    negligible = scale <= 1e-7 * np.maximum(np.abs(centre), np.finfo(np.float32).tiny)
    scale = np.where(negligible, 1.0, scale)
    out: Signal32 = ((values - centre) / scale).astype(np.float32)
    return out
