"""Logical lines of a netlist: continuations joined, comments cut, in bounded memory whatever the file holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
    start, parts, size, number = 0, [""], 0, 0  # the statement that may go on
    for lines, special in _blocks(path):
        for line in lines:
            number += 1
            first = line[:1]
            if first == "*":
                if not (dspf and line[:2] == "*|"):
                    continue
            else:
                end = line.find(" $")
                if end >= 0 or special:
                    line = _without_comment(line, number) if special else line[:end]
                if first == "+":
                    if not start:
                        raise Unreadable(f"continuation of nothing: line {number} begins with '+'")
                    size += len(line)
                    if size > LONGEST:
                        raise _too_long(start)
                    parts.append(line[1:])
                    continue
                if first == " ":
                    line = line.lstrip(" ")
                if not line or line[0] == "*":
                    continue
            if start:
                yield start, parts[0] if len(parts) == 1 else " ".join(parts)
            start, parts, size = number, [line], len(line)
            if size > LONGEST:
                raise _too_long(start)
    if start:
        yield start, " ".join(parts)


def _without_comment(line: str, number: int) -> str:
    """A line up to its comment; CDL's ``$[model]`` and ``$SUB=net`` are no comments."""
    pieces = line.split(" $")
    kept = [piece for piece in pieces[1:] if piece[:1] == "[" or piece[:4].lower() == "sub="]
    line = " $".join([pieces[0], *kept]).split(";", 1)[0]
    if not line.isascii():
        raise Unreadable(f"non-ASCII: line {number} has characters that are not ASCII outside comments")
    return line


def _blocks(path: Path) -> Iterator[tuple[list[str], bool]]:
    """(lines, whether they hold what takes a closer look) of each block; never more than a block and one line."""
    with path.open("rb") as file:
        number, rest = 0, b""
        while block := file.read(_BLOCK):
            if not number and not rest:
                block = block.removeprefix(b"\xef\xbb\xbf")
            cut = block.rfind(b"\n")
            if cut < 0:
                rest += block
                if len(rest) > LONGEST:
                    raise _too_long(number + 1)
                continue
            whole, rest = rest + block[:cut], block[cut + 1 :]
            lines, special = _lines(whole)
            number += len(lines)
            yield lines, special
        if rest:
            yield _lines(rest)


def _lines(block: bytes) -> tuple[list[str], bool]:
    special = (
        not block.isascii() or b";" in block or b" $[" in block or b"$sub=" in block or b"$SUB=" in block
    )
    text = block.decode("latin-1")
    if "\t" in text:
        text = text.replace("\t", " ")
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.rstrip("\r") for line in lines]
    return lines, special


def _too_long(number: int) -> Unreadable:
    return Unreadable(f"line too long: the statement in line {number} has more than {LONGEST} characters")
