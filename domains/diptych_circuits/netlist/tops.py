"""Which subcircuits of a file are circuits of their own: those that no other one uses."""

from __future__ import annotations

from pathlib import Path

from diptych.data.readable import Unreadable
from diptych_circuits.netlist.definition import Definition, Library
from diptych_circuits.netlist.lines import logical_lines


def tops_of(path: Path) -> list[str]:
    """Names of the subcircuits that a file defines itself and that none of its statements uses, in order.

    Includes are not followed. Empty where the file has elements outside of subcircuits: it is a circuit as a whole.

    Raises Unreadable as the lines do.
    """
    own: dict[str, str] = {}
    used: set[str] = set()
    depth = 0
    for line, text in logical_lines(path):
        head = text[0]
        if line == 1 and head != ".":
            continue  # the title
        if head == ".":
            words = text.split(None, 2)
            if words[0].lower() in (".subckt", ".macro") and len(words) > 1:
                depth += 1
                own.setdefault(words[1].lower(), words[1])
            elif words[0].lower() in (".ends", ".eom"):
                depth -= 1
        elif head in "xX":
            if depth < 1:
                return []
            used.add([word for word in text.split() if "=" not in word][-1].lower())
        elif depth < 1 and head in "mMdDqQ":
            return []
    return [name for folded, name in own.items() if folded not in used]


def top_of(library: Library, wanted: str | None) -> Definition:
    """The circuit of a library: the named subcircuit, the elements outside of all, or the one that none uses.

    Raises Unreadable where there is none, or several and no name.
    """
    if wanted is not None:
        found = library.definitions.get(wanted.lower())
        if found is None:
            raise Unreadable(f"no such circuit: the netlist has no subcircuit {wanted!r}")
        return found
    if library.top.device_names or library.top.instances:
        return library.top
    used = {instance.child for each in library.definitions.values() for instance in each.instances}
    free = [each for name, each in library.definitions.items() if name not in used]
    if len(free) == 1:
        return free[0]
    if not free and library.definitions:
        raise Unreadable(
            f"recursive subcircuits: every one is used by another ({next(iter(library.definitions))!r} ...)"
        )
    if not free:
        raise Unreadable("no circuit: it defines no subcircuit and has no devices outside of one")
    raise Unreadable(
        f"several circuits: {len(free)} subcircuits are used by no other ({free[0].name!r}, {free[1].name!r} ...); "
        "name one as netlist.top"
    )
