"""Neighbourhoods of chosen nodes of a large graph, sampled with NumPy where data is loaded.

The cost of a call grows with what is drawn: neither with the size of the graph nor with the degree of a hub.

Letters: n roots, m nodes and e edges of what is sampled, N and E those of the whole graph.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.data.loading import sample_keys, uniform_of_keys
from diptych.errors import DataError

Indices = NDArray[np.int64]
Edges = Literal["sampled", "induced"]


class Adjacency(NamedTuple):
    """The edges into every node, side by side: those into v are ``pointers[v]`` to ``pointers[v + 1]``."""

    pointers: Indices  # (N + 1,)
    sources: NDArray[Any]  # (E,) int32 or int64, ascending within a node
    edge_ids: NDArray[Any]  # (E,) int32 or int64: the column of ``edges`` each was

    @classmethod
    def of(cls, edges: NDArray[Any], nodes: int) -> Adjacency:
        """From directed edges (2, E), sources above targets; an undirected edge is there in both directions.

        Raises:
            DataError: edges that are not (2, E) integers, or name a node outside 0..nodes - 1.
        """
        edges = np.asarray(edges)
        if edges.ndim != 2 or len(edges) != 2 or not np.issubdtype(edges.dtype, np.integer):
            raise DataError(f"edges must be integers (2, E), got {edges.dtype} of shape {edges.shape}")
        if edges.size and not (edges.min() >= 0 and edges.max() < nodes):
            raise DataError(
                f"edges name nodes {edges.min()} to {edges.max()}, but there are {nodes}, 0 to {nodes - 1}"
            )
        order = np.argsort(edges[1].astype(np.int64) * nodes + edges[0], kind="stable")
        pointers = np.zeros(nodes + 1, np.int64)
        np.cumsum(np.bincount(edges[1], minlength=nodes), out=pointers[1:])
        return cls(pointers, edges[0][order].astype(_narrow(nodes)), order.astype(_narrow(edges.shape[1])))

    @property
    def nodes(self) -> int:
        """N."""
        return len(self.pointers) - 1

    def degrees(self, nodes: Indices) -> Indices:
        """How many edges go into each of the nodes."""
        return self.pointers[nodes + 1] - self.pointers[nodes]


class Neighbourhood(NamedTuple):
    """Nodes around the roots, in ascending order of owner and id, and the edges between them."""

    nodes: Indices  # (m,): their ids in the whole graph
    edges: Indices  # (2, e): sources and targets as positions in ``nodes``
    edge_ids: Indices  # (e,): the columns of the whole graph's edges
    owner: Indices  # (m,), ascending: which subgraph a node belongs to; all 0 where they share one
    roots: Indices  # (n,): positions in ``nodes``, in the order in which the roots were given


def sample_neighbours(
    adjacency: Adjacency,
    roots: Indices,
    *,
    hops: int,
    limit: int | None,
    disjoint: bool,
    key: int,
    owners: Indices | None = None,
    edges: Edges = "sampled",
) -> Neighbourhood:
    """From the roots on, every node reached draws at most ``limit`` of its in-neighbours, ``hops`` times.

    The edges of a node are drawn uniformly without replacement (all, where there are no more) when the node is
    first reached (Hamilton et al. 2017, GraphSAGE, algorithm 2, without its replacement). What a node draws is a
    function of the key, the node and the roots of its subgraph: with ``disjoint`` it does not depend on what
    else is in the batch.

    Args:
        adjacency: of the whole graph.
        roots: (n,) ids of nodes; they may repeat.
        hops: how far to go; 0 gives the roots alone.
        limit: of edges that a node draws; None for all.
        disjoint: one subgraph for every owner, in which a node of two subgraphs is there twice; else one for all.
        key: of the random numbers.
        owners: (n,), from 0 on: roots of one owner share a subgraph (the two ends of a link); by default every
            root is its own.
        edges: "sampled" are the drawn ones, "induced" all edges between the nodes of a subgraph.

    Raises:
        DataError: a root or owner that does not exist.
        ValueError: hops below 0 or a limit below 1.
    """
    roots = np.asarray(roots, np.int64)
    owners = _checked_owners(adjacency, roots, hops, limit, owners, disjoint)
    span = max(1, adjacency.nodes)
    codes = owners * span + roots  # a node of a subgraph as one number
    known = frontier = np.unique(codes)
    seeds = _seeds(key, roots, owners, disjoint)
    drawn = [_Drawn.none()]
    for _ in range(hops):
        drawn.append(_draw(adjacency, frontier, limit, seeds, key))
        reached = np.unique(drawn[-1].source)
        frontier = reached[~_contains(known, reached)]
        if not len(frontier):
            break
        known = np.sort(np.concatenate([known, frontier]), kind="stable")
    found = _induced(adjacency, known) if edges == "induced" else _Drawn.join(drawn)
    return Neighbourhood(
        nodes=known % span,
        edges=np.stack([np.searchsorted(known, found.source), np.searchsorted(known, found.target)]),
        edge_ids=adjacency.edge_ids[found.place].astype(np.int64),
        owner=known // span,
        roots=np.searchsorted(known, codes),
    )


class _Drawn(NamedTuple):
    """Edges with the codes of their ends and their places in the adjacency, each (e,)."""

    source: Indices
    target: Indices
    place: Indices

    @classmethod
    def none(cls) -> _Drawn:
        return cls(*(np.zeros(0, np.int64) for _ in range(3)))

    @classmethod
    def join(cls, drawn: list[_Drawn]) -> _Drawn:
        return cls(*(np.concatenate(each) for each in zip(*drawn, strict=True)))


def _draw(adjacency: Adjacency, frontier: Indices, limit: int | None, seeds: Any, key: int) -> _Drawn:
    """What every node of the frontier draws."""
    nodes = frontier % max(1, adjacency.nodes)
    degrees = adjacency.degrees(nodes)
    many = np.zeros(len(nodes), bool) if limit is None else degrees > limit
    few = np.flatnonzero(~many)
    which, place = _ranges(adjacency.pointers[nodes[few]], degrees[few])
    which = few[which]
    if limit is not None and many.any():
        chosen = np.flatnonzero(many)
        keys = seeds[frontier[chosen] // max(1, adjacency.nodes)] ^ sample_keys(key, 1, nodes[chosen])
        picked = (
            _without_replacement(degrees[chosen], limit, keys) + adjacency.pointers[nodes[chosen]][:, None]
        )
        which = np.concatenate([which, np.repeat(chosen, limit)])
        place = np.concatenate([place, picked.ravel()])
    return _edges_at(adjacency, frontier[which], place)


def _edges_at(adjacency: Adjacency, targets: Indices, place: Indices) -> _Drawn:
    """The edges at places of the adjacency, which go into targets (as codes)."""
    span = max(1, adjacency.nodes)
    return _Drawn(targets - targets % span + adjacency.sources[place].astype(np.int64), targets, place)


def _without_replacement(degrees: Indices, limit: int, keys: NDArray[np.uint64]) -> Indices:
    """``limit`` different numbers below each degree, (nodes, limit); every set is as likely.

    Floyd's algorithm (Bentley & Floyd 1987, "A sample of brilliance"), for all nodes at once: the j-th number is
    drawn below degree - limit + j + 1, and where it is taken already, the greatest of these is taken instead.
    """
    uniform = uniform_of_keys(keys, limit)
    picked = np.empty((limit, len(degrees)), np.int64)
    for j in range(limit):
        last = degrees - limit + j
        number = (uniform[:, j] * (last + 1)).astype(np.int64)
        picked[j] = np.where((picked[:j] == number).any(0), last, number)
    return picked.T


def _induced(adjacency: Adjacency, known: Indices) -> _Drawn:
    """All edges between nodes of one subgraph.

    A node of fewer edges than its subgraph has nodes reads its edges; a hub looks for every node of its subgraph.
    """
    span = max(1, adjacency.nodes)
    owner, nodes = known // span, known % span
    first = np.searchsorted(owner, owner)
    size = np.searchsorted(owner, owner, side="right") - first
    degrees = adjacency.degrees(nodes)
    hubs = degrees > size
    few = np.flatnonzero(~hubs)
    which, place = _ranges(adjacency.pointers[nodes[few]], degrees[few])
    read = _edges_at(adjacency, known[few[which]], place)
    read = _Drawn(*(each[_contains(known, read.source)] for each in read))
    if not hubs.any():
        return read
    chosen = np.flatnonzero(hubs)
    which, member = _ranges(first[chosen], size[chosen])
    hub = chosen[which]
    start = _first_not_below(adjacency, nodes[hub], nodes[member])
    stop = _first_not_below(adjacency, nodes[hub], nodes[member] + 1)
    which, place = _ranges(start, stop - start)
    return _Drawn.join([read, _edges_at(adjacency, known[hub[which]], place)])


def _first_not_below(adjacency: Adjacency, targets: Indices, sources: Indices) -> Indices:
    """Where in the edges into each target the first source stands that is not below the given one."""
    low, high = adjacency.pointers[targets], adjacency.pointers[targets + 1]
    while (low < high).any():
        middle = (low + high) // 2
        inside = low < high
        below = np.zeros(len(low), bool)
        below[inside] = adjacency.sources[middle[inside]] < sources[inside]
        low, high = np.where(below, middle + 1, low), np.where(below | ~inside, high, middle)
    return low


def _ranges(starts: Indices, lengths: Indices) -> tuple[Indices, Indices]:
    """The numbers of the ranges start..start + length, one after the other, and which range each is of."""
    which = np.repeat(np.arange(len(starts)), lengths)
    before = np.cumsum(lengths) - lengths
    return which, np.arange(len(which)) - before[which] + starts[which]


def _contains(known: Indices, values: Indices) -> NDArray[np.bool_]:
    """Which values are among the ascending ``known``."""
    if not len(known):
        return np.zeros(len(values), bool)
    found = np.minimum(np.searchsorted(known, values), len(known) - 1)
    return np.asarray(known[found] == values)


def _seeds(key: int, roots: Indices, owners: Indices, disjoint: bool) -> NDArray[np.uint64]:
    """A random number for every owner, made of its roots; one for all where they share a subgraph."""
    seeds = np.zeros(int(owners.max()) + 1 if len(owners) else 0, np.uint64)
    if disjoint:
        np.add.at(seeds, owners, sample_keys(key, 0, roots))
    return seeds


def _checked_owners(
    adjacency: Adjacency,
    roots: Indices,
    hops: int,
    limit: int | None,
    owners: Indices | None,
    disjoint: bool,
) -> Indices:
    if hops < 0:
        raise ValueError(f"hops must be at least 0, got {hops}")
    if limit is not None and limit < 1:
        raise ValueError(f"a limit of neighbours must be at least 1 (or None for all), got {limit}")
    if roots.ndim != 1:
        raise DataError(f"roots must be (n,), got {roots.shape}")
    if len(roots) and not (roots.min() >= 0 and roots.max() < adjacency.nodes):
        raise DataError(
            f"roots name nodes {roots.min()} to {roots.max()}, but there are {adjacency.nodes}, "
            f"0 to {adjacency.nodes - 1}"
        )
    if not disjoint:
        return np.zeros(len(roots), np.int64)
    if owners is None:
        return np.arange(len(roots))
    owners = np.asarray(owners, np.int64)
    if owners.shape != roots.shape or (len(owners) and owners.min() < 0):
        raise DataError(
            f"owners must be one number from 0 on for each of the {len(roots)} roots, got shape {owners.shape}"
        )
    return owners


def _narrow(below: int) -> type[np.int32] | type[np.int64]:
    return np.int32 if below <= np.iinfo(np.int32).max else np.int64
