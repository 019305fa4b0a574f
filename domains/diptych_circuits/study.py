"""What the recipe of this domain builds: a study that also gives evaluators its circuits and graphs of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.data.loading import Draw, sample_keys
from diptych.graphs.batch import GraphBatch
from diptych.graphs.neighbours import Adjacency, sample_neighbours
from diptych.study import Indices, Study
from diptych.types import Views
from diptych_circuits.circuits import Circuits
from diptych_circuits.schema import CODES, COLUMN, COLUMNS, WIDTH, Kind
from diptych_circuits.settings import Netlist
from diptych_circuits.source import Prepared

Normalisation = Literal["maximum", "logarithm", "none"]
Scale = NDArray[np.float32]


def training_scale(circuits: Circuits, train: NDArray[np.bool_], kind: Normalisation) -> Scale:
    """(kinds, WIDTH) what the columns of each kind of node are divided by: maxima over the training netlists.

    1 for codes, for columns that are 0 there, and for kinds that are not there. With "logarithm" the maxima are those
    of log(1 + x).

    Args:
        circuits: The netlists.
        train: (netlists,) which of them are for training.
        kind: How columns are normalised.
    """
    scale = np.zeros((len(Kind), WIDTH), np.float32)
    for number in np.flatnonzero(train).tolist() if kind != "none" else []:
        rows = slice(*circuits.starts[number : number + 2].tolist())
        np.maximum.at(scale, circuits.kind[rows], np.abs(circuits.nodes[rows]))
    if kind == "logarithm":
        scale = np.log1p(scale)
    scale[:, [COLUMN[name] for name in CODES]] = 1
    return np.where(scale > 0, scale, np.float32(1))


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the surroundings of nodes are sampled.

    Args:
        hops: Steps from a root.
        limit: Neighbours that a node draws; None for all.
        disjoint: A subgraph for every root, or one that roots share.
        whole: Netlists of at most this many nodes are embedded whole rather than sampled.
    """

    hops: int = 4
    limit: int | None = 64
    disjoint: bool = False
    whole: int = 20_000


class Graphs:
    """Parts of circuits as batches, with normalised statistics.

    Args:
        circuits: All netlists.
        scale: (kinds, WIDTH) see :func:`training_scale`.
        scaling: How columns are normalised.
        sampling: How surroundings are sampled.
    """

    def __init__(self, circuits: Circuits, scale: Scale, scaling: Normalisation, sampling: Sampling) -> None:
        self.circuits = circuits
        self.scale = scale
        self.scaling = scaling
        self.sampling = sampling
        self.design = np.unique(np.array(circuits.designs, np.str_), return_inverse=True)[1].reshape(-1)

    @cached_property
    def adjacency(self) -> Adjacency:
        """Edges into every node, made once when it is first needed."""
        return Adjacency.of(self.circuits.edges, len(self.circuits))

    def rows(self, nodes: Indices) -> NDArray[np.float32]:
        """The node matrix at ``nodes``, (n, WIDTH), normalised."""
        rows = np.asarray(self.circuits.nodes[nodes], np.float32)
        if self.scaling == "logarithm":
            numbers = [COLUMN[name] for name in COLUMNS if name not in CODES]
            rows[:, numbers] = np.log1p(rows[:, numbers])
        return rows / self.scale[self.circuits.kind[nodes]]

    def whole(self, netlists: Indices) -> GraphBatch:
        """Whole netlists side by side, nodes and edges in the order of the circuits."""
        starts, ends = self.circuits.starts, self.edge_starts
        chosen = [np.arange(starts[i], starts[i + 1]) for i in netlists.tolist()]
        nodes = np.concatenate(chosen) if chosen else np.zeros(0, np.int64)
        sizes = np.array([len(each) for each in chosen], np.int64)
        shift = np.cumsum(sizes) - sizes - starts[netlists]
        columns = [slice(ends[i], ends[i + 1]) for i in netlists.tolist()]
        edges = [self.circuits.edges[:, each] + by for each, by in zip(columns, shift.tolist(), strict=True)]
        kinds = [self.circuits.edge_kind[each] for each in columns]
        return self._batch(
            nodes,
            np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1),
            np.concatenate([np.zeros(0, np.int8), *kinds]),
            np.repeat(np.arange(len(netlists)), sizes),
            len(netlists),
        )

    def surroundings(
        self, nodes: Indices, key: int = 0, *, owners: Indices | None = None, disjoint: bool | None = None
    ) -> tuple[GraphBatch, Indices]:
        """(the sampled surroundings of nodes with these as roots, the number of each of their nodes).

        Args:
            nodes: (n,) that are asked for; they may repeat.
            key: Of the random numbers.
            owners: (n,) nodes of one owner share a subgraph, as the two ends of a link do; implies disjoint.
            disjoint: A subgraph for every owner or root; by default as the study's loader has it.
        """
        apart = owners is not None or (self.sampling.disjoint if disjoint is None else disjoint)
        found = sample_neighbours(
            self.adjacency,
            np.asarray(nodes, np.int64),
            hops=self.sampling.hops,
            limit=self.sampling.limit,
            disjoint=apart,
            key=key,
            owners=owners,
        )
        # a shared sample falls apart into netlists: nodes ascend, so those of a netlist stand together
        graph = (
            found.owner if apart else np.unique(self.circuits.netlist[found.nodes], return_inverse=True)[1]
        )
        count = int(graph[-1]) + 1 if len(graph) else 0
        kinds = np.asarray(self.circuits.edge_kind)[found.edge_ids]
        batch = self._batch(found.nodes, found.edges, kinds, graph.reshape(-1), count, found.roots)
        return batch, found.nodes

    def neighbourhoods(self, nodes: Indices, owners: Indices | None = None) -> GraphBatch:
        """:meth:`surroundings` with key 0, the batch alone."""
        return self.surroundings(nodes, owners=owners)[0]

    @cached_property
    def edge_starts(self) -> Indices:
        """(netlists + 1,) first edge of each netlist."""
        owner = self.circuits.netlist[self.circuits.edges[0]]
        return np.searchsorted(owner, np.arange(len(self.circuits.netlists) + 1)).astype(np.int64)

    def fetch(self, draw: Draw) -> Views:
        """The sampled surroundings of the draw's nodes; a node's neighbours depend on seed, epoch and node alone."""
        key = int(sample_keys(draw.seed, draw.epoch, np.zeros(1, np.int64))[0] >> np.uint64(1))
        return self._views(draw.indices, *self.surroundings(draw.indices, key))

    def _views(self, roots: Indices, batch: GraphBatch, nodes: Indices) -> Views:
        netlist = np.asarray(self.circuits.netlist)[roots].astype(np.int64)
        return Views(
            views=(batch,),
            groups={
                "sample": torch.from_numpy(np.asarray(roots, np.int64)),
                "netlist": torch.from_numpy(netlist),
                "design": torch.from_numpy(self.design[netlist].astype(np.int64)),
                "part": torch.from_numpy(np.asarray(nodes, np.int64)),
            },
        )

    def _batch(
        self,
        nodes: Indices,
        edges: Indices,
        edge_kind: NDArray[np.int8],
        graph: Indices,
        graphs: int,
        roots: Indices | None = None,
    ) -> GraphBatch:
        return GraphBatch(
            nodes=torch.from_numpy(self.rows(nodes)),
            edges=torch.from_numpy(edges),
            edge_features=torch.from_numpy(edge_kind.astype(np.int64))[:, None],
            graph=torch.from_numpy(graph.astype(np.int64)),
            graphs=graphs,
            roots=None if roots is None else torch.from_numpy(roots),
        )


class Plain:
    """The same nodes without any chance: small netlists whole, so that a row does not depend on its batch."""

    def __init__(self, graphs: Graphs) -> None:
        self.graphs = graphs
        sizes = np.diff(graphs.circuits.starts)
        self.whole = int(sizes.max(initial=0)) <= graphs.sampling.whole

    def batch(self, indices: Indices) -> Views:
        """The nodes at ``indices`` as roots, in their order."""
        graphs, circuits = self.graphs, self.graphs.circuits
        if not self.whole:
            return graphs._views(indices, *graphs.surroundings(indices, disjoint=True))
        netlists = np.unique(np.asarray(circuits.netlist)[indices]).astype(np.int64)
        batch = graphs.whole(netlists)
        starts = circuits.starts
        nodes = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in netlists.tolist()])
        roots = np.searchsorted(nodes, indices)
        return graphs._views(indices, batch._replace(roots=torch.from_numpy(roots)), nodes)


@dataclass(frozen=True, kw_only=True)
class CircuitStudy(Study):
    """A study of circuits."""

    circuits: Circuits
    graphs: Graphs
    netlist: Netlist  # what is made of a netlist
    read: Callable[[str], Prepared]  # netlists at another path, as those of the study are read

    def whole(self, netlists: Indices) -> GraphBatch:
        """See :meth:`Graphs.whole`."""
        return self.graphs.whole(netlists)

    def surroundings(self, nodes: Indices, key: int = 0) -> tuple[GraphBatch, Indices]:
        """See :meth:`Graphs.surroundings`."""
        return self.graphs.surroundings(nodes, key)

    def neighbourhoods(self, nodes: Indices, owners: Indices | None = None) -> GraphBatch:
        """See :meth:`Graphs.neighbourhoods`."""
        return self.graphs.neighbourhoods(nodes, owners)
