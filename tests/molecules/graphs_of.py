"""Real molecules for tests and benchmarks: RDKit's own file of NCI's first 5,000."""

from __future__ import annotations

from pathlib import Path

from rdkit import Chem, RDConfig, rdBase

from diptych_molecules.graph_of import graph_of

__all__ = ["graph_of", "nci_smiles"]


def nci_smiles(count: int) -> list[str]:
    """The first ``count`` of those that RDKit reads."""
    found = []
    with rdBase.BlockLogs():
        for line in Path(RDConfig.RDDataDir, "NCI", "first_5K.smi").read_text().splitlines():
            smiles = line.split()[0]
            if Chem.MolFromSmiles(smiles) is not None:
                found.append(smiles)
            if len(found) == count:
                break
    return found
