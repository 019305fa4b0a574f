"""One module per kind of file, each with ``count`` and ``load``; libraries are imported when a file is met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diptych.data import readable
from diptych.data.readable import Item, Unreadable
from diptych.data.scan import Found
from diptych_graphs.graph import Raw

Format = Literal["geometric", "networkx"]
SUFFIXES: dict[str, Format] = {
    ".pt": "geometric", ".pth": "geometric", ".graphml": "networkx", ".gml": "networkx", ".json": "networkx",
}  # fmt: skip
_MODULES: dict[Format, str] = {
    "geometric": "diptych_graphs.readers.geometric",
    "networkx": "diptych_graphs.readers.networks",
}
EXPECTED = "torch-geometric (.pt, .pth), GraphML (.graphml), GML (.gml), node-link JSON (.json)"


@dataclass(frozen=True, kw_only=True)
class Header(readable.Header):
    """The names of a graph's attributes; ``fields`` are those of the graph that are a number or a text."""

    of_nodes: tuple[str, ...] = ()
    of_edges: tuple[str, ...] = ()
    of_graph: tuple[str, ...] = field(default=())


def find(files: Sequence[Path], root: Path) -> Found:
    """One item per graph: a file holds one, or a list of them.

    A file that cannot be read stays one item, so that reading it says why.
    """
    items = []
    for path in files:
        kind = SUFFIXES.get(path.suffix.lower())
        if kind is None:
            continue
        try:
            count = len(graphs_in(kind, path))
        except Unreadable:
            count = 1
        name = path.relative_to(root).with_suffix("").as_posix()
        parts: Sequence[int | None] = range(count) if count != 1 else [None]
        items += [(str(kind), Item(path=path, name=name, part=part, files=(path,))) for part in parts]
    used = {item.path for _, item in items}
    return Found(items=tuple(items), other=tuple(path for path in files if path not in used))


def read(kind: str, item: Item) -> Raw:
    """The graph of an item."""
    graphs = graphs_in(kind, item.path)  # type: ignore[arg-type]
    found: Raw = import_module(_MODULES[kind]).raw_of(graphs[item.part or 0])  # type: ignore[index]
    return found


def read_header(kind: str, item: Item) -> Header:
    """The names of a graph's attributes, and what rules may read."""
    raw = read(kind, item)
    fields = {}
    for name, value in raw.of_graph.items():
        array = np.asarray(value)
        if array.size == 1 and array.dtype.kind in "fiubU":
            fields[name] = text_of(array.reshape(-1)[0])
    return Header(
        of_nodes=tuple(raw.of_nodes),
        of_edges=tuple(raw.of_edges),
        of_graph=tuple(raw.of_graph),
        fields=fields,
    )


def text_of(value: Any) -> str:
    """A label as text: whole numbers without a point, so that 1, 1.0 and True are one class."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def graphs_in(kind: Format, path: Path) -> Sequence[Any]:
    """The graphs of a file, loaded once for all of them while the file stays as it is."""
    try:
        return _loaded(kind, path, path.stat().st_mtime_ns)
    except OSError as error:
        raise readable.malformed("file of graphs", error) from None


@lru_cache(maxsize=1)
def _loaded(kind: Format, path: Path, _: int) -> Sequence[Any]:
    graphs: Sequence[Any] = import_module(_MODULES[kind]).load(path)
    if not graphs:
        raise Unreadable("no graph: the file holds an empty list")
    return graphs
