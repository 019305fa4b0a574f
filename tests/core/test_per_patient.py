"""Scores of single images and pairs: means by patient, resamples against plain loops, honest intervals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from diptych.evaluation.bootstrap import patient_draws
from diptych.evaluation.per_patient import Scored, compare_units, weighted_means


def test_every_patient_counts_once_however_many_images_it_has() -> None:
    owners = [("a",), ("a",), ("a",), ("b",)]
    row = Scored(name="one", scores={"Dice": np.array([[0.1, 0.2, 0.3, 1.0]])})
    table = compare_units([row], owners, title="t", metrics=["Dice"], draws=50)
    assert table.score("one", "Dice").value == pytest.approx((0.2 + 1.0) / 2)
    assert (table.test_patients, table.test_samples) == (2, 4)


def test_resamples_of_patients_equal_a_plain_loop() -> None:
    draws = np.random.default_rng(0)
    owners = draws.integers(5, size=(30, 1))
    values = draws.normal(size=30)
    values[draws.random(30) < 0.2] = np.nan
    counts = patient_draws([None] * 5, draws=40)
    found = weighted_means(values, owners, counts)
    for draw in range(40):
        means = []
        for patient in range(5):
            own = [v for v, o in zip(values, owners[:, 0], strict=True) if o == patient and v == v]
            means += [sum(own) / len(own)] * int(counts[patient, draw])
        assert found[draw] == pytest.approx(sum(means) / len(means))


def test_a_pair_counts_as_often_as_both_of_its_patients_together() -> None:
    pairs = np.array(list(itertools.combinations(range(4), 2)))
    values = np.random.default_rng(1).normal(size=len(pairs))
    counts = patient_draws([None] * 4, draws=30)
    found = weighted_means(values, pairs, counts)
    for draw in range(30):
        times = [int(counts[one, draw] * counts[other, draw]) for one, other in pairs]
        repeated = [v for v, k in zip(values, times, strict=True) for _ in range(k)]
        expected = sum(repeated) / len(repeated) if repeated else np.nan
        assert found[draw] == pytest.approx(expected, nan_ok=True)


def test_blocks_of_resamples_are_one_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    values, owners = np.arange(12.0), np.arange(12)[:, None] % 5
    counts = patient_draws([None] * 5, draws=33)
    whole = weighted_means(values, owners, counts)
    monkeypatch.setattr("diptych.evaluation.per_patient.BLOCK", 12 * 5)
    assert weighted_means(values, owners, counts) == pytest.approx(whole, rel=1e-12)


def test_differences_are_paired_and_their_sd_stands_apart() -> None:
    """Two rows that differ by a constant on every patient: their difference has no spread at all."""
    draws = np.random.default_rng(2)
    base = draws.uniform(0.2, 0.8, size=(1, 20))
    repeats = np.array([[0.02], [0.0], [-0.02]])
    rows = [
        Scored(name="better", scores={"Dice": base + 0.1 + repeats}, fraction=0.5, patients=10, samples=10),
        Scored(name="worse", scores={"Dice": base}, fraction=0.5, patients=10, samples=10),
        Scored(name="all", scores={"Dice": base}, fraction=1.0, patients=20, samples=20),
    ]
    owners = [(f"p{k}",) for k in range(20)]
    table = compare_units(rows, owners, title="t", metrics=["Dice"], draws=500)
    assert [row.name for row in table.rows] == ["better", "worse", "better - worse", "all"]
    gap = table.score("better - worse", "Dice")
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.1, 0.1))
    score = table.score("better", "Dice")
    assert score.sd == pytest.approx(0.02)
    assert table.score("worse", "Dice").sd is None
    assert score.high is not None
    assert score.low is not None
    assert score.high - score.low > 0.05


def test_intervals_of_pairs_are_wider_than_of_independent_pairs() -> None:
    """Each patient has its own level, so 45 pairs of 10 patients tell little more than 10 patients do."""
    draws = np.random.default_rng(3)
    levels = draws.normal(size=10)
    pairs = list(itertools.combinations(range(10), 2))
    values = np.array([[levels[a] + levels[b] for a, b in pairs]])
    row = Scored(name="x", scores={"Dice": values})
    dependent = compare_units(
        [row], [(f"p{a}", f"p{b}") for a, b in pairs], title="t", metrics=["Dice"], level="pair"
    ).score("x", "Dice")
    independent = compare_units(
        [row], [(f"q{k}",) for k in range(len(pairs))], title="t", metrics=["Dice"]
    ).score("x", "Dice")
    assert dependent.low is not None
    assert dependent.high is not None
    assert independent.low is not None
    assert independent.high is not None
    assert dependent.high - dependent.low > 1.5 * (independent.high - independent.low)


def test_intervals_over_patients_cover_what_they_claim() -> None:
    """Images of one patient are alike: 95 % intervals contain the true mean in 95 % of experiments."""
    draws = np.random.default_rng(4)
    patients, images, hits = 30, 4, 0
    owners = [(f"p{k:02d}",) for k in range(patients) for _ in range(images)]
    for experiment in range(200):
        own = np.repeat(draws.normal(size=patients), images) + 0.1 * draws.normal(size=patients * images)
        row = Scored(name="x", scores={"Dice": own[None]})
        score = compare_units([row], owners, title="t", metrics=["Dice"], draws=300, seed=experiment).score(
            "x", "Dice"
        )
        assert score.low is not None
        assert score.high is not None
        hits += score.low <= 0 <= score.high
    assert 0.89 <= hits / 200 <= 0.99


def test_what_was_not_measured_is_not_in_the_table() -> None:
    row = Scored(name="x", scores={"Dice": np.array([[0.5, np.nan]]), "HD95": np.full((1, 2), np.nan)})
    table = compare_units([row], [("a",), ("b",)], title="t", metrics=["Dice", "HD95", "other"], draws=20)
    assert table.score("x", "Dice").value == 0.5
    for metric in ("HD95", "other"):
        with pytest.raises(KeyError):
            table.score("x", metric)


def test_too_few_patients_for_intervals_are_named() -> None:
    """Two patients make one pair: half of the resamples draw one of them twice, which holds no pair."""
    row = Scored(name="x", scores={"Dice": np.array([[0.5]])})
    table = compare_units([row], [("a", "b")], title="t", metrics=["Dice"], level="pair")
    assert table.score("x", "Dice").low is None
    assert any("2 patients are too few" in note and "hold no pair" in note for note in table.notes)
    single = compare_units([row], [("a",)], title="t", metrics=["Dice"])
    assert not any("too few" in note for note in single.notes)


def test_scores_of_another_shape_are_refused() -> None:
    row = Scored(name="x", scores={"Dice": np.zeros((1, 3))})
    with pytest.raises(ValueError, match=r"'Dice' of 'x' are \(1, 3\); expected \(repeats, 2\)"):
        compare_units([row], [("a",), ("b",)], title="t", metrics=["Dice"])
    with pytest.raises(ValueError, match="at least one unit"):
        compare_units([], [], title="t", metrics=["Dice"])
    with pytest.raises(ValueError, match="as many owners"):
        compare_units([], [("a",), ("a", "b")], title="t", metrics=["Dice"])
