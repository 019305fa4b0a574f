"""R peaks that several leads agree on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diptych_biosignals.recording import Signal32

_AGREE_SECONDS = 0.1  # peaks of different leads within this time are one beat
_SHORTEST_SECONDS = 1.5  # neurokit2 smooths over 0.75 s, and less holds no RR interval


def r_peaks(signal: Signal32, rate: float) -> NDArray[np.int64]:
    """R peaks of a (time, leads) ECG, samples, ascending: those that at least half of the leads show.

    Every lead is cleaned and searched by neurokit2's default method (0.5 Hz high-pass, mains filter, gradient
    peaks; Makowski et al. 2021). A beat's place is the median over the leads that show it, so that a peak
    missed in one lead shifts neither this beat nor those after it. Leads without any peak
    do not vote; below 1.5 s there are no peaks.
    """
    import neurokit2 as nk

    found: list[NDArray[np.int64]] = []
    if len(signal) < _SHORTEST_SECONDS * rate:
        return np.zeros(0, np.int64)
    for lead in signal.T.astype(np.float64):
        if lead.std() == 0:
            continue
        clean = nk.ecg_clean(lead, sampling_rate=rate, method="neurokit")
        peaks = nk.ecg_findpeaks(clean, sampling_rate=rate, method="neurokit")["ECG_R_Peaks"]
        if len(peaks):
            found.append(np.asarray(peaks, np.int64))
    if not found:
        return np.zeros(0, np.int64)
    return _agreed(found, round(_AGREE_SECONDS * rate))


def _agreed(found: list[NDArray[np.int64]], near: int) -> NDArray[np.int64]:
    """Cluster peaks that follow each other within ``near`` samples and keep clusters of half of the leads."""
    places = np.concatenate(found)
    lead = np.repeat(np.arange(len(found)), [len(each) for each in found])
    order = np.argsort(places, kind="stable")
    places, lead = places[order], lead[order]
    borders = np.flatnonzero(np.diff(places) > near) + 1
    groups, voters = np.split(places, borders), np.split(lead, borders)
    kept = [
        int(np.median(group))
        for group, voter in zip(groups, voters, strict=True)
        if 2 * len(np.unique(voter)) >= len(found)
    ]
    return np.asarray(kept, np.int64)
