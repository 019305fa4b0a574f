"""Which couplings and nets are predicted, on which scale, and what is taken of the training designs alone."""

import re
from dataclasses import replace

import numpy as np
import pytest
from circuit_arrays import random_circuits

from diptych.errors import ConfigError, DataError
from diptych_circuits.evaluated import coupling_targets, ground_targets, net_of
from diptych_circuits.links_evaluated import with_negatives
from diptych_circuits.ranges import COUPLING
from diptych_circuits.schema import Kind
from diptych_circuits.targets import Targets, check_targets, decades, label_range, split_positions, within


def targets_of(farad, kind=None, splits=None, designs=None):
    n = len(farad)
    kind = np.zeros(n, np.int64) if kind is None else np.asarray(kind)
    splits = np.array(["train"] * n if splits is None else splits)
    return Targets(
        ends=np.arange(2 * n).reshape(n, 2),
        kind=kind,
        kinds=("pin-pin", "pin-net", "net-net"),
        symmetric=np.array([True, False, True]),
        farad=np.asarray(farad, np.float64),
        design=np.array([str(i) for i in range(n)] if designs is None else designs),
        **split_positions(splits),
    )


def test_the_range_of_labels_is_that_of_training_designs():
    targets = targets_of([1e-18, 1e-16, 1e-12, 1e-22], splits=["train", "train", "test", "validation"])
    limits = label_range(targets, "training")
    assert (limits.low, limits.high) == pytest.approx((1e-18, 1e-16))
    assert label_range(targets, "release") == COUPLING


def test_another_range_is_refused():
    with pytest.raises(ConfigError, match="label_range is 'training' or 'release'; got 'mine'"):
        label_range(targets_of([1e-18]), "mine")


def test_the_limits_of_the_release_are_strict():
    assert within(COUPLING, np.array([1e-21, 1.1e-21, 0.9e-15, 1e-15])).tolist() == [False, True, True, False]


def test_balanced_targets_have_as_many_of_each_kind_as_of_the_rarest():
    kind = [0] * 3 + [1] * 10 + [2] * 7
    targets = targets_of(np.full(20, 1e-17), kind)
    chosen = targets.balanced(np.arange(20), seed=1)
    assert np.bincount(np.array(kind)[chosen]).tolist() == [3, 3, 3]
    assert targets.balanced(np.arange(20), seed=1).tolist() == chosen.tolist()
    assert len(np.unique(np.concatenate([targets.balanced(np.arange(20), seed=s) for s in range(30)]))) > 15


def test_few_designs_are_whole_and_part_of_more():
    designs = np.repeat([f"d{i}" for i in range(10)], 4)
    targets = targets_of(np.full(40, 1e-17), designs=designs)
    few, more = (targets.few(targets.train, share, seed=0) for share in (0.2, 0.5))
    assert len(few) == 8
    assert set(few) < set(more)
    assert len(np.unique(designs[few])) == 2


def test_decades_hold_every_target_once():
    farad = np.array([2e-19, 3e-18, 9.9e-18, 1e-17, 5e-16])
    found = decades(farad, np.arange(5))
    assert [name for name, _ in found] == ["0.1 to 1 aF", "1 to 10 aF", "10 to 100 aF", "100 to 1000 aF"]
    assert [places.tolist() for _, places in found] == [[0], [1, 2], [3], [4]]


def test_netlists_without_parasitics_say_so():
    empty = targets_of([])
    with pytest.raises(
        DataError, match=re.escape("none of the 7 netlists has coupling capacitances: they hold no parasitic")
    ):
        check_targets(empty, "coupling capacitances", 7)


def test_no_held_out_design_with_targets_says_so():
    with pytest.raises(DataError, match="no test design has coupling capacitances; expected at least one"):
        check_targets(targets_of([1e-18]), "coupling capacitances", 1)


CIRCUITS = random_circuits(netlists=6, nets=6, devices=5, couplings=14)


class Some:
    """What targets are taken from: circuits and the split of each node."""

    def __init__(self, circuits):
        import pandas as pd

        splits = np.array(["train", "train", "train", "validation", "test", "test"])[circuits.netlist]
        ids = pd.DataFrame({"patient": [f"d{i}" for i in circuits.netlist], "split": splits})
        self.circuits, self.samples = circuits, type("Samples", (), {"ids": ids})


def test_couplings_have_the_split_of_their_design():
    targets = coupling_targets(Some(CIRCUITS))
    assert len(targets.train) == 3 * 14
    assert len(targets.test) == 2 * 14
    assert set(targets.design[targets.test]) == {"d4", "d5"}


def test_couplings_between_nets_are_sums_over_the_pins_on_them():
    targets = coupling_targets(Some(CIRCUITS), "nets")
    net = {}
    for source, target in CIRCUITS.edges.T.tolist():
        if CIRCUITS.kind[source] == Kind.NET:
            net[target] = source
    expected = {}
    found = CIRCUITS.couplings
    for a, b, farad in zip(found.first.tolist(), found.second.tolist(), found.farad.tolist(), strict=True):
        pair = tuple(sorted((net.get(a, a), net.get(b, b))))
        if pair[0] != pair[1]:
            expected[pair] = expected.get(pair, 0.0) + farad
    assert {
        tuple(ends): pytest.approx(farad)
        for ends, farad in zip(targets.ends.tolist(), targets.farad, strict=True)
    } == (expected)


def test_devices_and_pins_without_net_have_none():
    edges = CIRCUITS.edges
    pin = int(CIRCUITS.where(Kind.PIN)[0])
    cut = ~((edges == pin).any(0) & (CIRCUITS.kind[edges].min(0) == Kind.NET))
    found = net_of(replace(CIRCUITS, edges=edges[:, cut]))
    assert found[pin] == -1
    assert np.all(found[CIRCUITS.where(Kind.DEVICE)] == -1)
    assert np.all(found[CIRCUITS.where(Kind.PIN)[1:]] >= 0)


def test_ground_targets_are_nets_with_a_capacitance():
    ground = CIRCUITS.ground.copy()
    nets = CIRCUITS.where(Kind.NET)
    ground[nets[:2]] = np.nan
    ground[CIRCUITS.where(Kind.PIN)] = 1e-18
    targets = ground_targets(Some(replace(CIRCUITS, ground=ground)))
    assert targets.ends[:, 0].tolist() == nets[2:].tolist()


@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0])
def test_negative_pairs_are_of_the_same_kinds_in_the_same_netlist_and_do_not_couple(ratio):
    couplings = coupling_targets(Some(CIRCUITS))
    targets, labels = with_negatives(CIRCUITS, couplings, ratio, seed=0)
    negative = targets.ends[labels == 0]
    known = {frozenset(ends) for ends in couplings.ends.tolist()}
    assert not known & {frozenset(ends) for ends in negative.tolist()}
    assert len({frozenset(ends) for ends in negative.tolist()}) == len(negative)
    assert np.all(CIRCUITS.netlist[negative[:, 0]] == CIRCUITS.netlist[negative[:, 1]])
    assert np.array_equal((CIRCUITS.kind[negative] == Kind.NET).sum(1), targets.kind[labels == 0])
    assert not np.any(CIRCUITS.kind[negative] == Kind.DEVICE)
    wanted = ratio * len(couplings.ends)
    assert 0.7 * wanted < len(negative) <= wanted


def test_negative_pairs_have_the_split_and_design_of_their_netlist():
    couplings = coupling_targets(Some(CIRCUITS))
    targets, labels = with_negatives(CIRCUITS, couplings, 1.0, seed=0)
    for name, netlists in (("train", {0, 1, 2}), ("validation", {3}), ("test", {4, 5})):
        here = getattr(targets, name)
        here = here[labels[here] == 0]
        assert set(CIRCUITS.netlist[targets.ends[here, 0]]) == netlists
        assert set(targets.design[here]) == {f"d{number}" for number in netlists}


def test_where_all_pairs_couple_there_is_no_negative_one():
    full = random_circuits(netlists=2, nets=3, devices=1, couplings=21)
    with pytest.raises(DataError, match="all pairs of nodes couple in these netlists"):
        with_negatives(full, coupling_targets(Some(full)), 1.0, seed=0)
