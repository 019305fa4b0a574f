"""Molecules as a batch of graphs at once, without a store."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from rdkit import Chem

from diptych.data.readable import Unreadable
from diptych.errors import UserError
from diptych.graphs.batch import GraphBatch
from diptych_molecules.featurise import check, graphs_of
from diptych_molecules.parse import Standard, molecule


def graph_of(smiles: Sequence[str]) -> GraphBatch:
    """One batch of the molecules of ``smiles``, all columns of atoms and bonds, as a store gives it.

    Raises UserError for one that RDKit cannot read, with its position and RDKit's reason.
    """
    mols = []
    for position, text in enumerate(smiles):
        try:
            mol = molecule(text, "smiles", Standard())
            check(mol)
        except Unreadable as error:
            raise UserError(f"SMILES {position} cannot be used: {error}; mend it or leave it out") from None
        mols.append(mol)
    return batch_of(mols)


def batch_of(mols: Sequence[Chem.Mol]) -> GraphBatch:
    """One batch of sanitised molecules; row v of a molecule's nodes is its atom v."""
    made = graphs_of(mols)
    first = np.repeat(np.cumsum(made.atom_counts) - made.atom_counts, made.bond_counts)
    ends = made.ends.astype(np.int64) + first[:, None]
    edges = np.stack([ends, ends[:, ::-1]], axis=1).reshape(-1, 2).T
    return GraphBatch(
        nodes=torch.from_numpy(made.atoms.astype(np.int64)),
        edges=torch.from_numpy(np.ascontiguousarray(edges)),
        edge_features=torch.from_numpy(np.repeat(made.bonds.astype(np.int64), 2, axis=0)),
        graph=torch.from_numpy(np.repeat(np.arange(len(mols)), made.atom_counts)),
        graphs=len(mols),
    )
