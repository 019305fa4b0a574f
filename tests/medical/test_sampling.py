"""Pairs: a pure function of seed and epoch, of two patients and one group, every image once an epoch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from diptych.data.loading import BatchPlan
from diptych.errors import ConfigError
from diptych_medical.sampling import PairBatches

INDICES = np.arange(200, 260)
PATIENTS = np.array([f"p{i // 3:02}" for i in range(60)])  # 20 patients of 3 images
GROUPS = np.array(["AP" if i % 3 else "PA" for i in range(60)])  # 2 AP and 1 PA image each
PATIENT = dict(zip(INDICES.tolist(), PATIENTS.tolist(), strict=True))
GROUP = dict(zip(INDICES.tolist(), GROUPS.tolist(), strict=True))


def plan(**options: Any) -> PairBatches:
    settings = {"batch_size": 8, "seed": 1, **options}
    return PairBatches(INDICES, PATIENTS, GROUPS, **settings)


def pairs(batches: list[NDArray[np.int64]], size: int = 2) -> list[tuple[int, ...]]:
    return [tuple(row) for batch in batches for row in batch.reshape(-1, size).tolist()]


def test_every_image_comes_once_an_epoch_with_a_partner_of_another_patient_and_its_group() -> None:
    for epoch in range(5):
        batches = plan().batches(epoch)
        assert [len(batch) for batch in batches] == [16] * 7 + [8]
        assert all(batch.dtype == np.int64 for batch in batches)
        made = pairs(batches)
        assert sorted(a for a, _ in made) == INDICES.tolist()
        assert all(GROUP[a] == GROUP[b] and PATIENT[a] != PATIENT[b] for a, b in made)


def test_an_epoch_is_a_pure_function_of_seed_and_epoch() -> None:
    one = plan()
    one.batches(0)
    for epoch in (4, 2):
        np.testing.assert_equal(one.batches(epoch), plan().batches(epoch))
    assert pairs(one.batches(1)) != pairs(plan(seed=2).batches(1))
    assert dict(pairs(one.batches(1))) != dict(pairs(one.batches(2)))


def test_all_possible_partners_are_drawn_equally_often() -> None:
    # 6 images of patients 0, 0, 1, 1, 1, 2: an image of patient 0 may meet 4 others, and so on
    patients = np.array([0, 0, 1, 1, 1, 2])
    made: Counter[tuple[int, int]] = Counter()
    epochs = 3000
    few = PairBatches(np.arange(6), patients, ["x"] * 6, batch_size=6, seed=3)
    for epoch in range(epochs):
        made.update(pairs(few.batches(epoch)))  # type: ignore[arg-type]
    for a in range(6):
        possible = [b for b in range(6) if patients[b] != patients[a]]
        expected = epochs / len(possible)
        assert {b for one, b in made if one == a} == set(possible)
        for b in possible:  # five standard deviations of a binomial count
            assert abs(made[a, b] - expected) < 5 * (expected * (1 - 1 / len(possible))) ** 0.5


def test_partners_of_the_same_patient_are_drawn_when_asked_for_never_the_image_itself() -> None:
    own = 0
    for epoch in range(10):
        made = pairs(plan(same_patient=True).batches(epoch))
        assert all(a != b and GROUP[a] == GROUP[b] for a, b in made)
        own += sum(PATIENT[a] == PATIENT[b] for a, b in made)
    assert own > 0
    alone = PairBatches(np.arange(3), [7, 7, 7], [0, 0, 0], batch_size=3, seed=0, same_patient=True)
    assert all(a != b for a, b in pairs(alone.batches(0)))


def test_labelled_images_go_with_pairs_equally_often() -> None:
    labelled = np.array([203, 217, 230, 244])
    three = plan(labelled=labelled)
    assert three.size == 3
    for epoch in range(3):
        batches = three.batches(epoch)
        assert [len(batch) for batch in batches] == [24] * 7 + [12]
        made = pairs(batches, 3)
        assert [(a, b) for a, b, _ in made] == pairs(plan().batches(epoch))
        assert Counter(label for _, _, label in made) == dict.fromkeys(labelled.tolist(), 15)


def test_more_labelled_images_than_pairs_are_a_sample_of_them() -> None:
    drawn = [label for _, _, label in pairs(plan(labelled=np.arange(500)).batches(0), 3)]
    assert len(set(drawn)) == 60


def test_a_rest_can_be_left_out() -> None:
    batches = plan(drop_last=True).batches(0)
    assert [len(batch) for batch in batches] == [16] * 7
    assert len(plan(drop_last=True, batch_size=60).batches(0)) == 1


def test_a_plan_fits_the_loader() -> None:
    loaded: BatchPlan = plan()
    assert loaded.seed == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "at least 1 pair, got 0"),
        ({"drop_last": True, "batch_size": 61}, "60 images leaves no batch of 61 pairs"),
        ({"patients": [1, 2]}, "60 images came with 2 patients"),
        ({"groups": [1]}, "60 images came with 1 groups"),
        ({"indices": np.array([]), "patients": [], "groups": []}, "there are no images to make pairs of"),
        ({"labelled": np.array([], int)}, "no training image has a mask"),
        ({"groups": ["lone"] * 3 + ["many"] * 57}, r"hold images of a single patient.*: 'lone'\. Set loader\.same"),
        ({"groups": ["lone"] + ["many"] * 59, "same_patient": True}, "1 groups hold a single image.*'lone'"),
        ({"patients": [1] * 60, "groups": [0] * 60}, "images of a single patient"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    given = {"indices": INDICES, "patients": PATIENTS, "groups": GROUPS, "batch_size": 8, "seed": 0} | options
    with pytest.raises(ConfigError, match=message):
        PairBatches(**given)
