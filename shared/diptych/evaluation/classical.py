"""Contenders that need no encoder: classical models on hand-made features, and the majority class or mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diptych.errors import DataError
from diptych.evaluation.comparison import Contender
from diptych.evaluation.linear_model import fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.target import Target
from diptych.study import Indices, Study

TREES = 200


def classical_contenders(
    study: Study, target: Target, fractions: Sequence[float], seeds: int
) -> tuple[list[Contender], list[str]]:
    """Random forest, logistic or ridge regression on hand-made features, and the constant predictor.

    Missing features are replaced by their median within the training samples of each fit.

    Returns:
        The contenders of every fraction, and notes.

    Raises:
        DataError: the features do not fit the samples, or are infinite.
    """
    notes: list[str] = []
    linear = "logistic regression" if target.classes else "ridge regression"
    contenders: list[Contender] = []
    features, name = hand_made(study, target.rows)
    if features is None:
        notes.append("no classical baseline: this study has no hand-made features")
    else:
        notes.append(f"random forest and {linear} on hand-made features: {name}")
    for fraction in fractions:
        if features is not None:

            def forest(train: Indices, seed: int, features: Floats = features) -> Floats:
                return _forest(features, target, train, seed)

            def straight(train: Indices, seed: int, features: Floats = features) -> Floats:
                fit = fit_linear(features, target, train, seed=seed, impute=True)
                notes.extend(fit.warnings(linear))
                return fit.predict(features[target.test])

            contenders.append(over_draws("random forest", target, fraction, seeds, seeds, forest))
            repeats = 1 if fraction == 1.0 else seeds
            contenders.append(over_draws(linear, target, fraction, repeats, seeds, straight))
        constant = "majority class" if target.classes else "mean"
        repeats = 1 if fraction == 1.0 else seeds
        contenders.append(
            over_draws(constant, target, fraction, repeats, seeds, lambda train, _: _constant(target, train))
        )
    return contenders, notes


def over_draws(
    name: str,
    target: Target,
    fraction: float,
    repeats: int,
    seeds: int,
    predict: Callable[[Indices, int], Floats],
) -> Contender:
    """A contender fitted ``repeats`` times, the r-th time on draw ``r % seeds`` of the fraction's patients.

    Args:
        predict: Takes the positions of the labelled training samples and r; gives the predictions for
            ``target.test``.
    """
    predictions, samples, patients = [], [], 0
    for repeat in range(repeats):
        train = target.train if fraction == 1.0 else target.few(target.train, fraction, repeat % seeds)
        predictions.append(predict(train, repeat))
        samples.append(len(train))
        patients = len(np.unique(target.patients[train]))
    return Contender(
        name=name, fraction=fraction, predictions=predictions, patients=patients, samples=samples
    )


def scaled_features(study: Study, rows: Indices) -> tuple[Floats | None, str]:
    """Hand-made features of samples, standardised as the training samples are, and their name."""
    features, name = hand_made(study, rows)
    if features is None:
        return None, name
    seen, _ = hand_made(study, study.samples.where("train"))
    steps = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    return np.asarray(steps.fit(seen).transform(features), dtype=np.float64), name


def hand_made(study: Study, rows: Indices) -> tuple[Floats | None, str]:
    """The study's features of samples (n, features) and their name; None where it has none."""
    if study.baseline is None:
        return None, ""
    baseline = study.baseline(rows)
    values = np.asarray(baseline.values, dtype=np.float64)
    if values.ndim != 2 or len(values) != len(rows) or values.shape[1] == 0:
        raise DataError(
            f"the baseline {baseline.name!r} has features of shape {values.shape} for {len(rows)} samples; "
            "expected one row of features a sample"
        )
    if np.isinf(values).any():
        raise DataError(
            f"the baseline {baseline.name!r} has infinite features; expected NaN where one cannot be computed"
        )
    return values, baseline.name


def _forest(features: Floats, target: Target, train: Indices, seed: int) -> Floats:
    trees = {"n_estimators": TREES, "random_state": seed, "n_jobs": -1}
    if target.classes:
        forest: Any = RandomForestClassifier(**trees)  # tries sqrt(features) at a split
    else:
        forest = RandomForestRegressor(**trees, max_features=1 / 3, min_samples_leaf=5)  # Breiman, 2001
    # A feature that no training sample has is a constant 0 then, which no tree splits on.
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    model = make_pipeline(imputer, forest)
    if not target.classes:
        model.fit(features[train], target.values[train])
        return np.asarray(model.predict(features[target.test]), dtype=np.float64)
    model.fit(features[train], target.codes[train])
    return spread(model.predict_proba(features[target.test]), model.classes_, len(target.classes))


def spread(probabilities: Floats, known: NDArray[np.int64], classes: int) -> Floats:
    """(n, classes) probabilities from those of the classes that a model knows; the others are 0."""
    full = np.zeros((len(probabilities), classes))
    full[:, known] = probabilities
    return full


def _constant(target: Target, train: Indices) -> Floats:
    if not target.classes:
        return np.full(len(target.test), target.values[train].mean())
    shares = np.bincount(target.codes[train], minlength=len(target.classes)) / len(train)
    return np.tile(shares, (len(target.test), 1))
