"""Which net, and where one is meant which pin, the name of a node stands for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError
from diptych_circuits.netlist.definition import Definition
from diptych_circuits.netlist.dspf import declared

PINS = r"N_(?P<net>.+)_(?P<device>M\w+)_(?P<terminal>[gdsb])"
SEGMENTS = r"N_(?P<net>.+)_c_\d+_[np]"
TERMINALS = {"m": "dgsb", "d": "pn", "q": "cbes", "r": "pnb", "c": "pnb"}  # in the order of the nodes


@dataclass(frozen=True, kw_only=True)
class Naming:
    """Regular expressions of whole node names; where none matches, a name is a net's own.

    The defaults are the names of Calibre's three-file form.

    Args:
        pins: A pin, with the groups net, device (the instance's name, without its leading letter or with it) and
            terminal (g, d, s or b).
        segments: A piece of a net, with the group net.
    """

    pins: str | None = PINS
    segments: str | None = SEGMENTS

    def __post_init__(self) -> None:
        for setting, groups in (("pins", {"net", "device", "terminal"}), ("segments", {"net"})):
            text = getattr(self, setting)
            if text is None:
                continue
            try:
                has = set(re.compile(text).groupindex)
            except re.error as error:
                raise ConfigError(f"netlist.{setting} is no regular expression: {error}") from None
            if groups - has:
                raise ConfigError(
                    f"netlist.{setting} needs the named groups {', '.join(sorted(groups))}; it lacks "
                    f"{', '.join(sorted(groups - has))}"
                )

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        """Both, compiled."""
        pins, segments = (
            None if text is None else re.compile(text, re.IGNORECASE) for text in (self.pins, self.segments)
        )
        return pins, segments


@dataclass(frozen=True)
class Named:
    """The nodes of a definition resolved: k nodes, n nets."""

    net: NDArray[np.int64]  # (k,) net of each node
    terminal: NDArray[
        np.int64
    ]  # (k,) the terminal (in the row of all) that the node is as a pin; -1: it is none
    nets: list[str]  # (n,) names
    numbers: dict[str, int]  # folded net name -> number


def resolve_names(definition: Definition, naming: Naming) -> Named:
    """Nets in order of appearance of their nodes, so that those of ports come first."""
    pins, segments = naming.patterns
    said = declared(definition)
    numbers: dict[str, int] = {}
    nets: list[str] = []
    net = np.empty(len(definition.spelt), np.int64)
    ends: list[tuple[int, str, str]] = []  # (node, device, terminal)
    for node, text in enumerate(definition.spelt):
        name = text
        if said and (names := said.get(text.lower())):
            name, device, terminal = names
            if device:
                ends.append((node, device, terminal))
        elif pins is not None and (match := pins.fullmatch(text)):
            name = match["net"]
            ends.append((node, match["device"], match["terminal"]))
        elif segments is not None and (match := segments.fullmatch(text)):
            name = match["net"]
        number = numbers.setdefault(name.lower(), len(nets))
        if number == len(nets):
            nets.append(name)
        net[node] = number
    return Named(net, _terminals(definition, ends), nets, numbers)


def _terminals(definition: Definition, ends: list[tuple[int, str, str]]) -> NDArray[np.int64]:
    found = np.full(len(definition.spelt), -1, np.int64)
    if not ends:
        return found
    devices: dict[str, int] = {}
    for number, name in enumerate(definition.device_names):
        devices.setdefault(name.lower(), number)
        devices.setdefault(name[1:].lower(), number)
    for node, name, terminal in ends:
        device = devices.get(name.lower())
        if device is None:
            continue
        kind = chr(definition.device_kind[device])
        first, last = definition.terminal_ends[device], definition.terminal_ends[device + 1]
        letters = TERMINALS.get("m" if kind == "x" else kind, "")[: last - first]
        place = letters.find(terminal[:1].lower())
        if place >= 0:
            found[node] = first + place
    return found
