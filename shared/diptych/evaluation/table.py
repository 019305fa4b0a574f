"""What an evaluation measured: rows by label fraction, each score with its interval, and nothing else."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from diptych.data.atomic import write_text
from diptych.errors import ConfigError
from diptych.words import PATIENTS, Words

TEXT_METRICS = 3  # how many metrics fit side by side; files hold all
NOT_MEASURED = "–"


class Column(NamedTuple):
    """A metric at a level: "AUROC" per "patient", per "recording" or per "sample"."""

    level: str
    metric: str


@dataclass(frozen=True)
class Score:
    """A measured value: its interval over test patients, and apart from that its SD over seeds and draws.

    Raises ValueError for a value that is not finite: it was not measured, so it has no place in a table.
    """

    value: float
    low: float | None = None
    high: float | None = None
    sd: float | None = None  # None where there was one repeat only
    p: float | None = None  # of a difference

    def __post_init__(self) -> None:
        for name in ("value", "low", "high", "sd", "p"):
            number = getattr(self, name)
            if number is not None and not math.isfinite(number):
                raise ValueError(
                    f"the {name} of a score is {number}: it was not measured, so leave the score out"
                )

    def text(self, signed: bool = False) -> str:
        """As it is printed, as far as it was measured: 0.812 [0.705, 0.903] ±0.021."""
        parts = [_number(self.value, signed)]
        if self.low is not None and self.high is not None:
            parts.append(f"[{_number(self.low)}, {_number(self.high)}]")
        if self.sd is not None:
            parts.append(f"±{_number(self.sd)}")
        if self.p is not None:
            parts.append(f"p={self.p:.3f}" if self.p >= 0.001 else "p<0.001")
        return " ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One contender at one label fraction, or (``difference``) one minus another on the same patients."""

    name: str
    scores: Mapping[Column, Score]
    fraction: float | None = None  # share of the labelled training patients; None where nothing is trained
    patients: int | None = None  # labelled training patients
    samples: int | None = None  # labelled training samples, the mean over draws
    repeats: int = 1  # seeds, draws of patients or encoders that the value is the mean of
    difference: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows x metrics. ``metrics`` orders the columns, the most telling first; ``levels`` likewise.

    Of the levels in ``brief``, such as the tasks whose mean has a level of its own, texts show the first metric alone,
    one line a level; files hold all.
    """

    title: str
    metrics: Sequence[str]
    levels: Sequence[str]
    rows: Sequence[Row]
    test_patients: int
    test_samples: int
    notes: Sequence[str] = field(default=())
    words: Words = PATIENTS
    brief: Sequence[str] = ()

    def score(self, name: str, metric: str, level: str | None = None, fraction: float | None = None) -> Score:
        """One score; KeyError where it was not measured. By default of the first level and fraction."""
        level = self.levels[0] if level is None else level
        for row in self.rows:
            if row.name == name and (fraction is None or row.fraction == fraction):
                return row.scores[Column(level, metric)]
        raise KeyError(f"no row {name!r} at the fraction {fraction}")

    def frame(self) -> pd.DataFrame:
        """One line a score, in the order of rows, levels and metrics; empty cells were not measured."""
        return pd.DataFrame(
            [
                {
                    "row": row.name,
                    "kind": "difference" if row.difference else "score",
                    "fraction": row.fraction,
                    "level": self.words.level(column.level),
                    "metric": column.metric,
                    "value": score.value,
                    "low": score.low,
                    "high": score.high,
                    "sd": score.sd,
                    "p": score.p,
                    "repeats": row.repeats,
                    f"train_{self.words.units}": row.patients,
                    f"train_{self.words.samples}": row.samples,
                    f"test_{self.words.units}": self.test_patients,
                    f"test_{self.words.samples}": self.test_samples,
                }
                for row in self.rows
                for column, score in self._ordered(row)
            ]
        )

    def text(self) -> str:
        """Aligned text for a terminal."""
        lines = [self.title, self._counts()]
        for heading, header, cells in self._blocks(TEXT_METRICS):
            widths = [max(len(row[place]) for row in [header, *cells]) for place in range(len(header))]
            lines += ["", heading]
            for row in [header, *cells]:
                padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
                lines.append("  ".join(padded).rstrip())
        lines += ["", *(f"* {note}" for note in self._all_notes())]
        return "\n".join(lines) + "\n"

    __str__ = text

    def markdown(self) -> str:
        """The same for a README."""
        lines = [f"**{self.title}**", "", self._counts()]
        for heading, header, cells in self._blocks(TEXT_METRICS):
            lines += ["", heading, "", _pipes(header), _pipes(["---"] * len(header)), *map(_pipes, cells)]
        lines += ["", *(f"* {note}" for note in self._all_notes())]
        return "\n".join(lines) + "\n"

    def html(self) -> str:
        """A fragment with all metrics, for a report; text is escaped."""
        escape = html.escape
        parts = [f"<section><h3>{escape(self.title)}</h3><p>{escape(self._counts())}</p>"]
        for heading, header, cells in self._blocks(len(self.metrics)):
            head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
            body = "".join(
                "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in cells
            )
            parts.append(
                f"<table><caption>{escape(heading)}</caption>\n<thead><tr>{head}</tr></thead>\n"
                f"<tbody>\n{body}</tbody></table>"
            )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self._all_notes())
        return "\n".join([*parts, f"<ul>{notes}</ul></section>"]) + "\n"

    def json(self) -> str:
        """Everything, as JSON; numbers that were not measured are null."""
        content: dict[str, Any] = {
            "title": self.title,
            f"test_{self.words.units}": self.test_patients,
            f"test_{self.words.samples}": self.test_samples,
            "notes": list(self.notes),
            "scores": json.loads(self.frame().to_json(orient="records", double_precision=15)),
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def write(self, path: str | Path) -> None:
        """Write by suffix: .csv and .json hold every score; .md, .html and .txt are for reading."""
        path = Path(path)
        writers = {
            ".csv": lambda: self.frame().to_csv(index=False, lineterminator="\n"),
            ".json": self.json,
            ".md": self.markdown,
            ".html": self.html,
            ".txt": self.text,
        }
        if path.suffix not in writers:
            raise ConfigError(f"a table is written as {', '.join(writers)}; got {path.name!r}")
        write_text(path, writers[path.suffix]())

    def _counts(self) -> str:
        return f"test: {self.test_patients} {self.words.units}, {self.test_samples} {self.words.samples}"

    def _all_notes(self) -> list[str]:
        legend = f"value [95 % interval over test {self.words.units}] ±SD over repeats; – was not measured"
        hidden = list(self.metrics[TEXT_METRICS:])
        more = [f"in files also: {', '.join(hidden)}"] if hidden else []
        return [legend, *more, *self.notes]

    def _ordered(self, row: Row) -> Iterator[tuple[Column, Score]]:
        for level in self.levels:
            for metric in self.metrics:
                if Column(level, metric) in row.scores:
                    yield Column(level, metric), row.scores[Column(level, metric)]

    def _blocks(self, most: int) -> Iterator[tuple[str, list[str], list[list[str]]]]:
        """(heading, header, cells) for each fraction and level."""
        metrics = list(self.metrics[:most])
        for fraction in dict.fromkeys(row.fraction for row in self.rows):
            rows = [row for row in self.rows if row.fraction == fraction]
            share = (
                ""
                if fraction is None
                else f"{100 * fraction:.4g} % of the labelled training {self.words.units}"
            )
            numbers = next((row for row in rows if row.patients is not None), None)
            if numbers is not None:
                share += f" ({numbers.patients} {self.words.units}, {numbers.samples} {self.words.samples})"
            for level in self.levels:
                if level in self.brief:
                    continue
                heading = f"per {self.words.level(level)}" + (f", {share}" if share else "")
                cells = [
                    [row.name, str(row.repeats)]
                    + [_cell(row.scores.get(Column(level, metric)), row.difference) for metric in metrics]
                    for row in rows
                ]
                yield heading, ["", "repeats", *metrics], cells
            if self.brief:
                measured = [row for row in rows if not row.difference]
                heading = metrics[0] + (f", {share}" if share else "")
                yield (
                    heading,
                    ["", *(row.name for row in measured)],
                    [
                        [level, *(_brief(row.scores.get(Column(level, metrics[0]))) for row in measured)]
                        for level in self.brief
                    ],
                )


def _cell(score: Score | None, signed: bool) -> str:
    return NOT_MEASURED if score is None else score.text(signed)


def _brief(score: Score | None) -> str:
    return NOT_MEASURED if score is None else _number(score.value)


def _number(number: float, signed: bool = False) -> str:
    text = f"{number:.3f}" if abs(number) < 10 else f"{number:.4g}"
    return f"+{text}" if signed and number > 0 else text


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
