"""The codes of one molecule written out atom by atom and bond by bond: what featurising is compared with."""

from __future__ import annotations

from rdkit import Chem

from diptych_molecules.columns import ATOM_COLUMNS, BOND_COLUMNS

# One of each kind that has a column of its own, salts, single atoms, dummies, metals, and what is rare.
UNUSUAL = [
    "C",
    "[Na+].[Cl-]",
    "*c1ccccc1",
    "[U]",
    "[Og]",
    "CN->[Pt](Cl)Cl",
    "C/C=C/C",
    "C/C=C\\C",
    "C[C@H](N)C(=O)O",
    "C[C@@H](N)C(=O)O",
    "F[P-](F)(F)(F)(F)F",
    "[Fe+3]",
    "[Ti+4].[O-2].[O-2]",
    "N#Cc1ccc2[nH]ccc2c1",
    "[H][H]",
    "O=S(=O)(O)c1ccc(cc1)N=Nc1ccccc1.[K+]",
    "C1CC2CCC1C2",
    "F[Co@](Cl)(Br)(I)(C)N",
    "[2H]C([2H])([2H])O",
    "C" * 500,
]


def codes(mol: Chem.Mol) -> tuple[list[list[int]], list[tuple[int, int]], list[list[int]]]:
    """(atoms, both directions of every bond side by side, features of those edges), by names of the columns."""
    atoms = []
    for atom in mol.GetAtoms():
        named = {
            "atomic number": str(atom.GetAtomicNum()),
            "degree": str(len(atom.GetNeighbors())),
            "formal charge": f"{atom.GetFormalCharge():+d}",
            "chirality": {
                "CHI_UNSPECIFIED": "none",
                "CHI_TETRAHEDRAL_CW": "clockwise",
                "CHI_TETRAHEDRAL_CCW": "counterclockwise",
            }.get(atom.GetChiralTag().name, "other"),
            "hydrogens": str(atom.GetNumExplicitHs() + atom.GetNumImplicitHs()),
            "aromatic": "yes" if atom.GetIsAromatic() else "no",
            "in ring": "yes" if atom.IsInRing() else "no",
        }
        atoms.append([column.codes.index(named[column.name]) for column in ATOM_COLUMNS])
    edges, features = [], []
    for bond in mol.GetBonds():
        named = {
            "kind": {"SINGLE": "single", "DOUBLE": "double", "TRIPLE": "triple", "AROMATIC": "aromatic"}.get(
                bond.GetBondType().name, "other"
            ),
            "stereo": {"STEREONONE": "none", "STEREOANY": "either", "STEREOZ": "cis", "STEREOE": "trans"}[
                bond.GetStereo().name
            ],
            "in ring": "yes" if bond.IsInRing() else "no",
        }
        row = [column.codes.index(named[column.name]) for column in BOND_COLUMNS]
        one, other = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        edges += [(one, other), (other, one)]
        features += [row, row]
    return atoms, edges, features
