"""What the statements of one subcircuit say, with names still as text and instances not yet expanded."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

# Numbers kept of every device; lengths in the file's unit until the graph is built.
NUMBERS = ("W", "L", "fingers", "multiplier", "AD", "AS", "PD", "PS")
_PLACE = {
    "m": {
        "w": 0, "l": 1, "nf": 2, "fingers": 2, "ng": 2, "m": 3, "mult": 3, "multi": 3,
        "ad": 4, "as": 5, "pd": 6, "ps": 7,
    },
    "d": {"w": 0, "l": 1, "m": 3, "mult": 3, "area": 4, "a": 4, "pj": 6, "perim": 6, "p": 6},
    "r": {"w": 0, "l": 1, "m": 3, "mult": 3, "nf": 2},
}  # fmt: skip
PLACES: Mapping[str, Mapping[str, int]] = {
    kind: {
        spelt: place
        for name, place in _PLACE[same].items()
        for spelt in (name, name.upper(), name.capitalize())
    }
    for kind, same in {"m": "m", "d": "d", "r": "r", "c": "r", "q": "r", "x": "m"}.items()
}


class Instance(NamedTuple):
    """A subcircuit that is used."""

    name: str
    child: str  # folded name of the definition
    nodes: tuple[int, ...]  # as numbers of names
    parameters: Mapping[str, str]
    line: int


@dataclass(slots=True)
class Definition:
    """One subcircuit, or the statements outside of all (name "").

    Node names are numbered in order of appearance, ports first. Devices, capacitors and resistors are columns, so
    that a million of them take little more than their numbers.
    """

    name: str
    models: dict[str, int]  # folded name -> number, over the whole library
    line: int = 0
    ports: tuple[int, ...] = ()
    parameters: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)  # folded name -> number
    spelt: list[str] = field(default_factory=list)  # names as first written
    # devices
    device_names: list[str] = field(default_factory=list)
    device_kind: bytearray = field(default_factory=bytearray)  # ord of the first letter, lower case
    device_model: array[int] = field(default_factory=lambda: array("i"))  # into ``models``
    device_numbers: array[float] = field(default_factory=lambda: array("d"))  # len(NUMBERS) each, NaN unknown
    device_line: array[int] = field(default_factory=lambda: array("i"))
    terminals: array[int] = field(default_factory=lambda: array("i"))  # nodes of all devices in a row
    terminal_ends: array[int] = field(default_factory=lambda: array("q", [0]))
    expressions: list[tuple[int, int, str]] = field(default_factory=list)  # (device, place, text) to evaluate
    # parasitics
    capacitor_ends: array[int] = field(default_factory=lambda: array("i"))  # two each
    farad: array[float] = field(default_factory=lambda: array("d"))
    resistor_ends: array[int] = field(default_factory=lambda: array("i"))  # two each
    ohm: array[float] = field(default_factory=lambda: array("d"))
    # networks of the three-file form
    networks: list[tuple[str, tuple[int, ...], str]] = field(
        default_factory=list
    )  # (net, nodes, folded child)
    # others
    instances: list[Instance] = field(default_factory=list)
    other_nodes: list[int] = field(default_factory=list)  # of elements that are no devices: sources, probes
    declared: dict[str, tuple[str, str, str]] = field(
        default_factory=dict
    )  # DSPF: node -> (net, device, terminal)

    def node(self, text: str) -> int:
        """The number of a node name."""
        folded = text.lower()
        found = self.nodes.get(folded)
        if found is None:
            found = self.nodes[folded] = len(self.spelt)
            self.spelt.append(text)
        return found

    def model(self, text: str) -> int:
        """The number of a model's name."""
        return self.models.setdefault(text.lower(), len(self.models))


@dataclass(slots=True)
class Network:
    """A net's parasitic network in the three-file form, summed up."""

    name: str
    ohm: float = 0.0
    resistors: int = 0
    farad: float = 0.0  # to node 0
    ports: int = 0


@dataclass(slots=True)
class Library:
    """All that a netlist and its includes define."""

    models: dict[str, int] = field(default_factory=dict)
    top: Definition = field(init=False)  # the statements outside of all subcircuits
    definitions: dict[str, Definition] = field(default_factory=dict)  # by folded name, in order
    networks: dict[str, Network] = field(default_factory=dict)
    parameters: dict[str, str] = field(default_factory=dict)  # of .param outside subcircuits
    model_types: dict[str, str] = field(default_factory=dict)  # of .model: folded name -> type
    globals: set[str] = field(default_factory=set)
    ignored: dict[str, int] = field(default_factory=dict)  # letter -> how many elements are left out

    def __post_init__(self) -> None:
        self.top = Definition("", self.models)
