"""Logical lines of a netlist: continuations joined, comments cut, in bounded memory whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from diptych.data.readable import Unreadable

LONGEST = 1_000_000  # characters of a statement with its continuations; ports of big blocks take some 100,000
_BLOCK = 1 << 20


def logical_lines(path: Path, *, dspf: bool = False) -> Iterator[tuple[int, str]]:
    """(number of its first line, text) of every statement, without comments and blank lines.

    A line that begins with ``+`` goes on with the one before, comment lines between them left aside. ``*`` begins
    a comment line, ``$`` after a blank and ``;`` a comment that ends its line. With ``dspf`` the statements of that
    form, which begin with ``*|``, are kept.

    Raises:
        Unreadable: a statement longer than LONGEST characters, characters that are not ASCII outside comments, or
            a ``+`` that continues nothing.
    """
    start, parts, size = 0, [], 0  # the statement that may go on
    for number, line in _physical_lines(path):
        first = line[:1]
        if first == "*":
            if not (dspf and line.startswith("*|")):
                continue
        elif first == "+":
            if not start:
                raise Unreadable(f"continuation of nothing: line {number} begins with '+'")
            line = _without_comment(line[1:], number)
            size += len(line)
            if size > LONGEST:
                raise _too_long(start)
            parts.append(line)
            continue
        else:
            line = _without_comment(line, number)
            if not line or line.isspace():
                continue
            if line[0] == " ":
                line = line.lstrip()
                if line[0] == "*":
                    continue
        if start:
            yield start, parts[0] if len(parts) == 1 else " ".join(parts)
        start, parts, size = number, [line], len(line)
    if start:
        yield start, " ".join(parts)


def _without_comment(line: str, number: int) -> str:
    """A line up to its comment; CDL's ``$[model]``, ``$SUB=``, ``$W=`` and ``$L=`` are no comments."""
    if "\t" in line:
        line = line.replace("\t", " ")
    if "$" in line:
        pieces = line.split(" $")
        line = pieces[0]
        for piece in pieces[1:]:
            if piece.startswith("[") or piece[:4].lower() == "sub=":
                line += " $" + piece
    if ";" in line:
        line = line.split(";", 1)[0]
    if not line.isascii():
        raise Unreadable(f"non-ASCII: line {number} has characters that are not ASCII outside comments")
    return line


def _physical_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of every line, decoded byte by byte; never holds more than a block and one line."""
    with path.open("rb") as file:
        number, rest = 0, b""
        while block := _next(file, number == 0 and not rest):
            lines = (rest + block).split(b"\n")
            rest = lines.pop()
            if len(rest) > LONGEST:
                raise _too_long(number + len(lines) + 1)
            for line in lines:
                number += 1
                yield number, line.decode("latin-1").rstrip("\r")
        if rest:
            yield number + 1, rest.decode("latin-1").rstrip("\r")


def _next(file: BinaryIO, first: bool) -> bytes:
    block = file.read(_BLOCK)
    return block.removeprefix(b"\xef\xbb\xbf") if first else block


def _too_long(number: int) -> Unreadable:
    return Unreadable(f"line too long: the statement in line {number} has more than {LONGEST} characters")
