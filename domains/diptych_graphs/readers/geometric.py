"""Files of torch-geometric: ``torch.save`` of a Data, of a list of them, or of a dataset's (data, slices).

Nothing is unpickled but tensors, plain containers and torch-geometric's own classes of one graph.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch_geometric.data import Data
from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
from torch_geometric.data.separate import separate
from torch_geometric.data.storage import GlobalStorage

from diptych.data.readable import MALFORMED, Unreadable, malformed
from diptych_graphs.graph import Raw

_BROKEN: tuple[type[Exception], ...] = (*MALFORMED, RuntimeError, zipfile.BadZipFile)
SAFE = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]


def load(path: Path) -> Sequence[Mapping[str, Any]]:
    """The attributes of every graph of a file. Raises Unreadable where it holds none or more than graphs."""
    if not zipfile.is_zipfile(path):
        raise Unreadable("not a file of torch.save, which is an archive since torch 1.6; save it again")
    try:
        with torch.serialization.safe_globals(SAFE):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        other = re.search(r"GLOBAL (\S+) was not an allowed", str(error))
        if other is None:
            raise malformed("torch file", error) from None
        raise Unreadable(
            f"not only graphs: the file holds a {other[1]}, which is not loaded; save Data or a list of Data"
        ) from None
    except _BROKEN as error:
        raise malformed("torch file", error) from None
    return [_attributes(each) for each in _listed(held)]


def _listed(held: Any) -> Sequence[Any]:
    if isinstance(held, Data) or (isinstance(held, dict) and "edge_index" in held):
        return [held]
    if isinstance(held, tuple) and 2 <= len(held) <= 4 and isinstance(held[1], dict):  # of InMemoryDataset
        whole = held[0] if isinstance(held[0], Data) else Data.from_dict(dict(held[0]))
        slices = held[1]
        count = len(next(iter(slices.values()))) - 1
        return [separate(Data, whole, i, slices, decrement=False) for i in range(count)]
    if isinstance(held, list | tuple):
        return list(held)
    raise Unreadable(f"no graph: the file holds a {type(held).__name__}; save Data or a list of Data")


def _attributes(graph: Any) -> Mapping[str, Any]:
    """The attributes of one graph; a thing that is none is kept as an empty mapping, which ``raw_of`` refuses."""
    if isinstance(graph, Data):
        return dict(graph.to_dict())
    return graph if isinstance(graph, dict) else {}


def raw_of(attributes: Mapping[str, Any]) -> Raw:
    """One graph. Raises Unreadable where it has no edges to speak of."""
    edges = attributes.get("edge_index")
    if not isinstance(edges, torch.Tensor):
        raise Unreadable(
            "no graph: no tensor edge_index (sparse adjacencies and heterogeneous graphs are not read)"
        )
    arrays = {
        name: value.detach().cpu().to(_plain(value.dtype)).numpy()
        for name, value in attributes.items()
        if isinstance(value, torch.Tensor) and not value.is_sparse and name != "edge_index"
    }
    texts = {name: value for name, value in attributes.items() if isinstance(value, str | int | float)}
    count = attributes.get("num_nodes")
    return Raw(
        nodes=int(count) if isinstance(count, int) else _rows(arrays),
        edges=np.asarray(edges.detach().cpu().numpy()),
        of_nodes=arrays,
        of_edges=arrays,
        of_graph={**arrays, **texts},
    )


def _rows(arrays: Mapping[str, Any]) -> int | None:
    """The number of nodes where x or pos say it."""
    return next((len(arrays[name]) for name in ("x", "pos") if name in arrays and arrays[name].ndim), None)


def _plain(dtype: torch.dtype) -> torch.dtype:
    """NumPy knows no bfloat16."""
    return torch.float32 if dtype == torch.bfloat16 else dtype
