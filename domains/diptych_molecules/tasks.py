"""Several tasks on several splits, made ready for an evaluation: which are measured, and which are left out and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diptych.errors import ConfigError, DataError
from diptych.evaluation.target import Target, Task, prepare
from diptych.study import Samples
from diptych.words import Words

FEW = 5  # test molecules of a class; with fewer its scores are mostly chance
LISTED = 4  # tasks that a note spells out


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """T tasks on F splits; ``targets[split][task]`` has the molecules that are labelled in the task."""

    labels: tuple[str, ...]
    splits: tuple[str, ...]
    targets: tuple[tuple[Target, ...], ...]
    notes: tuple[str, ...]
    words: Words

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the first task; () where the tasks are regression."""
        return self.targets[0][0].classes

    @property
    def title(self) -> str:
        """The task's name, or how many there are."""
        return self.labels[0] if len(self.labels) == 1 else f"{len(self.labels)} tasks"


def prepare_tasks(
    samples: Mapping[str, Samples],
    labels: Sequence[str] = (),
    task: Task = "auto",
    *,
    without: Sequence[str] = (),
) -> Tasks:
    """Check every task on every split.

    A task that cannot be learnt or measured on one of the splits, since a class or all labels are missing there, is
    left out of all of them, with a note that says why: so every row's mean is over the same tasks.

    Args:
        samples: The same molecules under each split, by the split's name.
        labels: Columns of the labels; none stands for all of them.
        task: classification, regression, or auto as in :func:`diptych.evaluation.target.prepare`.
        without: Columns that are no task though all are asked for.

    Raises:
        ConfigError: no such label, no label at all, classes in one task and numbers in another.
        DataError: no task is left.
    """
    first = next(iter(samples.values()))
    names = list(dict.fromkeys(labels)) or [str(each) for each in first.labels.columns if each not in without]
    if not names:
        raise ConfigError(
            "the data have no labels to predict; name their columns: --tasks all, or --tasks NAME"
        )
    kept: dict[str, list[Target]] = {}
    dropped: dict[str, str] = {}
    for name in names:
        try:
            kept[name] = [replace(prepare(each, name, task), label=name) for each in samples.values()]
        except DataError as error:
            dropped[name] = str(error).partition(". ")[0]
    if not kept:
        reasons = "; ".join(dropped.values())
        raise DataError(f"no task can be evaluated: {reasons}")
    _same_kind(kept)
    return Tasks(
        labels=tuple(kept),
        splits=tuple(samples),
        targets=tuple(zip(*kept.values(), strict=True)),
        notes=(*_notes(kept, first), *(f"{name!r} is left out: {why}" for name, why in dropped.items())),
        words=first.words,
    )


def _same_kind(kept: Mapping[str, Sequence[Target]]) -> None:
    classes = [name for name, targets in kept.items() if targets[0].classes]
    numbers = [name for name in kept if name not in classes]
    if classes and numbers:
        raise ConfigError(
            f"some tasks are classes ({', '.join(classes)}), others numbers ({', '.join(numbers)}); evaluate one "
            "kind at a time: name its tasks with --targets"
        )


def _notes(kept: Mapping[str, Sequence[Target]], samples: Samples) -> list[str]:
    words = samples.words
    targets = [each[0] for each in kept.values()]
    if not targets[0].classes:
        notes = [f"regression of {_some(list(kept))}"]
    else:
        notes = [f"classification of {_some(list(kept))}"]
        notes += _rarer(targets, words)
    known = sum(len(each.rows) for each in targets)
    total = len(targets) * len(samples)
    if known < total:
        notes.append(
            f"{total - known} of {total} labels are missing ({1 - known / total:.1%}); they count in no fit, loss or "
            "score"
        )
    for name, under in kept.items():
        if any(not len(target.validation) for target in under):
            notes.append(f"{name!r} has no validation {words.samples} in some split")
        few = min((_smallest_class(target) for target in under), default=FEW)
        if few < FEW:
            notes.append(
                f"{name!r} has {few} test {words.samples} of a class in some split: its scores are mostly chance"
            )
        unseen = sorted({each for target in under for each in _unseen(target)})
        if unseen:
            notes.append(
                f"{name!r}: absent from the training {words.units} of some split, so never predicted: {_some(unseen)}"
            )
    return notes


def _rarer(targets: Sequence[Target], words: Words) -> list[str]:
    """Whose AUPRC it is, and what a constant score would give."""
    two = [target for target in targets if target.positive is not None]
    if not two:
        return []
    shares = [float(np.mean(target.codes[target.test] == target.positive)) for target in two]
    if len(two) <= LISTED:
        each = ", ".join(
            f"{target.classes[target.positive or 0]!r} of {target.label!r} ({share:.1%} of the test {words.samples})"
            for target, share in zip(two, shares, strict=True)
        )
        return [f"AUPRC is that of the rarer class: {each}"]
    return [
        f"AUPRC is that of the rarer class of each task, {min(shares):.1%} to {max(shares):.1%} of its test "
        f"{words.samples}"
    ]


def _smallest_class(target: Target) -> int:
    if not target.classes:
        return FEW
    counts = np.bincount(target.codes[target.test], minlength=len(target.classes))
    return int(counts[counts > 0].min())


def _unseen(target: Target) -> list[str]:
    seen = set(target.codes[target.train].tolist()) if target.classes else set()
    return [name for code, name in enumerate(target.classes) if code not in seen]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(repr(name) for name in names[:LISTED]) + more
