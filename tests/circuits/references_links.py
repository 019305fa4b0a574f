"""The enclosing subgraph of a link by breadth-first search over sets."""

from __future__ import annotations

from references_encodings import breadth_first


def enclosing(
    edges: list[tuple[int, int]], pin: int, other: int, hops: int
) -> tuple[set[int], set[tuple[int, int]]]:
    """Nodes within some hops of either end, and the edges between them but for the link's own."""
    near = {
        node
        for end in (pin, other)
        for node, distance in breadth_first(edges, end).items()
        if distance <= hops
    }
    own = {(pin, other), (other, pin)}
    return near, {edge for edge in edges if set(edge) <= near and edge not in own}
