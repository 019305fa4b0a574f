"""Fits repeated over splits, seeds and draws of few labels: how a contender comes by its trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from diptych.evaluation.metrics import Floats
from diptych.evaluation.target import Target
from diptych.study import Indices
from diptych_molecules.scoring import Contender, Trial
from diptych_molecules.tasks import Tasks


class Labelled(NamedTuple):
    """What a fit of T tasks may see; positions are those of each task's target."""

    targets: Sequence[Target]
    train: Sequence[Indices]
    validation: Sequence[Indices]
    repeat: int


# what may be seen -> each task's predictions for its target.test
FitAll = Callable[[Labelled], tuple[Floats, ...]]
# target, positions of the training molecules, seed -> predictions for target.test
Fit = Callable[[Target, Indices, int], Floats]


def over_trials(name: str, tasks: Tasks, fraction: float, repeats: int, seeds: int, fit: FitAll) -> Contender:
    """A contender fitted ``repeats`` times on every split; below 100 % at least once for each of ``seeds`` draws.

    The r-th repeat is fitted on draw ``r % seeds`` of the fraction's units, of training and validation alike.
    """
    repeats = repeats if fraction == 1.0 else max(repeats, seeds)
    trials = []
    for split, targets in enumerate(tasks.targets):
        for repeat in range(repeats):
            draw = repeat % seeds
            train = [_drawn(target, target.train, fraction, draw) for target in targets]
            validation = [_drawn(target, target.validation, fraction, draw) for target in targets]
            pairs = list(zip(targets, train, strict=True))
            trials.append(
                Trial(
                    split=split,
                    predictions=fit(Labelled(targets, train, validation, repeat)),
                    samples=len(np.unique(np.concatenate([target.rows[chosen] for target, chosen in pairs]))),
                    units=len(
                        np.unique(np.concatenate([target.patients[chosen] for target, chosen in pairs]))
                    ),
                )
            )
    return Contender(name=name, fraction=fraction, trials=trials)


def task_by_task(fit: Fit) -> FitAll:
    """A fit of every task by itself."""

    def fit_all(seen: Labelled) -> tuple[Floats, ...]:
        return tuple(
            fit(target, train, seen.repeat) for target, train in zip(seen.targets, seen.train, strict=True)
        )

    return fit_all


def _drawn(target: Target, positions: Indices, fraction: float, seed: int) -> Indices:
    """The molecules of a fraction of the units at these positions."""
    if fraction == 1.0 or not len(positions):
        return positions
    return target.few(positions, fraction, seed)
