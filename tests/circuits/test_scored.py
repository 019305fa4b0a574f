"""Scores of capacitances against scikit-learn and plain loops; resampling designs equals repeating their targets."""

import numpy as np
import pytest
from sklearn import metrics as sk

from diptych.words import Words
from diptych_circuits.ranges import Range, classes
from diptych_circuits.scored import (
    Predicted,
    class_scores,
    compare_predicted,
    confusion_of,
    regression_scores,
    regression_sums,
)
from diptych_circuits.targets import Targets

SCALE = Range(1e-19, 1e-15)
WORDS = Words(unit="design", recording="netlist", sample="coupling")


def labels(n=200, seed=0):
    generator = np.random.default_rng(seed)
    farad = 10.0 ** generator.uniform(-19, -15, n)
    label = SCALE.label(farad)
    return farad, label, np.clip(label + generator.normal(0, 0.1, n), 0, 1)


def targets_of(farad, designs, kinds):
    n = len(farad)
    return Targets(
        ends=np.zeros((n, 2), dtype=np.int64),
        kind=np.asarray(kinds),
        kinds=("pin-pin", "pin-net", "net-net"),
        symmetric=np.array([True, False, True]),
        farad=farad,
        design=np.asarray(designs, dtype=np.str_),
        train=np.arange(0),
        validation=np.arange(0),
        test=np.arange(n),
    )


def test_regression_scores_are_those_of_scikit_learn():
    farad, label, predicted = labels()
    sums = regression_sums(label, predicted, SCALE, farad).sum(axis=0, keepdims=True)
    found = {name: value[0] for name, value in regression_scores(sums).items()}
    assert found["MAE"] == pytest.approx(sk.mean_absolute_error(label, predicted))
    assert found["MSE"] == pytest.approx(sk.mean_squared_error(label, predicted))
    assert found["RMSE"] == pytest.approx(sk.root_mean_squared_error(label, predicted))
    assert found["R2"] == pytest.approx(sk.r2_score(label, predicted))
    f1 = sk.f1_score(classes(label), classes(predicted), average="macro")
    assert found["macro F1"] == pytest.approx(f1)


def test_errors_in_farad_and_percent_are_those_of_a_loop():
    farad, label, predicted = labels(20)
    sums = regression_sums(label, predicted, SCALE, farad).sum(axis=0, keepdims=True)
    found = {name: value[0] for name, value in regression_scores(sums).items()}
    off = [abs(10.0 ** (-19 + 4 * p) - c) for p, c in zip(predicted, farad, strict=True)]
    assert found["MAE aF"] == pytest.approx(1e18 * sum(off) / 20)
    relative = [each / c for each, c in zip(off, farad, strict=True)]
    assert found["mean error %"] == pytest.approx(100 * sum(relative) / 20)
    assert found["error of total %"] == pytest.approx(100 * sum(off) / sum(farad))


def test_r2_of_equal_labels_is_not_defined():
    farad = np.full(5, 1e-17)
    label = SCALE.label(farad)
    sums = regression_sums(label, label + 0.1, SCALE, farad).sum(axis=0, keepdims=True)
    assert np.isnan(regression_scores(sums)["R2"][0])


def test_class_scores_are_those_of_scikit_learn_over_the_classes_that_occur():
    generator = np.random.default_rng(0)
    true, chosen = generator.integers(0, 4, 100), generator.integers(0, 5, 100)
    confusion = confusion_of(true, chosen).sum(axis=0, keepdims=True)
    found = {name: value[0] for name, value in class_scores(confusion).items()}
    f1 = sk.f1_score(true, chosen, labels=[0, 1, 2, 3], average="macro", zero_division=0)
    assert found["macro F1"] == pytest.approx(f1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(true, chosen))
    recall = sk.recall_score(true, chosen, labels=[0, 1, 2, 3], average="macro")
    assert found["balanced accuracy"] == pytest.approx(recall)


def table_of(predictions, farad, designs, kinds):
    contenders = [
        Predicted(name=name, fraction=1.0, predictions=[each], designs=3, samples=9)
        for name, each in predictions.items()
    ]
    return compare_predicted(
        contenders, targets_of(farad, designs, kinds), SCALE, title="t", words=WORDS, draws=500, notes=[]
    )


def test_levels_are_all_targets_designs_kinds_and_decades():
    farad, label, predicted = labels(60)
    kinds, designs = np.arange(60) % 2, np.repeat(["a", "b", "c"], 20)
    table = table_of({"pretrained": predicted, "worse": label * 0}, farad, designs, kinds)
    assert list(table.levels) == [
        "sample",
        "patient",
        "pin-pin",
        "pin-net",
        "0.1 to 1 aF",
        "1 to 10 aF",
        "10 to 100 aF",
        "100 to 1000 aF",
    ]
    error = np.abs(predicted - label)
    assert table.score("pretrained", "MAE", "pin-net").value == pytest.approx(error[kinds == 1].mean())
    small = farad < 1e-18
    assert table.score("pretrained", "MAE", "0.1 to 1 aF").value == pytest.approx(error[small].mean())


def test_every_design_counts_the_same_at_its_level():
    farad, label, predicted = labels(60)
    designs = np.repeat(["a", "b", "c"], [5, 10, 45])
    table = table_of({"pretrained": predicted}, farad, designs, np.zeros(60, dtype=np.int64))
    error = np.abs(predicted - label)
    means = [error[designs == each].mean() for each in "abc"]
    assert table.score("pretrained", "MAE", "patient").value == pytest.approx(np.mean(means))


def test_intervals_are_those_of_repeating_whole_designs():
    farad, label, predicted = labels(60)
    designs = np.repeat(["a", "b", "c"], [5, 10, 45])
    table = table_of({"pretrained": predicted}, farad, designs, np.zeros(60, dtype=np.int64))
    error = np.abs(predicted - label)
    generator = np.random.default_rng(1)
    drawn = [
        np.concatenate([error[designs == each] for each in generator.choice(list("abc"), 3)]).mean()
        for _ in range(4000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    score = table.score("pretrained", "MAE", "sample")
    assert (score.low, score.high) == pytest.approx((low, high), abs=0.005)


def test_differences_are_paired_on_the_same_designs():
    farad, label, predicted = labels(60)
    designs = np.repeat(["a", "b", "c"], 20)
    table = table_of(
        {"pretrained": predicted, "same but for 0.1": label + np.abs(predicted - label) + 0.1},
        farad,
        designs,
        np.zeros(60, dtype=np.int64),
    )
    gap = table.score("pretrained - same but for 0.1", "MAE", "sample")
    assert (gap.value, gap.low, gap.high) == pytest.approx((-0.1, -0.1, -0.1))


def test_tables_speak_of_designs():
    farad, _, predicted = labels(60)
    text = table_of({"pretrained": predicted}, farad, np.repeat(["a", "b"], 30), np.arange(60) % 3).text()
    assert "test: 2 designs, 60 couplings" in text
    assert "per design" in text
    assert "patient" not in text
