"""Molecules of RDKit as integer codes of atoms and bonds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import rdqueries

from diptych.data.readable import Unreadable
from diptych_molecules.columns import (
    AROMATIC,
    AROMATIC_BOND,
    ATOM_COLUMNS,
    ATOM_IN_RING,
    ATOMIC_NUMBER,
    BOND_COLUMNS,
    BOND_IN_RING,
    CHARGE,
    CHARGE_ZERO,
    CHIRALITY,
    DEGREE,
    DOUBLE,
    HYDROGENS,
    KIND,
    MOST_HYDROGENS,
    MOST_NEIGHBOURS,
    OTHER,
    SINGLE,
    STEREO,
    TRIPLE,
)

MOST_ATOMS = 65_535  # a store counts atoms within a molecule in 16 bits at most

_CHARGED = rdqueries.FormalChargeEqualsQueryAtom(0, negate=True)
_CHIRAL = rdqueries.HasChiralTagQueryAtom()
_CHIRALITY = {Chem.ChiralType.CHI_TETRAHEDRAL_CW: 1, Chem.ChiralType.CHI_TETRAHEDRAL_CCW: 2}
_KIND = {
    Chem.BondType.SINGLE: SINGLE,
    Chem.BondType.DOUBLE: DOUBLE,
    Chem.BondType.TRIPLE: TRIPLE,
    Chem.BondType.AROMATIC: AROMATIC_BOND,
}
_STEREO = {
    Chem.BondStereo.STEREONONE: 0,
    Chem.BondStereo.STEREOANY: 1,
    Chem.BondStereo.STEREOZ: 2,
    Chem.BondStereo.STEREOCIS: 2,
    Chem.BondStereo.STEREOE: 3,
    Chem.BondStereo.STEREOTRANS: 3,
}


class Graphs(NamedTuple):
    """Molecules one after the other; every bond once. The columns are those of ``diptych_molecules.columns``."""

    atoms: NDArray[np.uint8]  # (m, 7)
    ends: NDArray[np.uint16]  # (b, 2): the two atoms of a bond, counted within the molecule
    bonds: NDArray[np.uint8]  # (b, 3)
    atom_counts: NDArray[np.int64]  # (n,)
    bond_counts: NDArray[np.int64]  # (n,)


def check(mol: Chem.Mol) -> None:
    """Raise Unreadable for a molecule without atoms, or with more than a store counts."""
    count = mol.GetNumAtoms()
    if not count:
        raise Unreadable("empty: a molecule without atoms")
    if count > MOST_ATOMS:
        raise Unreadable(f"too large: {count} atoms, at most {MOST_ATOMS} are counted")


def graph_of(mol: Chem.Mol, *, drop_isolated: bool = False) -> Graphs:
    """The codes of one molecule; see :func:`graphs_of`."""
    return graphs_of([mol], drop_isolated=drop_isolated)


def graphs_of(mols: Sequence[Chem.Mol], *, drop_isolated: bool = False) -> Graphs:
    """The codes of sanitised molecules: all fragments, ions and single atoms; hydrogens only where they are atoms.

    What RDKit tells atom by atom is gathered in lists, and all arithmetic is done on the arrays of all molecules.

    Args:
        mols: molecules of RDKit that pass :func:`check`.
        drop_isolated: leave out atoms without a bond, as the released KCL does (counter-ions; a single atom
            then is a graph without nodes).
    """
    numbers: list[int] = []
    hydrogens: list[int] = []
    charges: list[tuple[int, int]] = []
    chiral: list[tuple[int, int]] = []
    ring_atoms: list[int] = []
    ring_bonds: list[int] = []
    rows: list[tuple[int, int, int, int]] = []
    atom_counts, bond_counts = [], []
    for mol in mols:
        first, first_bond = len(numbers), len(rows)
        for atom in mol.GetAtoms():
            numbers.append(atom.GetAtomicNum())
            hydrogens.append(atom.GetTotalNumHs())
        charges += [(first + a.GetIdx(), a.GetFormalCharge()) for a in mol.GetAtomsMatchingQuery(_CHARGED)]
        chiral += [
            (first + a.GetIdx(), _CHIRALITY.get(a.GetChiralTag(), 3))
            for a in mol.GetAtomsMatchingQuery(_CHIRAL)
        ]
        rows += [_bond(bond) for bond in mol.GetBonds()]
        rings = mol.GetRingInfo()
        ring_atoms += [first + atom for ring in rings.AtomRings() for atom in ring]
        ring_bonds += [first_bond + bond for ring in rings.BondRings() for bond in ring]
        atom_counts.append(len(numbers) - first)
        bond_counts.append(len(rows) - first_bond)
    table = np.array(rows, np.int64).reshape(len(rows), 4)
    bonds = np.zeros((len(rows), len(BOND_COLUMNS)), np.uint8)
    bonds[:, [KIND, STEREO]] = table[:, 2:]
    bonds[ring_bonds, BOND_IN_RING] = 1
    ends, counts = table[:, :2], np.array([atom_counts, bond_counts], np.int64)
    flat = ends + np.repeat(np.cumsum(counts[0]) - counts[0], counts[1])[:, None]
    atoms = np.zeros((len(numbers), len(ATOM_COLUMNS)), np.uint8)
    atoms[:, ATOMIC_NUMBER] = numbers
    atoms[:, DEGREE] = np.minimum(np.bincount(flat.ravel(), minlength=len(numbers)), MOST_NEIGHBOURS)
    atoms[:, HYDROGENS] = np.minimum(hydrogens, MOST_HYDROGENS)
    atoms[:, CHARGE] = CHARGE_ZERO
    for column, found in ((CHARGE, charges), (CHIRALITY, chiral)):
        places = np.array(found, np.int64).reshape(len(found), 2)
        atoms[places[:, 0], column] = charge_codes(places[:, 1]) if column == CHARGE else places[:, 1]
    atoms[flat[bonds[:, KIND] == AROMATIC_BOND], AROMATIC] = 1
    atoms[ring_atoms, ATOM_IN_RING] = 1
    made = Graphs(atoms, ends.astype(np.uint16), bonds, *counts)
    return _without_isolated(made, flat) if drop_isolated else made


def charge_codes(charges: NDArray[np.int64]) -> NDArray[np.int64]:
    """The codes of formal charges; those beyond -8 and +7 share the code of the end."""
    return np.clip(charges + CHARGE_ZERO, 0, len(ATOM_COLUMNS[CHARGE].codes) - 1)


def _without_isolated(graphs: Graphs, flat: NDArray[np.int64]) -> Graphs:
    """Only atoms that have a bond. ``flat`` (b, 2): the ends of all bonds as rows of ``atoms``."""
    kept = np.zeros(len(graphs.atoms), np.bool_)
    kept[flat] = True
    before = np.concatenate([[0], np.cumsum(kept)])  # kept ones before each atom
    first = np.cumsum(graphs.atom_counts) - graphs.atom_counts
    counts = before[first + graphs.atom_counts] - before[first]
    ends = before[flat] - np.repeat(before[first], graphs.bond_counts)[:, None]
    return graphs._replace(atoms=graphs.atoms[kept], ends=ends.astype(np.uint16), atom_counts=counts)


def _bond(bond: Chem.Bond) -> tuple[int, int, int, int]:
    kind = _KIND.get(bond.GetBondType(), OTHER)
    stereo = _STEREO.get(bond.GetStereo(), 4) if kind == DOUBLE else 0
    return bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), kind, stereo
