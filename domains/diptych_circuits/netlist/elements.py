"""Statements of elements: devices, resistors, capacitors, instances, and what is only counted."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isfinite, nan

from diptych.data.readable import Unreadable
from diptych_circuits.netlist.definition import NUMBERS, PLACES, Definition, Instance, Network
from diptych_circuits.netlist.dspf import declare
from diptych_circuits.netlist.state import State
from diptych_circuits.netlist.types import NODES
from diptych_circuits.netlist.values import Scope, number

_SPACED = re.compile(r"\s*=\s*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\{[^}]*\}")
_NUMBERS = len(NUMBERS)
_BLANK = [nan] * _NUMBERS
_NODES = {"m": (4, 4), "d": (2, 2), "q": (3, 4)}
_WHAT = {"m": "MOS transistor", "d": "diode", "q": "bipolar transistor", "r": "resistor", "c": "capacitor"}


def words_of(text: str) -> tuple[list[str], dict[str, str]]:
    """The words of a statement before its parameters, and the parameters by folded name."""
    if "=" not in text:
        return text.split(), {}
    kept: list[str] = []
    if "'" in text or "{" in text or '"' in text:  # expressions may hold blanks and "="

        def keep(match: re.Match[str]) -> str:
            kept.append(match[0])
            return f"\x00{len(kept) - 1}\x00"

        text = _QUOTED.sub(keep, text)
    if " =" in text or "= " in text:
        text = _SPACED.sub("=", text)
    words, parameters = [], {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            words.append(word)
            continue
        if kept and "\x00" in value:
            value = re.sub("\x00(\\d+)\x00", lambda m: kept[int(m[1])], value)
        parameters[name.lower()] = value
    return words, parameters


def network_element(head: str, text: str, network: Network, line: int) -> None:
    """A resistor or capacitor inside the network of a net."""
    words = text.split(None, 4)
    value = number(words[3]) if len(words) > 3 else None
    if value is None:
        raise Unreadable(f"malformed element: line {line} of the network {network.name!r} has no value")
    if head in "rR":
        network.ohm += value
        network.resistors += 1
    elif head in "cC":
        if value <= 0:
            raise Unreadable(f"capacitance not above 0: {value:g} F in line {line}")
        if words[1] == "0" or words[2] == "0":
            network.farad += value


def element(head: str, text: str, state: State, line: int) -> None:
    letter = head.lower()
    if letter == "*":
        declare(text, state.open, line)
        return
    handler = _ELEMENTS.get(letter)
    if handler is None:
        _other(letter, text, state, line)
        return
    if letter not in "rc" or not state.dspf:  # names of parasitics begin anew with every net of DSPF
        name = text.split(None, 1)[0].lower()
        before = state.seen.setdefault(name, line)
        if before != line and state.reading.duplicates == "reject":
            raise Unreadable(
                f"duplicate instance name: {name!r} in line {line} was used in line {before} "
                "(netlist.duplicates: keep takes both)"
            )
    handler(letter, text, state, line)


def _device(letter: str, text: str, state: State, line: int) -> None:
    """M, D or Q: nodes, model, parameters."""
    if " =" in text or "= " in text or "'" in text or "{" in text or '"' in text:
        plain, named = words_of(text)
        pairs = list(named.items())
    else:
        plain, pairs = [], []
        for word in text.split():
            if "=" in word:
                key, _, value = word.partition("=")
                pairs.append((key, value))
            else:
                plain.append(word)
    fewest, most = _NODES[letter]
    count = fewest
    if letter == "q" and len(plain) > 5 and state.number(plain[5]) is None:
        count = most
    if letter in "dq":
        while len(plain) > count + 2 and state.number(plain[-1]) is not None:
            plain = plain[:-1]  # the area
    if len(plain) != count + 2:
        raise Unreadable(
            f"wrong node count: {plain[0]!r} in line {line} is a {_WHAT[letter]}, which takes {count} nodes and a "
            f"model; it has {len(plain) - 1} words before its parameters"
        )
    add_device(state.open, letter, plain[0], plain[1:-1], plain[-1], pairs, line, state.number)


def add_device(
    into: Definition,
    letter: str,
    name: str,
    nodes: list[str],
    model: str,
    pairs: list[tuple[str, str]],
    line: int,
    value: Callable[[str], float | None],
) -> None:
    """Append a device; what is no plain number is left to be evaluated when the hierarchy is expanded."""
    numbers = _BLANK.copy()
    places = PLACES[letter]
    for key, text in pairs:
        place = places.get(key)
        if place is None:
            continue
        found = value(text)
        if found is None:
            into.expressions.append((len(into.device_names), place, text))
        elif place != 3 or numbers[3] != numbers[3] or key.lower() == "m":
            numbers[place] = found
    into.device_names.append(name)
    into.device_kind.append(ord(letter))
    into.device_model.append(into.model(model))
    into.device_numbers.extend(numbers)
    into.device_line.append(line)
    into.terminals.extend([into.node(node) for node in nodes])
    into.terminal_ends.append(len(into.terminals))


def _passive(letter: str, text: str, state: State, line: int) -> None:
    """R or C: a parasitic where it has a value alone, a device where it has a model."""
    words = text.split()
    if len(words) == 4 and "=" not in text and "$" not in text:  # the shape of millions of them
        value = number(words[3])
        if value is not None and state.reading.plain == "parasitics":
            _parasitic(letter, words[1], words[2], value, state, line)
            return
    plain, named = words_of(text)
    model = next((word[2:].rstrip("]") for word in plain if word.startswith("$[")), None)
    bulk = [word[5:] for word in plain if word[:5].lower() == "$sub="] + (
        [named.pop("$sub")] if "$sub" in named else []
    )
    plain = [word for word in plain if word[0] != "$"]
    if len(plain) < 3:
        raise Unreadable(
            f"wrong node count: {plain[0]!r} in line {line} takes 2 nodes and a value or a model; it has "
            f"{len(plain) - 1} words"
        )
    rest = plain[3:]
    texts = [word for word in rest if state.number(word) is None and word[0] not in "'{\""]
    if texts and model is None:
        model = texts[-1]
        bulk = bulk or texts[:-1]
    values = [word for word in rest if word not in texts]
    written = values[0] if values else named.get("r" if letter == "r" else "c")
    if model is None and state.reading.plain == "parasitics":
        value = (
            None
            if written is None
            else Scope(state.open.parameters, Scope(state.library.parameters)).value(written)
        )
        if value is None:
            raise Unreadable(
                f"malformed element: {plain[0]!r} in line {line} has neither a value nor a model"
            )
        _parasitic(letter, plain[1], plain[2], value, state, line)
        return
    nodes = [plain[1], plain[2], *bulk[:1]]
    add_device(state.open, letter, plain[0], nodes, model or letter, list(named.items()), line, state.number)


def _parasitic(letter: str, a: str, b: str, value: float, state: State, line: int) -> None:
    into = state.open
    if not isfinite(value):
        raise Unreadable(f"malformed element: line {line} has no finite value")
    if letter == "r":
        into.resistor_ends.extend((into.node(a), into.node(b)))
        into.ohm.append(value)
        return
    if value <= 0:
        if state.reading.bad_capacitance == "skip":
            state.library.ignored["capacitance"] = state.library.ignored.get("capacitance", 0) + 1
            return
        raise Unreadable(
            f"capacitance not above 0: {value:g} F in line {line} (netlist.bad_capacitance: skip leaves it out)"
        )
    into.capacitor_ends.extend((into.node(a), into.node(b)))
    into.farad.append(value)


def _instance(letter: str, text: str, state: State, line: int) -> None:
    words, parameters = words_of(text)
    words = [word for word in words if word != "/" and word.lower() != "params:"]
    if len(words) < 2:
        raise Unreadable(f"malformed element: {words[0]!r} in line {line} names no subcircuit")
    child = words[-1].lower()
    into = state.open
    if child.startswith("pm_") and "%" in child:
        nodes = tuple([into.node(word) for word in words[1:-1]])
        into.networks.append((words[-1].split("%", 1)[1], nodes, child))
        return
    kind = state.primitive(child)
    if kind is not None:
        _check_nodes(words, kind, line)
        add_device(into, kind, words[0], words[1:-1], words[-1], list(parameters.items()), line, state.number)
        return
    nodes = tuple([into.node(word) for word in words[1:-1]])
    into.instances.append(Instance(words[0], child, nodes, parameters, line))


def _check_nodes(words: list[str], kind: str, line: int) -> None:
    fewest, most = NODES[kind]
    if not fewest <= len(words) - 2 <= most:
        raise Unreadable(
            f"wrong node count: {words[0]!r} in line {line} is a {_WHAT[kind]}, which takes "
            f"{fewest if fewest == most else f'{fewest} or {most}'} nodes; it has {len(words) - 2}"
        )


def _other(letter: str, text: str, state: State, line: int) -> None:
    """Sources, inductors, probes: counted, and their first two nodes are nets all the same."""
    if not letter.isalpha():
        raise Unreadable(f"malformed element: line {line} begins with {text[0]!r}, which begins no statement")
    state.library.ignored[letter] = state.library.ignored.get(letter, 0) + 1
    words = text.split()
    if len(words) < 3:
        raise Unreadable(f"malformed element: {words[0]!r} in line {line} has no two nodes")
    state.open.other_nodes.extend(state.open.node(word) for word in words[1:3])


_ELEMENTS: Mapping[str, Callable[[str, str, State, int], None]] = {
    "m": _device, "d": _device, "q": _device, "r": _passive, "c": _passive, "x": _instance,
}  # fmt: skip
