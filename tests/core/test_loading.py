from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import Points, two_noisy_views

from diptych.data.loading import (
    Draw,
    OrderedBatches,
    ResumableLoader,
    ShuffledBatches,
    sample_generator,
    sample_keys,
)
from diptych.errors import ConfigError
from diptych.types import Views

VALUES = np.random.default_rng(0).normal(size=(23, 5)).astype(np.float32)


def loader(**options: Any) -> ResumableLoader:
    plan = options.pop("plan", None) or ShuffledBatches(23, 5, seed=3)
    return ResumableLoader(Points(VALUES), plan, **({"transform": two_noisy_views} | options))


def epochs(of: ResumableLoader, count: int, first: int = 0) -> list[list[Views]]:
    """Whole epochs, as Lightning asks for them."""
    found = []
    for epoch in range(first, first + count):
        of.position.set_epoch(epoch)
        found.append(list(of))
    return found


def assert_same(ours: list[Views], others: list[Views]) -> None:
    assert len(ours) == len(others)
    for one, other in zip(ours, others, strict=True):
        assert torch.equal(one.groups["sample"], other.groups["sample"])
        for view, twin in zip(one.views, other.views, strict=True):
            assert torch.equal(view, twin)


def test_an_epoch_has_every_sample_once_and_every_epoch_another_order() -> None:
    plan = ShuffledBatches(23, 5, seed=3)
    orders = [np.concatenate(plan.batches(epoch)) for epoch in range(3)]
    for order in orders:
        assert sorted(order) == list(range(23))
    assert not np.array_equal(orders[0], orders[1])
    assert [len(batch) for batch in plan.batches(0)] == [5, 5, 5, 5, 3]
    for one, other in zip(plan.batches(2), ShuffledBatches(23, 5, seed=3).batches(2), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(orders[0], np.concatenate(ShuffledBatches(23, 5, seed=4).batches(0)))


def test_a_rest_is_dropped_on_request_and_not_always_the_same() -> None:
    plan = ShuffledBatches(np.arange(100, 123), 5, seed=0, drop_last=True)
    left = [set(range(100, 123)) - set(np.concatenate(plan.batches(epoch))) for epoch in range(4)]
    assert all(len(each) == 3 for each in left)
    assert len(set.union(*left)) > 3


def test_ordered_batches_keep_the_order() -> None:
    indices = np.array([9, 2, 7, 7, 1])
    batches = OrderedBatches(indices, 2).batches(5)
    assert [list(batch) for batch in batches] == [[9, 2], [7, 7], [1]]


@pytest.mark.parametrize("workers", [0, 2])
def test_starts_anywhere_and_gives_what_it_would_have_given(workers: int) -> None:
    whole = epochs(loader(), 3)
    for epoch, batch in ((0, 0), (0, 3), (1, 4), (2, 1)):
        begun = loader(workers=workers)
        begun.start(epoch, batch)
        begun.position.set_epoch(epoch)  # Lightning says it again after a resumption
        assert_same(list(begun), whole[epoch][batch:])
        if epoch < 2:
            assert_same(epochs(begun, 1, epoch + 1)[0], whole[epoch + 1])


def test_takes_no_number_from_the_global_generators() -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    epochs(loader(), 2)
    epochs(loader(workers=1), 1)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_does_not_depend_on_the_global_generators() -> None:
    torch.manual_seed(1)
    one = epochs(loader(), 1)[0]
    torch.manual_seed(2)
    assert_same(one, epochs(loader(), 1)[0])


def test_a_sample_has_a_key_of_its_own_in_each_epoch_and_seed() -> None:
    indices = np.arange(50_000)
    keys = np.concatenate([sample_keys(seed, epoch, indices) for seed in (0, 1) for epoch in (0, 1)])
    assert len(set(keys.tolist())) == len(keys)
    picked = np.array([7, 40_000, 3])
    assert np.array_equal(sample_keys(1, 0, picked), sample_keys(1, 0, indices)[picked])
    bits = np.unpackbits(sample_keys(0, 0, indices).view(np.uint8)).reshape(-1, 64).mean(0)
    assert np.abs(bits - 0.5).max() < 0.02, "every bit of a key is a fair coin"
    one, other = sample_generator(3, 1, 8), sample_generator(3, 1, 8)
    assert one.normal() == other.normal()
    assert sample_generator(3, 1, 8).normal() != sample_generator(3, 1, 9).normal()


def test_the_draw_of_a_whole_batch_depends_on_its_place() -> None:
    indices = np.array([4, 2])
    one = Draw(5, 1, 0, indices).generator().normal()
    assert one == Draw(5, 1, 0, indices).generator().normal()
    assert (
        len({one, *(Draw(*key, indices).generator().normal() for key in ((6, 1, 0), (5, 2, 0), (5, 1, 1)))})
        == 4
    )


def test_samples_one_by_one_are_collated() -> None:
    class Rows:
        def __getitem__(self, index: int) -> float:
            return float(index)

    def collate(samples: list[float]) -> Views:
        return Views((torch.tensor(samples),), {"sample": torch.tensor(samples).long()})

    found = list(ResumableLoader(Rows(), OrderedBatches(np.array([3, 1, 2]), 2), collate=collate))
    assert [each.views[0].tolist() for each in found] == [[3.0, 1.0], [2.0]]


class Drawn:
    """Gives the random keys that it is fetched with."""

    def fetch(self, draw: Draw) -> Views:
        keys = torch.from_numpy(draw.keys().astype(np.int64))
        return Views(views=(keys,), groups={"sample": torch.from_numpy(draw.indices)})


def test_a_dataset_that_draws_gets_the_keys_of_its_samples() -> None:
    made = ResumableLoader(Drawn(), ShuffledBatches(10, 4, seed=3))
    one, again = (epochs(made, 2) for _ in range(2))
    keys = [
        {int(i): int(k) for each in epoch for i, k in zip(each.groups["sample"], each.views[0], strict=True)}
        for epoch in one
    ]
    assert len(set(keys[0].values())) == 10
    assert all(keys[0][i] != keys[1][i] for i in range(10))
    for before, after in zip(one, again, strict=True):
        assert_same(before, after)


def test_a_dataset_that_fetches_no_batches_needs_a_collate_function() -> None:
    with pytest.raises(TypeError, match=r"list has no batch\(indices\) or fetch\(draw\) method; give a"):
        ResumableLoader([1, 2], OrderedBatches(np.arange(2), 2))


@pytest.mark.parametrize("size", [0, -3])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"a batch size is at least 1, got {size}"):
        ShuffledBatches(10, size, seed=0)


def test_dropping_the_only_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch size 8 with only 5 samples .* at most 5"):
        ShuffledBatches(5, 8, seed=0, drop_last=True)


def test_starting_after_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="an epoch has 5 batches; cannot start at batch 5"):
        loader().start(0, 5)


class Uneven:
    seed = 0

    def batches(self, epoch: int) -> list[np.ndarray]:
        return [np.arange(2)] * (epoch + 1)


def test_a_plan_with_another_number_of_batches_each_epoch_is_refused() -> None:
    with pytest.raises(ValueError, match="Uneven gave 2 batches for epoch 1 and 1 for epoch 0"):
        epochs(loader(plan=Uneven()), 2)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_every_batch(world: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = epochs(loader(), 1)[0]
    shares = []
    for rank in range(world):
        monkeypatch.setattr("diptych.data.loading.process_of", lambda rank=rank: (rank, world))
        shares.append(epochs(loader(), 1)[0])
        assert_same(epochs(loader(shared=False), 1)[0], whole)
    for number, batch in enumerate(whole):
        parts = [share[number].groups["sample"] for share in shares]
        assert torch.equal(torch.cat(parts), batch.groups["sample"])
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.data.loading.process_of", lambda: (0, 4))
    with pytest.raises(ConfigError, match="a batch of 3 samples cannot be shared by 4 processes"):
        epochs(loader(), 1)
