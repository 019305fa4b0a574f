"""Predictions of several contenders on the same test patients, turned into a table with paired intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.evaluation import metrics, weighted
from diptych.evaluation.bootstrap import interval, paired_difference, patient_draws, resampled
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Column, Row, Score, Table
from diptych.evaluation.target import Target


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row to be: its predictions for the test samples, one array a repeat (seed, draw or encoder).

    ``predictions`` are (n_test, classes) probabilities or (n_test,) numbers; ``samples`` says on how many
    labelled training samples each repeat was trained.
    """

    name: str
    fraction: float
    predictions: Sequence[Floats]
    patients: int
    samples: Sequence[int]


class Level(NamedTuple):
    """How test samples are scored: as they are, or averaged over patients or recordings."""

    name: str
    group: NDArray[np.int64]  # (n_test,) which unit a sample belongs to
    truth: Floats  # (units,)
    patient: NDArray[np.int64]  # (units,) which patient a unit belongs to

    def average(self, predictions: Floats) -> Floats:
        """Mean of the samples' predictions, (units, ...)."""
        size = np.bincount(self.group).astype(np.float64)
        columns = predictions.reshape(len(predictions), -1).T
        means = np.stack([np.bincount(self.group, column) / size for column in columns], axis=1)
        return means.reshape(len(size), *predictions.shape[1:])


class Measured(NamedTuple):
    """A metric of one contender: each repeat's value, and their mean on every resample of patients."""

    values: Floats  # (repeats,)
    drawn: Floats  # (draws,)


def compare(
    target: Target,
    contenders: Sequence[Contender],
    *,
    title: str,
    draws: int = 2000,
    seed: int = 0,
    notes: Sequence[str] = (),
) -> Table:
    """A table of all contenders, and of each fraction's first one minus every other that is not constant.

    The interval is that of the mean over repeats, when test patients are resampled (the same resamples for
    every row); the SD over repeats stands apart and is not pooled with it.
    """
    test = target.test
    names, patient = np.unique(target.patients[test], return_inverse=True)
    counts = patient_draws([_stratum(target, str(name)) for name in names], draws, seed)
    levels = _levels(target, patient)
    rows: list[Row] = []
    for fraction in dict.fromkeys(contender.fraction for contender in contenders):
        group = [contender for contender in contenders if contender.fraction == fraction]
        measured = [_measure(target, contender, levels, counts) for contender in group]
        rows += [_row(contender, found) for contender, found in zip(group, measured, strict=True)]
        for contender, found in zip(group[1:], measured[1:], strict=True):
            if not _is_constant(contender):
                rows.append(
                    Row(
                        name=f"{group[0].name} - {contender.name}",
                        scores=differences(measured[0], found),
                        fraction=fraction,
                        repeats=min(len(group[0].predictions), len(contender.predictions)),
                        difference=True,
                    )
                )
    return Table(
        title=title,
        metrics=metrics.CLASSIFICATION if target.classes else metrics.REGRESSION,
        levels=[level.name for level in reversed(levels)],
        rows=rows,
        test_patients=len(names),
        test_samples=len(test),
        notes=[*target.notes, *dict.fromkeys(notes)],
        words=target.words,
    )


def _stratum(target: Target, patient: str) -> object:
    return target.strata[patient] if target.classes else None


def _levels(target: Target, patient: NDArray[np.int64]) -> list[Level]:
    """Samples, then patients or recordings."""
    test = target.test
    levels = [Level("sample", np.arange(len(test)), target.values[test], patient)]
    if target.units is not None and target.unit is not None:
        _, first, group = np.unique(target.units[test], return_index=True, return_inverse=True)
        levels.append(Level(target.unit, group, target.values[test][first], patient[first]))
    return levels


def _measure(
    target: Target, contender: Contender, levels: Sequence[Level], counts: Floats
) -> Mapping[Column, Measured]:
    found: dict[Column, Measured] = {}
    for level in levels:
        values: dict[str, list[float]] = {}
        drawn: dict[str, list[Floats]] = {}
        for predictions in contender.predictions:
            average = level.average(predictions)
            for name, value in _scores(target, level.truth, average).items():
                values.setdefault(name, []).append(value)
            for name, draws in _resampled(target, level, average, counts).items():
                drawn.setdefault(name, []).append(draws)
        for name, repeats in values.items():
            if len(repeats) == len(contender.predictions):  # else it was not defined in some repeat
                found[Column(level.name, name)] = Measured(np.array(repeats), np.mean(drawn[name], axis=0))
    return found


def _scores(target: Target, truth: Floats, predictions: Floats) -> dict[str, float]:
    if target.classes:
        return metrics.classification_scores(truth.astype(np.int64), predictions, target.positive)
    return metrics.regression_scores(truth, predictions)


def _resampled(target: Target, level: Level, predictions: Floats, counts: Floats) -> dict[str, Floats]:
    def scores(weights: Floats) -> Mapping[str, Floats]:
        if target.classes:
            codes = level.truth.astype(np.int64)
            return weighted.classification_scores(codes, predictions, weights, target.positive)
        return weighted.regression_scores(level.truth, predictions, weights)

    return resampled(scores, counts, level.patient)


def measured_scores(measured: Mapping[Column, Measured]) -> dict[Column, Score]:
    """Mean over repeats with its interval, and the SD over repeats."""
    scores = {}
    for column, found in measured.items():
        low, high = interval(found.drawn) or (None, None)
        sd = float(found.values.std(ddof=1)) if len(found.values) > 1 else None
        scores[column] = Score(float(found.values.mean()), low, high, sd)
    return scores


def differences(left: Mapping[Column, Measured], right: Mapping[Column, Measured]) -> dict[Column, Score]:
    """``left - right`` on the same resamples, for the metrics that both have."""
    scores = {}
    for column in left:
        if column in right:
            one, other = left[column], right[column]
            means = float(one.values.mean()), float(other.values.mean())
            gap = paired_difference(*means, one.drawn, other.drawn)
            if gap is not None:
                scores[column] = Score(gap.value, gap.low, gap.high, p=gap.p)
    return scores


def _row(contender: Contender, measured: Mapping[Column, Measured]) -> Row:
    return Row(
        name=contender.name,
        scores=measured_scores(measured),
        fraction=contender.fraction,
        patients=contender.patients,
        samples=round(float(np.mean(contender.samples))),
        repeats=len(contender.predictions),
    )


def _is_constant(contender: Contender) -> bool:
    """Whether it predicts the same for every sample, as the majority class or the mean does."""
    return all(np.ptp(predictions, axis=0).max() == 0 for predictions in contender.predictions)
