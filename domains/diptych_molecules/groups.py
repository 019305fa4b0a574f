"""Functional groups found in a batch of molecules at once, without RDKit: patterns of atoms and their neighbours.

A group is one atom with conditions on it and on its neighbours, such as "a carbon with a double bond to an oxygen
and a single bond to an oxygen that has one hydrogen". Each is written beside the SMARTS that means the same, which
tests hold it to.

Letters: m atoms, e directed bonds, n molecules, g groups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_sum
from diptych_molecules.columns import (
    AROMATIC,
    AROMATIC_BOND,
    ATOMIC_NUMBER,
    CHARGE,
    CHARGE_ZERO,
    DEGREE,
    DOUBLE,
    HYDROGENS,
    KIND,
    SINGLE,
    TRIPLE,
)

Range = tuple[int, int]
ANY: Range = (0, 1_000)


@dataclass(frozen=True)
class Atom:
    """Conditions on an atom: element (0 for any), bonds, hydrogens, charge, aromaticity, and its neighbours."""

    element: int = 0
    degree: Range = ANY
    hydrogens: Range = ANY
    charge: int | None = None
    aromatic: bool | None = None
    bonds: tuple[Neighbour, ...] = field(default=())

    def matches(self, batch: GraphBatch) -> Tensor:
        """(m,) bool: the atoms that fulfil all."""
        nodes = batch.nodes
        found = torch.ones_like(nodes[:, 0], dtype=torch.bool)
        if self.element:
            found = nodes[:, ATOMIC_NUMBER] == self.element
        for column, (low, high) in ((DEGREE, self.degree), (HYDROGENS, self.hydrogens)):
            found = found & (nodes[:, column] >= low) & (nodes[:, column] <= high)
        if self.charge is not None:
            found = found & (nodes[:, CHARGE] == self.charge + CHARGE_ZERO)
        if self.aromatic is not None:
            found = found & (nodes[:, AROMATIC] == int(self.aromatic))
        for neighbour in self.bonds:
            found = found & (neighbour.count(batch) >= neighbour.least)
        return found


@dataclass(frozen=True)
class Neighbour:
    """At least so many bonds of a kind (None for any) to atoms of a kind."""

    kind: int | None
    atom: Atom
    least: int = 1

    def count(self, batch: GraphBatch) -> Tensor:
        """(m,) how many such bonds an atom has."""
        assert batch.edge_features is not None
        fits = self.atom.matches(batch)[batch.edges[0]]
        if self.kind is not None:
            fits = fits & (batch.edge_features[:, KIND] == self.kind)
        return segment_sum(fits.long(), batch.edges[1], len(batch.nodes))


@dataclass(frozen=True)
class Group:
    """A functional group: its name, the SMARTS it stands for, and the pattern that finds its first atom."""

    name: str
    smarts: str
    atom: Atom


def _one(kind: int | None, atom: Atom, least: int = 1) -> Neighbour:
    return Neighbour(kind, atom, least)


_ALIPHATIC_C = Atom(6, aromatic=False)
_CARBON = Atom(6)
_OXO = _one(DOUBLE, Atom(8, degree=(1, 1)))
_OH = Atom(8, degree=(1, 1), hydrogens=(1, 1))
_O_MINUS = Atom(8, degree=(1, 1), charge=-1)
_O_BRIDGE = Atom(8, degree=(2, 2), aromatic=False)
_PLAIN_N = Atom(7, aromatic=False, charge=0)
_CARBONYL = Atom(6, aromatic=False, bonds=(_OXO,))


def _halide(element: int) -> Atom:
    return Atom(element, degree=(1, 1), bonds=(_one(SINGLE, _CARBON),))


def _amine(hydrogens: int) -> Atom:
    return Atom(
        7,
        degree=(3 - hydrogens,) * 2,
        hydrogens=(hydrogens,) * 2,
        charge=0,
        aromatic=False,
        bonds=(_one(SINGLE, _CARBON, 3 - hydrogens),),
    )


GROUPS: tuple[Group, ...] = (
    Group(
        "alcohol or enol or acid",
        "[OD1H1]-[C;A]",
        Atom(8, (1, 1), (1, 1), bonds=(_one(SINGLE, _ALIPHATIC_C),)),
    ),
    Group("phenol", "[OD1H1]-c", Atom(8, (1, 1), (1, 1), bonds=(_one(SINGLE, Atom(6, aromatic=True)),))),
    Group("carboxylic acid", "C(=[OD1])-[OD1H1]", Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _OH)))),
    Group("carboxylate", "C(=[OD1])-[OD1-]", Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _O_MINUS)))),
    Group(
        "ester or anhydride",
        "C(=[OD1])-[OD2;A]",
        Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _O_BRIDGE))),
    ),
    Group("ether", "[OD2;A](-[#6])-[#6]", Atom(8, (2, 2), aromatic=False, bonds=(_one(SINGLE, _CARBON, 2),))),
    Group("methoxy", "[CD1H3]-[OD2]", Atom(6, (1, 1), (3, 3), bonds=(_one(SINGLE, Atom(8, (2, 2))),))),
    Group(
        "aldehyde",
        "[CH1](=[OD1])-[#6]",
        Atom(6, hydrogens=(1, 1), aromatic=False, bonds=(_OXO, _one(SINGLE, _CARBON))),
    ),
    Group(
        "ketone", "[C;A](=[OD1])(-[#6])-[#6]", Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _CARBON, 2)))
    ),
    Group("amide", "[C;A](=[OD1])-[N;A;+0]", Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _PLAIN_N)))),
    Group(
        "urea",
        "[C;A](=[OD1])(-[N;A;+0])-[N;A;+0]",
        Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _PLAIN_N, 2))),
    ),
    Group(
        "carbamate",
        "[C;A](=[OD1])(-[N;A;+0])-[OD2;A]",
        Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, _PLAIN_N), _one(SINGLE, _O_BRIDGE))),
    ),
    Group(
        "acyl chloride",
        "[C;A](=[OD1])-[ClD1]",
        Atom(6, aromatic=False, bonds=(_OXO, _one(SINGLE, Atom(17, (1, 1))))),
    ),
    Group("primary amine", "[N;A;D1;H2;+0]-[#6]", _amine(2)),
    Group("secondary amine or amide", "[N;A;D2;H1;+0](-[#6])-[#6]", _amine(1)),
    Group("tertiary amine or amide", "[N;A;D3;H0;+0](-[#6])(-[#6])-[#6]", _amine(0)),
    Group("ammonium", "[N;A;+]-[#6]", Atom(7, charge=1, aromatic=False, bonds=(_one(SINGLE, _CARBON),))),
    Group(
        "aniline nitrogen", "[N;A]-c", Atom(7, aromatic=False, bonds=(_one(SINGLE, Atom(6, aromatic=True)),))
    ),
    Group("imine", "[N;A]=C", Atom(7, aromatic=False, bonds=(_one(DOUBLE, _ALIPHATIC_C),))),
    Group("azo", "[N;A]=[N;A]", Atom(7, aromatic=False, bonds=(_one(DOUBLE, Atom(7, aromatic=False)),))),
    Group(
        "hydrazine", "[N;A]-[N;A]", Atom(7, aromatic=False, bonds=(_one(SINGLE, Atom(7, aromatic=False)),))
    ),
    Group(
        "oxime or hydroxylamine",
        "[N;A;+0]-[#8]",
        Atom(7, aromatic=False, charge=0, bonds=(_one(SINGLE, Atom(8)),)),
    ),
    Group("nitrile", "[#6]#[ND1]", Atom(6, bonds=(_one(TRIPLE, Atom(7, (1, 1))),))),
    Group(
        "nitro",
        "[N;A;+](=[OD1])-[OD1-]",
        Atom(7, charge=1, aromatic=False, bonds=(_OXO, _one(SINGLE, _O_MINUS))),
    ),
    Group("nitroso", "[N;A;+0]=[OD1]", Atom(7, charge=0, aromatic=False, bonds=(_OXO,))),
    Group("pyridine nitrogen", "[nD2H0+0]", Atom(7, (2, 2), (0, 0), 0, aromatic=True)),
    Group("pyrrole nitrogen", "[nH1]", Atom(7, hydrogens=(1, 1), aromatic=True)),
    Group("substituted aromatic nitrogen", "[nD3]", Atom(7, degree=(3, 3), aromatic=True)),
    Group("aromatic oxygen", "o", Atom(8, aromatic=True)),
    Group("aromatic sulfur", "s", Atom(16, aromatic=True)),
    Group("thiol", "[S;A;D1;H1]-[#6]", Atom(16, (1, 1), (1, 1), bonds=(_one(SINGLE, _CARBON),))),
    Group(
        "sulfide",
        "[S;A;D2;H0](-[#6])-[#6]",
        Atom(16, (2, 2), (0, 0), aromatic=False, bonds=(_one(SINGLE, _CARBON, 2),)),
    ),
    Group(
        "disulfide", "[S;A]-[S;A]", Atom(16, aromatic=False, bonds=(_one(SINGLE, Atom(16, aromatic=False)),))
    ),
    Group("thiocarbonyl", "[#6]=[SD1]", Atom(6, bonds=(_one(DOUBLE, Atom(16, (1, 1))),))),
    Group("sulfoxide", "[S;A;D3]=[OD1]", Atom(16, (3, 3), aromatic=False, bonds=(_OXO,))),
    Group(
        "sulfone",
        "[S;A;D4](=[OD1])(=[OD1])(-[#6])-[#6]",
        Atom(
            16,
            aromatic=False,
            degree=(4, 4),
            bonds=(_one(DOUBLE, Atom(8, (1, 1)), 2), _one(SINGLE, _CARBON, 2)),
        ),
    ),
    Group(
        "sulfonamide",
        "[S;A;D4](=[OD1])(=[OD1])-[#7]",
        Atom(
            16, aromatic=False, degree=(4, 4), bonds=(_one(DOUBLE, Atom(8, (1, 1)), 2), _one(SINGLE, Atom(7)))
        ),
    ),
    Group(
        "sulfonic acid or ester",
        "[S;A;D4](=[OD1])(=[OD1])-[#8]",
        Atom(
            16, aromatic=False, degree=(4, 4), bonds=(_one(DOUBLE, Atom(8, (1, 1)), 2), _one(SINGLE, Atom(8)))
        ),
    ),
    Group(
        "phosphoric acid, ester or amide",
        "[P;A]=[OD1]",
        Atom(15, aromatic=False, bonds=(_OXO,)),
    ),
    Group("boronic acid or ester", "[B;A]-[#8]", Atom(5, aromatic=False, bonds=(_one(SINGLE, Atom(8)),))),
    Group("fluoride", "[FD1]-[#6]", _halide(9)),
    Group("chloride", "[ClD1]-[#6]", _halide(17)),
    Group("bromide", "[BrD1]-[#6]", _halide(35)),
    Group("iodide", "[ID1]-[#6]", _halide(53)),
    Group("trifluoromethyl", "[CD4](F)(F)F", Atom(6, (4, 4), bonds=(_one(SINGLE, Atom(9), 3),))),
    Group("alkene", "[C;A]=[C;A]", Atom(6, aromatic=False, bonds=(_one(DOUBLE, _ALIPHATIC_C),))),
    Group("alkyne", "[#6]#[#6]", Atom(6, bonds=(_one(TRIPLE, _CARBON),))),
    Group(
        "benzene or other aromatic carbon",
        "c:c",
        Atom(6, aromatic=True, bonds=(_one(AROMATIC_BOND, Atom(6, aromatic=True)),)),
    ),
    Group(
        "carbonyl conjugated with an aromatic ring",
        "c-[C;A]=[OD1]",
        Atom(6, aromatic=True, bonds=(_one(SINGLE, _CARBONYL),)),
    ),
)


def groups_of(batch: GraphBatch) -> Tensor:
    """(n, g) bool: which groups of :data:`GROUPS` a molecule has."""
    found = torch.stack([group.atom.matches(batch) for group in GROUPS], dim=1)
    return segment_sum(found.long(), batch.graph, batch.graphs) > 0
