"""Chunks of a few thousand molecules: parsed, standardised, featurised and stored together, in processes."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import rdkit
from numpy.typing import NDArray
from rdkit import Chem

from diptych.data.atomic import replacing
from diptych.data.readable import Unreadable
from diptych_molecules.featurise import check, graphs_of
from diptych_molecules.packing import pack_atoms, pack_bonds
from diptych_molecules.parse import Form, Standard, molecule

VERSION = 1  # raise when the same text and settings give other codes: older stores are then made anew
CHUNK = 4096  # molecules
_SEPARATOR = "\0"


@dataclass(frozen=True, kw_only=True)
class Job:
    """The structures of consecutive rows of one file."""

    text: bytes  # their texts, UTF-8, with a zero byte between
    form: Form
    standard: Standard
    drop_isolated: bool

    @property
    def key(self) -> str:
        """Names the chunk: a hash of the texts, the settings and the versions, without any path."""
        settings = [VERSION, rdkit.__version__, self.form, asdict(self.standard), self.drop_isolated]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update(self.text)
        return digest.hexdigest()[:40]


class Header(NamedTuple):
    """What is known of a stored chunk without reading its arrays."""

    rows: int
    molecules: int
    atoms: int
    bonds: int
    characters: int
    largest: int  # atoms of the largest molecule
    rejected: list[tuple[int, str]]  # (row within the chunk, reason)


def jobs(
    texts: Sequence[str] | pa.ChunkedArray, form: Form, standard: Standard, drop_isolated: bool
) -> list[Job]:
    """The jobs of a file's rows, in order. Texts in Arrow's memory are made Python's a chunk at a time."""
    compact = (
        texts if isinstance(texts, pa.ChunkedArray) else pa.chunked_array([pa.array(texts, pa.string())])
    )
    return [
        Job(
            text=_SEPARATOR.join(compact.slice(start, CHUNK).to_pylist()).encode(),
            form=form,
            standard=standard,
            drop_isolated=drop_isolated,
        )
        for start in range(0, len(compact), CHUNK)
    ]


def store(job: Job, target: Path) -> None:
    """Featurise a chunk and write it to ``target``.npz."""
    texts = job.text.decode().split(_SEPARATOR)
    mols, smiles, rejected = [], [], []
    for row, text in enumerate(texts):
        try:
            mol = molecule(text, job.form, job.standard)
            check(mol)
            smiles.append(Chem.MolToSmiles(mol).encode())
            mols.append(mol)
        except Unreadable as error:
            rejected.append((row, str(error)))
        except RuntimeError:  # an invariant of RDKit, whose message names its source files
            rejected.append((row, "no SMILES: RDKit cannot write the molecule"))
    graphs = graphs_of(mols, drop_isolated=job.drop_isolated)
    header = Header(
        rows=len(texts),
        molecules=len(mols),
        atoms=len(graphs.atoms),
        bonds=len(graphs.ends),
        characters=sum(map(len, smiles)),
        largest=int(graphs.atom_counts.max(initial=0)),
        rejected=rejected,
    )
    with replacing(target.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez(
            file,
            header=np.array(json.dumps(header._asdict())),
            atoms=pack_atoms(graphs.atoms),
            ends=graphs.ends,
            bonds=pack_bonds(graphs.bonds),
            atom_counts=graphs.atom_counts,
            bond_counts=graphs.bond_counts,
            text=np.frombuffer(b"".join(smiles), np.uint8),
            text_counts=np.array([len(each) for each in smiles], np.int64),
        )


def load(target: Path) -> Header | None:
    """The header of a stored chunk, or None where it is not there or not whole."""
    path = target.with_suffix(".npz")
    if not path.is_file():
        return None
    try:  # opened here, for NumPy leaves a damaged file open
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            fields: dict[str, Any] = json.loads(str(file["header"]))
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None  # written again
    fields["rejected"] = [(int(row), str(reason)) for row, reason in fields["rejected"]]
    return Header(**fields)


def arrays(target: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a stored chunk."""
    with np.load(target.with_suffix(".npz"), allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != "header"}


def slices(count: int, size: int = CHUNK) -> Iterator[slice]:
    """Consecutive slices of ``count`` rows."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))
