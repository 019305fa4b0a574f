"""Probes of frozen embeddings, task by task: linear models and the nearest molecules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from diptych.evaluation.embeddings import embed
from diptych.evaluation.frozen import Encoders, encoders_of, random_encoder
from diptych.evaluation.knn import check_votes, votes_for
from diptych.evaluation.linear import check_strengths
from diptych.evaluation.linear_model import STRENGTHS, fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target
from diptych.study import Indices
from diptych_molecules.baselines import with_ecfp
from diptych_molecules.evaluators.property_evaluation import Prepared, PropertyEvaluation
from diptych_molecules.scoring import Contender
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.trials import FitAll, over_trials, task_by_task


@dataclass(frozen=True, kw_only=True)
class LinearProbe(PropertyEvaluation):
    """Logistic (classes) or ridge regression (numbers) on standardised frozen embeddings, task by task.

    The strength of the penalty is chosen on folds of the training molecules that keep scaffolds (or what the split
    keeps) together. Rows: pretrained, the same encoder with random weights, and the baselines.

    Args:
        fractions: Shares of the labelled training scaffolds (or molecules) to fit on.
        strengths: Values of C to choose from; ridge takes alpha = 1 / C.
        fused: Also a row of the pretrained embeddings and the fingerprints together.
    """

    strengths: tuple[float, ...] = STRENGTHS
    fused: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strengths(self.strengths)

    def __call__(self, study: MoleculeStudy, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed."""
        prepared = self.prepared(study)
        notes: list[str] = []
        ordered = sorted(set(self.strengths))

        def of(features: Floats) -> FitAll:
            def fit(target: Target, chosen: Indices, seed: int) -> Floats:
                found = fit_linear(features[target.rows], target, chosen, seed=seed, strengths=ordered)
                notes.extend(found.warnings("linear probe"))
                return found.predict(features[target.rows[target.test]])

            return task_by_task(fit)

        rows = frozen_rows(self, prepared, encoder, of, fused=self.fused)
        return self.table(prepared, "linear probe", rows, notes)


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(PropertyEvaluation):
    """Vote of the nearest training molecules by cosine similarity of frozen embeddings, task by task.

    Embeddings are scaled to length 1 and not standardised. Rows as in the linear probe.

    Args:
        fractions: Shares of the labelled training scaffolds (or molecules) to look for neighbours among.
        neighbours: Number of neighbours that vote; all where there are fewer.
        temperature: A neighbour's vote is exp(similarity / temperature).
    """

    neighbours: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        check_votes(self.neighbours, self.temperature)

    def __call__(self, study: MoleculeStudy, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed."""
        prepared = self.prepared(study)

        def of(features: Floats) -> FitAll:
            def fit(target: Target, chosen: Indices, seed: int) -> Floats:
                return votes_for(features[target.rows], target, chosen, self.neighbours, self.temperature)

            return task_by_task(fit)

        rows = frozen_rows(self, prepared, encoder, of)
        notes = [f"neighbours by cosine similarity, not standardised, temperature {self.temperature:g}"]
        return self.table(prepared, f"{self.neighbours} nearest neighbours", rows, notes)


def frozen_rows(
    options: PropertyEvaluation,
    prepared: Prepared,
    encoder: Encoders,
    of: Callable[[Floats], FitAll],
    *,
    fused: bool = False,
    repeats: int = 1,
) -> list[Contender]:
    """The rows of frozen encoders: pretrained and random weights; ``fused``: and with the fingerprints."""
    study, tasks = prepared.study, prepared.tasks
    everything = np.arange(len(study.samples), dtype=np.int64)

    def features(each: nn.Module) -> Floats:
        return embed(each, study.plain(everything), options.device).astype(np.float64)

    pretrained = [features(each) for each in encoders_of(encoder)]
    several = {
        "pretrained": [of(each) for each in pretrained],
        "random weights": [of(features(random_encoder(study, seed))) for seed in range(options.seeds)],
    }
    if fused:
        several["pretrained + ECFP"] = [task_by_task(with_ecfp(study.molecules, each)) for each in pretrained]
    return [
        over_trials(name, tasks, share, max(repeats, len(fits)), options.seeds, _in_turn(fits))
        for share in options.shares
        for name, fits in several.items()
    ]


def _in_turn(fits: Sequence[FitAll]) -> FitAll:
    """The r-th repeat takes the r-th fit, and begins again at the end."""
    return lambda seen: fits[seen.repeat % len(fits)](seen)
