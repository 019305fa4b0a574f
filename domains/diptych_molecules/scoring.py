"""Predictions of several contenders for several tasks on several splits, turned into one table.

A repeat of a contender is one fit on one split. Its score over tasks is the mean of the tasks' scores, each on the
molecules whose label is known. Intervals resample the units (scaffolds or molecules) of all test sets together: a unit
that several tasks or splits test counts as often in each of them, so what they have in common is not counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.evaluation import metrics, weighted
from diptych.evaluation.bootstrap import patient_draws, resampled
from diptych.evaluation.comparison import Measured, differences, measured_scores
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Column, Row, Table
from diptych.evaluation.target import Target
from diptych_molecules.tasks import Tasks

CLASSIFICATION = ("AUROC", "AUPRC")
REGRESSION = ("RMSE", "MAE", "R2")


class Trial(NamedTuple):
    """One fit: the split it was made on, and its predictions for ``target.test`` of every task there."""

    split: int
    predictions: tuple[Floats, ...]  # (n_test, classes) or (n_test,)
    samples: int  # labelled training molecules, those of several tasks once
    units: int


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One row to be."""

    name: str
    fraction: float
    trials: Sequence[Trial]
    constant: bool = False  # it predicts the same for every molecule; nothing is compared with it


class Marked(NamedTuple):
    """Some of the molecules, which are scored apart too: those at activity cliffs."""

    level: str
    rows: NDArray[np.bool_]  # (molecules of the study,)


def compare_tasks(
    tasks: Tasks,
    contenders: Sequence[Contender],
    *,
    title: str,
    draws: int = 2000,
    seed: int = 0,
    marked: Marked | None = None,
    notes: Sequence[str] = (),
) -> Table:
    """A table of all contenders, and of each fraction's first one minus every other that is not constant.

    Levels: the mean over tasks and each task, or the one task there is; then the marked molecules. The interval is that
    of the mean over repeats; the SD over repeats (splits, seeds, draws) stands apart and is not pooled with it. Within
    one task of classes units are resampled within their class, so that no class is lost.
    """
    units = _Units.of(tasks, draws, seed)
    rows: list[Row] = []
    for fraction in dict.fromkeys(contender.fraction for contender in contenders):
        group = [contender for contender in contenders if contender.fraction == fraction]
        measured = [_measure(tasks, contender, units, marked) for contender in group]
        rows += [_row(contender, found) for contender, found in zip(group, measured, strict=True)]
        for contender, found in zip(group[1:], measured[1:], strict=True):
            if not contender.constant:
                rows.append(
                    Row(
                        name=f"{group[0].name} - {contender.name}",
                        scores=differences(measured[0], found),
                        fraction=fraction,
                        repeats=min(len(group[0].trials), len(contender.trials)),
                        difference=True,
                    )
                )
    tested = {row for targets in tasks.targets for each in targets for row in each.rows[each.test].tolist()}
    return Table(
        title=title,
        metrics=CLASSIFICATION if tasks.classes else REGRESSION,
        levels=levels_of(tasks, marked),
        rows=rows,
        test_patients=len(units.names),
        test_samples=len(tested),
        notes=[*tasks.notes, *dict.fromkeys(notes), *_splits_note(tasks)],
        words=tasks.words,
        brief=[task_level(tasks, name) for name in tasks.labels] if len(tasks.labels) > 1 else [],
    )


def levels_of(tasks: Tasks, marked: Marked | None = None) -> list[str]:
    """Names of the table's levels, the mean over tasks first."""
    names = list(tasks.labels)
    levels = (
        ["sample"] if len(names) == 1 else [mean_level(tasks), *(task_level(tasks, name) for name in names)]
    )
    if marked is not None:
        levels += [marked.level] if len(names) == 1 else [f"{marked.level}, {mean_level(tasks)}"]
    return levels


def mean_level(tasks: Tasks) -> str:
    """The level of the mean over tasks."""
    return f"{tasks.words.sample}, mean of {len(tasks.labels)} tasks"


def task_level(tasks: Tasks, label: str) -> str:
    """The level of one of several tasks."""
    return f"{tasks.words.sample}, {label}"


class _Units(NamedTuple):
    """Every unit that some task tests on some split, and how often each resample has it."""

    names: NDArray[np.str_]
    counts: Floats  # (units, draws)

    @classmethod
    def of(cls, tasks: Tasks, draws: int, seed: int) -> _Units:
        targets = [target for under in tasks.targets for target in under]
        names = np.unique(np.concatenate([target.patients[target.test] for target in targets]))
        alone = tasks.targets[0][0]
        strata = alone.strata if len(tasks.labels) == 1 and alone.classes else {}
        return cls(names, patient_draws([strata.get(str(name)) for name in names], draws, seed))

    def rows_of(self, target: Target, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """(chosen,) the row of ``counts`` of the chosen test molecules."""
        return np.searchsorted(self.names, target.patients[target.test][chosen]).astype(np.int64)


def _measure(
    tasks: Tasks, contender: Contender, units: _Units, marked: Marked | None
) -> Mapping[Column, Measured]:
    values: dict[Column, list[float]] = {}
    drawn: dict[Column, list[Floats]] = {}

    def keep(level: str, scores: Mapping[str, tuple[float, Floats]]) -> None:
        for name, (value, draws) in scores.items():
            values.setdefault(Column(level, name), []).append(value)
            drawn.setdefault(Column(level, name), []).append(draws)

    levels = levels_of(tasks, marked)
    for trial in contender.trials:
        targets = tasks.targets[trial.split]
        each = [
            _scores(target, predicted, units, np.ones(len(target.test), np.bool_))
            for target, predicted in zip(targets, trial.predictions, strict=True)
        ]
        if len(each) > 1:
            for label, scores in zip(tasks.labels, each, strict=True):
                keep(task_level(tasks, label), scores)
        keep(levels[0], _mean(each))
        if marked is not None:
            keep(
                levels[-1],
                _mean(
                    [
                        _scores(target, predicted, units, marked.rows[target.rows[target.test]])
                        for target, predicted in zip(targets, trial.predictions, strict=True)
                    ]
                ),
            )
    return {
        column: Measured(np.array(found), np.mean(drawn[column], axis=0))
        for column, found in values.items()
        if len(found) == len(contender.trials)  # else it was not defined in some repeat
    }


def _scores(
    target: Target, predicted: Floats, units: _Units, chosen: NDArray[np.bool_]
) -> dict[str, tuple[float, Floats]]:
    """Each metric's value on the chosen test molecules, and on every resample; those alone that are defined."""
    truth, predicted = target.values[target.test][chosen], predicted[chosen]
    if not len(truth):
        return {}

    def of(weights: Floats) -> Mapping[str, Floats]:
        if not target.classes:
            found = weighted.regression_scores(truth, predicted, weights)
            return {name: found[name] for name in REGRESSION}
        if len(target.classes) == 2:
            column = target.positive or 0
            auroc, auprc = weighted.ranking_scores(truth == column, predicted[:, column], weights)
            return {"AUROC": auroc, "AUPRC": auprc}
        found = weighted.classification_scores(truth.astype(np.int64), predicted, weights)
        return {name: found[name] for name in CLASSIFICATION if name in found}

    values = (
        metrics.classification_scores(truth.astype(np.int64), predicted, target.positive)
        if target.classes
        else metrics.regression_scores(truth, predicted)
    )
    drawn = resampled(of, units.counts, units.rows_of(target, chosen))
    return {name: (values[name], drawn[name]) for name in drawn if name in values}


def _mean(each: Sequence[Mapping[str, tuple[float, Floats]]]) -> dict[str, tuple[float, Floats]]:
    """The mean over tasks of the metrics that all of them have."""
    names = [name for name in each[0] if all(name in scores for scores in each)]
    return {
        name: (
            float(np.mean([scores[name][0] for scores in each])),
            np.mean([scores[name][1] for scores in each], axis=0),
        )
        for name in names
    }


def _row(contender: Contender, measured: Mapping[Column, Measured]) -> Row:
    return Row(
        name=contender.name,
        scores=measured_scores(measured),
        fraction=contender.fraction,
        patients=round(float(np.mean([trial.units for trial in contender.trials]))),
        samples=round(float(np.mean([trial.samples for trial in contender.trials]))),
        repeats=len(contender.trials),
    )


def _splits_note(tasks: Tasks) -> list[str]:
    if len(tasks.splits) == 1:
        return []
    tested = [
        len(set().union(*(each.rows[each.test].tolist() for each in targets))) for targets in tasks.targets
    ]
    number = str(tested[0]) if len(set(tested)) == 1 else f"{min(tested)} to {max(tested)}"
    return [
        f"mean over {len(tasks.splits)} splits ({', '.join(tasks.splits)}), each with {number} test "
        f"{tasks.words.samples}; the counts above are those of all splits together"
    ]
