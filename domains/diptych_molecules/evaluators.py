"""Evaluators of molecules: frozen probes and real fine-tuning, for one task or many, on one split or several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn

from diptych.errors import ConfigError
from diptych.evaluation.embeddings import choose_device, embed
from diptych.evaluation.frozen import check_options, encoders_of, random_encoder, torch_seed
from diptych.evaluation.knn import nearest_votes
from diptych.evaluation.linear_model import STRENGTHS, fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target, Task
from diptych.study import Indices
from diptych_molecules.baselines import NAMES, baseline_rows, with_ecfp
from diptych_molecules.cliffs import marked_cliffs
from diptych_molecules.overlap import overlap_notes
from diptych_molecules.property import (
    Head,
    Inputs,
    Network,
    Start,
    Training,
    check_two_classes,
    predictions,
    scale_of,
    side_by_side,
    start_as_probe,
    train,
)
from diptych_molecules.resplit import Splits, samples_of
from diptych_molecules.scoring import Contender, Marked, compare_tasks
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import Tasks, prepare_tasks
from diptych_molecules.trials import FitAll, Labelled, over_trials, task_by_task

Encoders = nn.Module | Sequence[nn.Module]


def linear(
    study: MoleculeStudy,
    encoder: Encoders,
    *,
    targets: tuple[str, ...] = (),
    task: Task = "auto",
    splits: Splits = "own",
    split_seeds: tuple[int, ...] = (),
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    draws: int = 2000,
    strengths: tuple[float, ...] = STRENGTHS,
    fused: bool = False,
    baselines: tuple[str, ...] = NAMES,
    cliffs: str | None = None,
    threads: int = 1,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Logistic (classes) or ridge regression (numbers) on standardised frozen embeddings, task by task.

    The strength of the penalty is chosen on folds of the training molecules that keep scaffolds (or what the split
    keeps) together. Rows: pretrained, the same encoder with random weights, and the baselines.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed.
        targets: The tasks; by default all labels of the study.
        task: classification, regression, or auto: text, and 0 and 1, are classes, other numbers are regression.
        splits: own is the split of the config; scaffold and random are those of the literature, 80, 10 and 10 % by
            Murcko scaffold (the largest first) or of single molecules.
        split_seeds: Split with each of these seeds and average, where the split is drawn: random, or balanced.
        fractions: Shares of the labelled training scaffolds (or molecules) to fit on.
        seeds: Number of random encoders, of draws below 100 %, and of forests, on every split.
        draws: Number of bootstrap resamples of the test scaffolds (or molecules).
        strengths: Values of C to choose from; ridge takes alpha = 1 / C.
        fused: Also a row of the pretrained embeddings and the fingerprints together.
        baselines: Rows without an encoder: forest and linear on fingerprints, boosting on descriptors, constant.
        cliffs: A label that marks the molecules at activity cliffs, which are scored apart too.
        threads: Threads of the random forests and of gradient boosting.
        run_splits: splits.csv of the run that trained the encoder, to tell what it has seen of the test molecules.
        device: Where to embed: auto, cpu, cuda.
    """
    if not strengths or min(strengths) <= 0:
        raise ConfigError("the strengths C to choose from are positive numbers; expected at least one")
    notes: list[str] = []
    ordered = sorted(set(strengths))

    def of(features: Floats) -> FitAll:
        def fit(target: Target, chosen: Indices, seed: int) -> Floats:
            found = fit_linear(features[target.rows], target, chosen, seed=seed, strengths=ordered)
            notes.extend(found.warnings("linear probe"))
            return found.predict(features[target.rows[target.test]])

        return task_by_task(fit)

    plan = _Plan.of(study, targets, task, splits, split_seeds, fractions, seeds, cliffs)
    rows = _frozen_rows(plan, encoder, device, of, fused=fused)
    return plan.table("linear probe", rows, baselines, threads, draws, run_splits, notes)


def knn(
    study: MoleculeStudy,
    encoder: Encoders,
    *,
    targets: tuple[str, ...] = (),
    task: Task = "auto",
    splits: Splits = "own",
    split_seeds: tuple[int, ...] = (),
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    draws: int = 2000,
    neighbours: int = 20,
    temperature: float = 0.07,
    baselines: tuple[str, ...] = NAMES,
    cliffs: str | None = None,
    threads: int = 1,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Vote of the nearest training molecules by cosine similarity of frozen embeddings, task by task.

    Embeddings are scaled to length 1 and not standardised. Rows as in the linear probe.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed.
        targets: The tasks; by default all labels of the study.
        task: classification, regression, or auto: text, and 0 and 1, are classes, other numbers are regression.
        splits: own is the split of the config; scaffold and random are those of the literature, 80, 10 and 10 % by
            Murcko scaffold (the largest first) or of single molecules.
        split_seeds: Split with each of these seeds and average, where the split is drawn: random, or balanced.
        fractions: Shares of the labelled training scaffolds (or molecules) to look for neighbours among.
        seeds: Number of random encoders, of draws below 100 %, and of forests, on every split.
        draws: Number of bootstrap resamples of the test scaffolds (or molecules).
        neighbours: Number of neighbours that vote; all where there are fewer.
        temperature: A neighbour's vote is exp(similarity / temperature).
        baselines: Rows without an encoder: forest and linear on fingerprints, boosting on descriptors, constant.
        cliffs: A label that marks the molecules at activity cliffs, which are scored apart too.
        threads: Threads of the random forests and of gradient boosting.
        run_splits: splits.csv of the run that trained the encoder, to tell what it has seen of the test molecules.
        device: Where to embed: auto, cpu, cuda.
    """

    def of(features: Floats) -> FitAll:
        def fit(target: Target, chosen: Indices, seed: int) -> Floats:
            return nearest_votes(
                features[target.rows[chosen]],
                np.eye(len(target.classes))[target.codes[chosen]]
                if target.classes
                else target.values[chosen],
                target.patients[chosen],
                features[target.rows[target.test]],
                target.patients[target.test],
                neighbours=neighbours,
                temperature=temperature,
            )

        return task_by_task(fit)

    plan = _Plan.of(study, targets, task, splits, split_seeds, fractions, seeds, cliffs)
    rows = _frozen_rows(plan, encoder, device, of)
    notes = [f"neighbours by cosine similarity, not standardised, temperature {temperature:g}"]
    return plan.table(f"{neighbours} nearest neighbours", rows, baselines, threads, draws, run_splits, notes)


def mlp(
    study: MoleculeStudy,
    encoder: Encoders,
    *,
    targets: tuple[str, ...] = (),
    task: Task = "auto",
    splits: Splits = "own",
    split_seeds: tuple[int, ...] = (),
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    draws: int = 2000,
    hidden: int = 64,
    dropout: float = 0.1,
    epochs: int = 200,
    patience: int = 30,
    batch_size: int = 64,
    rate: float = 1e-3,
    weight_decay: float = 1e-4,
    baselines: tuple[str, ...] = NAMES,
    cliffs: str | None = None,
    threads: int = 1,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """One hidden layer on standardised frozen embeddings, for all tasks at once.

    The loss is the mean over known labels. The epoch with the best validation score (mean AUROC, or the loss of
    standardised numbers) is kept. Rows as in the linear probe.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed.
        targets: The tasks, of two classes or of numbers; by default all labels of the study.
        task: classification, regression, or auto: text, and 0 and 1, are classes, other numbers are regression.
        splits: own is the split of the config; scaffold and random are those of the literature, 80, 10 and 10 % by
            Murcko scaffold (the largest first) or of single molecules.
        split_seeds: Split with each of these seeds and average, where the split is drawn: random, or balanced.
        fractions: Shares of the labelled training and validation scaffolds (or molecules) to use.
        seeds: Number of trainings of each row on every split, each with its own draw; of forests too.
        draws: Number of bootstrap resamples of the test scaffolds (or molecules).
        hidden: Width of the hidden layer.
        dropout: Share of the features that are hidden in training.
        epochs: At most so many passes over the labelled training molecules.
        patience: Stop after so many epochs without a better validation score.
        batch_size: Molecules in a step.
        rate: Learning rate (AdamW).
        weight_decay: Of AdamW.
        baselines: Rows without an encoder: forest and linear on fingerprints, boosting on descriptors, constant.
        cliffs: A label that marks the molecules at activity cliffs, which are scored apart too.
        threads: Threads of the random forests and of gradient boosting.
        run_splits: splits.csv of the run that trained the encoder, to tell what it has seen of the test molecules.
        device: Where to embed: auto, cpu, cuda.
    """
    if hidden < 1:
        raise ConfigError(f"an mlp has at least 1 hidden unit; got {hidden}")
    training = Training(
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        rate=rate,
        head_rate=rate,
        weight_decay=weight_decay,
        hidden=hidden,
        dropout=dropout,
    )
    plan = _Plan.of(study, targets, task, splits, split_seeds, fractions, seeds, cliffs, networks=True)

    def of(features: Floats) -> FitAll:
        tensor = torch.from_numpy(features).float()

        def fit(seen: Labelled) -> tuple[Floats, ...]:
            def make(rows: Indices) -> nn.Module:
                return Head(tensor[rows], len(seen.targets), hidden, dropout)

            return _trained(make, lambda rows: tensor[rows], seen, training, torch.device("cpu"))

        return fit

    rows = _frozen_rows(plan, encoder, device, of, repeats=seeds)
    return plan.table(f"mlp of {hidden} hidden units", rows, baselines, threads, draws, run_splits, [])


def finetune(
    study: MoleculeStudy,
    encoder: Encoders,
    *,
    targets: tuple[str, ...] = (),
    task: Task = "auto",
    splits: Splits = "own",
    split_seeds: tuple[int, ...] = (),
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    draws: int = 2000,
    start: Start = "probe",
    hidden: int = 0,
    dropout: float = 0.1,
    epochs: int = 60,
    patience: int = 15,
    batch_size: int = 32,
    rate: float = 1e-4,
    head_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    baselines: tuple[str, ...] = NAMES,
    cliffs: str | None = None,
    threads: int = 1,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Train the encoder, its readouts too, and a head for all tasks at once; the same budget from random weights.

    The loss is the mean over known labels. The epoch with the best validation score (mean AUROC, or the loss of
    standardised numbers) is kept, the start included. Rows: pretrained, from scratch, and the baselines.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        targets: The tasks, of two classes or of numbers; by default all labels of the study.
        task: classification, regression, or auto: text, and 0 and 1, are classes, other numbers are regression.
        splits: own is the split of the config; scaffold and random are those of the literature, 80, 10 and 10 % by
            Murcko scaffold (the largest first) or of single molecules.
        split_seeds: Split with each of these seeds and average, where the split is drawn: random, or balanced.
        fractions: Shares of the labelled training and validation scaffolds (or molecules) to use.
        seeds: Number of trainings of each row on every split, each with its own draw; of forests too.
        draws: Number of bootstrap resamples of the test scaffolds (or molecules).
        start: What a linear head starts from: the linear probe on the frozen encoder, or random weights.
        hidden: Width of a hidden layer of the head, which starts at random; 0 for a linear head.
        dropout: Share of the head's features that are hidden in training.
        epochs: At most so many passes over the labelled training molecules.
        patience: Stop after so many epochs without a better validation score.
        batch_size: Molecules in a step.
        rate: Learning rate (AdamW) of the encoder.
        head_rate: Learning rate of the head.
        weight_decay: Of AdamW.
        baselines: Rows without an encoder: forest and linear on fingerprints, boosting on descriptors, constant.
        cliffs: A label that marks the molecules at activity cliffs, which are scored apart too.
        threads: Threads of the random forests and of gradient boosting.
        run_splits: splits.csv of the run that trained the encoder, to tell what it has seen of the test molecules.
        device: Where to train: auto, cpu, cuda.
    """
    training = Training(
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        rate=rate,
        head_rate=head_rate,
        weight_decay=weight_decay,
        hidden=hidden,
        dropout=dropout,
    )
    plan = _Plan.of(study, targets, task, splits, split_seeds, fractions, seeds, cliffs, networks=True)
    rows = _tuned_rows(plan, encoder, training, start, device)
    return plan.table("fine-tuning", rows, baselines, threads, draws, run_splits, [])


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What all evaluators share: the tasks on their splits, and how the table is made."""

    study: MoleculeStudy
    tasks: Tasks
    fractions: tuple[float, ...]
    seeds: int
    marked: Marked | None

    @classmethod
    def of(
        cls,
        study: MoleculeStudy,
        labels: Sequence[str],
        task: Task,
        splits: Splits,
        split_seeds: Sequence[int],
        fractions: Sequence[float],
        seeds: int,
        cliffs: str | None,
        networks: bool = False,
    ) -> _Plan:
        fractions = check_options(fractions, seeds)
        marked = None if cliffs is None else marked_cliffs(study.samples, cliffs)
        tasks = prepare_tasks(
            samples_of(study.molecules, splits, split_seeds),
            labels,
            task,
            without=[] if cliffs is None else [cliffs],
        )
        if networks:
            check_two_classes(tasks.targets[0])
        return cls(study=study, tasks=tasks, fractions=fractions, seeds=seeds, marked=marked)

    def table(
        self,
        what: str,
        rows: Sequence[Contender],
        names: Sequence[str],
        threads: int,
        draws: int,
        run_splits: str | Path | None,
        notes: Sequence[str],
    ) -> Table:
        """The table of these rows, the baselines after those of each fraction."""
        classical, remarks = baseline_rows(
            self.study.molecules, self.tasks, names, self.fractions, self.seeds, threads
        )
        ordered = [
            row for fraction in self.fractions for row in (*rows, *classical) if row.fraction == fraction
        ]
        return compare_tasks(
            self.tasks,
            ordered,
            title=f"{self.tasks.title}: {what}, {self.tasks.splits[0].partition(' ')[0]} split",
            draws=draws,
            marked=self.marked,
            notes=[*notes, *remarks, *overlap_notes(self.study, self.tasks, run_splits)],
        )


def _frozen_rows(
    plan: _Plan,
    encoder: Encoders,
    device: str,
    of: Callable[[Floats], FitAll],
    *,
    fused: bool = False,
    repeats: int = 1,
) -> list[Contender]:
    """The rows of frozen encoders: pretrained and random weights; ``fused``: and with the fingerprints."""
    everything = np.arange(len(plan.study.samples), dtype=np.int64)

    def features(each: nn.Module) -> Floats:
        return embed(each, plan.study.plain(everything), device).astype(np.float64)

    pretrained = [features(each) for each in encoders_of(encoder)]
    several = {
        "pretrained": [of(each) for each in pretrained],
        "random weights": [of(features(random_encoder(plan.study, seed))) for seed in range(plan.seeds)],
    }
    if fused:
        several["pretrained + ECFP"] = [
            task_by_task(with_ecfp(plan.study.molecules, each)) for each in pretrained
        ]
    return [
        over_trials(name, plan.tasks, fraction, max(repeats, len(fits)), plan.seeds, _in_turn(fits))
        for fraction in plan.fractions
        for name, fits in several.items()
    ]


def _tuned_rows(
    plan: _Plan, encoder: Encoders, training: Training, start: Start, device: str
) -> list[Contender]:
    """The rows of encoders that are trained with the head: pretrained and from scratch."""
    study, where, encoders = plan.study, choose_device(device), encoders_of(encoder)
    everything = np.arange(len(study.samples), dtype=np.int64)

    def inputs(rows: Indices) -> object:
        return move_data_to_device(next(iter(study.plain(rows))).views[0], where)

    def tuned(begin: Callable[[int], nn.Module]) -> FitAll:
        def fit(seen: Labelled) -> tuple[Floats, ...]:
            model = begin(seen.repeat)
            features = embed(model, study.plain(everything), device)

            def make(rows: Indices) -> nn.Module:
                head = Head(
                    torch.from_numpy(features[rows]), len(seen.targets), training.hidden, training.dropout
                )
                if start == "probe" and not training.hidden:
                    start_as_probe(head, features.astype(np.float64), seen.targets, seen.train, seen.repeat)
                return Network(model, head).requires_grad_(True)

            return _trained(make, inputs, seen, training, where)

        return fit

    pretrained = tuned(lambda repeat: deepcopy(encoders[repeat % len(encoders)]))
    scratch = tuned(lambda repeat: random_encoder(study, repeat))
    return [
        over_trials(name, plan.tasks, fraction, max(plan.seeds, number), plan.seeds, fit)
        for fraction in plan.fractions
        for name, fit, number in (("pretrained", pretrained, len(encoders)), ("from scratch", scratch, 1))
    ]


def _in_turn(fits: Sequence[FitAll]) -> FitAll:
    """The r-th repeat takes the r-th fit, and begins again at the end."""
    return lambda seen: fits[seen.repeat % len(fits)](seen)


def _trained(
    make: Callable[[Indices], nn.Module],
    inputs: Inputs,
    seen: Labelled,
    training: Training,
    device: torch.device,
) -> tuple[Floats, ...]:
    """Predictions of the network that ``make`` makes for the training rows, trained on all tasks."""
    scale = scale_of(seen.targets, seen.train)
    learnt, validation = (
        side_by_side(seen.targets, positions, scale) for positions in (seen.train, seen.validation)
    )
    with torch_seed(seen.repeat):
        network = make(learnt.rows).to(device)
        train(network, inputs, learnt, validation, training, bool(seen.targets[0].classes), device)
        return predictions(network, inputs, seen.targets, scale)
