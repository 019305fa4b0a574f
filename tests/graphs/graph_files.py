"""Files of small random graphs, for tests."""

from __future__ import annotations

import networkx
import numpy as np
import torch
from torch_geometric.data import Data


def random_data(seed=0, n=6, width=3, codes=False, **more):
    """An undirected graph with n to 2 n edges, both directions of each."""
    random = np.random.default_rng(seed)
    graph = networkx.gnm_random_graph(n, n + 2, seed=seed)
    ends = torch.tensor(list(graph.edges), dtype=torch.int64).reshape(-1, 2).T
    x = random.integers(0, 5, (n, width)) if codes else random.normal(size=(n, width)).astype(np.float32)
    return Data(x=torch.tensor(x), edge_index=torch.cat([ends, ends.flip(0)], 1), **more)


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def random_network(seed=0, n=6):
    """The same kind of graph for NetworkX, with attributes of nodes, edges and the graph."""
    random = np.random.default_rng(seed)
    graph = networkx.gnm_random_graph(n, n + 2, seed=seed)
    for node in graph.nodes:
        graph.nodes[node].update(
            mass=float(random.normal()), kind=int(random.integers(3)), role=f"r{node % 2}"
        )
    for a, b in graph.edges:
        graph.edges[a, b]["length"] = float(random.random())
    graph.graph["activity"] = seed % 2
    return graph
