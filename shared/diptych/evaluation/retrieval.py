"""Retrieval: does an embedding find a patient's other recordings among everybody's?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from diptych.errors import DataError
from diptych.evaluation.bootstrap import patient_draws, resampled
from diptych.evaluation.classical import scaled_features
from diptych.evaluation.comparison import Measured, differences, measured_scores
from diptych.evaluation.embeddings import embed
from diptych.evaluation.frozen import check_options, encoders_of, random_encoder
from diptych.evaluation.knn import unit_length
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Column, Row, Table
from diptych.evaluation.target import check_samples
from diptych.study import Indices, Study

METRICS = ("mean average precision", "recall@1", "recall@5")
Scores = dict[str, Floats]  # by metric: one value a query


def retrieval(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    seeds: int = 5,
    draws: int = 2000,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Rank everybody's other recordings by cosine similarity; those of the query's patient should come first.

    Queries and candidates are the test samples (windows), and per recording the means of their embeddings.
    The query's own recording is no candidate. Rows: pretrained, random weights, hand-made features
    (standardised), and what a random order would give.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed.
        seeds: Number of random encoders.
        draws: Number of bootstrap resamples of the test patients.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to embed: auto, cpu, cuda.

    Raises:
        DataError: no test patient has two recordings, or there is only one patient.
    """
    check_options((1.0,), seeds)
    overlap = check_samples(study.samples, run_splits)
    words = study.samples.words
    rows = study.samples.where("test")
    ids = study.samples.ids.iloc[rows]
    patients, recordings = (ids[name].to_numpy(dtype=np.str_) for name in ("patient", "recording"))
    untrained = (random_encoder(study, seed) for seed in range(seeds))
    spaces = {
        "pretrained": [_embedded(study, each, rows, device) for each in encoders_of(encoder)],
        "random weights": [_embedded(study, each, rows, device) for each in untrained],
    }
    notes = ["ties are ranked against the query, so a collapsed encoder gains nothing"]
    features, name = scaled_features(study, rows)
    if features is None:
        notes.append("no classical baseline: this study has no hand-made features")
    else:
        spaces["hand-made features"] = [features]
        notes.append(f"hand-made features: {name}, standardised")
    levels = {"recording": _by_recording(recordings, patients), "sample": np.arange(len(rows))}
    found: dict[str, dict[Column, Measured]] = {}
    for level, group in levels.items():
        _, first = np.unique(group, return_index=True)
        owner, place = patients[first], recordings[first]
        queries = _queries(owner, place)
        names, patient = np.unique(owner[queries], return_inverse=True)
        counts = patient_draws([None] * len(names), draws)
        results = {
            contender: [retrieval_scores(_means(space, group), owner, place) for space in repeats]
            for contender, repeats in spaces.items()
        }
        results["random order"] = [chance_scores(owner, place)]
        for contender, repeats in results.items():
            found.setdefault(contender, {}).update(_measure(level, repeats, counts, patient))
    table_rows = [
        Row(name=name, scores=measured_scores(measured), repeats=len(spaces.get(name, ["one"])))
        for name, measured in found.items()
    ]
    table_rows += [
        Row(
            name=f"pretrained - {name}", scores=differences(found["pretrained"], found[name]), difference=True
        )
        for name in list(found)[1:]
    ]
    return Table(
        title=f"retrieval of a {words.unit}'s other {words.recordings}",
        metrics=METRICS,
        levels=tuple(levels),
        rows=table_rows,
        test_patients=len(np.unique(patients)),
        test_samples=len(rows),
        notes=[
            f"{len(names)} {words.units} with two or more {words.recordings} are asked for",
            *notes,
            *overlap,
        ],
        words=words,
    )


def retrieval_scores(rows: Floats, patients: NDArray[np.str_], recordings: NDArray[np.str_]) -> Scores:
    """Recall@1, recall@5 and average precision of each query that has something to find.

    A query's candidates are the rows of all other recordings; the relevant ones are its patient's. Recall@k
    is 1 when one of the k nearest is relevant. Among equally similar candidates the irrelevant come first.

    Args:
        rows: (n, d) embeddings.
        patients: (n,).
        recordings: (n,).
    """
    unit = unit_length(rows)
    scores: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for query in _queries(patients, recordings):
        candidates = recordings != recordings[query]
        similarity = (unit @ unit[query])[candidates]
        relevant = (patients == patients[query])[candidates]
        ranked = relevant[np.lexsort((relevant, -similarity))]
        places = np.flatnonzero(ranked) + 1
        scores["mean average precision"].append(float(np.mean(np.arange(1, len(places) + 1) / places)))
        scores["recall@1"].append(float(places[0] <= 1))
        scores["recall@5"].append(float(places[0] <= 5))
    return {metric: np.array(values) for metric, values in scores.items()}


def chance_scores(patients: NDArray[np.str_], recordings: NDArray[np.str_]) -> Scores:
    """What the scores are on average when candidates come in random order, for each query.

    With r relevant of n candidates and H the n-th harmonic number, recall@k is 1 - C(n - r, k) / C(n, k) and
    average precision is (H + (r - 1) (n - H) / (n - 1)) / n.
    """
    scores: dict[str, list[float]] = {metric: [] for metric in METRICS}
    for query in _queries(patients, recordings):
        candidates = recordings != recordings[query]
        n = int(candidates.sum())
        r = int((candidates & (patients == patients[query])).sum())
        harmonic = float((1.0 / np.arange(1, n + 1)).sum())
        rest = (r - 1) * (n - harmonic) / (n - 1) if n > 1 else 0.0
        scores["mean average precision"].append((harmonic + rest) / n)
        for k in (1, 5):
            missed = np.prod([max(0, n - r - i) / (n - i) for i in range(min(k, n))])
            scores[f"recall@{k}"].append(1.0 - float(missed))
    return {metric: np.array(values) for metric, values in scores.items()}


def _queries(patients: NDArray[np.str_], recordings: NDArray[np.str_]) -> list[int]:
    """Rows whose patient has another recording."""
    several = {
        patient for patient in np.unique(patients) if len(np.unique(recordings[patients == patient])) > 1
    }
    queries = [row for row, patient in enumerate(patients) if patient in several]
    if not queries or len(np.unique(patients)) < 2:
        raise DataError(
            f"retrieval needs a test patient with two recordings, and other patients; the test data have "
            f"{len(np.unique(recordings))} recordings of {len(np.unique(patients))} patients, and "
            f"{len(several)} patients with several. Use another evaluator, or more recordings a patient"
        )
    return queries


def _by_recording(recordings: NDArray[np.str_], patients: NDArray[np.str_]) -> NDArray[np.int64]:
    return np.unique(recordings, return_inverse=True)[1].astype(np.int64)


def _means(rows: Floats, group: NDArray[np.int64]) -> Floats:
    """Mean row of each group, in the order of group numbers."""
    sums = np.zeros((int(group.max()) + 1, rows.shape[1]))
    np.add.at(sums, group, rows)
    means: Floats = sums / np.bincount(group)[:, None]
    return means


def _embedded(study: Study, encoder: nn.Module, rows: Indices, device: str) -> Floats:
    return embed(encoder, study.plain(rows), device).astype(np.float64)


def _measure(
    level: str, repeats: Sequence[Scores], counts: Floats, patient: NDArray[np.int64]
) -> dict[Column, Measured]:
    average = {metric: np.mean([scores[metric] for scores in repeats], axis=0) for metric in METRICS}
    drawn = resampled(
        lambda weights: {name: value @ weights / weights.sum(axis=0) for name, value in average.items()},
        counts,
        patient,
    )
    return {
        Column(level, metric): Measured(
            np.array([scores[metric].mean() for scores in repeats]), drawn[metric]
        )
        for metric in METRICS
    }
