"""The recipe of the circuits domain: its typed signature is the YAML and the command line of every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from diptych.data.identity import Split
from diptych.data.labels import Label
from diptych.data.loading import OrderedBatches, ResumableLoader
from diptych.errors import ConfigError
from diptych.method import MethodBuilder, OptimizerFactory, ScheduleFactory
from diptych.study import Baseline, Indices, Samples
from diptych.words import Words
from diptych_circuits.circuits import Circuits
from diptych_circuits.ranges import BOUNDARIES, classes, range_of
from diptych_circuits.sampling import NetlistBatches, Order
from diptych_circuits.schema import DeviceType, Kind
from diptych_circuits.settings import Netlist, Source
from diptych_circuits.source import Prepared, prepare
from diptych_circuits.study import CircuitStudy, Graphs, Normalisation, Plain, Sampling, training_scale

WORDS = Words(unit="design", recording="netlist", sample="node")


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How batches are made: nodes are drawn, and around them their neighbourhood.

    Args:
        batch_size: Nodes that are drawn for a batch, over all processes.
        hops: Steps of the neighbourhood.
        limit: Neighbours that a node draws; null for all.
        disjoint: A subgraph for every node, or one that the nodes of a batch share.
        order: "netlist" draws the nodes of a netlist together, so that small netlists are whole; "random" draws from
            all netlists.
        kinds: Kinds of nodes that are drawn: net, device, pin.
        whole: For embedding, netlists of at most this many nodes are taken whole rather than sampled.
        workers: Processes that load batches.
        cache: Folder of graphs; by default DIPTYCH_CACHE or the user's cache folder.
        readers: Processes that read netlists; by default one per CPU.
    """

    batch_size: int = 1024
    hops: int = 4
    limit: int | None = 64
    disjoint: bool = False
    order: Order = "netlist"
    kinds: list[Literal["net", "device", "pin"]] | None = None
    whole: int = 20_000
    workers: int = 0
    cache: str | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(
                f"loader.batch_size is at least 2, since nodes are contrasted; got {self.batch_size}"
            )
        if self.hops < 0 or (self.limit is not None and self.limit < 1):
            raise ConfigError(
                f"loader.hops is at least 0 and loader.limit at least 1; got {self.hops} and {self.limit}"
            )
        if self.kinds is not None and not self.kinds:
            raise ConfigError("loader.kinds names at least one of net, device and pin")

    @property
    def sampling(self) -> Sampling:
        """How surroundings are sampled."""
        return Sampling(hops=self.hops, limit=self.limit, disjoint=self.disjoint, whole=self.whole)


def build(
    *,
    data: Source,
    netlist: Netlist = Netlist(),  # noqa: B008  (frozen)
    scaling: Normalisation = "maximum",
    labels: Mapping[str, Label] = {},
    split: Split = Split(),  # noqa: B008  (frozen)
    loader: Loading = Loading(),
    encoder: Callable[[], nn.Module],
    method: MethodBuilder,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
    features: Literal["statistics", "none"] = "none",
) -> CircuitStudy:
    """Builds a study of circuits, whose samples are nodes: nets, devices and pins.

    Args:
        data: Which netlists there are, and of which designs.
        netlist: What is made of a netlist.
        scaling: Columns of the node matrix are divided by their largest value over training designs (by kind of
            node), are logarithms divided by theirs, or are left as they are.
        labels: What evaluators may predict of a node beside ground, ground_class and device_type: labels of its
            netlist, by name.
        split: Shares of designs in train, validation and test.
        loader: How batches are made.
        encoder: The network, such as diptych_circuits.encoder.CircuitEncoder.
        method: How the encoder is pretrained, such as diptych.graphs.recipes.SGRL.
        optimizer: A torch optimiser.
        schedule: A learning-rate schedule of torch, or diptych.schedules.WarmupCosine.
        features: Statistics of nodes and of what is around them, for the classical rows of evaluation tables.
    """
    reading = partial(prepare, netlist=netlist, split=split, cache=loader.cache, workers=loader.readers)
    prepared = reading(data, labels=labels)
    circuits = prepared.circuits
    train = prepared.table["split"].to_numpy() == "train"
    graphs = Graphs(circuits, training_scale(circuits, train, scaling), scaling, loader.sampling)
    plain = Plain(graphs)

    def training(indices: Indices, seed: int) -> ResumableLoader:
        return ResumableLoader(graphs, _plan(circuits, loader, indices, seed), workers=loader.workers)

    def ordered(indices: Indices) -> ResumableLoader:
        return ResumableLoader(plain, OrderedBatches(indices, 4096 if plain.whole else 256), shared=False)

    return CircuitStudy(
        samples=samples_of(prepared, train),
        new_encoder=encoder,
        method=partial(_method, method, optimizer, schedule),
        training=training,
        plain=ordered,
        baseline=None if features == "none" else partial(_baseline, circuits),
        described=circuits.described,
        summary=prepared.report,
        circuits=circuits,
        graphs=graphs,
        netlist=netlist,
        read=lambda path: reading(replace(data, path=path, table=None), labels={}),
    )


def samples_of(prepared: Prepared, train: NDArray[np.bool_]) -> Samples:
    """One row a node. Ids and classes are categories, which take a byte or two where texts would take eight."""
    circuits = prepared.circuits
    netlist = np.asarray(circuits.netlist)
    ids = {name: _spread(prepared.table[name], netlist) for name in ("patient", "recording", "split")}
    ids["trial"] = ids["recording"]
    return Samples(
        ids=pd.DataFrame(ids),
        labels=pd.DataFrame({**node_labels(circuits, train), **_of_netlists(prepared.labels, netlist)}),
        manifest=prepared.manifest,
        quarantine=prepared.quarantine,
        words=WORDS,
    )


def node_labels(circuits: Circuits, train: NDArray[np.bool_]) -> dict[str, Any]:
    """What is known of single nodes: "device_type", and where parasitics are given "ground" and "ground_class" of nets.

    The range of "ground" is that of the training netlists.
    """
    kind = np.asarray(circuits.kind)
    types = np.where(kind == Kind.DEVICE, np.asarray(circuits.column("device_type")).astype(int) - 1, -1)
    names = [each.name.lower() for each in DeviceType if each != DeviceType.NONE]
    found: dict[str, Any] = {"device_type": _categories(types, names)}
    farad = np.where(kind == Kind.NET, circuits.ground, np.nan)
    known = farad[np.isfinite(farad) & train[circuits.netlist]]
    if len(known):
        label = range_of(known).label(farad)
        edges = (0.0, *BOUNDARIES, 1.0)
        steps = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
        found["ground"] = label
        found["ground_class"] = _categories(classes(label), steps)
    return found


def _spread(column: pd.Series[Any], netlist: NDArray[np.int32]) -> pd.Categorical:
    """A column of netlists over their nodes."""
    codes, categories = pd.factorize(column)
    return _categories(codes[netlist], list(categories))


def _categories(codes: NDArray[Any], names: list[str]) -> pd.Categorical:
    return pd.Categorical.from_codes(cast("Any", codes), pd.Index(names))  # its stubs know lists alone


def _of_netlists(labels: pd.DataFrame, netlist: NDArray[np.int32]) -> dict[str, Any]:
    return {
        str(name): values.to_numpy()[netlist] if values.dtype.kind == "f" else _spread(values, netlist)
        for name, values in labels.items()
    }


def _plan(circuits: Circuits, loader: Loading, indices: Indices, seed: int) -> NetlistBatches:
    if loader.kinds is not None:
        wanted = [int(Kind[name.upper()]) for name in loader.kinds]
        indices = indices[np.isin(np.asarray(circuits.kind)[indices], wanted)]
    if not len(indices):
        raise ConfigError(
            "there are no nodes to make batches of; check the split, its shares and loader.kinds"
        )
    return NetlistBatches(
        indices, np.asarray(circuits.netlist)[indices], loader.batch_size, seed, order=loader.order
    )


def _baseline(circuits: Circuits, indices: Indices) -> Baseline:
    from diptych_circuits.evaluated import STATISTICS, node_statistics, surroundings_of

    values = node_statistics(circuits, surroundings_of(circuits))[indices]
    return Baseline(name=f"statistics {STATISTICS}", values=values)


def _method(
    method: MethodBuilder, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, encoder: nn.Module
) -> Any:
    return method(encoder, optimizer, schedule)
