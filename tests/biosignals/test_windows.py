"""Windows and trials equal those that a loop cuts out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from diptych_biosignals.filters import normalise
from diptych_biosignals.windows import Cut, cut_beats, cut_trials, finite_runs, join

RATE = 100.0


def taken(cut: Cut, window: int) -> NDArray[np.float32]:
    return np.stack([cut.data[start : start + window] for start in cut.starts])


def noise(length: int, leads: int = 2) -> NDArray[np.float32]:
    return np.random.default_rng(length).normal(size=(length, leads)).astype(np.float32)


@given(
    length=st.integers(1, 90), trial=st.one_of(st.none(), st.integers(6, 40)), window=st.integers(2, 6),
    step=st.integers(1, 8), offset=st.integers(0, 500),
)  # fmt: skip
def test_windows_of_trials(length: int, trial: int | None, window: int, step: int, offset: int) -> None:
    signal = noise(length)
    expected, trials, times = [], [], []
    size = trial or length
    for number in range(length // size):
        values = normalise(signal[number * size : (number + 1) * size], "zscore")
        start = 0
        while start + window <= size:
            expected.append(values[start : start + window])
            trials.append(number)
            first = offset + number * size + start
            times.append((first / RATE, (first + window) / RATE))
            start += step
    cut = cut_trials(signal, RATE, offset=offset, trial=trial, window=window, step=step, scale="zscore")
    assert len(cut.starts) == len(expected)
    if expected:
        np.testing.assert_array_equal(taken(cut, window), expected)
        np.testing.assert_array_equal(cut.trials, trials)
        np.testing.assert_allclose(cut.times, times)


def test_beats_are_centred_between_zeros_and_normalised_without_them() -> None:
    signal, window, beats = noise(1000) + 5, 100, 3
    peaks = np.array([10, 90, 171, 250, 330, 410, 490, 571, 650, 730, 990])
    half = 40
    cut = cut_beats(signal, RATE, offset=200, peaks=peaks, beats=beats, window=window, scale="zscore")
    whole = [90, 171, 250, 330, 410, 490, 571, 650, 730]  # 10 and 990 are cut off by the ends
    expected = np.zeros((9, window, 2))
    for trial in range(3):
        rows = np.concatenate([np.arange(p - half, p + half) for p in whole[3 * trial : 3 * trial + 3]])
        values = signal[rows].astype(np.float64)
        values = (values - values.mean(0)) / values.std(0)
        for beat in range(3):
            expected[3 * trial + beat, 10:90] = values[beat * 80 : (beat + 1) * 80]
    np.testing.assert_allclose(taken(cut, window), expected, atol=1e-5)
    np.testing.assert_array_equal(cut.trials, [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_allclose(cut.times[0], [(90 - half + 200) / RATE, (90 + half + 200) / RATE])


@pytest.mark.parametrize("peaks", [[], [500], [100, 180]])
def test_too_few_beats_give_no_window(peaks: list[int]) -> None:
    cut = cut_beats(
        noise(1000), RATE, offset=0, peaks=np.array(peaks, np.int64), beats=3, window=100, scale="none"
    )
    assert (len(cut.starts), len(cut.data)) == (0, 0)


def test_runs_without_missing_samples() -> None:
    signal = np.zeros((10, 2), np.float32)
    signal[3, 0] = signal[4, 1] = signal[9, 1] = np.nan
    assert finite_runs(signal) == [(0, 3), (5, 9)]
    assert finite_runs(signal[:3]) == [(0, 3)]
    assert finite_runs(signal[3:5]) == []


def test_joined_runs_keep_their_windows_apart() -> None:
    parts = [
        cut_trials(noise(length), RATE, offset=offset, trial=10, window=5, step=5, scale="none")
        for length, offset in ((30, 0), (45, 100))
    ]
    both = join(parts, 2)
    np.testing.assert_array_equal(taken(both, 5), np.concatenate([taken(part, 5) for part in parts]))
    np.testing.assert_array_equal(both.trials, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6])
    np.testing.assert_allclose(both.times[6], [1.0, 1.05])
    assert join([], 2).data.shape == (0, 2)
