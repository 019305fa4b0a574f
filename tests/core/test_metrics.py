"""Weighted scores equal scikit-learn's on repeated samples; undefined ones are absent, not invented."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from diptych.evaluation import metrics, weighted


def case(k: int, seed: int, ties: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth with every class, probabilities, and weights (n, b) under which every class stays."""
    draws = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(k), draws.integers(k, size=40)])
    probabilities = draws.dirichlet(np.ones(k), size=len(truth))
    if ties:
        probabilities = np.round(probabilities * 4) / 4
    weights = draws.integers(0, 4, size=(len(truth), 7)).astype(float)
    weights[:k] = 1
    return truth, probabilities, weights


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("ties", [False, True])
def test_weighted_classification_equals_repetition(k: int, ties: bool) -> None:
    truth, probabilities, weights = case(k, seed=k, ties=ties)
    positive = 1 if k == 2 else None
    many = weighted.classification_scores(truth, probabilities, weights, positive)
    for draw in range(weights.shape[1]):
        rows = np.repeat(np.arange(len(truth)), weights[:, draw].astype(int))
        one = metrics.classification_scores(truth[rows], probabilities[rows], positive)
        assert one.keys() == many.keys()
        for name, value in one.items():
            assert many[name][draw] == pytest.approx(value, abs=1e-12), name


@pytest.mark.parametrize("ties", [False, True])
def test_weighted_regression_equals_repetition(ties: bool) -> None:
    draws = np.random.default_rng(0)
    truth = draws.normal(size=50)
    predicted = truth + draws.normal(size=50)
    if ties:
        truth, predicted = np.round(truth), np.round(predicted)
    weights = draws.integers(0, 4, size=(50, 6)).astype(float)
    many = weighted.regression_scores(truth, predicted, weights)
    for draw in range(6):
        rows = np.repeat(np.arange(50), weights[:, draw].astype(int))
        for name, value in metrics.regression_scores(truth[rows], predicted[rows]).items():
            assert many[name][draw] == pytest.approx(value, abs=1e-12), name


def test_scores_are_those_of_scikit_learn() -> None:
    truth, probabilities, _ = case(3, seed=1, ties=False)
    found = metrics.classification_scores(truth, probabilities)
    predicted = probabilities.argmax(axis=1)
    assert found["accuracy"] == sk.accuracy_score(truth, predicted)
    assert found["balanced accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, predicted))
    assert found["macro F1"] == pytest.approx(sk.f1_score(truth, predicted, average="macro"))
    assert found["AUROC"] == pytest.approx(sk.roc_auc_score(truth, probabilities, multi_class="ovr"))
    one_hot = np.eye(3)[truth]
    assert found["AUPRC"] == pytest.approx(
        sk.average_precision_score(one_hot, probabilities, average="macro")
    )


def test_two_classes_have_one_auroc_and_the_asked_auprc() -> None:
    truth, probabilities, _ = case(2, seed=2, ties=False)
    for positive in (0, 1):
        found = metrics.classification_scores(truth, probabilities, positive)
        assert found["AUROC"] == pytest.approx(sk.roc_auc_score(truth, probabilities[:, 1]))
        expected = sk.average_precision_score(truth == positive, probabilities[:, positive])
        assert found["AUPRC"] == pytest.approx(expected)


def test_a_class_absent_from_the_truth_is_left_out_of_averages() -> None:
    truth = np.array([0, 0, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8]])
    found = metrics.classification_scores(truth, probabilities)
    assert found["macro recall"] == 0.75  # (1/2 + 1) / 2: the wrong guess of class 1 costs class 0
    assert found["macro precision"] == 1.0
    assert found["AUROC"] == 1.0
    many = weighted.classification_scores(truth, probabilities, np.ones((4, 2)))
    assert {name: values[0] for name, values in many.items()} == pytest.approx(found)


def test_one_class_has_no_ranking_scores() -> None:
    found = metrics.classification_scores(np.array([1, 1]), np.array([[0.4, 0.6], [0.7, 0.3]]))
    assert "AUROC" not in found
    assert "AUPRC" not in found
    assert found["accuracy"] == 0.5


def test_constant_numbers_have_no_correlation() -> None:
    truth = np.array([1.0, 2.0, 3.0])
    assert "Spearman" not in metrics.regression_scores(truth, np.full(3, 2.0))
    assert set(metrics.regression_scores(np.ones(3), truth)) == {"MAE", "RMSE"}
    many = weighted.regression_scores(truth, np.full(3, 2.0), np.ones((3, 2)))
    assert np.isnan(many["Spearman"]).all()
    assert (many["R2"] == 0).all()


def test_auroc_turns_around_with_the_scores_and_ignores_monotone_maps() -> None:
    draws = np.random.default_rng(4)
    positive, score = draws.random(60) < 0.4, draws.normal(size=60)
    weights = draws.integers(0, 3, size=(60, 5)).astype(float)
    auroc, precision = weighted.ranking_scores(positive, score, weights)
    assert weighted.ranking_scores(positive, -score, weights)[0] == pytest.approx(1 - auroc)
    again = weighted.ranking_scores(positive, np.exp(3 * score), weights)
    assert (again[0] == auroc).all()
    assert (again[1] == precision).all()
