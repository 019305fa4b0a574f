"""Small random graphs for tests."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diptych.graphs.batch import GraphBatch


def random_batch(sizes=(5, 8, 1, 6), *, density=0.4, features=3, codes=None, edge_features=None, seed=0):
    """Undirected graphs without loops; double precision unless features are codes."""
    random = np.random.default_rng(seed)
    edges, start = [], 0
    for size in sizes:
        upper = np.argwhere(np.triu(random.random((size, size)) < density, 1))
        edges += [(start + a, start + b) for a, b in upper] + [(start + b, start + a) for a, b in upper]
        start += size
    order = random.permutation(len(edges))
    ends = torch.tensor(np.array(edges).reshape(-1, 2)[order].T.copy(), dtype=torch.int64)
    m, e = sum(sizes), ends.shape[1]
    nodes = (
        torch.tensor(random.normal(size=(m, features)))
        if codes is None
        else torch.tensor(np.stack([random.integers(0, size, m) for size in codes], 1))
    )
    return GraphBatch(
        nodes=nodes,
        edges=ends,
        edge_features=None if edge_features is None else torch.tensor(random.normal(size=(e, edge_features))),
        graph=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        graphs=len(sizes),
    )


def dense_adjacency(batch):
    """(m, m), entry [target, source] counts edges."""
    matrix = torch.zeros(len(batch.nodes), len(batch.nodes), dtype=torch.float64)
    for source, target in batch.edges.T.tolist():
        matrix[target, source] += 1
    return matrix


def pairs_of(batch):
    """The edges as tuples."""
    return list(map(tuple, batch.edges.T.tolist()))


def permuted(batch, seed=0):
    """The batch with the nodes of every graph in another order, and where each old row went."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.empty(len(batch.nodes), dtype=torch.int64)
    for graph in range(batch.graphs):
        rows = (batch.graph == graph).nonzero()[:, 0]
        place[rows] = rows[torch.randperm(len(rows), generator=generator)]
    order = torch.randperm(batch.edges.shape[1], generator=generator)
    features = None if batch.edge_features is None else batch.edge_features[order]
    return (
        batch._replace(
            nodes=torch.empty_like(batch.nodes).index_copy(0, place, batch.nodes),
            edges=place[batch.edges][:, order],
            edge_features=features,
            roots=None if batch.roots is None else place[batch.roots],
        ),
        place,
    )


class Largest(TorchDispatchMode):
    """Watches every operation of torch, and finds how many numbers the largest tensor has that one makes."""

    def __init__(self):
        super().__init__()
        self.found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        # A view such as an expanded row takes no memory: what counts is what lies behind it.
        sizes = [
            each.untyped_storage().nbytes() // max(1, each.element_size())
            for each in tree_leaves(made)
            if isinstance(each, torch.Tensor)
        ]
        self.found = max(self.found, *sizes, 0)
        return made
