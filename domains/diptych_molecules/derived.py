"""What is computed from stored molecules when it is asked for, in parallel, and kept beside the store."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rdkit
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold

from diptych.data.atomic import replacing
from diptych.data.exclusive import exclusive
from diptych.data.pool import in_pool
from diptych.errors import ConfigError, DataError
from diptych.nearest import nearest
from diptych_molecules.chunks import slices
from diptych_molecules.parse import again
from diptych_molecules.store import Store

BITS, RADIUS = 1024, 2
_VERSION = 1  # raise when a computation changes

Compute = Callable[[Sequence[str]], NDArray[Any] | list[str]]
Task = tuple[Path, int, int, Path]


def fingerprints(store: Store, workers: int | None = None) -> NDArray[np.uint8]:
    """Morgan fingerprints of radius 2 folded to 1024 bits (Rogers and Hahn 2010), (n, 128) packed bits."""
    return _numbers(store, f"morgan{RADIUS}_{BITS}", morgan, (BITS // 8,), np.uint8, workers)


def descriptors(store: Store, names: Sequence[str], workers: int | None = None) -> NDArray[np.float64]:
    """Descriptors of RDKit by name, (n, len(names)); NaN where one cannot be computed.

    Raises ConfigError for a name that RDKit does not know.
    """
    known = [name for name, _ in Descriptors.descList]
    for name in names:
        if name not in known:
            raise ConfigError(f"data.computed: RDKit has no descriptor {name!r}; {nearest(name, known)}")
    digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:12]
    work = partial(describe, names=tuple(names))
    return _numbers(store, f"descriptors_{digest}", work, (len(names),), np.float64, workers)


def scaffolds(store: Store, workers: int | None = None) -> tuple[NDArray[np.int64], list[str]]:
    """(n,) codes of Murcko scaffolds (Bemis and Murcko 1996), and their SMILES; "" without rings."""
    return _texts(store, "murcko", murcko, workers)


def inchikeys(store: Store, workers: int | None = None) -> tuple[NDArray[np.int64], list[str]]:
    """(n,) codes of InChIKeys, and the keys; the canonical SMILES where InChI cannot describe a molecule."""
    return _texts(store, "inchikey", inchikey, workers)


def morgan(smiles: Sequence[str]) -> NDArray[np.uint8]:
    """Packed fingerprints, (n, 128), as ``numpy.packbits`` packs them."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    bits = np.zeros((len(smiles), BITS), np.uint8)
    for row, text in enumerate(smiles):
        bits[row] = generator.GetFingerprintAsNumPy(again(text))
    return np.packbits(bits, axis=1)


def murcko(smiles: Sequence[str]) -> list[str]:
    """The SMILES of each molecule's ring systems and the chains between them, without stereochemistry."""
    found = []
    with rdBase.BlockLogs():
        for text in smiles:
            try:
                scaffold = MurckoScaffold.MurckoScaffoldSmiles(mol=again(text), includeChirality=False)  # type: ignore[no-untyped-call]
                found.append(scaffold)
            except (RuntimeError, ValueError):  # rings that RDKit cannot write without their substituents
                found.append(text)
    return found


def inchikey(smiles: Sequence[str]) -> list[str]:
    """The InChIKey of each molecule."""
    with rdBase.BlockLogs():
        return [Chem.MolToInchiKey(again(text)) or text for text in smiles]  # type: ignore[no-untyped-call]


def describe(smiles: Sequence[str], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Descriptors of RDKit, (n, len(names))."""
    functions = dict(Descriptors.descList)
    values = np.full((len(smiles), len(names)), np.nan)
    with rdBase.BlockLogs():
        for row, text in enumerate(smiles):
            mol = again(text)
            for place, name in enumerate(names):
                try:
                    values[row, place] = functions[name](mol)
                except (RuntimeError, ValueError, ZeroDivisionError):  # undefined for this molecule: missing
                    continue
    return values


def _numbers(
    store: Store,
    name: str,
    compute: Compute,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    workers: int | None,
) -> NDArray[Any]:
    folder, target = _place(store, name)
    path = target.with_name(f"{target.name}.npy")

    def make() -> None:
        _join(_chunks(store, folder, ".npy", compute, workers), path, len(store), shape, dtype)

    _once(store, path, folder, make)
    found: NDArray[Any] = np.load(path, mmap_mode="r" if len(store) else None, allow_pickle=False)
    return found


def _join(
    parts: Sequence[Path], path: Path, rows: int, shape: tuple[int, ...], dtype: type[np.generic]
) -> None:
    """Write the rows of all chunks as one array."""
    with replacing(path) as partial_path:
        if not rows:  # an empty file cannot be mapped for writing
            with partial_path.open("wb") as file:
                np.save(file, np.zeros((0, *shape), dtype))
            return
        whole = open_memmap(partial_path, mode="w+", dtype=dtype, shape=(rows, *shape))
        for part, place in zip(parts, slices(rows), strict=True):
            whole[place] = np.load(part, allow_pickle=False)


def _texts(
    store: Store, name: str, compute: Compute, workers: int | None
) -> tuple[NDArray[np.int64], list[str]]:
    folder, target = _place(store, name)
    path = target.with_name(f"{target.name}.parquet")

    def make() -> None:
        tables = [pq.read_table(part) for part in _chunks(store, folder, ".parquet", compute, workers)]
        whole = pa.concat_tables(tables) if tables else pa.table({"text": pa.array([], pa.string())})
        with replacing(path) as partial_path:
            pq.write_table(whole, partial_path)

    _once(store, path, folder, make)
    encoded = pq.read_table(path)["text"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()


def _once(store: Store, path: Path, chunks: Path, make: Callable[[], None]) -> None:
    """Make ``path`` where it is missing, in one process at a time, and remove the chunks that it was made of."""
    if path.is_file():
        return
    with exclusive(store.folder, "computes from molecules"):
        if not path.is_file():
            make()
            shutil.rmtree(chunks, ignore_errors=True)


def _place(store: Store, name: str) -> tuple[Path, Path]:
    """(folder of the chunks, file of the whole without its suffix)."""
    stem = f"{name}-{_VERSION}-rdkit{rdkit.__version__}"
    return store.folder / f"{stem}.chunks", store.folder / stem


def _chunks(store: Store, folder: Path, suffix: str, compute: Compute, workers: int | None) -> list[Path]:
    """Compute all chunks that are not there yet."""
    parts = [folder / f"{rows.start:010d}{suffix}" for rows in slices(len(store))]
    tasks = [
        (store.folder, rows.start, rows.stop, part)
        for part, rows in zip(parts, slices(len(store)), strict=True)
        if not part.is_file()
    ]
    try:
        in_pool(partial(_compute, compute=compute), tasks, workers=workers, what="Computing", unit="chunk")
    except OSError as error:
        raise DataError(
            f"what is computed from molecules cannot be written below {str(store.folder)!r}: {error.strerror}"
        ) from error
    return parts


def _compute(task: Task, *, compute: Compute) -> None:
    folder, start, stop, target = task
    found = compute(Store(folder).all_smiles(np.arange(start, stop)))
    with replacing(target) as partial_path:
        if isinstance(found, list):
            pq.write_table(pa.table({"text": pa.array(found, pa.string())}), partial_path)
        else:
            with partial_path.open("wb") as file:
                np.save(file, found, allow_pickle=False)
