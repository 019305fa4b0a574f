"""Rules: short texts in the config that say where an id or a label of a recording is found.

=================  ===========================================================================
``record``         the record's name: its file name without suffix (with ``[i]`` for row i of an array)
``path``           its path below the data folder without suffix
``folder``         the name of the folder it lies in; ``folder:2`` the folder above, and so on
``row``            its row in a big array, counted from 0
``name:GROUP``     a named group of the regular expression ``data.names``, searched in the path
``header``         the patient id in the header (EDF, DICOM); ``header:NAME`` another text of it
``comment``        all comment lines of the header; ``comment:FIELD`` the text after ``FIELD:``
``table:COLUMN``   a cell of the record's row in ``data.table``
=================  ===========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import PurePosixPath

from diptych.data.readable import Header, Item
from diptych.errors import ConfigError

_PLAIN = ("record", "path", "row")
_OPTIONAL = ("header", "folder", "comment")
_NEEDED = ("name", "table")


@dataclass(frozen=True)
class Rule:
    """A parsed rule; see the module for its kinds."""

    kind: str
    argument: str = ""

    @staticmethod
    def parse(text: str, setting: str) -> Rule:
        """Raises ConfigError, naming the setting and the nearest rule, where the text is none."""
        kind, colon, argument = text.strip().partition(":")
        known = (*_PLAIN, *_OPTIONAL, *_NEEDED)
        if kind not in known:
            raise ConfigError(f"{setting}: there is no rule {kind!r}{nearest(kind, known)}")
        if kind in _PLAIN and colon:
            raise ConfigError(f"{setting}: the rule {kind!r} takes nothing after it; got {text!r}")
        if kind in _NEEDED and not argument.strip():
            raise ConfigError(f"{setting}: the rule {kind!r} needs a name after it, such as '{kind}:patient'")
        if kind == "folder" and argument and not re.fullmatch("[1-9]", argument):
            raise ConfigError(f"{setting}: 'folder:N' counts folders from 1 to 9; got {text!r}")
        return Rule(kind, argument.strip())


def text_of(
    rule: Rule,
    item: Item,
    header: Header | None,
    row: Mapping[str, str] | None = None,
    names: re.Pattern[str] | None = None,
) -> str | None:
    """What a rule finds for one recording, stripped; None where it finds nothing or only blanks."""
    found: str | None = None
    place = PurePosixPath(item.name)
    if rule.kind == "record":
        found = record_name(item)
    elif rule.kind == "path":
        found = item.name + ("" if item.part is None else f"[{item.part}]")
    elif rule.kind == "row":
        found = None if item.part is None else str(item.part)
    elif rule.kind == "folder":
        above = place.parts[:-1]
        steps = int(rule.argument or 1)
        found = above[-steps] if steps <= len(above) else None
    elif rule.kind == "name" and names is not None:
        match = names.search(item.name)
        found = match[rule.argument] if match else None
    elif rule.kind == "header" and header is not None:
        found = header.fields.get(rule.argument) if rule.argument else header.patient
    elif rule.kind == "comment" and header is not None:
        found = comment(header.comments, rule.argument)
    elif rule.kind == "table" and row is not None:
        found = row[rule.argument]
    return (found or "").strip() or None


def record_name(item: Item) -> str:
    """The file name without suffix, and the row where the file holds several recordings."""
    return PurePosixPath(item.name).name + ("" if item.part is None else f"[{item.part}]")


def comment(lines: Sequence[str], name: str) -> str | None:
    """The text after ``name:`` or ``<name>:`` up to the next ``<field>:``; all lines where name is empty."""
    if not name:
        return "\n".join(lines)
    pattern = re.compile(
        rf"(?:^|[\s<]){re.escape(name)}>?\s*:\s*(.*?)\s*(?=<[^<>]+>\s*:|$)", re.IGNORECASE | re.MULTILINE
    )
    for line in lines:
        if match := pattern.search(line):
            return match[1]
    return None


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message: the nearest known name, or all of them."""
    known = list(known)
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(map(repr, known))}"
