"""Scores of predictions, thin over scikit-learn; classes absent from the test data are left out openly.

n samples (or patients), k classes. Truth is class codes (n,) and probabilities are (n, k), or both are
numbers (n,). A score that is not defined (AUROC of one class, R2 of a constant truth) is not in the
result: a number that was not measured is not printed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn import metrics as sk

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

CLASSIFICATION = (
    "AUROC",
    "AUPRC",
    "macro F1",
    "balanced accuracy",
    "accuracy",
    "macro precision",
    "macro recall",
)
REGRESSION = ("MAE", "R2", "Spearman", "RMSE")
LOWER_IS_BETTER = frozenset({"MAE", "RMSE"})


def classification_scores(
    truth: Codes, probabilities: Floats, positive: int | None = None
) -> dict[str, float]:
    """Scores of predicted class probabilities.

    Macro averages run over the classes that occur in ``truth`` (:func:`present_classes`); predicting another
    one counts as an error. The predicted class is the most probable one.

    Args:
        truth: (n,) class codes.
        probabilities: (n, k).
        positive: With two classes, the one whose AUPRC is given; otherwise AUPRC is the macro average of one
            class against the rest, as AUROC always is (with two classes both columns have the same AUROC).
    """
    present = present_classes(truth)
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, predicted, labels=present, average="macro", zero_division=0.0
    )
    scores = {
        "accuracy": float(sk.accuracy_score(truth, predicted)),
        "balanced accuracy": float(recall),  # the mean of the recalls of the classes that are there
        "macro precision": float(precision),
        "macro recall": float(recall),
        "macro F1": float(f1),
    }
    if len(present) > 1:
        columns = ranked_classes(truth, probabilities.shape[1], positive)
        scores["AUROC"] = _mean(sk.roc_auc_score(truth == c, probabilities[:, c]) for c in present)
        scores["AUPRC"] = _mean(sk.average_precision_score(truth == c, probabilities[:, c]) for c in columns)
    return {name: scores[name] for name in CLASSIFICATION if name in scores}


def regression_scores(truth: Floats, predicted: Floats) -> dict[str, float]:
    """MAE, R2, Spearman and RMSE, (n,) each. Spearman needs both sides, R2 the truth, not to be constant."""
    scores = {
        "MAE": float(sk.mean_absolute_error(truth, predicted)),
        "RMSE": float(sk.root_mean_squared_error(truth, predicted)),
    }
    if np.ptp(truth) > 0:
        scores["R2"] = float(sk.r2_score(truth, predicted))
        if np.ptp(predicted) > 0:
            scores["Spearman"] = float(spearmanr(truth, predicted).statistic)
    return {name: scores[name] for name in REGRESSION if name in scores}


def present_classes(truth: Codes) -> list[int]:
    """The class codes that occur."""
    return [int(code) for code in np.unique(truth)]


def ranked_classes(truth: Codes, classes: int, positive: int | None) -> list[int]:
    """The classes whose average precision is taken: the positive one of two, else all that occur."""
    return [positive] if positive is not None and classes == 2 else present_classes(truth)


def _mean(values: Any) -> float:
    return float(np.mean(list(values)))
