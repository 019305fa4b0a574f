"""Logistic and ridge regression on standardised features, their strength chosen by patient-grouped folds."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from diptych.evaluation.metrics import Floats
from diptych.evaluation.target import Target
from diptych.study import Indices

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # C of logistic regression; ridge takes alpha = 1 / C
FOLDS = 5
STEPS = 2000  # of lbfgs
TOLERANCE = 1e-3  # of lbfgs within folds, in float32: between two C the folds' loss differs by far more
SMALLEST = 1e-15  # probability in the log loss of a class that a fold did not know


@dataclass(frozen=True)
class LinearFit:
    """A fitted model; ``strength`` is its C (1 / alpha), ``classes`` the number of columns it predicts."""

    steps: Pipeline
    model: Any
    strength: float
    classes: int  # 0 for regression
    faults: Sequence[str] = field(default=())

    def predict(self, features: Any) -> Floats:
        """(n, classes) probabilities, 0 for classes without a training sample; or (n,) numbers."""
        return _predict(self.model, self.steps.transform(features), self.classes)

    def warnings(self, what: str) -> list[str]:
        """What a reader of the scores should know about the fit."""
        return [f"{what}: {fault}" for fault in self.faults]


def fit_linear(
    features: Any,
    target: Target,
    train: Indices,
    *,
    seed: int = 0,
    impute: bool = False,
    standardise: bool = True,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearFit:
    """Standardise, choose the strength on folds of patients within ``train``, fit on all of it.

    Classification minimises the L2-penalised log loss (lbfgs, no class weights) and chooses C by the folds'
    log loss; regression is ridge, chosen by squared error. Every step is fitted within the fold.

    Args:
        features: (n, d) of all samples of the target, an array; or a sparse matrix, not standardised.
        target: The label.
        train: Positions of the labelled training samples.
        seed: Shuffles the folds.
        impute: Replace NaN by the training median first.
        standardise: Scale every feature to mean 0 and SD 1 of the training samples.
        strengths: Ascending values of C; alpha of ridge is 1 / C.
    """
    x, y, patients = features[train], target.values[train], target.patients[train]
    classes = len(target.classes)
    faults: list[str] = []
    folds = _folds(y, patients, classes, seed)
    if folds:
        sides = [
            _Fold.of(x, y, fitted, judged, _steps(impute, standardise), np.float32 if classes else np.float64)
            for fitted, judged in folds
        ]
        best = _best(sides, classes, strengths)
        if best in (0, len(strengths) - 1):
            faults.append(f"the chosen C is at the edge of the grid ({strengths[best]:g})")
        strength = strengths[best]
    else:
        strength = min(strengths, key=lambda value: abs(np.log(value)))
        faults.append(f"too few patients to choose C in some fits, {strength:g} taken")
    steps = _steps(impute, standardise)
    model = _model(classes, strength)
    if not _fit(model, steps.fit_transform(x), y, classes):
        faults.append(f"logistic regression did not converge in {STEPS} steps")
    return LinearFit(steps, model, strength, classes, faults)


def _folds(
    y: Floats, patients: NDArray[np.str_], classes: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Patient-grouped folds, at most five; [] where there are too few patients.

    There are at most as many folds as the second most frequent class has patients. Classes with fewer patients
    than folds are not spread evenly; where one is absent from the samples that a fold fits on, its loss is the
    same for every C.
    """
    if not classes:
        number = min(FOLDS, len(np.unique(patients)))
        if number < 2:
            return []
        return list(GroupKFold(number, shuffle=True, random_state=seed).split(y, y, patients))
    size = {code: len(np.unique(patients[y == code])) for code in np.unique(y)}
    most, *others = sorted(size, key=lambda code: (-size[code], code))
    number = min(FOLDS, size[others[0]]) if others else 0
    if number < 2:
        return []
    strata = np.where([size[code] < number for code in y], most, y)
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=seed)
    return list(_with_two_classes(splitter.split(y, strata, patients), y))


def _with_two_classes(
    folds: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]], y: Floats
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """A fold that leaves one class to fit on says nothing about C."""
    return ((fitted, judged) for fitted, judged in folds if len(judged) and len(np.unique(y[fitted])) > 1)


class _Fold(NamedTuple):
    """The features of both sides of a fold, and the labels."""

    seen: Any
    seen_y: Floats
    judged: Any
    judged_y: Floats

    @classmethod
    def of(
        cls,
        x: Any,
        y: Floats,
        fitted: NDArray[np.int64],
        judged: NDArray[np.int64],
        steps: Pipeline,
        dtype: type[np.floating],
    ) -> _Fold:
        seen = steps.fit_transform(x[fitted]).astype(dtype)
        return cls(seen, y[fitted], steps.transform(x[judged]).astype(dtype), y[judged])

    def loss(self, model: Any, classes: int) -> float:
        """The summed loss on the judged samples of a model that is fitted here."""
        _fit(model, self.seen, self.seen_y, classes)
        predicted = _predict(model, self.judged, classes)
        if not classes:
            return float(((predicted - self.judged_y) ** 2).sum())
        chances = predicted[np.arange(len(predicted)), self.judged_y.astype(np.int64)]
        return float(-np.log(np.maximum(chances, SMALLEST)).sum())


def _best(folds: Sequence[_Fold], classes: int, strengths: Sequence[float]) -> int:
    """Which strength has the least loss over all folds.

    All are tried, in ascending order, each fit from the one before. The large C are the slow ones, but a rise of the
    loss is no reason to leave them out: with few patients it rises first, by a quarter even, and then falls below.
    """
    models = [_model(classes, strengths[0], TOLERANCE) for _ in folds]
    losses: list[float] = []
    for strength in strengths:
        for model in models:
            model.set_params(**({"C": strength} if classes else {"alpha": 1.0 / strength}))
        losses.append(sum(fold.loss(model, classes) for fold, model in zip(folds, models, strict=True)))
    return int(np.argmin(losses))


def _steps(impute: bool, standardise: bool) -> Pipeline:
    imputer = [SimpleImputer(strategy="median", keep_empty_features=True)] if impute else []
    return make_pipeline(*imputer, StandardScaler() if standardise else "passthrough")


def _model(classes: int, strength: float, tolerance: float = 1e-4) -> Any:
    if classes:
        return LogisticRegression(C=strength, max_iter=STEPS, warm_start=True, tol=tolerance)
    return Ridge(alpha=1.0 / strength)


def _fit(model: Any, x: Any, y: Floats, classes: int) -> bool:
    """Fit in place; whether it converged. The caller reports it, in place of scikit-learn's warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x, y.astype(np.int64) if classes else y)
    return not classes or bool(np.max(model.n_iter_) < STEPS)


def _predict(model: Any, x: Any, classes: int) -> Floats:
    if not classes:
        return np.asarray(model.predict(x), dtype=np.float64)
    full = np.zeros((x.shape[0], classes))
    full[:, model.classes_] = model.predict_proba(x)
    return full
