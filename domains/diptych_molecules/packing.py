"""Codes of atoms and bonds in few bits: three bytes an atom, one a bond."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from diptych_molecules.columns import (
    AROMATIC,
    ATOM_COLUMNS,
    ATOM_IN_RING,
    ATOMIC_NUMBER,
    BOND_COLUMNS,
    BOND_IN_RING,
    CHARGE,
    CHIRALITY,
    DEGREE,
    HYDROGENS,
    KIND,
    STEREO,
)

Bytes = NDArray[np.uint8]

# column: (byte, lowest bit, bits)
_ATOM_BITS = {
    ATOMIC_NUMBER: (0, 0, 8),
    HYDROGENS: (1, 0, 4),
    CHARGE: (1, 4, 4),
    DEGREE: (2, 0, 4),
    ATOM_IN_RING: (2, 4, 1),
    AROMATIC: (2, 5, 1),
    CHIRALITY: (2, 6, 2),
}
_BOND_BITS = {KIND: (0, 0, 3), STEREO: (0, 3, 3), BOND_IN_RING: (0, 6, 1)}
_ATOM_BYTES = 3


def pack_atoms(atoms: Bytes) -> Bytes:
    """(m, 7) codes as (m, 3) bytes."""
    return _pack(atoms, _ATOM_BITS, _ATOM_BYTES)


def pack_bonds(bonds: Bytes) -> Bytes:
    """(b, 3) codes as (b,) bytes."""
    return _pack(bonds, _BOND_BITS, 1)[:, 0]


def unpack_atoms(packed: Bytes) -> NDArray[np.int64]:
    """(m, 3) bytes as (m, 7) codes."""
    return _unpack(packed, _ATOM_BITS, len(ATOM_COLUMNS))


def unpack_bonds(packed: Bytes) -> NDArray[np.int64]:
    """(b,) bytes as (b, 3) codes."""
    return _unpack(packed[:, None], _BOND_BITS, len(BOND_COLUMNS))


def _pack(codes: Bytes, bits: dict[int, tuple[int, int, int]], width: int) -> Bytes:
    packed = np.zeros((len(codes), width), np.uint8)
    for column, (byte, low, count) in bits.items():
        if len(codes) and codes[:, column].max() >= 1 << count:
            raise ValueError(f"column {column} has a code that does not fit {count} bits")
        packed[:, byte] |= codes[:, column] << low
    return packed


def _unpack(packed: Bytes, bits: dict[int, tuple[int, int, int]], columns: int) -> NDArray[np.int64]:
    codes = np.empty((len(packed), columns), np.int64)
    for column, (byte, low, count) in bits.items():
        codes[:, column] = (packed[:, byte] >> low) & ((1 << count) - 1)
    return codes
