"""Capacitances as labels: logarithms scaled to 0..1 by a range, and five classes of them.

CircuitGCL (Shen et al. 2025) takes 1e-21..1e-15 F for couplings and 1e-20..1e-14 F for ground capacitances. Here
the range is that of the training designs, which are all that may be known; the published ones are at hand by name.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOUNDARIES = (0.2, 0.4, 0.6, 0.8)  # a label equal to a boundary belongs to the lower class
CLASSES = len(BOUNDARIES) + 1
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Range:
    """The capacitances that are 0 and 1 as labels, in farad."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low < self.high:
            raise ValueError(f"a range of capacitances is 0 < low < high, got {self.low:g} and {self.high:g}")

    def label(self, farad: ArrayLike) -> Numbers:
        """log10(C / low) / log10(high / low), clipped to 0..1; no capacitance is 0, NaN stays NaN."""
        values = np.asarray(farad, np.float64)
        with np.errstate(divide="ignore"):
            logs = np.log10(values / self.low) / np.log10(self.high / self.low)
        return np.asarray(np.clip(logs, 0.0, 1.0))

    def farad(self, label: ArrayLike) -> Numbers:
        """The capacitance of a label: the inverse of :meth:`label` within 0..1."""
        return np.asarray(self.low * (self.high / self.low) ** np.asarray(label, np.float64))


COUPLING = Range(1e-21, 1e-15)  # as published
GROUND = Range(1e-20, 1e-14)


def range_of(farad: ArrayLike) -> Range:
    """The range of some capacitances, widened to whole tenths of a decade; NaN and 0 are left out.

    Raises ValueError where none is left.
    """
    values = np.asarray(farad, np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise ValueError("a range of capacitances needs at least one above 0")
    logs = np.log10(values)
    low, high = np.floor(logs.min() * 10) / 10, np.ceil(logs.max() * 10) / 10
    return Range(float(10.0**low), float(10.0 ** max(high, low + 0.1)))


def classes(label: ArrayLike) -> NDArray[np.int64]:
    """The class 0..4 of each label by BOUNDARIES; NaN is -1."""
    values = np.asarray(label, np.float64)
    found = np.searchsorted(np.array(BOUNDARIES), values, side="left")
    return np.where(np.isnan(values), -1, found).astype(np.int64)
