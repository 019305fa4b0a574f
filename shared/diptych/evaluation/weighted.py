"""The scores of ``metrics`` for many weightings of the same samples at once: what a bootstrap needs.

Weights are (n, b): how often each of n samples occurs in each of b resamples. Every function equals its
scikit-learn counterpart on samples repeated that often, and returns (b,), NaN where it is not defined.
"""

from __future__ import annotations

import numpy as np

from diptych.evaluation.metrics import Codes, Floats, present_classes, ranked_classes


def classification_scores(
    truth: Codes, probabilities: Floats, weights: Floats, positive: int | None = None
) -> dict[str, Floats]:
    """Weighted counterparts of :func:`diptych.evaluation.metrics.classification_scores`."""
    k = probabilities.shape[1]
    cells = truth * k + probabilities.argmax(axis=1)
    confusion = np.stack([weights[cells == cell].sum(axis=0) for cell in range(k * k)]).reshape(k, k, -1)
    present = present_classes(truth)
    hits = confusion[present, present]  # (present, b)
    recall = _divide(hits, confusion[present].sum(axis=1))
    predicted = confusion[:, present].sum(axis=0)
    precision = _divide(hits, predicted, where_zero=0.0)
    f1 = _divide(2 * hits, confusion[present].sum(axis=1) + predicted)
    scores = {
        "accuracy": np.trace(confusion) / weights.sum(axis=0),
        "balanced accuracy": recall.mean(axis=0),
        "macro precision": precision.mean(axis=0),
        "macro recall": recall.mean(axis=0),
        "macro F1": f1.mean(axis=0),
    }
    if len(present) > 1:
        columns = ranked_classes(truth, k, positive)
        ranked = {
            c: ranking_scores(truth == c, probabilities[:, c], weights) for c in sorted({*present, *columns})
        }
        scores["AUROC"] = np.mean([ranked[c][0] for c in present], axis=0)
        scores["AUPRC"] = np.mean([ranked[c][1] for c in columns], axis=0)
    return scores


def ranking_scores(positive: np.ndarray, score: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """AUROC (ties count half) and average precision (sum of recall steps times precision), (b,) each."""
    order = np.argsort(-score, kind="stable")
    positives = weights[order] * positive[order, None]
    negatives = weights[order] - positives
    starts = _tie_starts(score[order])
    if len(starts) < len(order):
        positives = np.add.reduceat(positives, starts, axis=0)
        negatives = np.add.reduceat(negatives, starts, axis=0)
    above = np.cumsum(negatives, axis=0)  # false positives at each threshold, ties included
    hits = np.cumsum(positives, axis=0)
    total, rest = hits[-1], above[-1]
    auroc = _divide((positives * (rest - above + negatives / 2)).sum(axis=0), total * rest)
    precision = _divide(hits, hits + above, where_zero=0.0)
    return auroc, _divide((positives * precision).sum(axis=0), total)


def regression_scores(truth: Floats, predicted: Floats, weights: Floats) -> dict[str, Floats]:
    """Weighted counterparts of :func:`diptych.evaluation.metrics.regression_scores`."""
    total = weights.sum(axis=0)
    error = predicted - truth
    squared = error**2 @ weights
    mean = (truth @ weights) / total
    spread = (weights * (truth[:, None] - mean) ** 2).sum(axis=0)
    return {
        "MAE": (np.abs(error) @ weights) / total,
        "R2": 1.0 - _divide(squared, spread),
        "Spearman": _correlation(_midranks(truth, weights), _midranks(predicted, weights), weights),
        "RMSE": np.sqrt(squared / total),
    }


def _midranks(values: Floats, weights: Floats) -> Floats:
    """(n, b): the mean rank of each sample when the samples are repeated as weighted, up to a constant."""
    order = np.argsort(values, kind="stable")
    starts = _tie_starts(values[order])
    tied = np.add.reduceat(weights[order], starts, axis=0)
    level = np.zeros(len(order), dtype=np.int64)
    level[starts[1:]] = 1
    ranks = np.empty_like(weights)
    ranks[order] = (np.cumsum(tied, axis=0) - tied / 2)[np.cumsum(level)]
    return ranks


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    total = weights.sum(axis=0)
    x = x - (weights * x).sum(axis=0) / total
    y = y - (weights * y).sum(axis=0) / total
    scale = np.sqrt((weights * x**2).sum(axis=0) * (weights * y**2).sum(axis=0))
    return _divide((weights * x * y).sum(axis=0), scale)


def _tie_starts(ordered: Floats) -> np.ndarray:
    """Where each run of equal values begins."""
    return np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])


def _divide(numerator: Floats, denominator: Floats, where_zero: float = np.nan) -> Floats:
    out = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), where_zero)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out
