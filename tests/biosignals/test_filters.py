"""Resampling keeps tones below the new Nyquist rate and none above; filters shift nothing in time."""

from __future__ import annotations

from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from diptych_biosignals import filters


def tone(frequency: float, rate: float, seconds: float = 10.0, offset: float = 0.0) -> NDArray[np.float32]:
    time = np.arange(round(seconds * rate)) / rate
    return (np.sin(2 * np.pi * frequency * time) + offset).astype(np.float32)[:, None]


@pytest.mark.parametrize(("old", "new"), [(500, 100), (360, 250), (100, 250), (256, 200), (499.5, 100)])
def test_a_slow_tone_is_the_same_tone_at_the_new_rate(old: float, new: float) -> None:
    out = filters.resample(tone(5, old, offset=3), old, new)
    assert out.dtype == np.float32
    expected = tone(5, new, offset=3)[: len(out)]
    inner = slice(round(new), len(expected) - round(new))
    np.testing.assert_allclose(out[inner], expected[inner], atol=0.01)
    assert np.abs(out - 3).max() < 1.3  # an offset leaves no step at the ends


@pytest.mark.parametrize("frequency", [70, 120, 240])
def test_a_tone_above_the_new_nyquist_rate_is_gone_not_folded(frequency: float) -> None:
    assert np.abs(filters.resample(tone(frequency, 500), 500, 100)[100:-100]).max() < 0.02


@given(length=st.integers(1, 400), old=st.integers(1, 500), new=st.integers(1, 500))
def test_the_length_is_all_samples_within_the_duration(length: int, old: int, new: int) -> None:
    count = filters.resampled_length(length, old, new)
    assert count == -(-length * new // old) == ceil(length * new / old - 1e-12)
    if length > 1:
        assert len(filters.resample(np.ones((length, 1), np.float32), old, new)) == count


def test_an_equal_rate_changes_nothing() -> None:
    signal = tone(5, 100)
    assert filters.resample(signal, 100, 100) is signal


@pytest.mark.parametrize(("frequency", "kept"), [(0.05, 0), (10, 1), (45, 0)])
def test_a_band_pass_keeps_its_band_in_place(frequency: float, kept: float) -> None:
    signal = tone(frequency, 200, seconds=60)
    out = filters.band_pass(signal, 200, 0.5, 30)
    np.testing.assert_allclose(out[2000:-2000], kept * signal[2000:-2000], atol=0.02)


def test_an_open_side_of_the_band_passes() -> None:
    fast, offset = tone(40, 200), np.full((2000, 1), 2, np.float32)
    np.testing.assert_allclose(filters.band_pass(fast, 200, 1, None)[400:-400], fast[400:-400], atol=0.02)
    np.testing.assert_allclose(filters.band_pass(offset, 200, None, 30), offset, atol=1e-3)
    assert filters.band_pass(fast, 200, None, None) is fast


def test_a_notch_takes_the_mains_out_and_little_else() -> None:
    signal = tone(10, 250, 20)
    out = filters.notch(signal + tone(50, 250, 20), 250, 50)
    np.testing.assert_allclose(out[1000:-1000], signal[1000:-1000], atol=0.01)


def test_filters_take_signals_shorter_than_their_padding() -> None:
    assert filters.band_pass(tone(5, 100, 0.1), 100, 0.5, 30).shape == (10, 1)


@pytest.mark.parametrize("how", ["zscore", "robust"])
def test_normalisation_is_free_of_scale_and_offset(how: filters.Normalisation) -> None:
    signal = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)
    out = filters.normalise(signal, how)
    np.testing.assert_allclose(filters.normalise(signal * 7 - 40, how), out, atol=1e-4)
    np.testing.assert_allclose(out.std(axis=0), 1, atol=0.05)
    if how == "zscore":
        np.testing.assert_allclose(out.mean(axis=0), 0, atol=1e-6)
    else:
        np.testing.assert_allclose(np.median(out, axis=0), 0, atol=1e-6)


def test_robust_scale_does_not_see_a_spike() -> None:
    signal = np.random.default_rng(0).normal(size=(5000, 1)).astype(np.float32)
    spiked = signal.copy()
    spiked[7] = 1e6
    np.testing.assert_allclose(
        filters.normalise(spiked, "robust")[8:], filters.normalise(signal, "robust")[8:], atol=1e-2
    )


@pytest.mark.parametrize("value", [0.0, 0.1, -3e4])
def test_a_constant_lead_becomes_zero(value: float) -> None:
    signal = np.full((1001, 2), value, np.float32)
    for how in ("zscore", "robust"):
        assert (filters.normalise(signal, how) == 0).all()  # type: ignore[arg-type]
