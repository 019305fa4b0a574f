"""Weighted k nearest neighbours: what the geometry of frozen embeddings can tell, with nothing fitted.

Votes are exp(similarity / temperature) as in Wu et al., Unsupervised Feature Learning via Non-Parametric
Instance Discrimination, 2018, and Caron et al. (DINO), 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError
from diptych.evaluation.frozen import Encoders, LabelEvaluation, evaluate_frozen
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target
from diptych.study import Indices, Study

BLOCK = 8_000_000  # similarities held at once: 64 MB


@dataclass(frozen=True, kw_only=True)
class NearestNeighbours(LabelEvaluation):
    """Vote of the nearest training samples by cosine similarity, never of the same patient.

    Rows as in the linear probe. Embeddings are scaled to length 1 and not standardised.

    Args:
        fractions: Shares of the labelled training patients to look for neighbours among.
        neighbours: Number of neighbours that vote; all where there are fewer.
        temperature: A neighbour's vote is exp(similarity / temperature).
    """

    neighbours: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        super().__post_init__()
        check_votes(self.neighbours, self.temperature)

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed."""

        def predict(features: Floats, target: Target, train: Indices, seed: int) -> Floats:
            return votes_for(features, target, train, self.neighbours, self.temperature)

        notes = [f"neighbours by cosine similarity, not standardised, temperature {self.temperature:g}"]
        what = f"{self.neighbours} nearest neighbours"
        return evaluate_frozen(self, study, encoder, predict, what=what, notes=notes)


def nearest_votes(
    keys: Floats,
    values: Floats,
    key_patients: NDArray[np.str_],
    queries: Floats,
    query_patients: NDArray[np.str_],
    *,
    neighbours: int = 20,
    temperature: float = 0.07,
) -> Floats:
    """Mean of the nearest keys' values, weighted by exp(cosine similarity / temperature).

    Args:
        keys: (n, d).
        values: (n,) numbers or (n, classes) one-hot rows.
        key_patients: (n,).
        queries: (m, d).
        query_patients: (m,); keys of a query's own patient do not vote.
        neighbours: k; all keys of other patients where there are fewer.
        temperature: Above 0.

    Returns:
        (m,) or (m, classes).

    Raises:
        DataError: a query has no key of another patient.
    """
    check_votes(neighbours, temperature)
    keys, queries = unit_length(keys), unit_length(queries)
    step = max(1, BLOCK // len(keys))
    blocks = []
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        similarity = queries[rows] @ keys.T
        similarity[query_patients[rows, None] == key_patients[None, :]] = -np.inf
        k = min(neighbours, len(keys))
        nearest = np.argpartition(-similarity, k - 1, axis=1)[:, :k]
        close = np.take_along_axis(similarity, nearest, axis=1)
        largest = close.max(axis=1, keepdims=True)
        if np.isneginf(largest).any():
            raise DataError(
                "a sample has no neighbour of another patient to be compared with; expected training samples "
                "of at least one other patient"
            )
        weight = np.exp((close - largest) / temperature)
        weight /= weight.sum(axis=1, keepdims=True)
        blocks.append(np.einsum("mk,mk...->m...", weight, values[nearest]))
    return np.concatenate(blocks)


def votes_for(
    features: Floats, target: Target, train: Indices, neighbours: int, temperature: float
) -> Floats:
    """The votes of the samples at ``train`` for those at ``target.test``; features (n, d) of all of the target."""
    values = np.eye(len(target.classes))[target.codes[train]] if target.classes else target.values[train]
    return nearest_votes(
        features[train],
        values,
        target.patients[train],
        features[target.test],
        target.patients[target.test],
        neighbours=neighbours,
        temperature=temperature,
    )


def check_votes(neighbours: int, temperature: float) -> None:
    """Raise ConfigError where nobody would vote, or no vote would have a weight."""
    if neighbours < 1 or temperature <= 0:
        raise ConfigError(
            f"neighbours are at least 1 and the temperature is above 0; got {neighbours} and {temperature:g}"
        )


def unit_length(rows: Floats) -> Floats:
    """Rows of length 1; a row of zeros stays, similar to nothing."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
