"""Labels of molecules: columns of their files as numbers or classes, and a short form for files of many tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import report_label
from diptych.data.labels import Label, Values, read_values
from diptych.errors import ConfigError, DataError

Tasks = Literal["all"] | list[str] | None
Kind = Literal["classification", "regression"]
_NUMERIC = 0.9  # share of a column's cells that are numbers for "all" to take it for a task


def check_labels(labels: Mapping[str, Label], tasks: Tasks) -> None:
    """Raise ConfigError for what cannot be a label of molecules."""
    for name, label in labels.items():
        if label.column is None:
            raise ConfigError(
                f"labels.{name}: labels of molecules are columns of their file; give 'column', not 'rule'"
            )
        if isinstance(tasks, list) and name in tasks:
            raise ConfigError(f"{name!r} is both in labels and in tasks; name it once")


def numeric_columns(columns: Mapping[str, Sequence[str | None]]) -> list[str]:
    """The columns most of whose cells are numbers: what ``tasks: all`` stands for."""
    found = []
    for name, texts in columns.items():
        present = pd.Series([text for text in texts if text and text.strip()], dtype=object)
        numbers = pd.to_numeric(present, errors="coerce").notna()
        if len(present) and float(numbers.mean()) >= _NUMERIC:
            found.append(name)
    return found


def read_labels(
    labels: Mapping[str, Label],
    columns: Mapping[str, Sequence[str | None]],
    count: int,
    report: dict[str, str],
) -> pd.DataFrame:
    """Labels by name of ``count`` molecules, one row each: float64 with NaN, or objects with None, where unknown.

    A text that is no number, or matches no class, is a missing label; the report counts them.

    Raises DataError where a label is known of no molecule.
    """
    values: dict[str, Values] = {}
    for name, label in labels.items():
        values[name] = read_values(label, columns[str(label.column)])
        report_label(name, values[name], report)
    table = pd.DataFrame({name: each.values for name, each in values.items()}, index=pd.RangeIndex(count))
    if empty := [str(name) for name in table.columns if table[name].isna().all()]:
        raise DataError(
            f"the label{'s' if len(empty) > 1 else ''} {', '.join(map(repr, empty))} "
            f"{'are' if len(empty) > 1 else 'is'} missing for every molecule; check the column, or leave it out"
        )
    return table


def kinds(table: pd.DataFrame) -> dict[str, Kind]:
    """What each label is: numbers other than 0 and 1 are for regression, all else are classes."""
    found: dict[str, Kind] = {}
    for name in table.columns:
        column = table[name]
        numbers = column.dtype.kind == "f" and not column.dropna().isin([0.0, 1.0]).all()
        found[str(name)] = "regression" if numbers else "classification"
    return found


def contradictory(table: pd.DataFrame, codes: NDArray[np.int64]) -> dict[str, int]:
    """For each label how many molecules have rows with different known values. ``codes`` (n,): of molecules."""
    groups = table.groupby(codes)
    return {str(name): int((groups[name].nunique() > 1).sum()) for name in table.columns}


def merged(table: pd.DataFrame, codes: NDArray[np.int64]) -> pd.DataFrame:
    """One row a molecule, by ascending code: the mean of numbers; classes, and 0 and 1, where rows agree."""
    groups = table.groupby(codes)
    columns = {}
    for name, kind in kinds(table).items():
        first = groups[name].first()
        if kind == "regression":
            columns[name] = groups[name].mean()
        else:
            agreed = first.where(groups[name].nunique() <= 1)
            if table[name].dtype == object:
                known = agreed.notna().tolist()
                values = [value if is_known else None for value, is_known in zip(agreed, known, strict=True)]
                agreed = pd.Series(values, index=agreed.index, dtype=object)
            columns[name] = agreed
    return pd.DataFrame(columns, index=np.unique(codes)).reset_index(drop=True)
