"""The recipe of the graphs domain: its typed signature is the YAML and the command line of every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from diptych.data.assemble import numbers_of
from diptych.data.folder import expand
from diptych.data.identity import Split
from diptych.data.loading import Draw, OrderedBatches, ResumableLoader, ShuffledBatches, sample_keys
from diptych.errors import ConfigError
from diptych.graphs.propagation import Smoothed
from diptych.method import MethodBuilder, OptimizerFactory, ScheduleFactory
from diptych.study import Indices, Study
from diptych.types import Views
from diptych_graphs.columns import Columns
from diptych_graphs.features import graph_statistics, node_statistics
from diptych_graphs.settings import Label, Level, Loading, Neighbours, Shape, Simulation, Source, Unit
from diptych_graphs.simulate import simulate
from diptych_graphs.source import Prepared, prepare


class WholeGraphs:
    """Graphs as samples."""

    def __init__(self, prepared: Prepared) -> None:
        self.store = prepared.store
        self.units = numbers_of(prepared.samples.ids["patient"])

    def batch(self, indices: Indices) -> Views:
        """One view, a GraphBatch, and the ids of graphs ("sample"), units ("patient") and nodes ("part")."""
        view, nodes = self.store.whole(indices)
        groups = {"sample": indices, "patient": self.units[indices], "part": nodes}
        return Views(
            (view,), {name: torch.from_numpy(np.asarray(ids, np.int64)) for name, ids in groups.items()}
        )


class Nodes:
    """Nodes as samples: the roots of their graphs, or of sampled surroundings that every epoch draws anew."""

    def __init__(self, prepared: Prepared, neighbours: Neighbours | None) -> None:
        self.store, self.neighbours = prepared.store, neighbours
        self.units = numbers_of(prepared.samples.ids["patient"])

    def batch(self, indices: Indices) -> Views:
        """With surroundings that a node has whatever shares its batch: for embedding."""
        return self._views(indices, 0, disjoint=True)

    def fetch(self, draw: Draw) -> Views:
        """With surroundings drawn for this batch: for training."""
        key = int(sample_keys(draw.seed, draw.epoch, np.array([draw.batch]))[0] >> np.uint64(1))
        return self._views(
            draw.indices, key, disjoint=self.neighbours is not None and self.neighbours.disjoint
        )

    def _views(self, roots: Indices, key: int, *, disjoint: bool) -> Views:
        if self.neighbours is not None:
            hops, limit = self.neighbours.hops, self.neighbours.limit
            view, nodes = self.store.around(roots, hops=hops, limit=limit, disjoint=disjoint, key=key)
        else:
            graphs = np.unique(self.store.graph_of[roots])
            view, nodes = self.store.whole(graphs)
            view = view._replace(roots=torch.from_numpy(np.searchsorted(nodes, roots)))
        groups = {"sample": roots, "patient": self.units[roots], "part": nodes}
        return Views(
            (view,), {name: torch.from_numpy(np.asarray(ids, np.int64)) for name, ids in groups.items()}
        )


class Embedded:
    """The nodes of a data set that is fetched whole, not drawn."""

    def __init__(self, nodes: Nodes) -> None:
        self.batch = nodes.batch


def build(
    *,
    data: Source,
    level: Level = "graph",
    unit: Unit = "auto",
    graph: Shape = Shape(),  # noqa: B008  (frozen)
    labels: Mapping[str, Label] = {},
    simulation: Simulation | None = None,
    split: Split = Split(),  # noqa: B008  (frozen)
    loader: Loading = Loading(),  # noqa: B008  (frozen)
    encoder: Callable[[Columns], nn.Module],
    smooth: int = 0,
    method: MethodBuilder,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
    features: Literal["statistics", "none"] = "none",
) -> Study:
    """Builds a study of graphs, or of the nodes of graphs.

    Args:
        data: Which graphs there are, whose they are, and the table that describes them.
        level: Whether samples are graphs or nodes.
        unit: With level node, what splits keep together: all nodes of a graph, or single nodes; auto takes nodes where
            there is one graph.
        graph: Attributes of nodes and edges.
        labels: What evaluators may predict, by name.
        simulation: Writes synthetic graphs to data.path before they are read; for demos and tests.
        split: Shares of units in train, validation and test.
        loader: How batches are made.
        encoder: The network, such as diptych_graphs.columns.GIN; it is given the columns of nodes and edges.
        smooth: Above 0, rows of nodes h become h + A^smooth h, A the normalised adjacency: what SGRL embeds.
        method: How the encoder is pretrained, such as diptych.graphs.recipes.GraphCL.
        optimizer: A torch optimiser.
        schedule: A learning-rate schedule of torch, or diptych.schedules.WarmupCosine.
        features: Statistics of graphs or nodes, for the classical rows of evaluation tables.
    """
    if level == "graph" and (loader.neighbours is not None or unit != "auto"):
        raise ConfigError("loader.neighbours and unit are for level node; leave them out, or set level: node")
    if simulation is not None:
        simulate(expand(data.path, "data.path"), **asdict(simulation))
    prepared = prepare(data, graph, labels, split, level=level, unit=unit, workers=loader.readers)
    of_nodes = level == "node"
    store = prepared.store
    samples = Nodes(prepared, loader.neighbours) if of_nodes else WholeGraphs(prepared)
    around = None if len(store.nodes) <= loader.whole else loader.neighbours
    clean = Embedded(Nodes(prepared, around)) if of_nodes else samples
    at_once = len(prepared.samples) if of_nodes and around is None else 256

    def training(indices: Indices, seed: int) -> ResumableLoader:
        size = len(indices) if loader.batch_size is None else min(loader.batch_size, len(indices))
        if len(indices) < 2:
            raise ConfigError(
                f"{len(indices)} {level}s to train on leave nothing to compare; check the split"
            )
        plan = ShuffledBatches(indices, size, seed, drop_last=len(indices) % size == 1)
        return ResumableLoader(samples, plan, workers=loader.workers)

    def plain(indices: Indices) -> ResumableLoader:
        return ResumableLoader(clean, OrderedBatches(indices, max(1, at_once)), shared=False)

    def new_encoder() -> nn.Module:
        made = encoder(store.columns)
        return Smoothed(made, smooth) if smooth else made

    statistics = node_statistics if of_nodes else graph_statistics
    return Study(
        samples=prepared.samples,
        new_encoder=new_encoder,
        method=partial(_method, method, optimizer, schedule),
        training=training,
        plain=plain,
        baseline=None if features == "none" else partial(statistics, store),
        summary=prepared.report,
    )


def _method(
    method: MethodBuilder, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, encoder: nn.Module
) -> Any:
    return method(encoder, optimizer, schedule)
