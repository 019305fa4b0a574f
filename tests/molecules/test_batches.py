"""Batches of similar molecules: a pure function of seed and epoch that serves every molecule once."""

from __future__ import annotations

import numpy as np
import pytest

from diptych_molecules.batches import SimilarBatches

CLUSTERS = np.repeat(np.arange(10), [1, 3, 7, 20, 9, 30, 2, 2, 11, 16])  # 101 molecules


def plan(seed: int = 0, batch_size: int = 8) -> SimilarBatches:
    order = np.random.default_rng(9).permutation(len(CLUSTERS))
    return SimilarBatches(1000 + order, CLUSTERS[order], batch_size=batch_size, seed=seed)


@pytest.mark.parametrize("batch_size", [2, 8, 64, 200])
def test_every_molecule_once_an_epoch_and_as_many_batches_in_each(batch_size: int) -> None:
    first = plan(batch_size=batch_size)
    alone = len(CLUSTERS) % batch_size == 1
    for epoch in range(3):
        batches = first.batches(epoch)
        assert len(batches) == -(-len(CLUSTERS) // batch_size) - alone
        served = np.sort(np.concatenate(batches))
        assert len(np.unique(served)) == len(served) == len(CLUSTERS) - alone
        assert set(served) <= set(range(1000, 1000 + len(CLUSTERS)))


def test_seed_and_epoch_decide_all() -> None:
    for one, other in zip(plan().batches(3), plan().batches(3), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(plan().batches(0), plan().batches(1), strict=True))
    assert any(
        (one != other).any() for one, other in zip(plan(0).batches(0), plan(1).batches(0), strict=True)
    )


def test_a_cluster_stays_together_and_its_batches_are_redrawn() -> None:
    mates = []
    for epoch in range(2):
        order = np.concatenate(plan(batch_size=10).batches(epoch)) - 1000
        codes = CLUSTERS[order]
        runs = 1 + np.count_nonzero(np.diff(codes))
        assert runs == 10
        mates.append({frozenset(batch.tolist()) for batch in plan(batch_size=10).batches(epoch)})
    assert not mates[0] & mates[1]
