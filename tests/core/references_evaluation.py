"""Naive counterparts of what evaluation computes, as loops over Python floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    length = math.sqrt(sum(a * a for a in one)) * math.sqrt(sum(b * b for b in other))
    return dot / length if length else 0.0


def vote(
    keys: np.ndarray,
    values: Sequence[float],
    key_patients: Sequence[str],
    query: np.ndarray,
    patient: str,
    neighbours: int,
    temperature: float,
) -> float:
    """Weighted mean of the values of the nearest keys of other patients."""
    ranked = sorted(
        (
            (cosine(key, query), value)
            for key, value, owner in zip(keys.tolist(), values, key_patients, strict=True)
            if owner != patient
        ),
        reverse=True,
    )[:neighbours]
    weights = [math.exp(similarity / temperature) for similarity, _ in ranked]
    return sum(w * value for w, (_, value) in zip(weights, ranked, strict=True)) / sum(weights)


def retrieve(rows: np.ndarray, patients: Sequence[str], recordings: Sequence[str]) -> dict[str, list[float]]:
    """Average precision and recall of every query with something to find."""
    found: dict[str, list[float]] = {"mean average precision": [], "recall@1": [], "recall@5": []}
    for query in range(len(rows)):
        candidates = [
            (cosine(rows[query].tolist(), rows[other].tolist()), patients[other] == patients[query])
            for other in range(len(rows))
            if recordings[other] != recordings[query]
        ]
        candidates.sort(key=lambda pair: (-pair[0], pair[1]))
        hits, precisions = 0, []
        for place, (_, relevant) in enumerate(candidates, start=1):
            if relevant:
                hits += 1
                precisions.append(hits / place)
        if not hits:
            continue
        found["mean average precision"].append(sum(precisions) / hits)
        for k in (1, 5):
            found[f"recall@{k}"].append(float(any(relevant for _, relevant in candidates[:k])))
    return found
