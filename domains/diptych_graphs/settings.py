"""The sections of a config of graphs, but those of torch: data, graph, labels, loader and simulation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diptych.data import labels, source
from diptych.errors import ConfigError

Level = Literal["graph", "node"]
Unit = Literal["auto", "graph", "node"]


@dataclass(frozen=True, kw_only=True)
class Source(source.Source):
    """Which graphs there are, whose they are, and the table that describes them.

    Args:
        patient: Rule for what splits keep together, such as folder or header:NAME. The default takes every graph for
            itself, and graphs that are the same for one.
        trial: Not used by graphs.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trial is not None:
            raise ConfigError("data.trial: graphs have no trials; leave it out")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What is made of a graph.

    Args:
        nodes: Names of the attributes of nodes that go in, of one or more numbers each; an empty list stands for the
            logarithm of 1 + degree.
        edges: The same of edges; by default they carry nothing.
        codes: Whole numbers are codes that are looked up (true) or numbers (false); by default they are codes where
            all chosen attributes are whole numbers of at least 0 in all graphs.
        both_ways: Adds the reverse of every edge that has none; NetworkX's undirected graphs have both already.
        scale: "zscore" brings numbers of nodes to mean 0 and deviation 1 over the training graphs.
        max_quarantined: Largest share of graphs in quarantine, beyond which nothing is run.
    """

    nodes: list[str] = field(default_factory=lambda: ["x"])
    edges: list[str] = field(default_factory=list)
    codes: bool | None = None
    both_ways: bool = False
    scale: Literal["none", "zscore"] = "none"
    max_quarantined: float = 0.2


@dataclass(frozen=True, kw_only=True)
class Label:
    """Where one label comes from and how its text becomes a class or a number.

    Exactly one of ``attribute``, ``column`` and ``rule`` says where; a label that is not there is missing, never 0.

    Args:
        attribute: An attribute of the graph or, with level node, of its nodes.
        index: Which of an attribute's numbers, counted from 0, where it has several.
        column: Column of ``data.table``: a label of graphs.
        rule: Another place, as for ``data.patient``: a label of graphs.
        classes: Regular expressions, searched in any case, or ``name=expression``; the first that matches is the class.
        number: The label is a number.
    """

    attribute: str | None = None
    index: int | None = None
    column: str | None = None
    rule: str | None = None
    classes: list[str] | None = None
    number: bool = False

    def __post_init__(self) -> None:
        if sum(each is not None for each in (self.attribute, self.column, self.rule)) != 1:
            raise ConfigError("a label needs one of 'attribute', 'column' (of the table) and 'rule'")
        if self.index is not None and (self.attribute is None or self.index < 0):
            raise ConfigError("a label's 'index' counts the numbers of an 'attribute', from 0")
        self.reading()

    def reading(self) -> labels.Label:
        """How its texts are read."""
        column = self.attribute if self.rule is None and self.column is None else self.column
        return labels.Label(column=column, rule=self.rule, classes=self.classes, number=self.number)


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The surroundings of a node that are sampled for it.

    Args:
        hops: Steps from the node; as many as the encoder has layers, and one more for normalised ones.
        limit: Edges that a node draws; null for all.
        disjoint: A subgraph for every node of a batch, or one that they share.
    """

    hops: int = 2
    limit: int | None = 10
    disjoint: bool = False

    def __post_init__(self) -> None:
        if self.hops < 0 or (self.limit is not None and self.limit < 1):
            raise ConfigError(
                f"loader.neighbours: hops are at least 0 and the limit at least 1; got {self.hops} and {self.limit}"
            )


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Graphs, or with level node nodes, in a batch over all processes; null takes all at once.
        neighbours: With level node, how the surroundings of a batch's nodes are sampled; by default their graphs are
            taken whole.
        whole: Surroundings are embedded whole rather than sampled where all graphs have at most this many nodes
            together.
        workers: Processes that load batches.
        readers: Processes that read files; by default one per CPU.
    """

    batch_size: int | None = 128
    neighbours: Neighbours | None = None
    whole: int = 100_000
    workers: int = 0
    readers: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size is not None and self.batch_size < 2:
            raise ConfigError(
                f"loader.batch_size is at least 2, since samples are contrasted; got {self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Synthetic graphs for a first try: no result on them is a finding.

    Args:
        kind: "families" are many small graphs of three families (label ``family``, size ``edges_count``), "blocks" one
            graph of nodes in groups (label ``block``).
        count: Graphs, or nodes of the one graph.
        seed: What they are drawn from.
    """

    kind: Literal["families", "blocks"] = "families"
    count: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 10:
            raise ConfigError(f"simulation.count is at least 10; got {self.count}")
