"""Find graphs, read them in parallel, join them and put ids and labels to graphs or nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import Annotated, annotate, report_label
from diptych.data.assemble import list_files, recording_key, report_found
from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.labels import read_values
from diptych.data.leaks import check_leaks
from diptych.data.pool import in_pool
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Item, Unreadable
from diptych.data.rules import nearest
from diptych.data.scan import Scan, item_path, scan
from diptych.errors import ConfigError, DataError
from diptych.study import Samples
from diptych.words import Words
from diptych_graphs import readers
from diptych_graphs.graph import Graph, Wanted, graph_of, label_name
from diptych_graphs.readers import Header, text_of
from diptych_graphs.settings import Label, Level, Shape, Source, Unit
from diptych_graphs.store import Store

GRAPHS = Words(unit="graph", recording="graph", sample="graph")
NODES_BY_GRAPH = Words(unit="graph", recording="graph", sample="node")
NODES = Words(unit="node", recording="node", sample="node")
TRANSDUCTIVE = (
    "by node: an encoder sees the attributes and edges of all nodes while it is pretrained, those of validation and "
    "test too, but no labels (transductive)"
)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set ready to be batched: sample i is graph i or node i of the store."""

    samples: Samples
    store: Store
    report: Mapping[str, str]


class _Used(NamedTuple):
    """Graphs that can be used, and which of the annotated ones they are."""

    graphs: list[Graph]
    numbers: list[int]


def prepare(
    source: Source,
    shape: Shape,
    labels: Mapping[str, Label],
    split: Split,
    *,
    level: Level = "graph",
    unit: Unit = "auto",
    workers: int | None = None,
) -> Prepared:
    """Read every graph once, and put ids and labels to graphs or nodes.

    Args:
        source: Where the graphs are and whose.
        shape: What is made of them.
        labels: Labels by name.
        split: Decides the split of every unit from its raw id.
        level: Whether samples are graphs or nodes.
        unit: What splits keep together with level node: the nodes of a graph, or single nodes ("auto" takes nodes where
            there is one graph).
        workers: Processes; by default one per CPU.

    Raises:
        ConfigError: a setting that does not fit the data, such as an attribute that no graph has.
        DataError: no graphs, or too many in quarantine.
    """
    found = scan(
        source, readers.find, readers.read_header, expected=readers.EXPECTED, unit="graph", workers=workers
    )
    _check_names(shape, labels, level, [each.header for each in found.scanned])
    quarantine = Quarantine()
    for path, reason in found.rejected:
        quarantine.add(path, reason)
    elsewhere = {name: label.reading() for name, label in labels.items() if label.attribute is None}
    annotated = annotate(found, source, elsewhere, quarantine)
    wanted = Wanted(
        nodes=tuple(shape.nodes),
        edges=tuple(shape.edges),
        labels=tuple(
            {(each.attribute, each.index) for each in labels.values() if each.attribute is not None}
        ),
        node_labels=level == "node",
        both_ways=shape.both_ways,
    )
    used = _use(annotated, found, wanted, quarantine, workers)
    quarantine.check(len(found.scanned) + len(found.rejected), shape.max_quarantined)
    store = Store.of(used.graphs, shape.codes)
    table = _identify(used, annotated, source, split)
    if shape.scale == "zscore":
        store = store.scaled(table["split"].to_numpy() == "train")
    of_nodes = level == "node"
    by_node = of_nodes and (unit == "node" or (unit == "auto" and len(store) == 1))
    ids = _ids(table, store, of_nodes, by_node, split)
    words = GRAPHS if not of_nodes else NODES if by_node else NODES_BY_GRAPH
    manifest = list_files(annotated, used.numbers, found, table, partial(_describe, used, annotated))
    check_leaks(ids, manifest, words)
    report = report_found(table, annotated, found, quarantine, source.patient, _counts(store, used, table))
    if by_node:
        report["split"] = TRANSDUCTIVE
    values = _labels(labels, annotated, used, store, of_nodes, report)
    return Prepared(
        samples=Samples(ids=ids, labels=values, manifest=manifest, quarantine=quarantine, words=words),
        store=store,
        report=report,
    )


def _check_names(shape: Shape, labels: Mapping[str, Label], level: Level, headers: Sequence[Header]) -> None:
    """Raise ConfigError for an attribute that no graph has, naming the nearest."""
    of_nodes = {name for each in headers for name in each.of_nodes}
    of_edges = {name for each in headers for name in each.of_edges}
    of_labels = of_nodes if level == "node" else {name for each in headers for name in each.of_graph}
    asked = [
        *(("graph.nodes", "nodes", name, of_nodes) for name in shape.nodes),
        *(("graph.edges", "edges", name, of_edges) for name in shape.edges),
        *(
            (f"labels.{name}.attribute", "nodes" if level == "node" else "graphs", label.attribute, of_labels)
            for name, label in labels.items()
            if label.attribute is not None
        ),
    ]
    for setting, what, name, known in asked:
        if name not in known:
            hint = nearest(name, sorted(known)) if known else "; they have none"
            more = ". An empty list takes the degree" if setting == "graph.nodes" else ""
            raise ConfigError(f"{setting}: no {what} have an attribute {name!r}{hint}{more}")


def _use(
    annotated: Annotated[Header],
    found: Scan[Header],
    wanted: Wanted,
    quarantine: Quarantine,
    workers: int | None,
) -> _Used:
    """Read the graphs, file by file; those that cannot be used, or have other columns than most, go to quarantine."""
    files: dict[Any, list[int]] = defaultdict(list)
    for number, each in enumerate(annotated.scanned):
        files[each.item.path].append(number)
    tasks = [
        (annotated.scanned[numbers[0]].kind, [annotated.scanned[n].item for n in numbers])
        for numbers in files.values()
    ]
    read = in_pool(partial(_read, wanted=wanted), tasks, workers=workers, what="Reading graphs", unit="graph")
    fates = {
        number: fate
        for members, listed in zip(files.values(), read, strict=True)
        for number, fate in zip(members, listed, strict=True)
    }
    widths = Counter(_widths(fate) for fate in fates.values() if isinstance(fate, Graph))
    usual = widths.most_common(1)[0][0] if widths else (0, 0)
    graphs, numbers = [], []
    for number in range(len(annotated.scanned)):
        fate = fates[number]
        if isinstance(fate, Graph) and _widths(fate) != usual:
            fate = f"unequal columns: {_widths(fate)} of nodes and edges, most graphs have {usual}"
        if isinstance(fate, str):
            quarantine.add(item_path(annotated.scanned[number].item, found.root), fate)
        else:
            graphs.append(fate)
            numbers.append(number)
    if not graphs:
        reasons = Counter(row.reason for row in quarantine.rows).most_common(3)
        raise DataError(
            f"no graph can be used: {'; '.join(f'{reason} ({count})' for reason, count in reasons)}"
        )
    return _Used(graphs, numbers)


def _read(task: tuple[str, list[Item]], *, wanted: Wanted) -> list[Graph | str]:
    """The graphs of one file, or why each cannot be used."""
    kind, items = task
    found: list[Graph | str] = []
    for item in items:
        try:
            found.append(graph_of(readers.read(kind, item), wanted))
        except Unreadable as error:
            found.append(str(error))
    return found


def _widths(graph: Graph) -> tuple[int, int]:
    return graph.nodes.shape[1], 0 if graph.edge_features is None else graph.edge_features.shape[1]


def _identify(used: _Used, annotated: Annotated[Header], source: Source, split: Split) -> pd.DataFrame:
    """One row a graph: salted keys "patient" and "recording", and "split".

    Where every graph is its own unit, graphs with the same content are one: in two splits the one would give the other
    away.
    """
    alone = source.patient in ("record", "path")
    units = [
        graph.content if alone else annotated.patients[number]
        for graph, number in zip(used.graphs, used.numbers, strict=True)
    ]
    salt = pseudonym_salt()
    return pd.DataFrame(
        {
            "patient": [salted_key(salt, each) for each in units],
            "recording": [recording_key(annotated, number) for number in used.numbers],
            "split": [split.of(each) for each in units],
        }
    )


def _ids(table: pd.DataFrame, store: Store, of_nodes: bool, by_node: bool, split: Split) -> pd.DataFrame:
    """Ids of samples: the table's rows, or one row a node."""
    if not of_nodes:
        return table.assign(trial=table["recording"])
    spread = table.iloc[store.graph_of].reset_index(drop=True)
    if by_node:
        place = np.arange(len(store.nodes)) - store.starts[store.graph_of]
        raw = [f"{graph}:{node}" for graph, node in zip(spread["recording"], place.tolist(), strict=True)]
        salt = pseudonym_salt()
        keys = [salted_key(salt, each) for each in raw]
        spread = pd.DataFrame({"patient": keys, "recording": keys, "split": [split.of(each) for each in raw]})
    return spread.assign(trial=spread["recording"])


def _labels(
    labels: Mapping[str, Label],
    annotated: Annotated[Header],
    used: _Used,
    store: Store,
    of_nodes: bool,
    report: dict[str, str],
) -> pd.DataFrame:
    """Labels of samples, by name; those of graphs are spread over their nodes."""
    values: dict[str, NDArray[Any]] = {}
    for name, label in labels.items():
        if label.attribute is None:
            found = annotated.labels[name].values[used.numbers]
            values[name] = found[store.graph_of] if of_nodes else found
            continue
        key = label_name(label.attribute, label.index)
        texts = [_text(value) for graph in used.graphs for value in graph.labels[key].tolist()]
        read = read_values(label.reading(), texts)
        report_label(name, read, report)
        values[name] = read.values
    return pd.DataFrame(values, index=pd.RangeIndex(len(store.nodes) if of_nodes else len(store)))


def _text(value: Any) -> str | None:
    """The text of a label; None where it is missing."""
    return None if value is None or value != value else text_of(value)


def _describe(used: _Used, annotated: Annotated[Header], rows: Sequence[int]) -> dict[str, Any]:
    """The facts of a file that holds the graphs ``rows``."""
    chosen = [used.graphs[row] for row in rows]
    return {
        "format": annotated.scanned[used.numbers[rows[0]]].kind,
        "nodes": sum(len(each.nodes) for each in chosen),
        "edges": sum(each.edges.shape[1] for each in chosen),
    }


def _counts(store: Store, used: _Used, table: pd.DataFrame) -> dict[str, str]:
    columns = store.columns.nodes
    kind = f"{columns} columns of numbers" if isinstance(columns, int) else f"{len(columns)} columns of codes"
    n = len(store.nodes)
    there = np.sort(store.edges[0] * n + store.edges[1])
    back = np.sort(store.edges[1] * n + store.edges[0])
    lines = {
        "nodes": f"{n} ({store.sizes.min()} to {store.sizes.max()} a graph), {kind}",
        "edges": f"{len(there)}, "
        + ("all with their reverse" if np.array_equal(there, back) else "directed"),
    }
    if lone := sum(each.isolated for each in used.graphs):
        lines["graphs without edges"] = str(lone)
    if same := len(table) - table["patient"].nunique():
        lines["graphs that share a unit"] = f"{same}: with others of their group, or with the same content"
    return lines
