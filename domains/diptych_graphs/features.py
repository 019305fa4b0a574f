"""Statistics of graphs and of nodes, for the classical rows of evaluation tables."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diptych.study import Baseline, Indices
from diptych_graphs.store import Store

Floats = NDArray[np.float64]


def graph_statistics(store: Store, indices: Indices) -> Baseline:
    """Of graphs: nodes, edges per node, mean, deviation and maximum of degrees, mean and deviation of each column.

    Codes are counted, one column for each.
    """
    degree = np.bincount(store.edges[1], minlength=len(store.nodes)).astype(np.float64)
    columns = _numbers(store)
    rows = []
    for graph in indices.tolist():
        own = slice(store.starts[graph], store.starts[graph + 1])
        d, x = degree[own], columns[own]
        rows.append(np.concatenate([[len(d), d.mean(), d.std(), d.max()], x.mean(0), x.std(0)]))
    return Baseline(name="graph statistics", values=np.array(rows))


def node_statistics(store: Store, indices: Indices) -> Baseline:
    """Of nodes: their own columns, log(1 + degree), and the mean of their neighbours' columns."""
    columns = _numbers(store)
    degree = np.bincount(store.edges[1], minlength=len(store.nodes)).astype(np.float64)
    around = np.zeros_like(columns)
    np.add.at(around, store.edges[1], columns[store.edges[0]])
    around /= np.maximum(degree, 1)[:, None]
    values = np.concatenate([columns, np.log1p(degree)[:, None], around], 1)
    return Baseline(name="own and neighbours' attributes", values=values[indices])


def _numbers(store: Store) -> Floats:
    """Numbers as they are; codes one column for each."""
    if isinstance(store.columns.nodes, int):
        return np.asarray(store.nodes, np.float64)
    found = [store.nodes[:, [i]] == np.arange(size) for i, size in enumerate(store.columns.nodes)]
    return np.concatenate(found, 1).astype(np.float64)
