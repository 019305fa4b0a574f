"""Synthetic graphs, drawn from known rules: for demos and tests, never for findings.

Letters: n nodes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import networkx
import numpy as np
import torch
from torch_geometric.data import Data

from diptych.data.atomic import replacing

FAMILIES = ("ring", "tree", "random")
BLOCKS = 4


def simulate(folder: Path, *, kind: Literal["families", "blocks"], count: int, seed: int) -> None:
    """Writes one file of synthetic graphs, ``synthetic.pt``, unless it is there: always the same for a seed."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    made = (
        [_family(i % 3, generator) for i in range(count)] if kind == "families" else _blocks(count, generator)
    )
    with replacing(folder / "synthetic.pt") as partial:
        torch.save(made, partial)


def _family(family: int, generator: np.random.Generator) -> Data:
    """A ring, a tree or a random graph of 12 to 30 nodes, filled up to as many edges whatever its family."""
    n = int(generator.integers(12, 31))
    draw = int(generator.integers(2**31))
    base = [
        networkx.cycle_graph(n),
        networkx.random_labeled_tree(n, seed=draw),
        networkx.gnm_random_graph(n, n, seed=draw),
    ][family]
    edges = {tuple(sorted(pair)) for pair in base.edges}
    while len(edges) < n + n // 8:
        a, b = sorted(generator.choice(n, 2, replace=False).tolist())
        edges.add((a, b))
    nodes = generator.integers(0, 4, n)
    return Data(
        x=torch.tensor(nodes)[:, None],
        edge_index=_directed(sorted(edges)),
        family=FAMILIES[family],
        edges_count=float(len(edges)),
    )


def _blocks(n: int, generator: np.random.Generator) -> list[Data]:
    """One graph whose nodes have most of their neighbours in their own block, and faint traces of it in x."""
    block = generator.integers(0, BLOCKS, n)
    same = block[:, None] == block[None]
    upper = np.triu(generator.random((n, n)) < np.where(same, 12 / n, 3 / n), 1)
    x = generator.normal(size=(n, 16)) + 0.5 * np.eye(BLOCKS, 16)[block]
    return [
        Data(
            x=torch.tensor(x, dtype=torch.float32),
            edge_index=_directed(np.argwhere(upper).tolist()),
            block=torch.tensor(block),
        )
    ]


def _directed(pairs: list[Any]) -> torch.Tensor:
    ends = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    return torch.cat([ends, ends.flip(0)], 1)
