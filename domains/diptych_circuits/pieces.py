"""One file's netlists read and stored: the part of preparation that runs in worker processes and is cached.

A piece is one safetensors file named by a key: the arrays of all its graphs one after the other, and their facts as
JSON. It holds names of nets and devices, for they are the user's own design, and no path.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from diptych.data.atomic import replacing
from diptych.data.readable import Item, Unreadable
from diptych_circuits.graph import Graph, build_graph
from diptych_circuits.netlist.flatten import Hierarchy
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.tops import top_of
from diptych_circuits.settings import Netlist

_VERSION = 1  # raise when the same settings give other graphs: older pieces are then made anew
ARRAYS = (
    "nodes", "kind", "pin_edges", "net_edges", "ground", "resistance", "coupling", "farad", "coupling_kind",
    "names", "letters",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file's netlists."""

    kind: str
    items: tuple[Item, ...]
    tops: tuple[str | None, ...]  # the subcircuit of each; None: the file's only circuit
    digests: tuple[str, ...]  # SHA-256 of all the bytes that the netlists depend on

    def key(self, netlist: Netlist) -> str:
        """Names the piece: a hash of bytes and settings, without any path."""
        settings = asdict(netlist)
        for other in ("max_quarantined", "top"):
            del settings[other]
        text = json.dumps([_VERSION, self.kind, self.digests, self.tops, settings])
        return hashlib.sha256(text.encode()).hexdigest()[:40]


class Piece(NamedTuple):
    """What is known of a stored piece; its arrays are read when they are joined."""

    path: Path
    facts: list[dict[str, Any]]  # per item: "reason" of a rejected one, else "totals", "sizes", "content"


def store(job: Job, target: Path, *, netlist: Netlist) -> list[str] | None:
    """Read one file and write the piece ``target``.safetensors.

    Returns None when it is written, or the reason of each netlist when all were rejected.
    """
    try:
        library = parse(job.items[0].path, netlist.reading, netlist.device_types, dspf=job.kind == "dspf")
        hierarchy = Hierarchy(library, netlist.naming, netlist.unknown_subcircuits)
    except Unreadable as error:
        return [str(error)] * len(job.items)
    models = list(library.models)
    graphs: list[Graph] = []
    facts: list[dict[str, Any]] = []
    for top in job.tops:
        try:
            flat = hierarchy.flatten(top_of(library, top))
            if not len(flat.terminals):
                raise Unreadable("no pins: it has no devices, so that there is nothing to learn from")
            graph = build_graph(flat, models, library.model_types, netlist.device_types, netlist.nets)
        except Unreadable as error:
            facts.append({"reason": str(error)})
            continue
        graphs.append(graph)
        facts.append(
            {
                "totals": dict(graph.totals),
                "sizes": {name: _length(graph, name) for name in ARRAYS},
                "content": content_hash(graph),
                "ignored": library.ignored,
            }
        )
    if not graphs:
        return [str(fact["reason"]) for fact in facts]
    arrays = {
        name: np.concatenate([_array(graph, name) for graph in graphs], axis=_axis(name)) for name in ARRAYS
    }
    with replacing(target.with_suffix(".safetensors")) as partial:
        save_file(
            {name: np.ascontiguousarray(array) for name, array in arrays.items()},
            partial,
            {"facts": json.dumps(facts)},
        )
    return None


def load(target: Path) -> Piece | None:
    """A stored piece, or None where it is not there or not whole."""
    path = target.with_suffix(".safetensors")
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            return Piece(path, json.loads(file.metadata()["facts"]))
    except (SafetensorError, ValueError, KeyError, TypeError, OSError):
        return None  # written again


def read_arrays(piece: Piece) -> dict[str, NDArray[Any]]:
    """All arrays of a piece."""
    with safe_open(piece.path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in ARRAYS}


def content_hash(graph: Graph) -> str:
    """SHA-256 of the graph without names: equal for one netlist stored twice, in whatever files."""
    digest = hashlib.sha256()
    for name in ("nodes", "pin_edges", "net_edges", "coupling", "farad"):
        array = _array(graph, name)
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _array(graph: Graph, name: str) -> NDArray[Any]:
    found: NDArray[Any] = getattr(graph, name)
    return found


def _axis(name: str) -> int:
    return 1 if name in ("pin_edges", "net_edges", "coupling") else 0


def _length(graph: Graph, name: str) -> int:
    return int(_array(graph, name).shape[_axis(name)])
