"""Sampled neighbourhoods: the whole graph where the limit is large, uniform where it is not."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from references_graphs import breadth_first, induced

from diptych.errors import DataError
from diptych.graphs.neighbours import Adjacency, sample_neighbours


def random_edges(nodes, count, seed=0):
    return np.random.default_rng(seed).integers(0, nodes, (2, count))


def listed(edges):
    return [tuple(each) for each in edges.T.tolist()]


def ends(found):
    return found.nodes[found.edges]


@pytest.mark.parametrize("hops", [0, 1, 2, 3])
@pytest.mark.parametrize("limit", [None, 10**6])
def test_without_a_limit_it_is_a_breadth_first_search(hops, limit):
    edges = random_edges(60, 90)  # with loops, parallel edges and nodes without any
    found = sample_neighbours(
        Adjacency.of(edges, 60), np.array([3, 17, 3]), hops=hops, limit=limit, disjoint=False, key=1
    )
    nodes, used = breadth_first(listed(edges), [3, 17], hops)
    assert found.nodes.tolist() == sorted(nodes)
    assert Counter(found.edge_ids.tolist()) == used
    assert (ends(found) == edges[:, found.edge_ids]).all()
    assert found.nodes[found.roots].tolist() == [3, 17, 3]
    assert not found.owner.any()


@pytest.mark.parametrize("kind", ["sampled", "induced"])
def test_disjoint_subgraphs_are_those_of_the_owners_alone(kind):
    edges = random_edges(80, 140, seed=2)
    roots, owners = np.array([5, 9, 5, 40]), np.array([0, 0, 2, 1])
    found = sample_neighbours(
        Adjacency.of(edges, 80), roots, hops=2, limit=None, disjoint=True, key=0, owners=owners, edges=kind
    )
    assert (np.diff(found.owner) >= 0).all()
    assert found.nodes[found.roots].tolist() == roots.tolist()
    assert found.owner[found.roots].tolist() == owners.tolist()
    assert (found.owner[found.edges[0]] == found.owner[found.edges[1]]).all()
    for owner in range(3):
        nodes, used = breadth_first(listed(edges), roots[owners == owner].tolist(), 2)
        if kind == "induced":
            used = induced(listed(edges), nodes)
        assert found.nodes[found.owner == owner].tolist() == sorted(nodes)
        assert Counter(found.edge_ids[found.owner[found.edges[0]] == owner].tolist()) == used


def test_induced_edges_of_a_hub_are_looked_up_and_those_of_others_read():
    hub = np.stack([np.arange(1, 500), np.zeros(499, np.int64)])
    edges = np.concatenate([hub, hub[::-1], [[3, 3, 4, 0], [0, 4, 3, 0]]], axis=1)  # one parallel, one loop
    found = sample_neighbours(
        Adjacency.of(edges, 500), np.array([0]), hops=1, limit=20, disjoint=False, key=3, edges="induced"
    )
    assert len(found.nodes) in (20, 21)  # the hub may draw its loop
    assert Counter(found.edge_ids.tolist()) == induced(listed(edges), set(found.nodes.tolist()))


def test_every_set_of_neighbours_is_as_likely():
    degree, limit, draws = 6, 3, 20000
    copies = 50  # roots of the same kind, to draw many at once
    edges = np.stack([np.tile(np.arange(degree), copies), degree + np.repeat(np.arange(copies), degree)])
    adjacency = Adjacency.of(edges, degree + copies)
    counts: Counter[tuple[int, ...]] = Counter()
    for key in range(draws // copies):
        roots = degree + np.arange(copies)
        found = sample_neighbours(adjacency, roots, hops=1, limit=limit, disjoint=True, key=key)
        sources, targets = ends(found)
        drawn = sources[np.lexsort((sources, targets))].reshape(copies, limit)
        counts.update(map(tuple, drawn.tolist()))
    possible = list(combinations(range(degree), limit))
    expected = draws / len(possible)
    statistic = sum((counts[each] - expected) ** 2 / expected for each in possible)
    assert sum(counts.values()) == draws
    assert sum(counts[each] for each in possible) == draws
    assert statistic < 43.8  # the 0.999 quantile of chi squared with 19 degrees of freedom


def test_the_same_key_gives_the_same_and_another_key_another():
    adjacency = Adjacency.of(random_edges(200, 4000), 200)

    def sample(key):
        return sample_neighbours(adjacency, np.arange(5), hops=2, limit=4, disjoint=True, key=key)

    assert all((a == b).all() for a, b in zip(sample(7), sample(7), strict=True))
    assert sample(7).edge_ids.tolist() != sample(8).edge_ids.tolist()


def test_a_disjoint_subgraph_does_not_depend_on_the_rest_of_the_batch():
    adjacency = Adjacency.of(random_edges(200, 4000), 200)
    alone = sample_neighbours(adjacency, np.array([11]), hops=2, limit=4, disjoint=True, key=5)
    among = sample_neighbours(adjacency, np.array([30, 11, 12]), hops=2, limit=4, disjoint=True, key=5)
    assert among.nodes[among.owner == 1].tolist() == alone.nodes.tolist()
    own = among.owner[among.edges[1]] == 1
    assert sorted(among.edge_ids[own].tolist()) == sorted(alone.edge_ids.tolist())


def test_no_node_draws_more_than_the_limit_and_no_edge_twice():
    edges = random_edges(300, 9000, seed=4)
    adjacency = Adjacency.of(edges, 300)
    found = sample_neighbours(adjacency, np.arange(7), hops=3, limit=5, disjoint=False, key=2)
    assert np.bincount(found.edges[1]).max() == 5
    assert len(set(found.edge_ids.tolist())) == len(found.edge_ids)


@pytest.mark.parametrize("disjoint", [True, False])
def test_no_roots_and_graphs_without_edges(disjoint):
    adjacency = Adjacency.of(np.zeros((2, 0), np.int64), 4)
    none = sample_neighbours(adjacency, np.zeros(0, np.int64), hops=2, limit=3, disjoint=disjoint, key=0)
    assert none.nodes.shape == (0,)
    assert none.edges.shape == (2, 0)
    some = sample_neighbours(adjacency, np.array([2, 0]), hops=2, limit=3, disjoint=disjoint, key=0)
    assert sorted(some.nodes.tolist()) == [0, 2]
    assert some.edges.shape == (2, 0)
    assert some.nodes[some.roots].tolist() == [2, 0]


def test_the_work_of_a_call_does_not_grow_with_a_hub():
    """Arrays as long as the hub's edges or as the graph would be a thousand times those of the sample."""
    import tracemalloc

    nodes = 200_000
    spokes = np.arange(1, nodes)
    adjacency = Adjacency.of(np.stack([spokes, np.zeros_like(spokes)]), nodes)
    roots = np.array([0])
    tracemalloc.start()
    for kind in ("sampled", "induced"):
        sample_neighbours(adjacency, roots, hops=2, limit=10, disjoint=True, key=0, edges=kind)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * nodes / 10


def test_bad_input_is_named():
    with pytest.raises(DataError, match=r"edges name nodes 0 to 5, but there are 5, 0 to 4"):
        Adjacency.of(np.array([[0], [5]]), 5)
    with pytest.raises(DataError, match=r"edges must be integers \(2, E\), got float64"):
        Adjacency.of(np.zeros((2, 3)), 5)
    adjacency = Adjacency.of(np.array([[0], [1]]), 2)
    with pytest.raises(DataError, match=r"roots name nodes -1 to 0, but there are 2"):
        sample_neighbours(adjacency, np.array([0, -1]), hops=1, limit=1, disjoint=True, key=0)
    with pytest.raises(DataError, match=r"owners must be one number from 0 on for each of the 2 roots"):
        sample_neighbours(
            adjacency, np.array([0, 1]), hops=1, limit=1, disjoint=True, key=0, owners=np.array([0])
        )
    with pytest.raises(ValueError, match="limit of neighbours must be at least 1"):
        sample_neighbours(adjacency, np.array([0]), hops=1, limit=0, disjoint=True, key=0)
    with pytest.raises(ValueError, match="hops must be at least 0"):
        sample_neighbours(adjacency, np.array([0]), hops=-1, limit=1, disjoint=True, key=0)
