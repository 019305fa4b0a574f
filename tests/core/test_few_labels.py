"""Fractions of patients are nested, stratified, and functions of keys, labels and seed alone."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from diptych.errors import ConfigError
from diptych.evaluation.few_labels import draw_patients

STRATA = {f"p{number:03d}": "rare" if number % 20 == 0 else "common" for number in range(200)}
FRACTIONS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_smaller_fractions_are_parts_of_larger_ones(seed: int) -> None:
    chosen = [draw_patients(STRATA, fraction, seed) for fraction in FRACTIONS]
    for small, large in pairwise(chosen):
        assert small < large
    assert chosen[-1] == set(STRATA)


def test_every_stratum_gives_its_share_and_at_least_the_minimum() -> None:
    chosen = draw_patients(STRATA, 0.1)
    assert sum(STRATA[patient] == "common" for patient in chosen) == 19
    assert sum(STRATA[patient] == "rare" for patient in chosen) == 1
    assert sum(STRATA[patient] == "rare" for patient in draw_patients(STRATA, 0.01, minimum=5)) == 5
    assert sum(STRATA[patient] == "rare" for patient in draw_patients(STRATA, 0.01, minimum=50)) == 10


def test_the_order_of_patients_does_not_matter() -> None:
    shuffled = dict(random.Random(0).sample(list(STRATA.items()), len(STRATA)))
    assert draw_patients(shuffled, 0.1, seed=3) == draw_patients(STRATA, 0.1, seed=3)


def test_seeds_draw_others() -> None:
    assert len({draw_patients(STRATA, 0.1, seed) for seed in range(10)}) == 10


def test_every_patient_is_drawn_about_equally_often() -> None:
    drawn = [patient for seed in range(400) for patient in draw_patients(STRATA, 0.1, seed)]
    common = [drawn.count(patient) for patient, stratum in STRATA.items() if stratum == "common"]
    assert 10 < min(common) <= max(common) < 80  # 40 expected, SD 6


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.01, 10])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"above 0 and at most 1; got {fraction:g}"):
        draw_patients(STRATA, fraction)
