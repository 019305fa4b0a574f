"""Hand-made features measure what they are named after, on signals of known make."""

from __future__ import annotations

from pathlib import Path

import neurokit2 as nk
import numpy as np
import pytest
from numpy.typing import NDArray
from tests.biosignals.files import waves, write_wfdb

from diptych.data.identity import Split
from diptych_biosignals import features
from diptych_biosignals.peaks import r_peaks
from diptych_biosignals.source import Prepared, Signal, Source, prepare


def simulated(rate: int = 250, seconds: float = 30, **settings: object) -> NDArray[np.float32]:
    given = {"heart_rate": 72, "noise": 0, "random_state": 3, "heart_rate_std": 1}
    lead = nk.ecg_simulate(duration=seconds, sampling_rate=rate, method="ecgsyn", **(given | settings))
    return np.asarray(lead, np.float32)[:, None]


def measured(signal: NDArray[np.float32], rate: float = 250) -> dict[str, float]:
    leads = tuple(str(i) for i in range(signal.shape[1]))
    return dict(zip(features.names("ecg", leads), features.ecg_features(signal, rate), strict=True))


@pytest.mark.parametrize("heart_rate", [55, 72, 110])
def test_the_heart_rate_is_found(heart_rate: int) -> None:
    assert measured(simulated(heart_rate=heart_rate))["heart rate"] == pytest.approx(heart_rate, rel=0.04)


def test_intervals_give_the_textbook_measures() -> None:
    intervals = np.array([0.8, 0.9, 0.8, 0.82, 1.0])
    steps = [0.1, -0.1, 0.02, 0.18]
    mean = sum(intervals) / 5
    sdnn = (sum((x - mean) ** 2 for x in intervals) / 5) ** 0.5
    rmssd = (sum(x**2 for x in steps) / 4) ** 0.5
    expected = [60 / mean, sdnn, rmssd, 0.75, sdnn / mean, rmssd / mean, 0.2 / mean]
    np.testing.assert_allclose(features._intervals(intervals), expected)


def test_an_irregular_rhythm_without_p_waves_shows_in_both() -> None:
    regular = measured(simulated())
    irregular = measured(simulated(heart_rate_std=20, ai=(0, -5, 30, -7.5, 0.75)))
    assert irregular["RR variation"] > 5 * regular["RR variation"]
    assert abs(irregular["P 0"]) < 0.3 * abs(regular["P 0"])


def test_amplitudes_scale_with_the_signal_and_times_do_not() -> None:
    signal = simulated()
    one, both = measured(signal), measured(np.concatenate([signal, -2 * signal], axis=1))
    assert both["R 0"] == pytest.approx(one["R 0"], rel=0.05)
    assert both["S 1"] == pytest.approx(-2 * one["R 0"], rel=0.05)
    assert both["QRS width 1"] == both["QRS width 0"]


def test_a_wide_qrs_is_wider() -> None:
    narrow = measured(simulated())["QRS width 0"]
    wide = measured(simulated(bi=(0.25, 0.2, 0.2, 0.2, 0.4)))["QRS width 0"]
    assert 0.05 < narrow < 0.1 < 0.12 < wide < 0.16


def test_the_qrs_width_does_not_hang_on_the_rate() -> None:
    widths = [measured(simulated(rate=rate), rate)["QRS width 0"] for rate in (100, 250, 500)]
    np.testing.assert_allclose(widths, widths[1], rtol=0.03)


def test_a_signal_without_beats_has_missing_features() -> None:
    values = features.ecg_features(np.zeros((2500, 2), np.float32), 250)
    assert np.isnan(values).all()
    assert len(values) == len(features.names("ecg", ("I", "II")))


@pytest.mark.parametrize("rate", [50, 100, 1000])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.4, 1.6, 3])
def test_noise_of_any_length_is_measured_or_missing(rate: int, seconds: float) -> None:
    noise = np.random.default_rng(0).normal(size=(round(rate * seconds), 2)).astype(np.float32)
    noise[:, 1] = 0.0
    values = features.ecg_features(noise, rate)
    assert not np.isinf(values).any()
    assert not np.isinf(features.eeg_features(noise, rate)).any()
    if seconds < 1.5:
        assert np.isnan(values).all()


def test_a_lead_that_misses_a_beat_does_not_shift_the_others() -> None:
    signal = simulated(seconds=20)
    peaks = r_peaks(signal, 250)
    gap = signal.copy()
    gap[peaks[5] - 60 : peaks[5] + 60] = gap[peaks[5] - 60]
    three = np.concatenate([signal, gap, signal], axis=1)
    np.testing.assert_allclose(r_peaks(three, 250), peaks, atol=2)


@pytest.mark.parametrize(
    ("frequency", "band"), [(2, "delta"), (6, "theta"), (10, "alpha"), (20, "beta"), (40, "gamma")]
)
def test_a_tone_is_in_its_band(frequency: float, band: str) -> None:
    time = np.arange(4000) / 200
    tone = 3 * np.sin(2 * np.pi * frequency * time)[:, None]
    values = dict(
        zip(features.names("eeg", ("Cz",)), features.eeg_features(tone.astype(np.float32), 200), strict=True)
    )
    assert values[f"{band} Cz"] == pytest.approx(np.log10(4.5), abs=0.05)  # a sine's power is half its square
    assert values[f"{band} share Cz"] == pytest.approx(0, abs=0.02)


def test_bands_above_half_of_the_rate_are_missing() -> None:
    signal = np.random.default_rng(0).normal(size=(600, 1)).astype(np.float32)
    values = dict(zip(features.names("eeg", ("Cz",)), features.eeg_features(signal, 60), strict=True))
    assert np.isnan(values["gamma Cz"])
    assert np.isfinite(values["beta Cz"])
    assert values["theta/alpha Cz"] == pytest.approx(values["theta Cz"] - values["alpha Cz"])


@pytest.fixture
def prepared(tmp_path: Path) -> Prepared:
    for number in range(3):
        write_wfdb(tmp_path / "data", f"r{number}", waves(20, seed=number))
    return prepare(
        Source(path=str(tmp_path / "data")), Signal(window=4), {}, Split(), cache=tmp_path / "cache"
    )


def test_rows_are_those_of_the_windows_asked_for(prepared: Prepared) -> None:
    whole = features.baseline(prepared, np.array([14, 0, 1]), kind="eeg", workers=1).values
    physical = prepared.physical
    np.testing.assert_allclose(whole[0], features.eeg_features(physical.signal(2), 100))
    np.testing.assert_allclose(whole[1], features.eeg_features(physical.signal(0), 100))
    np.testing.assert_array_equal(whole[1], whole[2])
    single = features.baseline(prepared, np.array([14, 0]), kind="eeg", unit="window", workers=1).values
    np.testing.assert_allclose(single[0], features.eeg_features(physical.signal(2)[1600:2000], 100))


def test_features_are_computed_once(prepared: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    first = features.baseline(prepared, np.arange(15), kind="ecg", workers=1).values

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(features, "ecg_features", never)
    np.testing.assert_array_equal(
        features.baseline(prepared, np.arange(15), kind="ecg", workers=1).values, first
    )
