"""Names of what a circuit graph holds: kinds of nodes, edges and couplings, and the columns of the node matrix.

Every node is one row of float32 numbers with the same columns; a column that does not apply to a node's kind is
0 there. Columns of codes hold small whole numbers, 0 meaning "none"; the others hold lengths, areas or counts.
"""

from __future__ import annotations

from enum import IntEnum
from types import MappingProxyType


class Kind(IntEnum):
    """Kinds of nodes."""

    NET = 0
    DEVICE = 1
    PIN = 2


class EdgeKind(IntEnum):
    """Kinds of topology edges: what messages pass along."""

    DEVICE_PIN = 0
    PIN_NET = 1


class CouplingKind(IntEnum):
    """Kinds of coupling targets, which are never edges of the graph."""

    PIN_PIN = 0
    PIN_NET = 1
    NET_NET = 2


class DeviceType(IntEnum):
    """Codes of the column "device_type"; 0 is for nodes that are no device."""

    NONE = 0
    NMOS = 1
    PMOS = 2
    DIODE = 3
    RESISTOR = 4
    CAPACITOR = 5
    BIPOLAR = 6
    OTHER = 7


class PinKind(IntEnum):
    """Codes of the column "pin_kind"; 0 is for nodes that are no pin."""

    NONE = 0
    GATE = 1
    SOURCE_DRAIN = 2
    BULK = 3
    OTHER = 4


# column -> what it is; the order is that of the matrix
COLUMNS = MappingProxyType(
    {
        "kind": "code: Kind of the node",
        "device_type": "device, code: DeviceType",
        "pin_kind": "pin, code: PinKind",
        "W": "device: width, um",
        "L": "device: length, um",
        "fingers": "device: fingers (NF)",
        "multiplier": "device: parallel copies (M), those of its subcircuits included",
        "AD": "device: drain area, um^2 (the area of a diode)",
        "AS": "device: source area, um^2",
        "PD": "device: drain perimeter, um (the perimeter of a diode)",
        "PS": "device: source perimeter, um",
        "ports": "device: number of its terminals",
        "terminals": "net: terminals of devices on it",
        "mos": "net: MOS devices on it, each once",
        "gates": "net: gate terminals",
        "source_drains": "net: source and drain terminals",
        "bulks": "net: bulk terminals",
        "sum_W": "net: widths of the MOS devices on it, fingers and copies counted, um",
        "sum_L": "net: lengths of the MOS devices on it, um",
        "diodes": "net: diode terminals",
        "resistors": "net: resistor terminals",
        "capacitors": "net: capacitor terminals",
        "is_port": "net: 1 where it is a port of the top circuit",
    }
)
CODES = ("kind", "device_type", "pin_kind")
COLUMN = MappingProxyType({name: number for number, name in enumerate(COLUMNS)})  # name -> place
WIDTH = len(COLUMNS)
