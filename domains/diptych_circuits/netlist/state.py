"""How statements are taken, and what one pass over them carries along."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diptych_circuits.netlist.definition import Definition, Library, Network
from diptych_circuits.netlist.types import LETTERS, Types
from diptych_circuits.netlist.values import number


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How statements are taken.

    Args:
        missing_includes: A netlist with an include that is not there is unreadable, or goes without it.
        plain: Resistors and capacitors with a value and no model are parasitics, or devices.
        bad_capacitance: A capacitance of 0 or below makes a netlist unreadable, or is left out.
        duplicates: Two elements of one name in a subcircuit make it unreadable, or are two elements.
    """

    missing_includes: Literal["reject", "ignore"] = "reject"
    plain: Literal["parasitics", "devices"] = "parasitics"
    bad_capacitance: Literal["reject", "skip"] = "reject"
    duplicates: Literal["reject", "keep"] = "reject"


@dataclass(slots=True)
class State:
    """What one pass carries along."""

    reading: Reading
    types: Types
    library: Library
    open: Definition
    network: Network | None = None
    seen: dict[str, int] = field(default_factory=dict)  # names of elements in the open definition -> line
    outer_seen: dict[str, int] = field(default_factory=dict)
    ended: bool = False
    dspf: bool = False
    values: dict[str, float | None] = field(default_factory=dict)  # texts of numbers, which repeat
    primitives: dict[str, str | None] = field(
        default_factory=dict
    )  # subcircuit -> letter of the device it is

    def number(self, text: str) -> float | None:
        found = self.values.get(text)
        if found is None:
            found = number(text)
            if len(self.values) > 100_000:
                self.values.clear()
            self.values[text] = found
        return found

    def primitive(self, child: str) -> str | None:
        """The letter of the device that a subcircuit's name stands for; None where it is a subcircuit."""
        if child not in self.primitives:
            found = self.types.by_name(child)
            letter = None if found is None else LETTERS.get(found)
            if letter != "m" and child in self.library.definitions:
                letter = None  # named like a diode, say, but it is defined: a cell
            self.primitives[child] = letter
        return self.primitives[child]
