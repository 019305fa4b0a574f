"""What all evaluators of molecules have in common: their options, the tasks on their splits, how a table is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from diptych.evaluation.frozen import check_options
from diptych.evaluation.table import Table
from diptych.evaluation.target import Task
from diptych_molecules.baselines import NAMES, baseline_rows, check_baselines
from diptych_molecules.cliffs import marked_cliffs
from diptych_molecules.overlap import overlap_notes
from diptych_molecules.resplit import Splits, check_seeds, copies_notes, samples_of
from diptych_molecules.scoring import Contender, Marked, compare_tasks
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import Tasks, prepare_tasks


class Prepared(NamedTuple):
    """A study with the tasks that are measured, the molecules that are scored apart too, and notes on the splits."""

    study: MoleculeStudy
    tasks: Tasks
    marked: Marked | None
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class PropertyEvaluation:
    """What every evaluator of molecules is told.

    Args:
        targets: The tasks; by default all labels of the study.
        task: classification, regression, or auto: text, and 0 and 1, are classes, other numbers are regression.
        splits: own is the split of the config; scaffold and random are those of the literature, 80, 10 and 10 % by
            Murcko scaffold (the largest first) or of single molecules; rows deals out single rows by numpy's
            RandomState(seed).permutation, 80/10/10, as the literature's random splits do: copies of a molecule may be
            on both sides, which a note counts.
        split_seeds: Split with each of these seeds and average, where the split is drawn: random, rows, or balanced.
        fractions: Shares of the labelled training scaffolds (or molecules) to use.
        seeds: Number of random encoders, of draws below 100 %, and of forests, on every split.
        draws: Number of bootstrap resamples of the test scaffolds (or molecules).
        baselines: Rows without an encoder: forest and linear on fingerprints, boosting on descriptors, constant.
        cliffs: A label that marks the molecules at activity cliffs, which are scored apart too.
        threads: Threads of the random forests and of gradient boosting.
        run_splits: splits.csv of the run that trained the encoder, to tell what it has seen of the test molecules.
        device: Where to compute: auto, cpu, cuda.

    Raises:
        ConfigError: options that cannot be run.
    """

    targets: tuple[str, ...] = ()
    task: Task = "auto"
    splits: Splits = "own"
    split_seeds: tuple[int, ...] = ()
    fractions: tuple[float, ...] = (1.0,)
    seeds: int = 3
    draws: int = 2000
    baselines: tuple[str, ...] = NAMES
    cliffs: str | None = None
    threads: int = 1
    run_splits: str | Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_options(self.fractions, self.seeds)
        check_baselines(self.baselines)
        check_seeds(self.split_seeds)

    @property
    def shares(self) -> tuple[float, ...]:
        """The fractions, each once and the largest first."""
        return check_options(self.fractions, self.seeds)

    def prepared(self, study: MoleculeStudy) -> Prepared:
        """The tasks, checked. Raises ConfigError or DataError for what cannot be measured."""
        marked = None if self.cliffs is None else marked_cliffs(study.samples, self.cliffs)
        samples = samples_of(study.molecules, self.splits, self.split_seeds)
        without = [] if self.cliffs is None else [self.cliffs]
        tasks = prepare_tasks(samples, self.targets, self.task, without=without)
        return Prepared(study, tasks, marked, copies_notes(study.molecules, samples))

    def table(
        self, prepared: Prepared, what: str, rows: Sequence[Contender], notes: Sequence[str] = ()
    ) -> Table:
        """The table of these rows, the baselines after those of each fraction; ``what`` names the evaluator."""
        study, tasks, marked, copies = prepared
        classical, remarks = baseline_rows(
            study.molecules, tasks, self.baselines, self.shares, self.seeds, self.threads
        )
        ordered = [row for share in self.shares for row in (*rows, *classical) if row.fraction == share]
        return compare_tasks(
            tasks,
            ordered,
            title=f"{tasks.title}: {what}, {tasks.splits[0].partition(' ')[0]} split",
            draws=self.draws,
            marked=marked,
            notes=[*notes, *remarks, *copies, *overlap_notes(study, tasks, self.run_splits)],
        )
