"""Contenders that need no encoder: boosted trees on statistics, the mean of each kind of target, one constant."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from diptych.evaluation.classical import spread
from diptych.evaluation.metrics import Floats
from diptych.study import Indices
from diptych_circuits.targets import Targets

TREES = "boosted trees on statistics"
KIND_MEAN = "mean of each kind"
CONSTANT = "constant"


def join_features(nodes: Floats, pairs: Floats, targets: Targets) -> Floats:
    """(n, features) for models that take rows: both ends, the kind of target and the features of the pair.

    Ends whose order means nothing become their elementwise minimum and maximum.

    Args:
        nodes: (nodes, columns).
        pairs: (n, features), possibly none.
        targets: n targets.
    """
    parts = [nodes[column] for column in targets.ends.T]
    if len(parts) == 2:
        either = targets.symmetric[targets.kind][:, None]
        first, second = parts
        parts = [
            np.where(either, np.minimum(first, second), first),
            np.where(either, np.maximum(first, second), second),
        ]
    return np.column_stack([*parts, np.eye(len(targets.kinds))[targets.kind], pairs])


def trees(features: Floats, labels: Any, classes: int, train: Indices, test: Indices, seed: int) -> Floats:
    """Boosted trees (Friedman 2001, as histograms): (test,) numbers, or (test, classes) probabilities.

    Args:
        features: (n, columns).
        labels: (n,) numbers, or class codes.
        classes: 0 for numbers.
        train: Positions to train on.
        test: Positions to predict.
        seed: Of the binning.
    """
    options = {"max_iter": 200, "early_stopping": False, "random_state": seed}
    if not classes:
        model = HistGradientBoostingRegressor(**options).fit(features[train], labels[train])
        return np.asarray(model.predict(features[test]), dtype=np.float64)
    known = np.unique(labels[train])
    if len(known) == 1:
        return np.tile(np.eye(classes)[known[0]], (len(test), 1))
    classifier = HistGradientBoostingClassifier(**options).fit(features[train], labels[train])
    return spread(classifier.predict_proba(features[test]), known, classes)


def kind_mean(targets: Targets, labels: Any, classes: int, train: Indices, test: Indices) -> Floats:
    """The mean training label (or the classes' shares) of each kind; of all where a kind has no training target."""
    everywhere = constant(labels, classes, train, test)
    predicted = everywhere.copy()
    for kind in np.unique(targets.kind[test]):
        members = train[targets.kind[train] == kind]
        if len(members):
            here = targets.kind[test] == kind
            predicted[here] = constant(labels, classes, members, test[here])
    return predicted


def constant(labels: Any, classes: int, train: Indices, test: Indices) -> Floats:
    """The mean training label, or the shares of the classes, for every target."""
    if not classes:
        return np.full(len(test), float(labels[train].mean()))
    shares = np.bincount(labels[train], minlength=classes) / len(train)
    return np.tile(shares, (len(test), 1))
