"""Real molecules for tests and benchmarks: RDKit's own file of NCI's first 5,000."""

from __future__ import annotations

from pathlib import Path

from rdkit import Chem, RDConfig, rdBase

from diptych_molecules.graph_of import graph_of

__all__ = ["graph_of", "nci_smiles"]


def nci_smiles(count: int, least: int = 1, most: int = 1000) -> list[str]:
    """The first ``count`` of those that RDKit reads and that have ``least`` to ``most`` atoms."""
    found = []
    with rdBase.BlockLogs():
        for line in Path(RDConfig.RDDataDir, "NCI", "first_5K.smi").read_text().splitlines():
            smiles = line.split()[0]
            mol = Chem.MolFromSmiles(smiles)
            if mol is not None and least <= mol.GetNumAtoms() <= most:
                found.append(smiles)
            if len(found) == count:
                break
    return found
