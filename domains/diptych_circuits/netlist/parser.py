"""From statements to definitions: one pass over a file and what it includes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from diptych.data.readable import Unreadable
from diptych_circuits.netlist.definition import Definition, Library, Network
from diptych_circuits.netlist.elements import element, network_element, words_of
from diptych_circuits.netlist.lines import logical_lines
from diptych_circuits.netlist.state import Reading, State
from diptych_circuits.netlist.types import Types


def parse(path: Path, reading: Reading, types: Types, *, dspf: bool = False) -> Library:
    """Read a netlist and all it includes.

    Raises:
        Unreadable: with the number of the line and the reason; for one of an included file with that file's name.
    """
    library = Library()
    state = State(reading, types, library, library.top, dspf=dspf)
    _read(path, state, (), None)
    if state.open is not library.top or state.network is not None:
        name = state.network.name if state.network is not None else state.open.name
        raise Unreadable(f"unbalanced .ends: the subcircuit {name!r} has no .ends before the end of the file")
    return library


def _read(path: Path, state: State, around: tuple[Path, ...], section: str | None) -> None:
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
                    network_element(head, text, state.network, line)
                    continue
                if line == 1 and len(around) == 1 and head != "*":
                    continue  # the first line of a deck is its title, whatever it says
                element(head, text, state, line)
    except Unreadable as error:
        if len(around) == 1 or str(error).startswith(("in ", "missing include", "recursive include")):
            raise
        raise Unreadable(f"{error} (in the include {path.name!r})") from None


def _dot(word: str, text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
    """A statement that begins with a dot; those of analyses and options are nothing to a graph."""
    handler = _DOTS.get(word)
    if handler is not None:
        handler(text, path, state, around, line)


def _subckt(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
    words, parameters = words_of(text)
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


def _ends(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
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


def _include(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
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


def _parameter(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
    _, parameters = words_of(text)
    known = state.library.parameters if state.open is state.library.top else state.open.parameters
    known.update(parameters)


def _model(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
    words = text.replace("(", " ").split()
    if len(words) > 2:
        state.library.model_types[words[1].lower()] = words[2].lower()


def _global(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
    state.library.globals.update(word.lower() for word in text.split()[1:])


def _end(text: str, path: Path, state: State, around: tuple[Path, ...], line: int) -> None:
    state.ended = True


_DOTS: Mapping[str, Callable[[str, Path, State, tuple[Path, ...], int], None]] = {
    ".subckt": _subckt, ".ends": _ends, ".eom": _ends, ".macro": _subckt, ".include": _include, ".inc": _include,
    ".lib": _include, ".param": _parameter, ".params": _parameter, ".parameters": _parameter, ".model": _model,
    ".global": _global, ".end": _end,
}  # fmt: skip
