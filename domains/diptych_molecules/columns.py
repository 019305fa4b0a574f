"""What the integer codes of atoms and bonds mean: the columns of a batch's ``nodes`` and ``edge_features``.

Every column has one code more than meanings: the last one, ``mask``, is for methods that hide a feature; no
molecule has it. Codes are stored in few bits (see ``store``), and are int64 in a batch.
"""

from __future__ import annotations

from typing import NamedTuple

MOST_ATOMIC = 118  # oganesson
CHARGE_ZERO = 8  # the code of formal charge 0
MOST_NEIGHBOURS = MOST_HYDROGENS = 15  # the codes of that many or more


class Column(NamedTuple):
    """One integer feature; code i means ``codes[i]``."""

    name: str
    codes: tuple[str, ...]

    @property
    def mask(self) -> int:
        """The code of a hidden feature."""
        return len(self.codes)

    @property
    def size(self) -> int:
        """Rows that an embedding table of this column needs, the mask's included."""
        return len(self.codes) + 1


def _numbers(last: int) -> tuple[str, ...]:
    return tuple(map(str, range(last + 1)))


ATOM_COLUMNS: tuple[Column, ...] = (
    Column("atomic number", _numbers(MOST_ATOMIC)),  # 0: a dummy atom, "*"
    Column("degree", _numbers(MOST_NEIGHBOURS)),  # bonds to other nodes
    Column("formal charge", tuple(f"{charge:+d}" for charge in range(-CHARGE_ZERO, 8))),  # ends: or beyond
    Column("chirality", ("none", "clockwise", "counterclockwise", "other")),
    Column("hydrogens", _numbers(MOST_HYDROGENS)),  # those that are no nodes
    Column("aromatic", ("no", "yes")),
    Column("in ring", ("no", "yes")),
)
BOND_COLUMNS: tuple[Column, ...] = (
    Column("kind", ("single", "double", "triple", "aromatic", "other")),  # other: dative, zero-order, ...
    Column("stereo", ("none", "either", "cis", "trans", "other")),  # of double bonds; cis is Z, trans is E
    Column("in ring", ("no", "yes")),
)
ATOM_SIZES: tuple[int, ...] = tuple(column.size for column in ATOM_COLUMNS)
BOND_SIZES: tuple[int, ...] = tuple(column.size for column in BOND_COLUMNS)

ATOMIC_NUMBER, DEGREE, CHARGE, CHIRALITY, HYDROGENS, AROMATIC, ATOM_IN_RING = range(7)
KIND, STEREO, BOND_IN_RING = range(3)
SINGLE, DOUBLE, TRIPLE, AROMATIC_BOND, OTHER = range(5)
