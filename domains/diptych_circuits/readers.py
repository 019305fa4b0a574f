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
_INCLUDE = re.compile(rb"^[ \t]*(\.(?:inc|include|lib)[ \t]+[^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_SUBCKT = re.compile(rb"^[ \t]*\.(?:subckt|macro)[ \t]", re.IGNORECASE | re.MULTILINE)
_BLOCK = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Header(readable.Header):
    """What is known of a netlist before it is read."""

    top: str | None  # the subcircuit, where a file has several that are circuits of their own
    outside: tuple[str, ...]  # SHA-256 of includes that lie outside of the data folder


def find(files: Sequence[Path], root: Path, *, only: Format | Literal["auto"], top: str | None) -> Found:
    """Sort files into netlists: those of a known suffix that no other file includes."""
    chosen = [
        path
        for path in files
        if _SUFFIXES.get(path.suffix.lower()) in (only if only != "auto" else "spice", "dspf")
    ]
    if only != "auto":
        chosen = [path for path in chosen if _SUFFIXES[path.suffix.lower()] == only]
    facts = {path: _glance(path) for path in chosen}
    included = {each for path in chosen for each in _closure(path, facts) if each != path}
    items: list[tuple[str, Item]] = []
    used = set(included)
    for path in chosen:
        if path in included:
            continue
        name = path.relative_to(root).with_suffix("").as_posix()
        closure = [each for each in _closure(path, facts) if each.is_relative_to(root)]
        kind = _SUFFIXES[path.suffix.lower()]
        tops = _tops(path, top) if kind == "spice" and facts[path][1] > 1 else []
        for place in tops if len(tops) > 1 else [""]:
            items.append(
                (kind, Item(path=path, name=f"{name}/{place}" if place else name, files=tuple(closure)))
            )
        used |= {path, *closure}
    return Found(items=tuple(items), other=tuple(path for path in files if path not in used))


def read_header(kind: str, item: Item, *, top: str | None) -> Header:
    """What the netlist depends on beside its files, and which of a file's circuits it is."""
    inner = item.path.stem != Path(item.name).name
    outside = [
        checksum(path).sha256
        for path in sorted(_closure(item.path, {}))
        if path not in item.files and path != item.path
    ]
    if not item.path.stat().st_size:
        raise Unreadable("empty file")
    return Header(top=Path(item.name).name if inner else top, outside=tuple(outside))


def _tops(path: Path, top: str | None) -> list[str]:
    if top is not None:
        return []
    try:
        return tops_of(path)
    except Unreadable:
        return []  # said when it is read


def _glance(path: Path) -> tuple[list[Path], int]:
    """(the files that a file includes, those that are there; how many subcircuits it defines)."""
    targets, count = [], 0
    with path.open("rb") as file:
        rest = b""
        while block := file.read(_BLOCK):
            text, _, rest = (rest + block).rpartition(b"\n") if len(rest) < _BLOCK else (b"", b"", block)
            targets += _INCLUDE.findall(text)
            count += len(_SUBCKT.findall(text))
        targets += _INCLUDE.findall(rest)
        count += len(_SUBCKT.findall(rest))
    found = []
    for statement in targets:
        words = statement.decode("latin-1").split()
        if (
            words[0].lower() == ".lib"
            and len(words) == 2
            and not words[1].strip("'\"").endswith((".lib", ".spice", ".sp"))
        ):
            continue  # the beginning of a section
        target = resolve(include_of(statement.decode("latin-1"))[0], path)
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
