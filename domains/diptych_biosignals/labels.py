"""Labels of windows: those of their recordings, and those of intervals of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data import labels
from diptych.data.annotate import Annotated, need_columns, read_table, report_label
from diptych.data.labels import read_values
from diptych.data.rules import record_name
from diptych.errors import ConfigError, DataError
from diptych_biosignals.recording import Header
from diptych_biosignals.settings import Source


@dataclass(frozen=True, kw_only=True)
class Label(labels.Label):
    """Where one label comes from and how its text becomes a class or a number.

    Exactly one of ``column``, ``rule`` and ``intervals`` (with ``column``) says where. Without ``contains``,
    ``classes`` or ``number`` the text itself is the class. Text is stripped; a label that is not there is
    missing, never 0.

    Args:
        column: Column of ``data.table`` (or of ``intervals``).
        intervals: CSV file with the columns recording, start, end (seconds) and ``column``: a window has the
            label whose intervals cover more than half of it.
    """

    intervals: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.intervals is not None and self.column is None:
            raise ConfigError("a label with 'intervals' needs 'column', the column that holds its value")


def window_labels(
    labels: Mapping[str, Label],
    annotated: Annotated[Header],
    source: Source,
    root: Path,
    of: NDArray[np.int64],
    times: NDArray[np.float64],
) -> pd.DataFrame:
    """Labels of all windows: those of their recording, and those from intervals.

    Args:
        of: (windows,) index into the annotated recordings.
        times: (windows, 2) seconds.
    """
    columns: dict[str, NDArray[np.object_] | NDArray[np.float64]] = {}
    records = [record_name(each.item) for each in annotated.scanned]
    for name, label in labels.items():
        if label.intervals is None:
            columns[name] = annotated.labels[name].values[of]
            continue
        column = str(label.column)
        table = read_table(label.intervals, root, f"labels.{name}.intervals")
        need_columns(table, ["recording", "start", "end", column], f"labels.{name}")
        for edge in ("start", "end"):
            table[edge] = pd.to_numeric(table[edge], errors="coerce")
            if table[edge].isna().any():
                raise DataError(
                    f"labels.{name}: the column {edge!r} of intervals holds a cell that is no number"
                )
        texts = interval_texts(table, column, records, of, times)
        values = read_values(label, texts)
        report_label(name, values, annotated.report)
        columns[name] = values.values
    return pd.DataFrame(columns, index=pd.RangeIndex(len(of)))


def interval_texts(
    table: pd.DataFrame,
    column: str,
    records: Sequence[str],
    of: NDArray[np.int64],
    times: NDArray[np.float64],
) -> list[str | None]:
    """The value that covers more than half of each window, or None.

    Args:
        table: Text columns recording, ``column``; numbers start and end in seconds.
        records: Names of the recordings.
        of: (windows,) the recording of each window.
        times: (windows, 2) seconds from the beginning of the recording.
    """
    texts: list[str | None] = [None] * len(of)
    rows_of = {str(name): rows for name, rows in table.groupby("recording", sort=False)}
    order = np.argsort(of, kind="stable")
    edges = np.searchsorted(of[order], np.arange(len(records) + 1))
    for number, name in enumerate(records):
        windows = order[edges[number] : edges[number + 1]]
        rows = rows_of.get(name)
        if rows is None or not len(windows):
            continue
        for value, same in rows.groupby(column, sort=False):
            start, end = same["start"].to_numpy(float), same["end"].to_numpy(float)
            first, last = times[windows, 0][:, None], times[windows, 1][:, None]
            covered = np.clip(np.minimum(last, end) - np.maximum(first, start), 0, None).sum(axis=1)
            for window in windows[covered > 0.5 * (last - first)[:, 0]]:
                texts[window] = str(value)
    return texts
