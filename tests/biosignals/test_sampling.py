"""Batch plans are pure functions of seed and epoch, and put windows of a trial and a patient together."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from diptych.data.loading import BatchPlan
from diptych.errors import ConfigError
from diptych_biosignals.sampling import TrialBatches

INDICES = np.arange(100, 190)
TRIALS = np.array([f"t{i // 6:02}" for i in range(90)])  # 15 trials of 6 windows
PATIENTS = np.array([f"p{i // 18}" for i in range(90)])  # 5 patients of 3 trials
TRIAL_OF = dict(zip(INDICES.tolist(), TRIALS.tolist(), strict=True))
PATIENT_OF = dict(zip(INDICES.tolist(), PATIENTS.tolist(), strict=True))


def plan(seed: int = 1, **options: object) -> TrialBatches:
    return TrialBatches(INDICES, TRIALS, PATIENTS, batch_size=16, seed=seed, **options)


def runs(ids: list[str]) -> list[str]:
    return [value for value, _ in groupby(ids)]


@pytest.mark.parametrize("order", ["trial", "batch", "random"])
@pytest.mark.parametrize("fixed", [True, False])
def test_every_window_comes_once_an_epoch(order: str, fixed: bool) -> None:
    for epoch in range(3):
        batches = plan(order=order, fixed=fixed).batches(epoch)
        assert [len(batch) for batch in batches] == [16] * 5 + [10]
        assert sorted(np.concatenate(batches).tolist()) == INDICES.tolist()
        assert all(batch.dtype == np.int64 for batch in batches)


@pytest.mark.parametrize("fixed", [True, False])
def test_an_epoch_is_a_pure_function_of_seed_and_epoch(fixed: bool) -> None:
    one = plan(fixed=fixed)
    one.batches(0)
    for epoch in (4, 2):
        np.testing.assert_equal(one.batches(epoch), plan(fixed=fixed).batches(epoch))
    assert not np.array_equal(one.batches(1)[0], plan(seed=2, fixed=fixed).batches(1)[0])
    assert not np.array_equal(one.batches(1)[0], one.batches(2)[0])


def test_windows_of_a_trial_follow_each_other_in_a_new_order_each_epoch() -> None:
    orders = [np.concatenate(plan().batches(epoch)).tolist() for epoch in range(2)]
    trials = [runs([TRIAL_OF[i] for i in order]) for order in orders]
    assert [len(each) for each in trials] == [15, 15]
    assert trials[0] != trials[1]
    inside = [[i for i in order if TRIAL_OF[i] == "t03"] for order in orders]
    assert inside[0] != inside[1]


def test_fixed_batches_keep_their_windows_and_shuffle_them_inside() -> None:
    first, second = (plan(fixed=True).batches(epoch) for epoch in (0, 1))
    assert [set(batch.tolist()) for batch in first] == [set(batch.tolist()) for batch in second]
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_redrawn_batches_do_not_keep_their_windows() -> None:
    first, second = (plan().batches(epoch) for epoch in (0, 1))
    assert {frozenset(batch.tolist()) for batch in first}.isdisjoint(
        frozenset(batch.tolist()) for batch in second
    )


@pytest.mark.parametrize(("together", "expected"), [(2, [1, 2] * 5), (3, [3] * 5), (9, [3] * 5)])
def test_trials_of_a_patient_can_follow_each_other(together: int, expected: list[int]) -> None:
    order = np.concatenate(plan(trials_per_patient=together).batches(0)).tolist()
    groups = runs([PATIENT_OF[i] for i in order])
    assert len(runs([TRIAL_OF[i] for i in order])) == 15
    assert len(groups) <= len(expected)
    if together >= 3:
        assert sorted(groups) == [f"p{i}" for i in range(5)]


def test_more_trials_per_patient_make_more_pairs_of_one_patient_in_a_batch() -> None:
    def pairs(**options: object) -> int:
        found = 0
        for epoch in range(20):
            for batch in plan(**options).batches(epoch):
                trials = [(PATIENT_OF[i], TRIAL_OF[i]) for i in batch.tolist()]
                found += sum(p == q and s != t for p, s in trials for q, t in trials)
        return found

    assert pairs(trials_per_patient=3) > 2 * pairs()


def test_batch_order_shuffles_within_chunks_of_neighbouring_trials() -> None:
    order = np.concatenate(plan(order="batch").batches(0))
    for chunk in np.split(order, 5):  # 90 // 16 chunks of 18 windows: three whole trials
        assert len({PATIENT_OF[i] for i in chunk.tolist()}) == 1


def test_a_rest_of_one_window_is_left_out() -> None:
    def lengths(n: int) -> list[int]:
        batches = TrialBatches(np.arange(n), np.zeros(n), np.zeros(n), batch_size=4, seed=0).batches(0)
        return [len(batch) for batch in batches]

    assert (lengths(9), lengths(10), lengths(1)) == ([4, 4], [4, 4, 2], [1])


def test_a_plan_fits_the_loader() -> None:
    loaded: BatchPlan = plan()
    assert loaded.seed == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "batch size of at least 2, got 1"),
        ({"order": "patient"}, "order must be one of trial, batch, random, got 'patient'"),
        ({"order": "batch", "batch_size": 100}, "order batch needs at least a batch of 100 windows, got 90"),
        ({"trials": [1, 2]}, "90 windows came with 2 trials"),
        ({"patients": [1, 2]}, "90 windows came with 2 patients"),
        ({"trials_per_patient": 0}, "trials_per_patient is at least 1, got 0"),
        ({"indices": np.array([]), "trials": [], "patients": []}, "there are no windows to make batches of"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, object], message: str) -> None:
    ids = {"indices": INDICES, "trials": TRIALS, "patients": PATIENTS}
    settings = ids | {"batch_size": 16, "seed": 0} | options
    with pytest.raises(ConfigError, match=message):
        TrialBatches(**settings)
