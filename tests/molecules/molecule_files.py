"""Files of molecules of every kind with the same content, and how tests prepare them."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from rdkit import Chem

from diptych.data.labels import Label
from diptych_molecules.settings import Source, Splitting
from diptych_molecules.source import Molecules, prepare

SMILES = ["CCO", "c1ccccc1O", "CC(=O)[O-].[Na+]", "N#Cc1ccccc1"]
ACTIVITY = ["1", "0", None, "1"]


def table() -> pd.DataFrame:
    return pd.DataFrame({"smiles": SMILES, "code": ["a", "b", "c", "d"], "activity": ACTIVITY})


def write(path: Path) -> Path:
    """The four molecules in the form that the suffix says."""
    frame = table()
    if path.suffix == ".gz":
        plain = write(path.with_suffix(""))
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    elif path.suffix == ".parquet":
        frame.assign(activity=pd.to_numeric(frame["activity"])).to_parquet(path, index=False)
    elif path.suffix == ".smi":
        path.write_text(
            "".join(f"{smiles} {code}\n" for smiles, code in zip(SMILES, frame["code"], strict=True))
        )
    elif path.suffix == ".sdf":
        writer = Chem.SDWriter(str(path))
        for smiles, code, activity in frame.itertuples(index=False):
            mol = Chem.MolFromSmiles(smiles)
            mol.SetProp("_Name", code)
            mol.SetProp("code", code)
            if activity is not None:
                mol.SetProp("activity", activity)
            writer.write(mol)
        writer.close()
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def prepared(
    path: Path,
    labels: Mapping[str, Label] = {},
    tasks: Any = None,
    split: Splitting | None = None,
    **data: Any,
) -> Molecules:
    """The molecules of a file, with a cache beside it."""
    return prepare(
        Source(path=str(path), **data),
        labels,
        tasks,
        split or Splitting(by="random"),
        cache=path.parent.parent / "cache",
        workers=1,
    )


def from_texts(folder: Path, lines: str, **options: Any) -> Molecules:
    """The molecules of a CSV file with this text."""
    folder.mkdir(exist_ok=True)
    path = folder / "molecules.csv"
    path.write_text(lines)
    return prepared(path, **options)
