"""Netlists in a folder: which files are circuits, which are only included, and what each depends on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from diptych.data import readable
from diptych.data.manifest import checksum
from diptych.data.readable import Item, Unreadable
from diptych.data.scan import Found
from diptych_circuits.netlist.parser import include_of, resolve
from diptych_circuits.netlist.tops import tops_of

Format = Literal["spice", "dspf"]
EXPECTED = "SPICE or CDL (.spice, .sp, .spi, .cir, .ckt, .cdl, .net, .netlist, .pex), DSPF (.dspf, .spf)"
_SUFFIXES: dict[str, Format] = {
    **dict.fromkeys((".spice", ".sp", ".spi", ".cir", ".ckt", ".cdl", ".net", ".netlist", ".pex"), "spice"),
    **dict.fromkeys((".dspf", ".spf"), "dspf"),
}
# Written out letter by letter: a search that ignores case is eight times as slow.
_STATEMENT = re.compile(
    rb"\n[ \t]*(\.(?:[iI][nN][cC]|[lL][iI][bB]|[sS][uU][bB][cC][kK][tT]|[mM][aA][cC][rR][oO])[^\r\n]*)"
)
_BLOCK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class NetlistItem(Item):
    """A netlist that was found."""

    top: str | None = None  # the subcircuit, where a file has several that are circuits of their own
    outside: tuple[Path, ...] = ()  # includes that lie outside of the data folder


@dataclass(frozen=True, kw_only=True)
class Header(readable.Header):
    """What is known of a netlist before it is read."""

    top: str | None  # the subcircuit, where a file has several that are circuits of their own
    outside: tuple[str, ...]  # SHA-256 of includes that lie outside of the data folder


def find(files: Sequence[Path], root: Path, *, only: Format | Literal["auto"], top: str | None) -> Found:
    """Sort files into netlists: those of a known suffix that no other file includes."""
    kinds = {path: _SUFFIXES.get(path.suffix.lower()) for path in files}
    chosen = [path for path, kind in kinds.items() if kind is not None and only in ("auto", kind)]
    facts = {path: _glance(path) for path in chosen}
    included = {each for path in chosen for each in _closure(path, facts) if each != path}
    items: list[tuple[str, Item]] = []
    used = set(included)
    for path in chosen:
        if path in included:
            continue
        kind = str(kinds[path])
        closure = _closure(path, facts)
        inside = tuple(each for each in closure if each.is_relative_to(root))
        outside = tuple(each for each in closure if not each.is_relative_to(root))
        name = path.relative_to(root).with_suffix("").as_posix()
        several = kind == "spice" and facts[path][1] > 1 and top is None
        tops = _tops(path) if several else []
        items += [
            (
                kind,
                NetlistItem(
                    path=path,
                    name=f"{name}/{each}" if each else name,
                    files=inside,
                    top=each or top,
                    outside=outside,
                ),
            )
            for each in (tops if len(tops) > 1 else [""])
        ]
        used.update(inside)
    return Found(items=tuple(items), other=tuple(path for path in files if path not in used))


def read_header(kind: str, item: Item) -> Header:
    """What the netlist depends on beside its files, and which of a file's circuits it is. Raises Unreadable."""
    assert isinstance(item, NetlistItem)
    if not item.path.stat().st_size:
        raise Unreadable("empty file")
    return Header(top=item.top, outside=tuple(checksum(path).sha256 for path in sorted(item.outside)))


def _tops(path: Path) -> list[str]:
    try:
        return tops_of(path)
    except Unreadable:
        return []  # said when it is read


def _glance(path: Path) -> tuple[list[Path], int]:
    """(the files that a file includes, those that are there; how many subcircuits it defines)."""
    statements: list[bytes] = []
    with path.open("rb") as file:
        rest = b"\n"
        while block := file.read(_BLOCK):
            joined = rest + block
            cut = joined.rfind(b"\n")
            statements += _STATEMENT.findall(joined, 0, cut)
            rest = joined[cut:] if len(joined) - cut < _BLOCK else b"\n"  # a line that long is no include
        statements += _STATEMENT.findall(rest)
    found, count = [], 0
    for statement in statements:
        text = statement.decode("latin-1")
        words = text.split()
        if words[0].lower() in (".subckt", ".macro"):
            count += 1
        elif words[0].lower() in (".inc", ".include", ".lib"):
            target = resolve(
                include_of(text)[0], path
            )  # none at the beginning of a section, which names no file
            if target is not None:
                found.append(target)
    return found, count


def _closure(path: Path, facts: dict[Path, tuple[list[Path], int]]) -> list[Path]:
    """A file and all that it includes, directly or not, each once."""
    found: dict[Path, None] = {}
    waiting = [path]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        found[each] = None
        if each not in facts:
            facts[each] = _glance(each)
        waiting += facts[each][0]
    return list(found)
