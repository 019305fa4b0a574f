"""Contenders without an encoder, against plain loops."""

import numpy as np
import pytest
from test_targets import targets_of

from diptych_circuits.baselines import constant, join_features, kind_mean, trees


def test_the_mean_of_each_kind_is_that_of_its_training_targets():
    labels = np.array([0.1, 0.3, 0.5, 0.9, 0.0, 0.0, 0.0])
    targets = targets_of(np.full(7, 1e-17), kind=[0, 0, 1, 1, 0, 1, 2])
    predicted = kind_mean(targets, labels, 0, np.arange(4), np.arange(4, 7))
    assert predicted == pytest.approx([0.2, 0.7, 0.45])  # no training target is net-net: the mean of all


def test_constant_classes_are_the_shares_of_training():
    predicted = constant(np.array([0, 1, 1, 2, 0]), 4, np.arange(4), np.array([4]))
    assert predicted == pytest.approx(np.array([[0.25, 0.5, 0.25, 0.0]]))


def test_joined_features_do_not_depend_on_an_order_that_means_nothing():
    nodes = np.random.default_rng(0).normal(size=(6, 3))
    targets = targets_of(np.full(3, 1e-17), kind=[0, 1, 2])
    swapped = targets_of(np.full(3, 1e-17), kind=[0, 1, 2])
    swapped.ends[:] = targets.ends[:, ::-1]
    there, back = (join_features(nodes, np.zeros((3, 0)), each) for each in (targets, swapped))
    assert np.array_equal(there[[0, 2]], back[[0, 2]])
    assert not np.array_equal(there[1], back[1])
    assert there[1].tolist() == [*nodes[2], *nodes[3], 0.0, 1.0, 0.0]


def test_trees_find_a_planted_rule_and_give_classes_they_never_saw_no_chance():
    generator = np.random.default_rng(0)
    features = generator.normal(size=(400, 3))
    numbers = features[:, 0] + 0.5 * (features[:, 1] > 0)
    train, test = np.arange(300), np.arange(300, 400)
    predicted = trees(features, numbers, 0, train, test, seed=0)
    assert np.mean((predicted - numbers[test]) ** 2) < 0.1 * numbers[test].var()
    codes = np.where(features[:, 0] > 0, 3, 1)
    chances = trees(features, codes, 5, train, test, seed=0)
    assert chances.shape == (100, 5)
    assert np.mean(chances.argmax(1) == codes[test]) > 0.9
    assert not chances[:, [0, 2, 4]].any()


def test_trees_of_a_single_class_are_sure_of_it():
    chances = trees(np.zeros((4, 1)), np.full(4, 2), 3, np.arange(3), np.array([3]), seed=0)
    assert chances.tolist() == [[0.0, 0.0, 1.0]]
