"""Heads: symmetric where the ends are alike, ordered where not, and trained by a loss with parameters of its own."""

import numpy as np
import pytest
import torch
from torch import nn

from diptych.errors import ConfigError, UserError
from diptych.graphs.batch import GraphBatch
from diptych_circuits.balanced.losses import BalancedByBatch, SquaredError
from diptych_circuits.downstream import Downstream
from diptych_circuits.fitting import Fitting, fit, predict
from diptych_circuits.heads import Head, Kept, Network, Portion, join_ends

FITTING = Fitting(epochs=12, rate=0.01, encoder_rate=1e-3)


def portion_of(ends, symmetric, features=0):
    n = len(ends)
    return Portion(
        positions=torch.arange(n),
        ends=torch.as_tensor(ends),
        kind=(~torch.as_tensor(symmetric)).long(),
        symmetric=torch.as_tensor(symmetric),
        features=torch.zeros(n, features),
    )


def test_joined_ends_are_alike_in_both_orders_where_the_order_means_nothing():
    rows = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    ends, symmetric = torch.tensor([[0, 1], [2, 3]]), torch.tensor([True, False])
    there, back = join_ends(rows, ends, symmetric), join_ends(rows, ends.flip(1), symmetric)
    assert torch.equal(there[0], back[0])
    assert torch.equal(there[1], torch.cat([rows[2], rows[3]]))
    assert torch.equal(back[1], torch.cat([rows[3], rows[2]]))


def test_joined_ends_lose_nothing_but_the_order():
    rows = torch.tensor([[1.0, 5.0], [3.0, 2.0]])
    joined = join_ends(rows, torch.tensor([[0, 1]]), torch.tensor([True]))[0]
    assert joined.tolist() == [1.0, 2.0, 3.0, 5.0]


def test_a_single_end_is_its_row():
    rows = torch.randn(3, 2)
    joined = join_ends(rows, torch.tensor([[2], [0]]), torch.tensor([True, True]))
    assert torch.equal(joined, rows[[2, 0]])


def test_a_head_predicts_the_same_whatever_else_is_in_the_portion():
    torch.manual_seed(0)
    network = Network(Kept(torch.randn(6, 4)), Head(8, 2, 1)).eval()
    many = network(portion_of([[0, 1], [2, 3], [4, 5]], [True, False, True]))
    one = network(portion_of([[2, 3]], [False]))
    assert torch.allclose(many[1], one[0])


def test_a_head_does_not_depend_on_the_scale_of_embeddings():
    table = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    ends = [[i, i + 20] for i in range(20)]
    outputs = []
    for scale in (1.0, 1000.0):
        torch.manual_seed(0)
        network = Network(Kept(scale * table), Head(8, 2, 1, dropout=0.0)).train()
        outputs.append(network(portion_of(ends, [True] * 20)))
    assert torch.allclose(outputs[0], outputs[1], atol=1e-3)


def portions_of(ends, batch=16):
    def portions(positions, generator):
        order = positions if generator is None else generator.permutation(positions)
        for start in range(0, len(order), batch):
            chosen = torch.from_numpy(order[start : start + batch])
            yield Portion(
                positions=chosen,
                ends=torch.from_numpy(ends)[chosen],
                kind=torch.zeros(len(chosen), dtype=torch.int64),
                symmetric=torch.ones(len(chosen), dtype=torch.bool),
                features=torch.zeros(len(chosen), 0),
            )

    return portions


def planted(nodes=80, pairs=400, seed=0):
    """Rows of nodes, pairs, and labels that are a function of both ends."""
    generator = np.random.default_rng(seed)
    rows = generator.normal(size=(nodes, 3))
    ends = generator.integers(0, nodes, size=(pairs, 2))
    labels = 0.5 + 0.1 * (rows[ends[:, 0], 0] + rows[ends[:, 1], 0])
    return torch.from_numpy(rows).float(), ends, torch.from_numpy(labels).float()


@pytest.mark.parametrize("make", [SquaredError, lambda: BalancedByBatch(0.1)])
def test_training_finds_a_planted_rule_on_pairs_that_were_held_out(make):
    rows, ends, labels = planted()
    train, test = np.arange(300), np.arange(300, 400)
    torch.manual_seed(0)
    network = Network(Kept(rows), Head(6, 1, 1, dropout=0.0, centre=0.5, scale=0.14))
    portions = portions_of(ends)
    fit(network, make(), portions, labels, train, np.arange(0), FITTING, seed=0)
    error = predict(network, portions, test) - labels[test].numpy()
    assert np.mean(error**2) < 0.1 * labels[test].numpy().var()


def test_the_noise_of_a_loss_is_trained():
    rows, ends, labels = planted()
    loss = BalancedByBatch(0.1)
    before = float(loss.noise.log_sigma.detach())
    network = Network(Kept(rows), Head(6, 1, 1))
    fit(network, loss, portions_of(ends), labels, np.arange(300), np.arange(0), FITTING, seed=0)
    assert abs(float(loss.noise.log_sigma.detach()) - before) > 0.01


def test_the_epoch_of_the_best_validation_score_is_kept():
    rows, ends, labels = planted()
    train, validation = np.arange(300), np.arange(300, 400)
    portions = portions_of(ends)

    class Spoiling(nn.Module):
        """Learns for some steps, then unlearns."""

        steps = 0

        def forward(self, prediction, label):
            self.steps += 1
            sign = 1.0 if self.steps < 150 else -1.0
            return sign * (prediction - label).square().mean()

    torch.manual_seed(0)
    network = Network(Kept(rows), Head(6, 1, 1, dropout=0.0, centre=0.5, scale=0.14))
    fit(network, Spoiling(), portions, labels, train, validation, FITTING, seed=0)
    error = predict(network, portions, validation) - labels[validation].numpy()
    assert np.mean(error**2) < 0.2 * labels[validation].numpy().var()


def test_predictions_come_in_the_order_that_was_asked():
    rows, ends, _ = planted()
    torch.manual_seed(0)
    network = Network(Kept(rows), Head(6, 1, 1))
    portions = portions_of(ends)
    asked = np.array([7, 3, 90, 4])
    one_by_one = [predict(network, portions, np.array([each]))[0] for each in asked]
    assert np.allclose(predict(network, portions, asked), one_by_one)


def test_predictions_that_are_not_finite_are_an_error():
    rows, ends, _ = planted()
    network = Network(Kept(torch.full_like(rows, torch.nan)), Head(6, 1, 1))
    with pytest.raises(UserError, match="predictions are not finite: the training diverged"):
        predict(network, portions_of(ends), np.arange(4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0, "rate": 1.0, "encoder_rate": 1.0}, "epochs: expected at least 1; got 0"),
        ({"epochs": 1, "rate": 0.0, "encoder_rate": 1.0}, "learning rates are above 0; got rate 0"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Fitting(**options)


def line_graph(n):
    """n nodes in a row."""
    there = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    return GraphBatch(
        nodes=torch.zeros(n, 1, dtype=torch.int64),
        edges=torch.cat([there, there.flip(0)], dim=1),
        edge_features=None,
        graph=torch.zeros(n, dtype=torch.int64),
        graphs=1,
    )


def on_graph(graph, nodes):
    n = len(nodes)
    return Portion(
        positions=torch.arange(1),
        ends=torch.tensor([[0, n - 1]]),
        kind=torch.zeros(1, dtype=torch.int64),
        symmetric=torch.ones(1, dtype=torch.bool),
        features=torch.zeros(1, 0),
        graph=graph,
        nodes=nodes,
    )


def test_the_downstream_network_sees_as_far_as_it_has_layers():
    torch.manual_seed(0)
    statistics = torch.randn(8, 2)
    kind = torch.arange(8) % 3
    network = Downstream(kind, torch.randn(8, 5), statistics, width=12, layers=3).eval()
    portion = on_graph(line_graph(8), torch.arange(8))
    before = network(portion)
    network.statistics[7] += 1.0
    changed = (network(portion) - before).abs().amax(dim=1) > 0
    assert changed.tolist() == [False, False, False, False, True, True, True, True]


def test_the_downstream_network_splits_its_width_among_its_inputs():
    kind, some, none = torch.zeros(4, dtype=torch.int64), torch.randn(4, 5), torch.zeros(4, 0)
    shares = {
        name: Downstream(kind, embedding, statistics).of_kind.embedding_dim
        for name, embedding, statistics in (
            ("both", some, some),
            ("embedding", some, none),
            ("statistics", none, some),
            ("neither", none, none),
        )
    }
    assert shares == {"both": 48, "embedding": 72, "statistics": 72, "neither": 144}


def test_statistics_have_layers_of_their_own_for_each_kind():
    torch.manual_seed(0)
    statistics = torch.ones(3, 2)
    network = Downstream(torch.tensor([0, 1, 2]), torch.zeros(3, 0), statistics, width=8, layers=1)
    with torch.no_grad():
        for layer in network.of_statistics[1:]:
            layer.weight.zero_()
    portion = on_graph(line_graph(3), torch.arange(3))
    before = network(portion)
    network.statistics[2] += 1.0
    assert torch.equal(network(portion), before)
    network.statistics[0] += 1.0
    assert not torch.equal(network(portion), before)
