"""Scores of predicted capacitances, by design and resampled over designs, turned into a table.

Every score here is a function of sums over targets, so a resample of designs weighs each design's sums: 2,000
resamples cost a small matrix product. (A median or a rank is no such function; neither is given.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diptych.evaluation import metrics, weighted
from diptych.evaluation.bootstrap import patient_draws, resampled
from diptych.evaluation.comparison import Measured, differences, measured_scores
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Column, Row, Score, Table
from diptych.study import Indices
from diptych.words import Words
from diptych_circuits.ranges import CLASSES, Range, classes
from diptych_circuits.targets import Targets, decades, kind_levels

REGRESSION = ("MAE", "R2", "error of total %", "RMSE", "MSE", "MAE aF", "mean error %", "macro F1")
CLASSIFICATION = ("macro F1", "accuracy", "balanced accuracy")
LINKS = ("AUROC", "AUPRC", "macro F1", "accuracy")

Found = Mapping[Column, Measured]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """One row to be: predictions for the test targets, one array a repeat, and on how much it was trained.

    ``predictions`` are (n_test,) normalised labels, or (n_test, 5) class probabilities.
    """

    name: str
    fraction: float
    predictions: Sequence[Floats]
    designs: int
    samples: int


def compare_predicted(
    contenders: Sequence[Predicted],
    targets: Targets,
    scale: Range,
    *,
    title: str,
    words: Words,
    draws: int,
    notes: Sequence[str],
) -> Table:
    """A table of all contenders, and of each fraction's first one minus every other.

    Levels: every target counts the same; every design counts the same; and the targets of one kind or of one
    power of ten of capacitance alone. Intervals resample test designs, the same resamples for every row.
    """
    levels = _levels(targets)

    def measure(contender: Predicted, design: Indices, counts: Floats) -> Found:
        return _measure(contender, targets, scale, levels, design, counts)

    return _table(
        contenders,
        targets,
        measure,
        CLASSIFICATION if contenders[0].predictions[0].ndim == 2 else REGRESSION,
        levels,
        title=title,
        words=words,
        draws=draws,
        notes=notes,
    )


def compare_links(
    contenders: Sequence[Predicted],
    targets: Targets,
    labels: Indices,
    *,
    title: str,
    words: Words,
    draws: int,
    notes: Sequence[str],
) -> Table:
    """The table of two classes, 1 = the pair couples: all pairs, and those of one kind alone.

    Args:
        contenders: The rows, with (n_test, 2) probabilities.
        targets: n pairs.
        labels: (n,).
        title: Of the table.
        words: What designs and pairs are called.
        draws: Number of bootstrap resamples of the test designs.
        notes: Lines below the table.
    """
    test = targets.test
    truth = labels[test]
    levels = {"sample": np.arange(len(test)), **_places(test, kind_levels(targets, test))}

    def measure(contender: Predicted, design: Indices, counts: Floats) -> Found:
        values: dict[Column, list[float]] = {}
        drawn: dict[Column, list[Floats]] = {}
        for probabilities in contender.predictions:
            for level, places in levels.items():
                here, chances = truth[places], probabilities[places]

                def scores(
                    weights: Floats, here: Indices = here, chances: Floats = chances
                ) -> Mapping[str, Floats]:
                    return weighted.classification_scores(here, chances, weights, positive=1)

                many = resampled(scores, counts, design[places])
                for metric, value in metrics.classification_scores(here, chances, positive=1).items():
                    values.setdefault(Column(level, metric), []).append(value)
                    drawn.setdefault(Column(level, metric), []).append(many[metric])
        return _averaged(values, drawn, len(contender.predictions))

    return _table(
        contenders, targets, measure, LINKS, levels, title=title, words=words, draws=draws, notes=notes
    )


def _table(
    contenders: Sequence[Predicted],
    targets: Targets,
    measure: Callable[[Predicted, Indices, Floats], Found],
    columns: Sequence[str],
    levels: Mapping[str, Indices],
    *,
    title: str,
    words: Words,
    draws: int,
    notes: Sequence[str],
) -> Table:
    names, design = np.unique(targets.design[targets.test], return_inverse=True)
    alone = len(names) == 1
    counts = patient_draws([None] * len(names), 1 if alone else draws)
    rows: list[Row] = []
    for fraction in dict.fromkeys(each.fraction for each in contenders):
        group = [each for each in contenders if each.fraction == fraction]
        measured = [measure(each, design, counts) for each in group]
        rows += [
            Row(
                name=each.name,
                scores=_bare(measured_scores(found), alone),
                fraction=fraction,
                patients=each.designs,
                samples=each.samples,
                repeats=len(each.predictions),
            )
            for each, found in zip(group, measured, strict=True)
        ]
        rows += [
            Row(
                name=f"{group[0].name} - {each.name}",
                scores=_bare(differences(measured[0], found), alone),
                fraction=fraction,
                repeats=min(len(group[0].predictions), len(each.predictions)),
                difference=True,
            )
            for each, found in zip(group[1:], measured[1:], strict=True)
        ]
    if alone:
        notes = [
            *notes,
            "no intervals: there is one test design, and how others differ from it cannot be known",
        ]
    return Table(
        title=title,
        metrics=columns,
        levels=list(levels),
        rows=rows,
        test_patients=len(names),
        test_samples=len(targets.test),
        notes=list(dict.fromkeys(notes)),
        words=words,
    )


def regression_sums(label: Floats, predicted: Floats, scale: Range, farad: Floats) -> Floats:
    """(n, 8 + 25) what regression scores are made of, one row a target.

    Args:
        label: (n,) true normalised labels.
        predicted: (n,) predicted ones; in farad, those beyond 0..1 count as these.
        scale: Gives the farads of predicted labels.
        farad: (n,) true capacitances.
    """
    error = predicted - label
    off = np.abs(scale.farad(np.clip(predicted, 0.0, 1.0)) - farad)
    columns = [np.ones(len(label)), np.abs(error), error**2, label, label**2, off, farad, off / farad]
    return np.column_stack([*columns, confusion_of(classes(label), classes(predicted))])


def regression_scores(sums: Floats) -> dict[str, Floats]:
    """Scores of (b, 33) sums, (b,) each, NaN where undefined.

    MAE, MSE, RMSE and R2 are of normalised labels; "MAE aF" is in attofarad, "mean error %" the mean of
    |predicted - true| / true, "error of total %" the sum of |predicted - true| over the sum of the true ones, and
    macro F1 that of the five classes in which both labels lie.
    """
    n, absolute, squared, label, label2, off, farad, relative = sums[:, :8].T
    spread = label2 - _ratio(label**2, n)
    mse = _ratio(squared, n)
    return {
        "MAE": _ratio(absolute, n),
        "MSE": mse,
        "RMSE": np.sqrt(mse),
        # of equal labels the spread is a rounding error, not a variance
        "R2": 1.0 - _ratio(squared, np.where(spread > 1e-12 * label2, spread, 0.0)),
        "MAE aF": 1e18 * _ratio(off, n),
        "mean error %": 100 * _ratio(relative, n),
        "error of total %": 100 * _ratio(off, farad),
        "macro F1": class_scores(sums[:, 8:])["macro F1"],
    }


def confusion_of(true: Indices, chosen: Indices, k: int = CLASSES) -> Floats:
    """(n, k^2) one 1 a row, in the cell of its true and chosen class."""
    cells = np.zeros((len(true), k * k))
    cells[np.arange(len(true)), true * k + chosen] = 1.0
    return cells


def class_scores(confusion: Floats) -> dict[str, Floats]:
    """Scores of (b, k^2) confusion matrices, rows the true class; averages run over the classes that occur."""
    k = math.isqrt(confusion.shape[1])
    table = confusion.reshape(-1, k, k)
    hits = np.diagonal(table, axis1=1, axis2=2)
    true, chosen = table.sum(axis=2), table.sum(axis=1)
    recall = _ratio(hits, true)
    f1 = np.where(true > 0, _ratio(2 * hits, true + chosen), np.nan)
    return {
        "macro F1": _mean_of_known(f1),
        "balanced accuracy": _mean_of_known(recall),
        "accuracy": _ratio(hits.sum(axis=1), table.sum(axis=(1, 2))),
    }


def _bare(scores: Mapping[Column, Score], bare: bool) -> Mapping[Column, Score]:
    """Scores without intervals, where they would be those of a single design."""
    if not bare:
        return scores
    return {column: Score(score.value, sd=score.sd) for column, score in scores.items()}


def _levels(targets: Targets) -> dict[str, Indices]:
    """Places among the test targets by level."""
    test = targets.test
    everywhere = np.arange(len(test))
    parts = [*kind_levels(targets, test), *decades(targets.farad, test)]
    return {"sample": everywhere, "patient": everywhere, **_places(test, parts)}


def _places(test: Indices, parts: Sequence[tuple[str, Indices]]) -> dict[str, Indices]:
    return {name: np.searchsorted(test, positions) for name, positions in parts}


def _measure(
    contender: Predicted,
    targets: Targets,
    scale: Range,
    levels: Mapping[str, Indices],
    design: NDArray[np.int64],
    counts: Floats,
) -> Found:
    farad = targets.farad[targets.test]
    label = scale.label(farad)
    values: dict[Column, list[float]] = {}
    drawn: dict[Column, list[Floats]] = {}
    for predictions in contender.predictions:
        classification = predictions.ndim == 2
        rows = (
            confusion_of(classes(label), predictions.argmax(axis=1))
            if classification
            else regression_sums(label, predictions, scale, farad)
        )
        scores = class_scores if classification else regression_scores
        for level, places in levels.items():
            sums = np.zeros((len(counts), rows.shape[1]))
            np.add.at(sums, design[places], rows[places])
            if level == "patient":  # every design counts the same
                size = np.bincount(design[places], minlength=len(counts)).astype(np.float64)
                sums = _ratio(sums, size[:, None], where_zero=0.0)
            once = scores(sums.sum(axis=0, keepdims=True))
            many = scores(counts.T @ sums)
            for metric, value in once.items():
                if np.isfinite(value[0]) and not (metric == "R2" and level.endswith("aF")):
                    values.setdefault(Column(level, metric), []).append(float(value[0]))
                    drawn.setdefault(Column(level, metric), []).append(many[metric])
    return _averaged(values, drawn, len(contender.predictions))


def _averaged(
    values: Mapping[Column, Sequence[float]], drawn: Mapping[Column, Sequence[Floats]], repeats: int
) -> Found:
    """What every repeat defines: its values, and the mean of its resamples over repeats."""
    return {
        column: Measured(np.array(found), np.mean(drawn[column], axis=0))
        for column, found in values.items()
        if len(found) == repeats
    }


def _mean_of_known(scores: Floats) -> Floats:
    known = np.isfinite(scores)
    return _ratio(np.where(known, scores, 0.0).sum(axis=1), known.sum(axis=1))


def _ratio(numerator: Floats, denominator: Floats, where_zero: float = np.nan) -> Floats:
    shape = np.broadcast_shapes(np.shape(numerator), np.shape(denominator))
    out = np.full(shape, where_zero)
    np.divide(numerator, denominator, out=out, where=np.broadcast_to(np.asarray(denominator) > 0, shape))
    return out
