"""metrics.csv: one row per logged step or epoch, exact numbers, no row twice after a resumption."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from diptych.data.atomic import replacing
from diptych.errors import UserError

Row = dict[str, str]


class MetricsFile(Logger):
    """Appends rows to a CSV file with the columns step, epoch and every name ever logged, in that order.

    A row that brings a new column rewrites the file. Numbers are written so that they read back exactly.
    ``rows`` is how many there are: a checkpoint notes it, and :meth:`rewind` drops what came after.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.columns = ["step", "epoch"]
        self.rows: int = 0
        if path.exists():
            self.columns, present = _read(path)
            self.rows = len(present)

    @property
    def name(self) -> str:
        """Lightning asks for a name; there is one such file in a run."""
        return "metrics"

    @property
    def version(self) -> str:
        """Lightning asks for a version; a run has one."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The run's config.yaml has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Writes one row at once, so that a killed run has all of them."""
        row: Row = {"step": str(step), **{name: _exact(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self.columns]
        try:
            if new or not self.path.exists():
                present = _read(self.path)[1] if self.path.exists() else []
                self.columns = self.columns + new
                _write(self.path, self.columns, [*present, row])
            else:
                with self.path.open("a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(row)
        except OSError as error:
            raise UserError(
                f"{self.path} could not be written ({error.strerror}); make room or make the folder "
                "writable, then resume this run"
            ) from error
        self.rows += 1

    @rank_zero_only
    def rewind(self, rows: int) -> None:
        """Keeps the first rows only; a last row torn by a kill goes with the others."""
        if not self.path.exists():
            if rows:
                raise UserError(
                    f"{self.path} is gone, and the checkpoint says it had {rows} rows; start anew"
                )
            return
        columns, present = _read(self.path)
        if len(present) < rows:
            raise UserError(
                f"{self.path} has {len(present)} rows and had {rows} at the checkpoint; it was changed "
                "since. Put it back, or start anew"
            )
        self.columns, self.rows = columns, rows
        _write(self.path, columns, present[:rows])


def _exact(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def _read(path: Path) -> tuple[list[str], list[Row]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        return list(reader.fieldnames or ["step", "epoch"]), [
            {name: text or "" for name, text in row.items() if name is not None} for row in reader
        ]


def _write(path: Path, columns: list[str], rows: list[Row]) -> None:
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_metrics(path: Path) -> list[dict[str, float]]:
    """All rows of a metrics.csv, without the cells that were not measured."""
    _, rows = _read(path)
    return [{name: float(text) for name, text in row.items() if text != ""} for row in rows]
