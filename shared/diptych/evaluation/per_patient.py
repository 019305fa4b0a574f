"""Scores that every test image or pair has of its own (Dice, a distance), turned into a table.

Such a score needs no other patient's predictions, so a resample of patients is a weighted mean. Images of one
patient share one weight. A pair of patients has the product of both weights: pairs that share a patient
resemble each other, and resampling pairs would give far too narrow an interval (Owen, The pigeonhole
bootstrap, Annals of Applied Statistics 2007).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.evaluation.bootstrap import BLOCK, patient_draws
from diptych.evaluation.comparison import Measured, differences, measured_scores
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Column, Row, Table
from diptych.words import PATIENTS, Words

MOST_EMPTY = 0.01  # share of undefined resamples beyond which ``bootstrap.interval`` gives none


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One row to be: every metric's value for each test unit and repeat (seed, draw or encoder).

    ``scores[metric]`` is (repeats, units), NaN where a unit has no such value. ``patients`` and ``samples``
    say on how many labelled training patients and samples it was trained, None where nothing was trained.
    """

    name: str
    scores: Mapping[str, Floats]
    fraction: float | None = None
    patients: int | None = None
    samples: int | None = None


class _Units(NamedTuple):
    """Who owns each test unit, and how the patients are resampled."""

    owners: NDArray[np.int64]  # (units, owners of one unit): rows of ``counts``
    counts: Floats  # (patients, draws)


def compare_units(
    contenders: Sequence[Scored],
    owners: Sequence[tuple[str, ...]],
    *,
    title: str,
    metrics: Sequence[str],
    level: str = "patient",
    draws: int = 2000,
    seed: int = 0,
    notes: Sequence[str] = (),
    words: Words = PATIENTS,
) -> Table:
    """A table of all contenders, and of each fraction's first one minus every other.

    A score is the mean over the units of the same owners first, and then over these. Its interval is that of
    the mean over repeats when test patients are resampled (the same resamples for every row); the SD over
    repeats stands apart. A metric without a value anywhere is left out of the row.

    Args:
        contenders: The rows; the first of each fraction is compared with the others of that fraction.
        owners: For each unit its patient, or the patients of a pair.
        title: Of the table.
        metrics: Names of the scores, the most telling first.
        level: What the mean is over: "patient" or "pair".
        draws: Number of bootstrap resamples of the test patients.
        seed: Of the resamples.
        notes: Lines below the table.
        words: What patients and samples are called.

    Raises:
        ValueError: no unit, units with different numbers of owners, or scores of another shape.
    """
    units = _units(owners, draws, seed)
    rows: list[Row] = []
    for fraction in dict.fromkeys(contender.fraction for contender in contenders):
        group = [contender for contender in contenders if contender.fraction == fraction]
        measured = [_measure(contender, units, metrics, level) for contender in group]
        rows += [
            Row(
                name=contender.name,
                scores=measured_scores(found),
                fraction=fraction,
                patients=contender.patients,
                samples=contender.samples,
                repeats=_repeats(contender),
            )
            for contender, found in zip(group, measured, strict=True)
        ]
        rows += [
            Row(
                name=f"{group[0].name} - {contender.name}",
                scores=differences(measured[0], found),
                fraction=fraction,
                repeats=min(_repeats(group[0]), _repeats(contender)),
                difference=True,
            )
            for contender, found in zip(group[1:], measured[1:], strict=True)
        ]
    return Table(
        title=title,
        metrics=list(metrics),
        levels=[level],
        rows=rows,
        test_patients=len(units.counts),
        test_samples=len(units.owners),
        notes=list(dict.fromkeys([*notes, *_without_intervals(units, level, words)])),
        words=words,
    )


def weighted_means(values: Floats, owners: NDArray[np.int64], counts: Floats) -> Floats:
    """Mean of values with every patient counted as often as a resample has it, (draws,).

    Units of the same owners share one weight, the product of their owners' counts; units without a value do
    not count. A resample in which nothing is left is NaN.

    Args:
        values: (units,), NaN where there is none.
        owners: (units, k) rows of ``counts``.
        counts: (patients, draws), from :func:`~diptych.evaluation.bootstrap.patient_draws`.
    """
    known = np.isfinite(values)
    owners, values = owners[known], values[known]
    drawn = np.full(counts.shape[1], np.nan)
    if not len(values):
        return drawn
    _, together, size = np.unique(np.sort(owners, axis=1), axis=0, return_inverse=True, return_counts=True)
    share = 1.0 / size[together.ravel()]
    width = max(1, BLOCK // len(values))
    for start in range(0, counts.shape[1], width):
        block = counts[:, start : start + width]
        weights = share[:, None] * block[owners].prod(axis=1)
        total = weights.sum(axis=0)
        np.divide(values @ weights, total, out=drawn[start : start + width], where=total > 0)
    return drawn


def _units(owners: Sequence[tuple[str, ...]], draws: int, seed: int) -> _Units:
    if not owners or any(len(each) != len(owners[0]) for each in owners):
        raise ValueError("expected at least one unit, and as many owners for each as for the first")
    names, rows = np.unique(np.array(owners, dtype=np.str_), return_inverse=True)
    places = rows.reshape(len(owners), -1).astype(np.int64)
    return _Units(places, patient_draws([None] * len(names), draws, seed))


def _without_intervals(units: _Units, level: str, words: Words) -> list[str]:
    """A note where so few patients are tested that resamples of them are often empty."""
    empty = float((units.counts[units.owners].prod(axis=1).sum(axis=0) == 0).mean())
    if empty <= MOST_EMPTY:
        return []
    return [
        f"no intervals and differences: {len(units.counts)} {words.units} are too few, {empty:.1%} of their resamples "
        f"hold no {words.level(level)}"
    ]


def _measure(contender: Scored, units: _Units, metrics: Sequence[str], level: str) -> dict[Column, Measured]:
    once = np.ones((len(units.counts), 1))
    found: dict[Column, Measured] = {}
    for name in metrics:
        if name not in contender.scores:
            continue
        scores = np.asarray(contender.scores[name], dtype=np.float64)
        if scores.ndim != 2 or scores.shape[1] != len(units.owners):
            raise ValueError(
                f"the scores {name!r} of {contender.name!r} are {scores.shape}; expected (repeats, "
                f"{len(units.owners)})"
            )
        values = np.array([weighted_means(each, units.owners, once)[0] for each in scores])
        if np.isfinite(values).all():  # else it was not defined in some repeat
            drawn = [weighted_means(each, units.owners, units.counts) for each in scores]
            found[Column(level, name)] = Measured(values, np.mean(drawn, axis=0))
    return found


def _repeats(contender: Scored) -> int:
    return max((len(scores) for scores in contender.scores.values()), default=0)
