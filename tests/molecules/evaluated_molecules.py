"""Molecules with labels made from their structure, an encoder that sees part of it, and a run folder."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from rdkit import Chem, RDConfig
from rdkit.Chem import Crippen
from torch import nn

from diptych.data.manifest import Manifest
from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_sum
from diptych.types import Encoded
from diptych.weights import save_encoder
from diptych_molecules.recipe import build
from diptych_molecules.settings import Loading, Source, Splitting
from diptych_molecules.study import MoleculeStudy

LABELS = ["large", "nitrogen", "logp", "cliff"]


class Counts(nn.Module):
    """How many atoms of each element a molecule has, through a random layer; ``readout`` scales them by a gate."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.width = width
        self.layer = nn.Linear(119, width)
        self.readout = nn.Linear(119, 1)

    def forward(self, view: GraphBatch) -> Encoded:
        atoms = nn.functional.one_hot(view.nodes[:, 0].clamp(max=118), 119).float()
        gate = 0.5 + torch.sigmoid(self.readout(atoms))
        return Encoded(torch.tanh(self.layer(segment_sum(atoms * gate, view.graph, view.graphs) / 10)))


def nci(count: int) -> list[str]:
    """SMILES of the set that the rdkit wheel ships."""
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    texts = (line.split()[0] for line in lines)
    return [text for text in texts if Chem.MolFromSmiles(text) is not None][:count]


def labelled(count: int = 120) -> pd.DataFrame:
    """Labels that follow from the structure; "nitrogen" is unknown of every third molecule."""
    smiles = nci(count)
    mols = [Chem.MolFromSmiles(text) for text in smiles]
    nitrogen = np.array([float(any(atom.GetAtomicNum() == 7 for atom in mol.GetAtoms())) for mol in mols])
    nitrogen[::3] = np.nan
    return pd.DataFrame(
        {
            "smiles": smiles,
            "large": [int(mol.GetNumAtoms() > 14) for mol in mols],
            "nitrogen": nitrogen,
            "logp": [Crippen.MolLogP(mol) for mol in mols],
            "cliff": [int(place % 4 == 0) for place in range(len(mols))],
        }
    )


def study_of(
    folder: Path, frame: pd.DataFrame, tasks: Any = ("large",), split: Splitting | None = None
) -> MoleculeStudy:
    """A study of a table of molecules."""
    folder.mkdir(exist_ok=True)
    frame.to_csv(folder / "molecules.csv", index=False)
    return build(
        data=Source(path=str(folder / "molecules.csv")),
        tasks=list(tasks),
        split=split or Splitting(by="random", assign="balanced", train=0.6, validation=0.1, test=0.3),
        loader=Loading(cache=str(folder / "cache"), readers=1),
        encoder=Counts,
        method=None,  # type: ignore[arg-type]  (nothing is pretrained)
        optimizer=partial(torch.optim.AdamW, lr=1e-3),
    )


def run_folder(folder: Path, molecules: list[str], split: dict[str, Any]) -> tuple[Path, Counts]:
    """What a run on these molecules leaves, as far as evaluations read it."""
    run = folder / "run"
    run.mkdir(parents=True)
    data = folder / "pretraining.smi"
    data.write_text("\n".join(molecules))
    config = {
        "data": {"path": str(data)},
        "split": split,
        "loader": {"cache": str(folder / "cache"), "readers": 1},
        "encoder": {"class_path": "evaluated_molecules.Counts", "init_args": {"width": 5}},
        "method": {"class_path": "diptych.graphs.recipes.GraphCL"},
        "optimizer": {"class_path": "torch.optim.AdamW"},
    }
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(3)
    encoder = Counts(5)
    save_encoder(encoder, run / "encoder.safetensors")
    (run / "splits.csv").write_text("patient,split\n")
    Manifest(folder, []).write_public(run / "manifest.json")
    return run, encoder
