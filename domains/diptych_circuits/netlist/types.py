"""Which type a device is of, by its letter and the name of its model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from diptych.data.readable import Unreadable
from diptych.errors import ConfigError
from diptych_circuits.schema import DeviceType

# Searched in the folded names of models and of subcircuits that stand for one device, as PDKs have them.
RULES: Mapping[str, str] = {
    "nmos": r"(^|_)n(fet|mos|ch)(_|\d|$)",
    "pmos": r"(^|_)p(fet|mos|ch)(_|\d|$)",
    "bipolar": r"(^|_)(npn|pnp)(_|\d|$)",
    "capacitor": r"(^|_)(cap|mimcap|cmim|cmom|moscap|varactor)(_|$)",
    "resistor": r"(^|_)(res|rhigh|rsil|rppd|rpoly|rnwell)(_|$)",
    "diode": r"(^|_)(diode|ndiode|pdiode|nwdiode|dantenna|dpantenna)(_|$)",
}
LETTERS = {
    DeviceType.NMOS: "m", DeviceType.PMOS: "m", DeviceType.DIODE: "d", DeviceType.RESISTOR: "r",
    DeviceType.CAPACITOR: "c", DeviceType.BIPOLAR: "q",
}  # fmt: skip
NODES = {
    "m": (4, 4),
    "d": (2, 3),
    "q": (3, 4),
    "r": (2, 3),
    "c": (2, 3),
}  # fewest and most of a one-device subcircuit
_OF_LETTER = {
    "d": DeviceType.DIODE, "q": DeviceType.BIPOLAR, "r": DeviceType.RESISTOR, "c": DeviceType.CAPACITOR,
    "x": DeviceType.OTHER,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Types:
    """Rules for device types.

    Args:
        rules: By type (nmos, pmos, bipolar, capacitor, resistor, diode) a regular expression that is searched in the
            model's name, in any case. They also say which subcircuits stand for one device. What is given here is
            tried before the built-in rule of its type.
        unknown: A MOS transistor that no rule takes for n or p makes a netlist unreadable, or is of type other.
    """

    rules: Mapping[str, str] = field(default_factory=dict)
    unknown: Literal["reject", "other"] = "other"

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.rules) - set(RULES)):
            raise ConfigError(f"netlist.types: there is no type {unknown[0]!r}; known: {', '.join(RULES)}")
        for name, text in self.rules.items():
            try:
                re.compile(text)
            except re.error as error:
                raise ConfigError(
                    f"netlist.types: the rule of {name} is no regular expression: {error}"
                ) from None

    @cached_property
    def patterns(self) -> list[tuple[DeviceType, re.Pattern[str]]]:
        """The user's rules, then the built-in ones."""
        return [
            (DeviceType[name.upper()], re.compile(text, re.IGNORECASE))
            for rules in (self.rules, RULES)
            for name, text in rules.items()
        ]

    def by_name(self, model: str) -> DeviceType | None:
        """The type that a rule finds in a name; None where none does."""
        return next((kind for kind, pattern in self.patterns if pattern.search(model)), None)

    def of(self, letter: str, model: str, cards: Mapping[str, str]) -> DeviceType:
        """The type of a device.

        A MOS transistor is n or p by its .model card, else by a rule, else by the first letter of its model; where
        none of them says it is OTHER.

        Args:
            letter: m, d, q, r, c, or x for a subcircuit that is not known.
            model: Its name, folded.
            cards: Types of the .model cards by folded name.
        """
        if letter != "m":
            return _OF_LETTER[letter]
        card = cards.get(model, "")
        found = None
        if card in ("nmos", "pmos"):
            found = DeviceType[card.upper()]
        found = found or self.by_name(model)
        if found in (DeviceType.NMOS, DeviceType.PMOS):
            return found
        found = {"n": DeviceType.NMOS, "p": DeviceType.PMOS}.get(model[:1], DeviceType.OTHER)
        if found == DeviceType.OTHER and self.unknown == "reject":
            raise Unreadable(
                f"unknown model: {model!r} is no n or p transistor by any rule (netlist.types takes rules, "
                "netlist.unknown_models: other keeps it)"
            )
        return found
