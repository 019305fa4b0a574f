"""Ids and labels of scanned recordings: rules applied, the table joined, what does not fit counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

import numpy as np
import pandas as pd

from diptych.data.folder import expand
from diptych.data.identity import pseudonym_salt, salted_key
from diptych.data.labels import Label, Values, contradictions, read_values
from diptych.data.quarantine import Quarantine
from diptych.data.rules import Rule, nearest, text_of
from diptych.data.scan import AnyHeader, Scan, Scanned, item_path
from diptych.data.source import Source
from diptych.errors import ConfigError, DataError


@dataclass(frozen=True, kw_only=True)
class Annotated(Generic[AnyHeader]):
    """Recordings whose patient is known, with their raw ids (in memory only) and labels."""

    scanned: list[Scanned[AnyHeader]]
    patients: list[str]
    trials: list[str | None]
    labels: dict[str, Values]
    report: dict[str, str]


def annotate(
    found: Scan[AnyHeader], source: Source, labels: Mapping[str, Label], quarantine: Quarantine
) -> Annotated[AnyHeader]:
    """Apply the rules for patient, trial and labels to every recording.

    A recording without a patient id is put into quarantine. A recording without a table row has missing
    labels, a row without a recording is left out; both are counted in the report.

    Raises:
        ConfigError: unknown columns or groups, a table that is not there, a rule that finds nothing anywhere.
        DataError: rows of one id that contradict each other.
    """
    places = {name: label.place(name) for name, label in labels.items()}
    for name, place in places.items():
        source.check(place, f"labels.{name}")
    own = {"data.patient": Rule.parse(source.patient, "data.patient")}
    if source.trial is not None:
        own["data.trial"] = Rule.parse(source.trial, "data.trial")
    used = {**own, **{f"labels.{name}": place for name, place in places.items()}}
    names = re.compile(source.names) if source.names else None
    report: dict[str, str] = {}
    rows = _rows(found, source, used, names, report)

    def texts(rule: Rule) -> list[str | None]:
        return [
            text_of(rule, each.item, each.header, row, names)
            for each, row in zip(found.scanned, rows, strict=True)
        ]

    patients = texts(own["data.patient"])
    if not any(patients):
        raise ConfigError(f"data.patient: the rule {source.patient!r} finds a patient id for no {found.unit}")
    known = [i for i, patient in enumerate(patients) if patient]
    for i in set(range(len(patients))) - set(known):
        item = found.scanned[i].item
        quarantine.add(item_path(item, found.root), f"no patient id: the rule {source.patient!r} finds none")
    trials = texts(own["data.trial"]) if source.trial is not None else [None] * len(patients)
    values: dict[str, Values] = {}
    for name, place in places.items():
        every = texts(place)
        values[name] = read_values(labels[name], [every[i] for i in known])
        report_label(name, values[name], report)
    return Annotated(
        scanned=[found.scanned[i] for i in known],
        patients=[str(patients[i]) for i in known],
        trials=[trials[i] for i in known],
        labels=values,
        report=report,
    )


def read_table(path: str, root: Path, setting: str) -> pd.DataFrame:
    """A CSV or TSV file as stripped text; relative paths are tried below the data folder, then from here."""
    given = expand(path, setting)
    tried = [given] if given.is_absolute() else [root / given, given]
    file = next((each for each in tried if each.is_file()), None)
    if file is None:
        raise ConfigError(f"{setting}: there is no file {path!r} (tried {', '.join(map(str, tried))})")
    try:
        table = pd.read_csv(
            file, dtype=str, keep_default_na=False, encoding="utf-8-sig",
            sep="\t" if file.suffix == ".tsv" else ",",
        )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{setting}: {path!r} is no table ({type(error).__name__})") from None
    table.columns = table.columns.str.strip()
    return pd.DataFrame({name: table[name].str.strip() for name in table.columns})


def _rows(
    found: Scan[AnyHeader],
    source: Source,
    used: Mapping[str, Rule],
    names: re.Pattern[str] | None,
    report: dict[str, str],
) -> list[dict[str, str] | None]:
    """The table row of every recording, or None."""
    if source.table is None:
        return [None] * len(found.scanned)
    table = read_table(source.table, found.root, "data.table")
    for setting, rule in used.items():
        if rule.kind == "table":
            need_columns(table, [rule.argument], setting)
    rule = Rule.parse(source.row, "data.row")
    keys = [text_of(rule, each.item, each.header, None, names) for each in found.scanned]
    if source.table_id is None:
        ids = [str(i) for i in range(len(table))]
    else:
        need_columns(table, [source.table_id], "data.table_id")
        ids = table[source.table_id].tolist()
        columns = [rule.argument for rule in used.values() if rule.kind == "table"]
        if wrong := contradictions(table, source.table_id, list(dict.fromkeys(columns))):
            salted = ", ".join(salted_key(pseudonym_salt(), each) for each in wrong[:5])
            raise DataError(
                f"data.table: {len(wrong)} ids have several rows that contradict each other ({salted}); "
                "keep one row per id"
            )
    by_id: dict[str, dict[str, str]] = {}
    for key, row in zip(ids, table.to_dict("records"), strict=True):
        by_id.setdefault(key, {str(column): str(cell) for column, cell in row.items()})
    _report_match(keys, list(by_id), source, report, found.unit)
    return [by_id.get(key) if key else None for key in keys]


def _report_match(
    keys: Sequence[str | None], ids: Sequence[str], source: Source, report: dict[str, str], unit: str
) -> None:
    """Count recordings without a row and rows without a recording; stop where nothing matches."""
    matched = set(filter(None, keys)) & set(ids)
    if not matched:
        raise ConfigError(
            f"data.row: no {unit} finds its row: the rule {source.row!r} gives no text that stands in the "
            f"column {source.table_id!r} of the table"
        )
    without = sum(key not in matched for key in keys)
    if without:
        report[f"{unit}s without a table row"] = f"{without} of {len(keys)}; their labels are missing"
    if spare := [key for key in ids if key not in matched]:
        salted = ", ".join(salted_key(pseudonym_salt(), key) for key in spare[:5])
        more = ", ..." if len(spare) > 5 else ""
        report[f"table rows without a {unit}"] = f"{len(spare)} of {len(ids)} ({salted}{more})"


def report_label(name: str, values: Values, report: dict[str, str]) -> None:
    """Add a line to the report: how many are known, missing and unusable."""
    array = values.values
    missing = int(np.isnan(array).sum()) if array.dtype.kind == "f" else sum(each is None for each in array)
    text = f"{len(array) - missing} known, {missing} missing"
    if values.unusable:
        text += f", of these {values.unusable} with a text that is no number or no class"
    report[f"label {name}"] = text


def need_columns(table: pd.DataFrame, columns: Sequence[str], setting: str) -> None:
    """Raise ConfigError where the table lacks a column, naming the nearest."""
    for column in columns:
        if column not in table.columns:
            raise ConfigError(
                f"{setting}: the table has no column {column!r}{nearest(column, table.columns)}"
            )
