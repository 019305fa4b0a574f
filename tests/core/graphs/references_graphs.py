"""Plain loops over plain graphs: what the vectorised code is compared with."""

from __future__ import annotations

import math
from collections import Counter


def breadth_first(edges, roots, hops):
    """(nodes, Counter of edge ids) within ``hops`` of the roots against the edges' direction."""
    reached, frontier, used = set(roots), set(roots), Counter()
    for _ in range(hops):
        found = set()
        for number, (source, target) in enumerate(edges):
            if target in frontier:
                used[number] += 1
                found.add(source)
        frontier = found - reached
        reached |= found
    return reached, used


def induced(edges, nodes):
    """Counter of the ids of all edges between the nodes."""
    return Counter(i for i, (source, target) in enumerate(edges) if source in nodes and target in nodes)


def normalised(edges, nodes):
    """D^-1/2 (A + I) D^-1/2 as nested lists, entry [target][source]."""
    matrix = [[float(i == j) for j in range(nodes)] for i in range(nodes)]
    for source, target in edges:
        matrix[target][source] += 1
    degree = [sum(row) for row in matrix]
    return [[matrix[i][j] / math.sqrt(degree[i] * degree[j]) for j in range(nodes)] for i in range(nodes)]
