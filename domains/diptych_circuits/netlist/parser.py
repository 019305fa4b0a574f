"""From statements to definitions: one pass over a file and what it includes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import isfinite, nan
from pathlib import Path
from typing import Literal

from diptych.data.readable import Unreadable
from diptych_circuits.netlist.definition import NUMBERS, PLACES, Definition, Instance, Library, Network
from diptych_circuits.netlist.dspf import declare
from diptych_circuits.netlist.lines import logical_lines
from diptych_circuits.netlist.types import LETTERS, NODES, Types
from diptych_circuits.netlist.values import Scope, number

_SPACED = re.compile(r"\s*=\s*")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\{[^}]*\}")
_NUMBERS = len(NUMBERS)
_BLANK = [nan] * _NUMBERS
_NODES = {"m": (4, 4), "d": (2, 2), "q": (3, 4)}
_WHAT = {"m": "MOS transistor", "d": "diode", "q": "bipolar transistor", "r": "resistor", "c": "capacitor"}


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
class _State:
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


def parse(path: Path, reading: Reading, types: Types, *, dspf: bool = False) -> Library:
    """Read a netlist and all it includes.

    Raises:
        Unreadable: with the number of the line and the reason; for one of an included file with that file's name.
    """
    library = Library()
    state = _State(reading, types, library, library.top, dspf=dspf)
    _read(path, state, (), None)
    if state.open is not library.top or state.network is not None:
        name = state.network.name if state.network is not None else state.open.name
        raise Unreadable(f"unbalanced .ends: the subcircuit {name!r} has no .ends before the end of the file")
    return library


def _read(path: Path, state: _State, around: tuple[Path, ...], section: str | None) -> None:
    """All statements of one file; of a library only those of a section."""
    if path in around:
        raise Unreadable(f"recursive include: {path.name!r} includes itself")
    around = (*around, path)
    inside = section is None
    try:
        for line, text in logical_lines(path, dspf=state.dspf):
            if state.ended:
                break
            head = text[0]
            if head == ".":
                word = text.split(None, 1)[0].lower()
                if word == ".lib" and len(text.split()) == 2:
                    inside = section is not None and text.split()[1].lower() == section
                    continue
                if word == ".endl":
                    inside = section is None
                    continue
                if inside:
                    _dot(word, text, path, state, around, line)
            elif inside:
                if state.network is not None:
                    _network(head, text, state.network, line)
                    continue
                if line == 1 and len(around) == 1 and head != "*":
                    continue  # the first line of a deck is its title, whatever it says
                _element(head, text, state, line)
    except Unreadable as error:
        if len(around) == 1 or str(error).startswith(("in ", "missing include", "recursive include")):
            raise
        raise Unreadable(f"{error} (in the include {path.name!r})") from None


def _dot(word: str, text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    """A statement that begins with a dot; those of analyses and options are nothing to a graph."""
    handler = _DOTS.get(word)
    if handler is not None:
        handler(text, path, state, around, line)


def _subckt(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    words, parameters = _words(text)
    if len(words) < 2:
        raise Unreadable(f"nameless subcircuit: .subckt in line {line} has no name")
    name = words[1]
    if state.open is not state.library.top or state.network is not None:
        inner = state.network.name if state.network is not None else state.open.name
        raise Unreadable(
            f"unbalanced .ends: .subckt {name!r} in line {line} begins before the .ends of {inner!r}"
        )
    folded = name.lower()
    if folded.startswith("pm_") and "%" in folded:
        state.network = state.library.networks[folded] = Network(name, ports=len(words) - 2)
        return
    if folded in state.library.definitions:
        raise Unreadable(f"duplicate subcircuit: {name!r} is defined again in line {line}")
    made = Definition(name, state.library.models, line, parameters=parameters)
    made.ports = tuple(made.node(word) for word in words[2:] if word.lower() != "params:")
    state.library.definitions[folded] = state.open = made
    state.seen, state.outer_seen = {}, state.seen


def _ends(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    words = text.split()
    name = state.network.name if state.network is not None else state.open.name
    if state.network is None and state.open is state.library.top:
        raise Unreadable(f"unbalanced .ends: .ends in line {line} closes no .subckt")
    if len(words) > 1 and words[1].lower() != name.lower():
        raise Unreadable(f"unbalanced .ends: line {line} closes {words[1]!r}, but {name!r} is open")
    if state.network is not None:
        state.network = None
    else:
        state.open, state.seen = state.library.top, state.outer_seen


def _include(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    target, section = include_of(text)
    found = resolve(target, path)
    if found is None:
        if state.reading.missing_includes == "ignore":
            state.library.ignored["include"] = state.library.ignored.get("include", 0) + 1
            return
        raise Unreadable(
            f"missing include: {target!r} in line {line} (netlist.missing_includes: ignore goes without it)"
        )
    _read(found, state, around, section)


def include_of(text: str) -> tuple[str, str | None]:
    """(path, section) of an .include, .inc or .lib statement."""
    rest = text.split(None, 1)[1] if len(text.split(None, 1)) > 1 else ""
    quoted = re.match(r"\s*(['\"])(.*?)\1\s*(\S*)", rest)
    target, section = (quoted[2], quoted[3]) if quoted else ([*rest.split(), "", ""])[:2]
    return target, section.lower() or None


def resolve(target: str, path: Path) -> Path | None:
    """The file that an include names, beside the including one or from here; None where there is none."""
    given = Path(target).expanduser()
    tried = [given] if given.is_absolute() else [path.parent / given, given]
    return next((each for each in tried if target and each.is_file()), None)


def _parameter(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    _, parameters = _words(text)
    known = state.library.parameters if state.open is state.library.top else state.open.parameters
    known.update(parameters)


def _model(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    words = text.replace("(", " ").split()
    if len(words) > 2:
        state.library.model_types[words[1].lower()] = words[2].lower()


def _global(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    state.library.globals.update(word.lower() for word in text.split()[1:])


def _end(text: str, path: Path, state: _State, around: tuple[Path, ...], line: int) -> None:
    state.ended = True


_DOTS: Mapping[str, Callable[[str, Path, _State, tuple[Path, ...], int], None]] = {
    ".subckt": _subckt, ".ends": _ends, ".eom": _ends, ".macro": _subckt, ".include": _include, ".inc": _include,
    ".lib": _include, ".param": _parameter, ".params": _parameter, ".parameters": _parameter, ".model": _model,
    ".global": _global, ".end": _end,
}  # fmt: skip


def _words(text: str) -> tuple[list[str], dict[str, str]]:
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


def _network(head: str, text: str, network: Network, line: int) -> None:
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


def _element(head: str, text: str, state: _State, line: int) -> None:
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


def _device(letter: str, text: str, state: _State, line: int) -> None:
    """M, D or Q: nodes, model, parameters."""
    if " =" in text or "= " in text or "'" in text or "{" in text or '"' in text:
        plain, named = _words(text)
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


def _passive(letter: str, text: str, state: _State, line: int) -> None:
    """R or C: a parasitic where it has a value alone, a device where it has a model."""
    words = text.split()
    if len(words) == 4 and "=" not in text and "$" not in text:  # the shape of millions of them
        value = number(words[3])
        if value is not None and state.reading.plain == "parasitics":
            _parasitic(letter, words[1], words[2], value, state, line)
            return
    plain, named = _words(text)
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


def _parasitic(letter: str, a: str, b: str, value: float, state: _State, line: int) -> None:
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


def _instance(letter: str, text: str, state: _State, line: int) -> None:
    words, parameters = _words(text)
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


def _other(letter: str, text: str, state: _State, line: int) -> None:
    """Sources, inductors, probes: counted, and their first two nodes are nets all the same."""
    if not letter.isalpha():
        raise Unreadable(f"malformed element: line {line} begins with {text[0]!r}, which begins no statement")
    state.library.ignored[letter] = state.library.ignored.get(letter, 0) + 1
    words = text.split()
    if len(words) < 3:
        raise Unreadable(f"malformed element: {words[0]!r} in line {line} has no two nodes")
    state.open.other_nodes.extend(state.open.node(word) for word in words[1:3])


_ELEMENTS: Mapping[str, Callable[[str, str, _State, int], None]] = {
    "m": _device, "d": _device, "q": _device, "r": _passive, "c": _passive, "x": _instance,
}  # fmt: skip
