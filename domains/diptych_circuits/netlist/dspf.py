"""The statements of DSPF that say which net and which pin a node of the parasitic network is.

``*|NET name C``, ``*|P (name type C x y)``, ``*|I (node instance pin type C x y)`` and ``*|S (node x y)``: after the
net that they follow.
"""

from __future__ import annotations

import re

from diptych.data.readable import Unreadable
from diptych_circuits.netlist.definition import Definition

_STATEMENT = re.compile(r"\*\|\s*(\w+)\s*\(?\s*(.*?)\s*\)?\s*$")
_OPEN = "\x00net"  # key under which the net that statements follow is kept


def declare(text: str, into: Definition, line: int) -> None:
    """Take a statement into ``declared``. Raises Unreadable where a node stands before any net or lacks its names."""
    match = _STATEMENT.match(text)
    if match is None:
        return
    word, words = match[1].upper(), match[2].split()
    if word == "NET":
        if not words:
            raise Unreadable(f"malformed element: *|NET in line {line} has no name")
        into.declared[_OPEN] = (words[0], "", "")
        into.declared[words[0].lower()] = (words[0], "", "")
    elif word in ("P", "S", "I"):
        groups = (
            [group.split() for group in " ".join(words).replace("(", " ( ").split("(")]
            if "(" in text[4:]
            else []
        )
        groups = [[each.rstrip(")") for each in group if each.rstrip(")")] for group in groups] or [words]
        net = into.declared.get(_OPEN)
        if net is None:
            raise Unreadable(f"malformed element: *|{word} in line {line} stands before any *|NET")
        for group in groups:
            if not group:
                continue
            if word == "I" and len(group) < 3:
                raise Unreadable(f"malformed element: *|I in line {line} names no instance and pin")
            device, terminal = (group[1], group[2]) if word == "I" else ("", "")
            into.declared[group[0].lower()] = (net[0], device, terminal)


def declared(into: Definition) -> dict[str, tuple[str, str, str]]:
    """Folded node -> (net, device, terminal); the last two are empty where the node is no pin."""
    return {node: names for node, names in into.declared.items() if node != _OPEN}
