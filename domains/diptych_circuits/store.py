"""All pieces of a data set joined to one graph on disk, to be memory-mapped."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.errors import DataError
from diptych_circuits.circuits import Circuits, Couplings
from diptych_circuits.netlist.naming import TERMINALS
from diptych_circuits.pieces import Piece, read_arrays
from diptych_circuits.schema import COLUMN, WIDTH, EdgeKind

_VERSION = 1
_FILES = (
    "nodes", "kind", "edges", "edge_kind", "netlist", "starts", "ground", "resistance", "first", "second", "farad",
    "coupling_kind", "names", "name_starts", "letters", "letter_starts",
)  # fmt: skip


def join(
    pieces: Sequence[Piece],
    chosen: Sequence[Sequence[int]],
    netlists: Sequence[str],
    designs: Sequence[str],
    folder: Path,
) -> Circuits:
    """The graphs of pieces, one after the other, made once and then mapped.

    Args:
        pieces: Each with at least one graph.
        chosen: For each piece the numbers of its graphs that are used.
        netlists: Path of each graph.
        designs: Design of each graph.
        folder: The cache.
    """
    key = hashlib.sha256(
        repr(
            [_VERSION, [(piece.path.stem, list(which)) for piece, which in zip(pieces, chosen, strict=True)]]
        ).encode()
    ).hexdigest()[:40]
    target = folder / "joined" / key
    if not target.is_dir():
        _write(pieces, chosen, target)
    files = {name: np.load(target / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _FILES}
    return Circuits(
        nodes=files["nodes"],
        kind=files["kind"],
        edges=files["edges"],
        edge_kind=files["edge_kind"],
        netlist=files["netlist"],
        starts=np.asarray(files["starts"]),
        ground=files["ground"],
        resistance=files["resistance"],
        couplings=Couplings(
            first=files["first"], second=files["second"], farad=files["farad"], kind=files["coupling_kind"]
        ),
        netlists=list(netlists),
        designs=list(designs),
        names_of=Names(target),
    )


class Names:
    """Names of the nodes of a netlist, read from the cache when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read = lru_cache(maxsize=4)(self._of)

    def __call__(self, netlist: int) -> list[str]:
        return self._read(netlist)

    def __reduce__(self) -> tuple[type[Names], tuple[Path]]:
        return Names, (self.folder,)

    def _of(self, netlist: int) -> list[str]:
        first, last = self._map("name_starts")[netlist : netlist + 2].tolist()
        text = self._map("names")[first:last].tobytes().decode()
        names = text.split("\n") if text else []
        first, last = self._map("letter_starts")[netlist : netlist + 2].tolist()
        letters = self._map("letters")[first:last].tolist()
        first, last = self._map("starts")[netlist : netlist + 2].tolist()
        ports = (
            self._map("nodes")[first + len(names) - len(letters) : first + len(names), COLUMN["ports"]]
            .astype(int)
            .tolist()
        )
        devices = names[len(names) - len(letters) :]
        for device, letter, count in zip(devices, letters, ports, strict=True):
            known = TERMINALS.get(chr(letter), "")
            names.extend(f"{device}:{known[i] if i < len(known) else i + 1}" for i in range(count))
        return names

    def _map(self, name: str) -> NDArray[Any]:
        mapped: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return mapped


def _write(pieces: Sequence[Piece], chosen: Sequence[Sequence[int]], target: Path) -> None:
    """Two passes: sizes are known from the facts, then every piece is copied to its place."""
    sizes = [piece.facts[i]["sizes"] for piece, which in zip(pieces, chosen, strict=True) for i in which]
    ends = {name: np.cumsum([0, *(size[name] for size in sizes)]) for name in sizes[0]}
    nodes, pins, nets, couplings = (
        int(ends[name][-1]) for name in ("kind", "pin_edges", "net_edges", "farad")
    )
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True, mode=0o700)
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {
            "nodes": ((nodes, WIDTH), np.float32), "kind": ((nodes,), np.int8),
            "edges": ((2, 2 * (pins + nets)), np.int64), "edge_kind": ((2 * (pins + nets),), np.int8),
            "netlist": ((nodes,), np.int32), "ground": ((nodes,), np.float64), "resistance": ((nodes,), np.float64),
            "first": ((couplings,), np.int64), "second": ((couplings,), np.int64),
            "farad": ((couplings,), np.float64), "coupling_kind": ((couplings,), np.int8),
            "names": ((int(ends["names"][-1]),), np.uint8), "letters": ((int(ends["letters"][-1]),), np.uint8),
        }  # fmt: skip
        out = {name: _new(partial / f"{name}.npy", shape, dtype) for name, (shape, dtype) in shapes.items()}
        np.save(partial / "starts.npy", ends["kind"])
        np.save(partial / "name_starts.npy", ends["names"])
        np.save(partial / "letter_starts.npy", ends["letters"])
        place = 0
        for piece, which in zip(pieces, chosen, strict=True):
            arrays = read_arrays(piece)
            inside = _offsets(piece)
            for i in which:
                part = {
                    name: array[..., inside[name][i] : inside[name][i + 1]]
                    if name in ("pin_edges", "net_edges", "coupling")
                    else array[inside[name][i] : inside[name][i + 1]]
                    for name, array in arrays.items()
                }
                _copy(part, out, {name: int(each[place]) for name, each in ends.items()}, place)
                place += 1
        for array in out.values():
            if isinstance(array, np.memmap):
                array.flush()
        del out
        try:
            partial.replace(target)
        except OSError:
            if not target.is_dir():  # else another process made the same one meanwhile
                raise
    except OSError as error:
        raise DataError(
            f"the joined graph cannot be written below {str(target.parent)!r}: {error.strerror}; free some space "
            "there or set another cache folder"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _offsets(piece: Piece) -> dict[str, NDArray[np.int64]]:
    """Where each item's part of every array begins; rejected items have none."""
    sizes = [fact.get("sizes") for fact in piece.facts]
    names = next(size for size in sizes if size)
    return {name: np.cumsum([0, *((size or {}).get(name, 0) for size in sizes)]) for name in names}


def _copy(
    part: dict[str, NDArray[Any]], out: dict[str, NDArray[Any]], at: dict[str, int], place: int
) -> None:
    """One graph to its place among all."""
    start = at["kind"]

    def put(name: str, values: NDArray[Any], first: int) -> None:
        out[name][first : first + len(values)] = values

    for name in ("nodes", "kind", "ground", "resistance"):
        put(name, part[name], start)
    out["netlist"][start : start + len(part["kind"])] = place
    # edges of a netlist stand together: both directions of device-pin, then of pin-net
    first = 2 * (at["pin_edges"] + at["net_edges"])
    for name, kind in (("pin_edges", EdgeKind.DEVICE_PIN), ("net_edges", EdgeKind.PIN_NET)):
        edges = part[name] + start
        count = edges.shape[1]
        out["edges"][:, first : first + count] = edges
        out["edges"][:, first + count : first + 2 * count] = edges[::-1]
        out["edge_kind"][first : first + 2 * count] = kind
        first += 2 * count
    put("first", part["coupling"][0] + start, at["farad"])
    put("second", part["coupling"][1] + start, at["farad"])
    for name in ("farad", "coupling_kind"):
        put(name, part[name], at["farad"])
    put("names", part["names"], at["names"])
    put("letters", part["letters"], at["letters"])


def _new(path: Path, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """A new array on disk; one without elements cannot be mapped and is written as it is."""
    if 0 in shape:
        empty = np.zeros(shape, dtype)
        np.save(path, empty)
        return empty
    mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    return mapped
