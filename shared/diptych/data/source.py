"""The part of a ``data:`` section that every domain has: which recordings there are, and whose."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from diptych.data.rules import Rule, nearest
from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which recordings there are, whose they are, and the table that describes them.

    A rule is one of: record, path, folder, folder:2, row, name:GROUP, header, header:NAME, comment,
    comment:FIELD, table:COLUMN.

    Args:
        path: Folder of recordings, one file, or a manifest (.csv, .parquet) written by inspect. $NAME is
            replaced by the environment variable.
        include: Patterns of the paths below the folder to read ("*" also matches "/"); by default all.
        exclude: Patterns of the paths to leave out.
        names: Regular expression with named groups, searched in the path without suffix, such as
            (?P<patient>Subject[0-9]+)_(?P<state>[0-9]).
        patient: Rule for the patient id. The default takes every record for a patient of its own.
        trial: Rule for an id that joins recordings of one patient to one trial; by default each is its own.
        table: CSV or TSV file with one row per record or per patient, below the folder or elsewhere.
        table_id: Column of the table that ``row`` is looked up in; left out with row: row (a big array),
            where rows are counted.
        row: Rule for the text that finds a record's row in the table.
    """

    path: str
    include: list[str] = field(default_factory=lambda: ["*"])
    exclude: list[str] = field(default_factory=list)
    names: str | None = None
    patient: str = "record"
    trial: str | None = None
    table: str | None = None
    table_id: str | None = None
    row: str = "record"

    def __post_init__(self) -> None:
        try:
            groups = list(re.compile(self.names or "").groupindex)
        except re.error as error:
            raise ConfigError(f"data.names is no regular expression: {error}") from None
        for setting in ("patient", "trial", "row"):
            if text := getattr(self, setting):
                self.check(Rule.parse(text, f"data.{setting}"), f"data.{setting}", groups)
        if self.table is not None and self.table_id is None and self.row != "row":
            raise ConfigError(
                "data.table_id is missing: the column of the table that holds the record's or patient's id"
            )

    def check(self, rule: Rule, setting: str, groups: list[str] | None = None) -> None:
        """Raise ConfigError where a rule needs a group or a table that is not configured."""
        if rule.kind == "name":
            known = list(re.compile(self.names or "").groupindex) if groups is None else groups
            if rule.argument not in known:
                hint = nearest(rule.argument, known) if known else "; set data.names"
                raise ConfigError(f"{setting}: data.names has no group {rule.argument!r}{hint}")
        if rule.kind == "table" and self.table is None:
            raise ConfigError(f"{setting}: the rule takes a column of a table; set data.table")
