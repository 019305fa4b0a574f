"""Distances in subgraphs by breadth-first search, one subgraph and anchor at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


def breadth_first(edges: Iterable[tuple[int, int]], start: int, deleted: int | None = None) -> dict[int, int]:
    """Hops from the start to every node that can be reached."""
    neighbours: dict[int, list[int]] = {}
    for source, target in edges:
        neighbours.setdefault(source, []).append(target)
    found, waiting = {start: 0}, deque([start])
    while waiting:
        node = waiting.popleft()
        for other in neighbours.get(node, []):
            if other != deleted and other not in found:
                found[other] = found[node] + 1
                waiting.append(other)
    return found


def dspd(edges: list[tuple[int, int]], nodes: int, anchors: list[int], farthest: int) -> list[list[int]]:
    """For one subgraph: each node's distances to the anchors, unreachable = farthest."""
    if len(anchors) == 1:
        anchors = anchors * 2
    distances = [breadth_first(edges, anchor) for anchor in anchors]
    return [[min(farthest, each.get(node, farthest)) for each in distances] for node in range(nodes)]


def drnl(edges: list[tuple[int, int]], nodes: int, source: int, destination: int, farthest: int) -> list[int]:
    """For one subgraph: each node's role."""
    to_source = breadth_first(edges, source, deleted=destination)
    to_destination = breadth_first(edges, destination, deleted=source)
    labels = []
    for node in range(nodes):
        a, b = (each.get(node, farthest) for each in (to_source, to_destination))
        if node in (source, destination):
            labels.append(1)
        elif max(a, b) >= farthest:
            labels.append(0)
        else:
            d = a + b
            labels.append(1 + min(a, b) + (d // 2) * (d // 2 + d % 2 - 1))
    return labels
