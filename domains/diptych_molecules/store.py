"""Featurised molecules on disk, memory-mapped: a batch is slicing and one addition, whatever the molecules."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from diptych.data.atomic import write_text
from diptych.data.exclusive import exclusive
from diptych.data.pieces import make_pieces
from diptych.errors import DataError
from diptych.graphs.batch import GraphBatch
from diptych_molecules import chunks
from diptych_molecules.chunks import Header, Job
from diptych_molecules.columns import BOND_COLUMNS
from diptych_molecules.packing import unpack_atoms, unpack_bonds

Integers = NDArray[np.int64]
_META = "store.json"  # written last: a store without it is not whole


class Store:
    """The molecules of a data set, n of them, in flat arrays; about 200 bytes for a drug-like one.

    Sent to another process it carries its path only; files are mapped when first used.
    """

    def __init__(self, folder: Path) -> None:
        """Raises DataError where the folder holds no store, one of another version, or one that is not whole."""
        self.folder = Path(folder)
        meta = _read_meta(self.folder)
        self.molecules: int = meta["molecules"]
        self.texts: int = meta["rows"]  # rows that were read, those in quarantine included
        self.rejected: list[tuple[int, str]] = [(int(row), str(reason)) for row, reason in meta["rejected"]]
        self._maps: dict[str, NDArray[Any]] = {}

    def __len__(self) -> int:
        return self.molecules

    @cached_property
    def rows(self) -> Integers:
        """(n,) which row of those that were read each molecule is."""
        used = np.ones(self.texts, np.bool_)
        used[[row for row, _ in self.rejected]] = False
        return np.flatnonzero(used)

    @property
    def bytes(self) -> int:
        """Size on disk, without what is derived later."""
        return sum((self.folder / f"{name}.npy").stat().st_size for name in _FILES)

    def atom_counts(self, indices: Integers) -> Integers:
        """(n,) atoms of the molecules at ``indices``."""
        starts = self._map("atom_starts")
        return np.asarray(starts[indices + 1] - starts[indices], np.int64)

    def batch(self, indices: Integers) -> GraphBatch:
        """The molecules at ``indices``, in this order: codes of ``columns``, both directions of a bond side by side.

        Edges 2k and 2k + 1 are one bond from its first to its second atom, and back.
        """
        indices = np.asarray(indices, np.int64)
        atoms, counts = self._ranges("atom_starts", indices)
        bonds, bond_counts = self._ranges("bond_starts", indices)
        first = np.cumsum(counts) - counts
        ends = self._map("ends")[bonds].astype(np.int64) + np.repeat(first, bond_counts)[:, None]
        features = unpack_bonds(self._map("bonds")[bonds])
        edges = np.stack([ends, ends[:, ::-1]], axis=1).reshape(-1, 2).T
        return GraphBatch(
            nodes=torch.from_numpy(unpack_atoms(self._map("atoms")[atoms])),
            edges=torch.from_numpy(np.ascontiguousarray(edges)),
            edge_features=torch.from_numpy(np.repeat(features, 2, axis=0).reshape(-1, len(BOND_COLUMNS))),
            graph=torch.from_numpy(np.repeat(np.arange(len(indices)), counts)),
            graphs=len(indices),
        )

    def atom_ids(self, indices: Integers) -> Integers:
        """(m,) a number for every atom of :meth:`batch`, unique over the store."""
        return self._ranges("atom_starts", np.asarray(indices, np.int64))[0]

    def smiles(self, index: int) -> str:
        """The canonical SMILES of one molecule."""
        return self.all_smiles(np.array([index], np.int64))[0]

    def all_smiles(self, indices: Integers | None = None) -> list[str]:
        """The canonical SMILES of the molecules at ``indices``, or of all."""
        starts, text = self._map("text_starts"), self._map("text")
        chosen = np.arange(len(self)) if indices is None else indices
        pairs = zip(starts[chosen].tolist(), starts[chosen + 1].tolist(), strict=True)
        return [text[start:stop].tobytes().decode() for start, stop in pairs]

    def smiles_array(self) -> pa.LargeStringArray:
        """All canonical SMILES as one Arrow array, which takes no memory beside the mapped files."""
        buffers = [pa.py_buffer(np.ascontiguousarray(self._map(name))) for name in ("text_starts", "text")]
        return pa.LargeStringArray.from_buffers(len(self), *buffers)

    def _ranges(self, starts: str, indices: Integers) -> tuple[Integers, Integers]:
        """(flat positions of all parts, how many parts each molecule has)."""
        pointers = self._map(starts)
        begin = pointers[indices]
        counts = np.asarray(pointers[indices + 1] - begin, np.int64)
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        return np.repeat(begin - (ends - counts), counts) + np.arange(total), counts

    def _map(self, name: str) -> NDArray[Any]:
        if name not in self._maps:
            self._maps[name] = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return self._maps[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}


_FILES = ("atoms", "ends", "bonds", "text", "atom_starts", "bond_starts", "text_starts")


def make_store(jobs: Sequence[Job], folder: Path, workers: int | None = None) -> tuple[Store, str]:
    """The store of these jobs' molecules, made now or found, and in a few words which of the two.

    Chunks are made in parallel, each written whole: a run that was stopped goes on with those missing.

    Args:
        jobs: the rows, in order.
        folder: the cache; the store gets a folder of its own there, named by the jobs' texts and settings.
        workers: processes; by default one per CPU this process may use.

    Raises:
        DataError: the cache cannot be written.
    """
    digest = hashlib.sha256(json.dumps([chunks.VERSION, *(job.key for job in jobs)]).encode())
    target = folder / "stores" / digest.hexdigest()[:40]
    store, _ = _find(target)
    if store is not None:
        return store, "found"
    # chunks are removed once they are merged, so two runs must not work on the same ones
    with exclusive(folder, "prepares molecules"):
        store, fate = _find(target)
        if store is not None:
            return store, "found"
        _make(jobs, folder, target, workers)
        return Store(target), fate


def _find(target: Path) -> tuple[Store | None, str]:
    """The store at a path, or None and how it comes about."""
    if not (target / _META).is_file():
        return None, "made now"
    try:
        return Store(target), "found"
    except DataError as error:
        return None, f"made anew: {error}"


def _make(jobs: Sequence[Job], folder: Path, target: Path, workers: int | None) -> None:
    pieces = make_pieces(
        jobs,
        [job.key for job in jobs],
        folder / "chunks",
        load=chunks.load,
        store=chunks.store,
        unit="chunk",
        workers=workers,
    )
    found = [(path, piece) for path, piece in pieces if isinstance(piece, Header)]
    try:
        _merge(found, target)
    except OSError as error:
        raise DataError(
            f"featurised molecules cannot be written below {str(folder)!r}: {error.strerror}; free some space "
            "there or set another cache folder"
        ) from error
    for path, _ in found:
        # the same rows may be in one data set twice
        path.with_suffix(".npz").unlink(missing_ok=True)


def _merge(pieces: Sequence[tuple[Path, Header]], target: Path) -> None:
    """Write the flat arrays of all chunks, in order; the description last."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True, mode=0o700)
    headers = [header for _, header in pieces]
    molecules, atoms, bonds, characters = (
        sum(getattr(header, name) for header in headers)
        for name in ("molecules", "atoms", "bonds", "characters")
    )
    narrow = max((header.largest for header in headers), default=0) <= 256
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "atoms": (np.uint8, (atoms, 3)),
        "ends": (np.uint8 if narrow else np.uint16, (bonds, 2)),
        "bonds": (np.uint8, (bonds,)),
        "text": (np.uint8, (characters,)),
        **{f"{name}_starts": (np.int64, (molecules + 1,)) for name in ("atom", "bond", "text")},
    }
    files = {
        name: open_memmap(target / f"{name}.npy", mode="w+", dtype=dtype, shape=shape) if all(shape) else None
        for name, (dtype, shape) in shapes.items()
    }
    for name, file in files.items():
        if file is None:  # an empty file cannot be mapped for writing
            np.save(target / f"{name}.npy", np.zeros(shapes[name][1], shapes[name][0]))
    places = dict.fromkeys(shapes, 0)
    rejected, row = [], 0
    for path, header in pieces:
        found = chunks.arrays(path)
        for part in ("atom", "bond", "text"):
            starts, counts, place = files[f"{part}_starts"], found[f"{part}_counts"], places[f"{part}_starts"]
            assert starts is not None
            starts[place + 1 : place + 1 + len(counts)] = starts[place] + np.cumsum(counts)
            places[f"{part}_starts"] += len(counts)
        for name in ("atoms", "ends", "bonds", "text"):
            file = files[name]
            if file is not None:
                file[places[name] : places[name] + len(found[name])] = found[name]
                places[name] += len(found[name])
        rejected += [(row + each, reason) for each, reason in header.rejected]
        row += header.rows
    for file in files.values():
        if file is not None:
            file.flush()
    del files
    sizes = {name: (target / f"{name}.npy").stat().st_size for name in _FILES}
    meta = {
        "version": chunks.VERSION,
        "molecules": molecules,
        "rows": row,
        "rejected": rejected,
        "bytes": sizes,
    }
    write_text(target / _META, json.dumps(meta))


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
        version, sizes = meta["version"], meta["bytes"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{folder.name!r} is no whole store of molecules: its {_META} is missing or damaged"
        ) from None
    if version != chunks.VERSION:
        raise DataError(
            f"the store of molecules {folder.name!r} was made by version {version}, and this is version "
            f"{chunks.VERSION}; make it again from the file of molecules"
        )
    for name in _FILES:
        path = folder / f"{name}.npy"
        size = path.stat().st_size if path.is_file() else 0
        if size != sizes.get(name):
            raise DataError(
                f"the store of molecules {folder.name!r} is damaged: {path.name} has {size} bytes instead of "
                f"{sizes.get(name)}; make it again from the file of molecules"
            )
    return meta
