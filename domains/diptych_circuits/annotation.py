"""Netlists with predicted capacitors: the text that was read with elements added, or its devices written anew."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from diptych_circuits.netlist.definition import NUMBERS
from diptych_circuits.netlist.flatten import Flat

# parameters of devices by the letter of the element, in the order of NUMBERS
_WRITTEN = {
    "m": ("w", "l", "nf", "m", "ad", "as", "pd", "ps"),
    "x": ("w", "l", "nf", "m", "ad", "as", "pd", "ps"),
    "d": ("w", "l", "", "m", "area", "", "pj", ""),
}
_OTHERS = ("w", "l", "", "m", "", "", "", "")
_HEAD = "* Capacitors named C_predicted_ are predictions of a model, not extracted from a layout."


class Capacitor(NamedTuple):
    """A predicted capacitance between two nets; the second one is "0" for capacitance to ground."""

    first: str
    second: str
    farad: float


def element_lines(capacitors: Iterable[Capacitor]) -> list[str]:
    """One C element for every pair of nets, the farads of equal pairs added; none between a net and itself."""
    total: dict[tuple[str, str], float] = {}
    for first, second, farad in capacitors:
        if first.lower() != second.lower():
            pair = (first, second) if first.lower() < second.lower() else (second, first)
            total[pair] = total.get(pair, 0.0) + farad
    return [
        f"C_predicted_{number} {first} {second} {farad:.6g}"
        for number, ((first, second), farad) in enumerate(sorted(total.items()), 1)
    ]


def with_elements(text: str, top: str, elements: Sequence[str]) -> str | None:
    """A netlist's text with elements at the end of a subcircuit, or with ``top`` "" before its .end.

    Nets of instances inside are named "instance.net" there, as ngspice expands them. Everything else stays as it was
    written. None where the text does not define the subcircuit itself.
    """
    lines = text.splitlines()
    place = _end_of(lines, top) if top else _end(lines)
    if place is None:
        return None
    return "\n".join([*lines[:place], _HEAD, *elements, *lines[place:]]) + "\n"


def flat_netlist(flat: Flat, models: Sequence[str], name: str, elements: Sequence[str]) -> str:
    """A subcircuit of all devices without hierarchy and without the parasitics that were read, and elements.

    Devices keep their model, nets, sizes, areas, fingers and multiplier, in the unit of the file; other parameters
    are left out.

    Args:
        flat: The expanded netlist.
        models: Names by number.
        name: Of the subcircuit.
        elements: Lines to add.
    """
    ports = [flat.nets[net] for net in dict.fromkeys(flat.ports.tolist())]
    devices = [_device(flat, models, number) for number in range(len(flat.devices))]
    head = [f"* {name}: devices without the parasitics that were read", _HEAD]
    return (
        "\n".join([*head, " ".join([".subckt", name, *ports]), *devices, *elements, f".ends {name}"]) + "\n"
    )


def _device(flat: Flat, models: Sequence[str], number: int) -> str:
    name = flat.devices[number]
    letter = name.rpartition(".")[2][:1].lower()
    if letter not in "mdqrcx":
        letter = chr(int(flat.kind[number]))
    nets = [flat.nets[net] for net in flat.terminals[flat.ends[number] : flat.ends[number + 1]].tolist()]
    spelt = name if name[:1].lower() == letter else letter.upper() + name
    parameters = [
        f"{written}={value:.6g}"
        for written, value in zip(_WRITTEN.get(letter, _OTHERS), flat.numbers[number], strict=True)
        if written and np.isfinite(value)
    ]
    return " ".join([spelt, *nets, models[int(flat.model[number])], *parameters])


def _end(lines: Sequence[str]) -> int:
    """Where the netlist ends: at its .end, or after its last line."""
    return next(
        (i for i, line in enumerate(lines) if re.match(r"\s*\.end\s*$", line, re.IGNORECASE)), len(lines)
    )


def _end_of(lines: Sequence[str], top: str) -> int | None:
    """The line of the .ends of a subcircuit that the lines define."""
    depth, inside = 0, None
    for number, line in enumerate(lines):
        words = line.split()
        head = words[0].lower() if words else ""
        if head in (".subckt", ".macro"):
            depth += 1
            if len(words) > 1 and words[1].lower() == top.lower() and inside is None:
                inside = depth
        elif head in (".ends", ".eom"):
            if depth == inside:
                return number
            depth -= 1
    return None


assert len(_OTHERS) == len(NUMBERS)
