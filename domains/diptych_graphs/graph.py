"""One graph as a file has it, and the columns of numbers that a config asks of it.

Letters: n nodes and e edges of a graph.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import Unreadable

Array = NDArray[Any]
Place = Literal["nodes", "edges"]


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A graph with its attributes by name, as they are in the file.

    A file that does not say of what an attribute is (torch-geometric) gives the same mapping three times.
    """

    nodes: int | None  # None: the file does not say
    edges: Array  # (2, e)
    of_nodes: Mapping[str, Array]
    of_edges: Mapping[str, Array]
    of_graph: Mapping[str, Any]  # arrays, numbers and texts


@dataclass(frozen=True, kw_only=True)
class Graph:
    """A graph that can be used: every number finite, every edge between nodes that are there."""

    nodes: Array  # (n, columns) float32, or int64 where all are whole numbers
    edges: NDArray[np.int64]  # (2, e)
    edge_features: Array | None  # (e, columns)
    labels: Mapping[str, Array]  # by attribute: (n,) for labels of nodes, (1,) for one of the graph
    isolated: bool  # it has no edges

    @property
    def content(self) -> str:
        """A hash of all its numbers but labels: equal for graphs that are the same, node by node."""
        digest = hashlib.sha256()
        for array in (self.nodes, self.edges, self.edge_features):
            if array is not None:
                digest.update(f"{array.dtype}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is taken of every graph: names of attributes.

    ``nodes`` () stands for the degree, ``labels`` are attributes of nodes where ``node_labels`` says so.
    """

    nodes: tuple[str, ...]
    edges: tuple[str, ...]
    labels: tuple[tuple[str, int | None], ...]  # attribute, and which of its numbers
    node_labels: bool
    both_ways: bool


def graph_of(raw: Raw, wanted: Wanted) -> Graph:
    """What is wanted of a graph. Raises Unreadable, with the reason, where it cannot be used."""
    n = _count(raw, wanted)
    if not n:
        raise Unreadable("empty graph: it has no nodes")
    edges = np.asarray(raw.edges)
    if edges.ndim != 2 or len(edges) != 2 or (edges.size and edges.dtype.kind not in "iu"):
        raise Unreadable(
            f"malformed edges: expected whole numbers (2, e), found {edges.dtype} of shape {edges.shape}"
        )
    edges = edges.astype(np.int64)
    if edges.size and not (edges.min() >= 0 and edges.max() < n):
        raise Unreadable(
            f"edge out of range: edges name nodes {edges.min()} to {edges.max()}, but there are {n}"
        )
    features = _columns(raw.of_edges, wanted.edges, edges.shape[1], "edges") if wanted.edges else None
    if wanted.both_ways:
        edges, features = _both_ways(edges, features)
    if wanted.nodes:
        nodes = _columns(raw.of_nodes, wanted.nodes, n, "nodes")
    else:
        nodes = np.log1p(np.bincount(edges[1], minlength=n))[:, None].astype(np.float32)
    return Graph(
        nodes=nodes,
        edges=edges,
        edge_features=features,
        labels={label_name(*each): _label(raw, *each, n, wanted.node_labels) for each in wanted.labels},
        isolated=not edges.size,
    )


def label_name(attribute: str, index: int | None) -> str:
    """How a label's attribute and which of its numbers are called together."""
    return attribute if index is None else f"{attribute}[{index}]"


def _count(raw: Raw, wanted: Wanted) -> int:
    if raw.nodes is not None:
        return raw.nodes
    for name in wanted.nodes:
        if name in raw.of_nodes:
            return len(raw.of_nodes[name])
    return int(raw.edges.max()) + 1 if raw.edges.size else 0


def _columns(attributes: Mapping[str, Array], names: Sequence[str], rows: int, place: Place) -> Array:
    """The attributes side by side: int64 where all are whole numbers, else float32."""
    found = []
    for name in names:
        if name not in attributes:
            raise Unreadable(f"missing attribute: {place} have no {name!r}")
        array = np.asarray(attributes[name])
        if array.dtype.kind not in "fiub":
            raise Unreadable(f"not numeric: the attribute {name!r} of {place} holds no numbers")
        if array.ndim not in (1, 2) or len(array) != rows:
            raise Unreadable(
                f"unequal rows: the attribute {name!r} has shape {array.shape}, but there are {rows} {place}"
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Unreadable(f"missing numbers: the attribute {name!r} of {place} has NaN or infinite values")
        found.append(array.reshape(rows, -1))
    whole = all(array.dtype.kind in "iu" for array in found)
    return np.concatenate(found, 1).astype(np.int64 if whole else np.float32)


def _both_ways(edges: NDArray[np.int64], features: Array | None) -> tuple[NDArray[np.int64], Array | None]:
    """Every edge with its reverse, those that have theirs already left alone."""
    n = int(edges.max()) + 1 if edges.size else 1
    there = np.unique(edges[0] * n + edges[1])
    lone = np.flatnonzero(~np.isin(edges[1] * n + edges[0], there))
    joined = np.concatenate([edges, edges[::-1, lone]], 1)
    return joined, None if features is None else np.concatenate([features, features[lone]])


def _label(raw: Raw, attribute: str, index: int | None, n: int, of_nodes: bool) -> Array:
    """The texts or numbers of a label: (n,) of nodes or (1,) of the graph; missing where there is none."""
    values = raw.of_nodes.get(attribute) if of_nodes else raw.of_graph.get(attribute)
    rows = n if of_nodes else 1
    if values is None:
        return np.full(rows, None, object)
    array = np.asarray(values)
    array = array.reshape(rows, -1) if array.size and array.size % rows == 0 else array.reshape(0, 1)
    if len(array) != rows or array.shape[1] <= (index or 0) or (index is None and array.shape[1] != 1):
        raise Unreadable(
            f"malformed label: the attribute {attribute!r} has {np.asarray(values).size} values for {rows} "
            f"{'nodes' if of_nodes else 'graph'}; say which one is meant (index)"
        )
    return np.asarray(array[:, index or 0])
