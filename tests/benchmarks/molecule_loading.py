"""Batches out of the store of molecules against featurising them anew each time, and how long the store takes to make.

    python tests/benchmarks/molecule_loading.py [--batches 20]

The molecules are the 5,000 of the NCI set that RDKit ships, batches of 256. The contender parses each SMILES and
reads the same codes atom by atom, as most released code of graph contrast does in its dataset's ``__getitem__``. Both
in one process with one thread; batches are equal, which is checked. All times are CPU times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rdkit import Chem, RDLogger

from diptych.data.folder import expand
from diptych.graphs.batch import GraphBatch
from diptych_molecules import derived
from diptych_molecules.settings import Source, Splitting
from diptych_molecules.similarity import alike, tanimoto, words_of
from diptych_molecules.source import Molecules, prepare

sys.path.insert(0, str(Path(__file__).parents[1] / "molecules"))
from naive_molecules import codes

BATCH = 256
PATH = "package:rdkit/Data/NCI/first_5K.smi"


def stored(cache: Path) -> tuple[Molecules, float]:
    """The molecules, and the CPU seconds that preparing them took."""
    start = time.process_time()
    data = prepare(
        Source(path=PATH, identity="smiles"),
        {},
        None,
        Splitting(by="random"),
        cache=cache,
        workers=1,
    )
    return data, time.process_time() - start


def anew(smiles: list[str]) -> Callable[[NDArray[np.int64]], GraphBatch]:
    """Featurises the same molecules in every batch."""

    def batch(indices: NDArray[np.int64]) -> GraphBatch:
        atoms, edges, features, graph = [], [], [], []
        for number, index in enumerate(indices):
            rows, ends, bonds = codes(Chem.MolFromSmiles(smiles[index]))
            edges += [(one + len(atoms), other + len(atoms)) for one, other in ends]
            atoms += rows
            features += bonds
            graph += [number] * len(rows)
        return GraphBatch(
            nodes=torch.tensor(atoms),
            edges=torch.tensor(edges).T.contiguous(),
            edge_features=torch.tensor(features),
            graph=torch.tensor(graph),
            graphs=len(indices),
        )

    return batch


def milliseconds(
    batch: Callable[[NDArray[np.int64]], GraphBatch], batches: list[NDArray[np.int64]]
) -> list[float]:
    """CPU time of each batch."""
    times = []
    for indices in batches:
        start = time.process_time()
        batch(indices)
        times.append(1e3 * (time.process_time() - start))
    return times


def mates(data: Molecules) -> tuple[float, float, float]:
    """(mean similarity within clusters, that of random pairs, seconds that clustering took)."""
    prints = data.fingerprints(np.arange(len(data)))
    start = time.process_time()
    clusters = alike(prints, BATCH)
    seconds = time.process_time() - start
    words = words_of(prints)
    draw = np.random.default_rng(0)
    inside = []
    for code in draw.choice(clusters.max() + 1, 20):
        members = np.flatnonzero(clusters == code)
        similar = tanimoto(words[members], words[members])
        inside.append((similar.sum() - len(members)) / max(1, len(members) * (len(members) - 1)))
    random = draw.choice(len(data), 500, replace=False)
    similar = tanimoto(words[random], words[random])
    return float(np.mean(inside)), float((similar.sum() - 500) / (500 * 499)), seconds


def main() -> None:
    """Print what preparation takes, both medians with their ranges and the ratio; fail where the batches differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=20, help="batches to time (default: %(default)s)")
    count = parser.parse_args().batches
    RDLogger.DisableLog("rdApp.*")
    with tempfile.TemporaryDirectory() as place:
        data, first = stored(Path(place))
        _, again = stored(Path(place))
        size = data.store.bytes / len(data)
        print(
            f"store of {len(data)} molecules: {first:.2f} s ({len(data) / first:.0f} molecules/s, one process), "
            f"from the cache {again:.2f} s, {size:.0f} bytes a molecule"
        )
        start = time.process_time()
        derived.fingerprints(data.store, workers=1)
        print(f"fingerprints: {len(data) / (time.process_time() - start):.0f} molecules/s")
        inside, outside, seconds = mates(data)
        print(
            f"batches of similar molecules: clustered in {seconds:.2f} s; mean Tanimoto similarity {inside:.3f} "
            f"within clusters, {outside:.3f} of random pairs"
        )
        draw = np.random.default_rng(0)
        batches = [draw.choice(len(data), BATCH, replace=False) for _ in range(count)]
        lines = expand(PATH, "data.path").read_text().splitlines()
        plain = anew([lines[row].split()[0] for row in data.store.rows.tolist()])
        for one, other in zip(data.store.batch(batches[0]), plain(batches[0]), strict=True):
            if isinstance(one, torch.Tensor) and not torch.equal(one, other):
                raise SystemExit("the batches differ")
        medians = {}
        for name, work in (("store", data.store.batch), ("featurised anew", plain)):
            times = milliseconds(work, batches)
            medians[name] = statistics.median(times)
            rate = 1e3 * BATCH / medians[name]
            print(
                f"{name:>16}: {medians[name]:8.2f} ms a batch ({min(times):.2f} to {max(times):.2f}), "
                f"{rate:.0f} molecules/s"
            )
        print(f"featurising anew takes {medians['featurised anew'] / medians['store']:.0f} times as long")


if __name__ == "__main__":
    main()
