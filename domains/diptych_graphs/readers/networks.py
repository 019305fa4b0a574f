"""Files of NetworkX: GraphML, GML and node-link JSON, one graph each."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx
import numpy as np

from diptych.data.readable import MALFORMED, Unreadable, malformed
from diptych_graphs.graph import Array, Raw

_BROKEN = (*MALFORMED, networkx.NetworkXException, SyntaxError)  # an XML fault is a SyntaxError


def load(path: Path) -> Sequence[Any]:
    """The one graph of a file. Raises Unreadable where there is none."""
    kind = path.suffix.lower()
    try:
        if kind == ".graphml":
            return [networkx.read_graphml(path)]
        if kind == ".gml":
            return [networkx.read_gml(path, label="id")]
        held = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(held, dict) or "nodes" not in held or not {"links", "edges"} & set(held):
            raise Unreadable("no graph: the file holds no node-link JSON (nodes, and links or edges)")
        return [networkx.node_link_graph(held, edges="links" if "links" in held else "edges")]
    except _BROKEN as error:
        raise malformed(f"{kind[1:]} file", error) from None


def raw_of(graph: Any) -> Raw:
    """One graph; an undirected edge becomes two directed ones, a loop stays one."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    listed = list(graph.edges(data=True))
    ends = np.array([(place[a], place[b]) for a, b, _ in listed], np.int64).reshape(-1, 2).T
    attributes = [found for _, _, found in listed]
    if not graph.is_directed():
        between = np.flatnonzero(ends[0] != ends[1])
        ends = np.concatenate([ends, ends[::-1, between]], 1)
        attributes += [attributes[i] for i in between]
    return Raw(
        nodes=len(place),
        edges=ends,
        of_nodes=_by_name([found for _, found in graph.nodes(data=True)]),
        of_edges=_by_name(attributes),
        of_graph=dict(graph.graph),
    )


def _by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, Array]:
    """Attributes as arrays: numbers or lists of them; others as objects, None where one has none."""
    names: Iterable[str] = dict.fromkeys(name for row in rows for name in row)
    return {name: _array([row.get(name) for row in rows]) for name in names}


def _array(values: Sequence[Any]) -> Array:
    if all(isinstance(value, bool | int | float) for value in values):
        return np.array(values)
    if all(isinstance(value, list | tuple) for value in values):
        widths = {len(value) for value in values}
        numbers = all(isinstance(one, bool | int | float) for value in values for one in value)
        if len(widths) == 1 and numbers:
            return np.array(values)
    array = np.empty(len(values), object)
    array[:] = list(values)
    return array
