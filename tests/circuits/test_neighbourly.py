"""Hand-made features of nodes and pairs, against plain breadth-first searches and sets."""

from collections import deque

import numpy as np
from circuit_arrays import random_circuits

from diptych_circuits.evaluated import node_statistics, surroundings_of
from diptych_circuits.neighbourly import FARTHEST, hops, pair_features
from diptych_circuits.schema import Kind

CIRCUITS = random_circuits(netlists=3, nets=12, devices=6, seed=1)


def neighbours_of(circuits):
    found = {node: set() for node in range(len(circuits))}
    for source, target in circuits.edges.T.tolist():
        found[source].add(target)
    return found


def searched(circuits, start):
    """Hops from one node to all that it reaches."""
    neighbours, distance, queue = neighbours_of(circuits), {start: 0}, deque([start])
    while queue:
        node = queue.popleft()
        for other in neighbours[node]:
            if other not in distance:
                distance[other] = distance[node] + 1
                queue.append(other)
    return distance


def all_pairs(circuits):
    generator = np.random.default_rng(0)
    return generator.integers(0, len(circuits), (2, 400))


def test_hops_are_those_of_a_breadth_first_search():
    first, second = all_pairs(CIRCUITS)
    expected = [
        min(searched(CIRCUITS, a).get(b, FARTHEST + 1), FARTHEST + 1)
        for a, b in zip(first.tolist(), second.tolist(), strict=True)
    ]
    found = hops(surroundings_of(CIRCUITS), first, second)
    assert found.tolist() == expected
    assert len(set(expected)) > 4


def devices_and_nets(circuits):
    """The devices and nets that every node touches, as sets."""
    neighbours = neighbours_of(circuits)
    devices, nets = {}, {}
    for node in range(len(circuits)):
        kind = circuits.kind[node]
        near = {node} if kind != Kind.PIN else neighbours[node]
        pins = neighbours[node] if kind != Kind.PIN else set()
        near = near.union(*(neighbours[pin] for pin in pins))
        devices[node] = {each for each in near if circuits.kind[each] == Kind.DEVICE}
        nets[node] = {each for each in near if circuits.kind[each] == Kind.NET}
        if kind == Kind.DEVICE:
            devices[node] = {node}
        if kind == Kind.NET:
            nets[node] = {node}
    return devices, nets


def test_devices_and_nets_in_common_are_those_of_sets():
    first, second = all_pairs(CIRCUITS)
    devices, nets = devices_and_nets(CIRCUITS)
    features = pair_features(surroundings_of(CIRCUITS), first, second)
    for row, a, b in zip(features, first.tolist(), second.tolist(), strict=True):
        assert np.isclose(row[-2], np.log1p(len(devices[a] & devices[b])))
        assert bool(row[-1]) == bool(nets[a] & nets[b])


def test_features_of_a_pair_do_not_depend_on_its_order():
    first, second = all_pairs(CIRCUITS)
    around = surroundings_of(CIRCUITS)
    assert np.array_equal(pair_features(around, first, second), pair_features(around, second, first))


def test_statistics_of_a_pin_hold_those_of_its_device_and_its_net():
    around = surroundings_of(CIRCUITS)
    statistics = node_statistics(CIRCUITS, around)
    devices, nets = devices_and_nets(CIRCUITS)
    pin = int(CIRCUITS.where(Kind.PIN)[5])
    assert around.devices[pin].indices.tolist() == sorted(devices[pin])
    assert around.nets[pin].indices.tolist() == sorted(nets[pin])
    width = np.log1p(CIRCUITS.column("W")[min(devices[pin])])
    assert np.isclose(statistics[pin], width).any()


def test_statistics_do_not_depend_on_other_netlists():
    one = random_circuits(netlists=1, nets=12, devices=6, seed=1)
    alone = pair_features(surroundings_of(one), *np.array([[0, 3], [5, 14]]))
    among = pair_features(surroundings_of(CIRCUITS), *np.array([[0, 3], [5, 14]]))
    assert np.array_equal(alone, among)
