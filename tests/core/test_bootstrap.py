"""The bootstrap resamples patients within classes, and its 95 % intervals cover 95 %."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from diptych.evaluation import weighted
from diptych.evaluation.bootstrap import interval, paired_difference, patient_draws, resampled


def test_every_stratum_keeps_its_number_of_patients() -> None:
    strata = ["a"] * 5 + ["b"] * 2 + [("a", "b")] + ["a"] * 3
    counts = patient_draws(strata, draws=300)
    assert counts.shape == (11, 300)
    for stratum, size in {"a": 8, "b": 2, ("a", "b"): 1}.items():
        rows = [row for row, found in enumerate(strata) if found == stratum]
        assert (counts[rows].sum(axis=0) == size).all()


def test_each_patient_is_drawn_once_on_average() -> None:
    counts = patient_draws(["a"] * 20, draws=20_000)
    assert counts.mean(axis=1) == pytest.approx(np.ones(20), abs=0.04)
    assert counts.var(axis=1) == pytest.approx(np.full(20, 0.95), abs=0.05)  # binomial(20, 1/20)


def test_the_seed_decides() -> None:
    strata = ["a"] * 6
    assert (patient_draws(strata, 50, seed=1) == patient_draws(strata, 50, seed=1)).all()
    assert (patient_draws(strata, 50, seed=1) != patient_draws(strata, 50, seed=2)).any()


def test_a_resample_is_the_mean_over_repeated_patients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plain loop, in several blocks."""
    draws = np.random.default_rng(0)
    patient = draws.integers(6, size=40)
    values = draws.normal(size=40)
    counts = patient_draws(["a"] * 6, draws=25)
    monkeypatch.setattr("diptych.evaluation.bootstrap.BLOCK", 40 * 7)
    found = resampled(lambda weights: {"mean": values @ weights / weights.sum(axis=0)}, counts, patient)[
        "mean"
    ]
    for draw in range(25):
        chosen = [
            value for owner in range(6) for value in list(values[patient == owner]) * int(counts[owner, draw])
        ]
        assert found[draw] == pytest.approx(sum(chosen) / len(chosen))


def test_an_interval_holds_the_middle_of_the_draws() -> None:
    drawn = np.arange(1001) / 1000
    assert interval(drawn) == pytest.approx((0.025, 0.975))
    assert interval(drawn, confidence=0.5) == pytest.approx((0.25, 0.75))


def test_a_score_that_is_often_undefined_has_no_interval() -> None:
    drawn = np.linspace(0, 1, 1000)
    drawn[:5] = np.nan
    assert interval(drawn) is not None
    drawn[:50] = np.nan
    assert interval(drawn) is None


def test_the_difference_of_a_score_from_itself_is_nothing() -> None:
    drawn = np.random.default_rng(0).normal(size=500)
    assert paired_difference(0.7, 0.7, drawn, drawn) == (0.0, 0.0, 0.0, 1.0)


def test_a_difference_turns_around_with_its_sides() -> None:
    draws = np.random.default_rng(0)
    one, other = draws.normal(0.3, 1, size=999), draws.normal(0, 1, size=999)
    there, back = paired_difference(0.8, 0.5, one, other), paired_difference(0.5, 0.8, other, one)
    assert there is not None
    assert back is not None
    assert back == pytest.approx((-there.value, -there.high, -there.low, there.p))


def test_p_is_never_smaller_than_the_draws_can_show() -> None:
    found = paired_difference(0.9, 0.1, np.ones(1999), np.zeros(1999))
    assert found is not None
    assert found.p == 2 / 2000


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one draw; got 0"):
        patient_draws(["a"], draws=0)
    with pytest.raises(ValueError, match="between 0 and 1; got 95"):
        interval(np.ones(3), confidence=95)
    with pytest.raises(ValueError, match="differ in number"):
        paired_difference(1, 1, np.ones(3), np.ones(4))


@pytest.fixture(scope="module")
def coverage() -> dict[str, float]:
    """How often intervals hold the true AUROC: 60 patients x 10 windows, patient SD = window SD."""
    draws = np.random.default_rng(12345)
    shift, repeats = 1.0, 200
    truth = NormalDist().cdf(shift / 2)  # the difference of two windows has variance 2 (1 + 1)
    patient = np.repeat(np.arange(60), 10)
    positive = (np.arange(60) % 2 == 1)[patient]
    held = {"patients": 0, "windows": 0}
    counts = {
        "patients": patient_draws([k % 2 for k in range(60)], draws=400, seed=1),
        "windows": patient_draws(positive.tolist(), draws=400, seed=1),
    }
    rows = {"patients": patient, "windows": np.arange(600)}
    for _ in range(repeats):
        score = shift * positive + draws.normal(size=60)[patient] + draws.normal(size=600)
        for unit in held:
            drawn = resampled(
                lambda weights, score=score: {"auroc": weighted.ranking_scores(positive, score, weights)[0]},
                counts[unit],
                rows[unit],
            )["auroc"]
            low, high = interval(drawn) or (1.0, 0.0)
            held[unit] += low <= truth <= high
    return {unit: number / repeats for unit, number in held.items()}


def test_intervals_over_patients_cover_as_they_claim(coverage: dict[str, float]) -> None:
    """95 % of 200 repeats, within three standard errors (0.015 each)."""
    assert 0.905 <= coverage["patients"] <= 0.995


def test_intervals_over_windows_would_not(coverage: dict[str, float]) -> None:
    assert coverage["windows"] < 0.8
