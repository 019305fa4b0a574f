"""Encoders follow their formulas, do not care for the order of nodes, and say what they were made for."""

from __future__ import annotations

import pytest
import torch
from references_graphs import normalised
from small import dense_adjacency, pairs_of, permuted, random_batch
from torch import nn

from diptych.errors import ConfigError, DataError
from diptych.graphs.encoders import GCN, GIN, Network

CODES = (6, 4)


def own(x, edge_index):
    return x, edge_index


class Own(nn.Module):
    """A network of a user's own, by class path."""

    def __init__(self, in_channels, width=5, whole=False):
        super().__init__()
        self.layer = nn.Linear(in_channels, width)
        self.whole = whole

    def forward(self, x, edge_index, edge_weight=None):
        weight = torch.ones(edge_index.shape[1]) if edge_weight is None else edge_weight
        rows = self.layer(x)
        rows = rows + torch.zeros_like(rows).index_add(
            0, edge_index[1], weight[:, None] * rows[edge_index[0]]
        )
        return rows.mean(0, keepdim=True) if self.whole else rows


OWN = f"{Own.__module__}.Own"


@pytest.fixture(autouse=True)
def _findable(monkeypatch):
    """Tests are imported by path; a class path needs the module under its name."""
    import sys

    monkeypatch.setitem(sys.modules, Own.__module__, sys.modules.get(Own.__module__) or _this())


def _this():
    import types

    module = types.ModuleType(Own.__module__)
    module.Own, module.own = Own, own  # type: ignore[attr-defined]
    return module


def encoders():
    pyg = "torch_geometric.nn.GAT"
    return {
        "gin": (GIN(3, hidden=4, depth=2), random_batch()),
        "gin codes, edges, all layers": (
            GIN(CODES, hidden=4, depth=3, readout="sum", layers="all", edge_features=2),
            random_batch(codes=CODES, edge_features=2),
        ),
        "gcn": (GCN(3, widths=(6, 4), activation="prelu", norm=True, readout="max"), random_batch()),
        "gcn codes": (GCN(CODES, widths=(4, 7)), random_batch(codes=CODES)),
        "gat": (
            Network(pyg, 3, options={"hidden_channels": 4, "num_layers": 2, "edge_dim": 2}, edge_features=2),
            random_batch(edge_features=2),
        ),
        "own": (Network(OWN, CODES, embed=3), random_batch(codes=CODES)),
    }


NAMES = ["gin", "gin codes, edges, all layers", "gcn", "gcn codes", "gat", "own"]


def made(name):
    if name == "gat":
        pytest.importorskip("torch_geometric")
    torch.manual_seed(0)
    encoder, batch = encoders()[name]
    if not isinstance(encoder, Network):
        encoder = encoder.double()
    return encoder.eval(), batch


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_nodes_and_edges_does_not_matter(name):
    encoder, batch = made(name)
    batch = batch._replace(roots=torch.tensor([3, 9]))
    other, place = permuted(batch)
    one, two = encoder(batch), encoder(other)
    torch.testing.assert_close(two.parts[place], one.parts)
    torch.testing.assert_close(two.whole, one.whole)
    torch.testing.assert_close(one.whole, one.parts[batch.roots])
    torch.testing.assert_close(
        encoder(other._replace(roots=None)).whole, encoder(batch._replace(roots=None)).whole
    )


@pytest.mark.parametrize("name", NAMES)
def test_widths_are_as_said_and_graphs_do_not_see_each_other(name):
    encoder, batch = made(name)
    encoded = encoder(batch)
    assert encoded.whole.shape == (batch.graphs, encoder.width)
    assert encoded.parts.shape == (len(batch.nodes), encoder.width)
    changed = batch.nodes.clone()
    changed[batch.graph == 1] = 1
    again = encoder(batch._replace(nodes=changed))
    assert not torch.equal(again.whole[1], encoded.whole[1])
    others = [0, 2, 3]
    torch.testing.assert_close(again.whole[others], encoded.whole[others])


def test_gin_is_its_formula():
    torch.manual_seed(0)
    encoder = GIN(3, hidden=4, depth=2, edge_features=2).double().eval()
    nn.init.uniform_(encoder.epsilon)
    batch = random_batch(edge_features=2)
    h = encoder.inputs.numbers(batch.nodes)
    for layer in range(2):
        rows = []
        for v in range(len(h)):
            total = (1 + encoder.epsilon[layer]) * h[v]
            for number, (source, target) in enumerate(pairs_of(batch)):
                if target == v:
                    edge = encoder.edge_inputs[layer].numbers(batch.edge_features[number])
                    total = total + torch.relu(h[source] + edge)
            rows.append(total)
        h = encoder.norms[layer](encoder.perceptrons[layer](torch.stack(rows)))
        h = torch.relu(h) if layer == 0 else h
    torch.testing.assert_close(encoder(batch).parts, h)


@pytest.mark.parametrize("widths", [(2, 5), (5, 2)])  # propagated before and after the product
def test_gcn_and_its_gradient_are_those_of_dense_matrices(widths):
    torch.manual_seed(0)
    encoder = GCN(3, widths=widths).double()
    batch = random_batch()
    matrix = torch.tensor(normalised(pairs_of(batch), len(batch.nodes)), dtype=torch.float64)
    h = batch.nodes
    for linear, bias in zip(encoder.linears, encoder.biases, strict=True):
        h = torch.relu(matrix @ h @ linear.weight.T + bias)
    direction = torch.randn_like(h)
    found = encoder(batch).parts
    torch.testing.assert_close(found, h, rtol=1e-6, atol=1e-7)
    weights = list(encoder.parameters())
    mine = torch.autograd.grad((found * direction).sum(), weights)
    theirs = torch.autograd.grad((h * direction).sum(), weights)
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_readouts(readout):
    encoder = GIN(3, hidden=4, depth=1, readout=readout).double().eval()
    batch = random_batch((3, 0, 2))
    encoded = encoder(batch)
    of = {
        "mean": lambda rows: rows.mean(0),
        "sum": lambda rows: rows.sum(0),
        "max": lambda rows: rows.amax(0),
    }
    for graph in (0, 2):
        torch.testing.assert_close(encoded.whole[graph], of[readout](encoded.parts[batch.graph == graph]))
    assert not encoded.whole[1].any()


def test_rows_of_all_layers_stand_side_by_side():
    torch.manual_seed(0)
    batch = random_batch()
    every = GIN(3, hidden=4, depth=3, layers="all").double().eval()
    last = GIN(3, hidden=4, depth=3).double().eval()
    last.load_state_dict(every.state_dict())
    assert every.width == 12
    torch.testing.assert_close(every(batch).parts[:, 8:], last(batch).parts)


def test_the_core_and_torch_geometric_agree():
    geometric = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    batch = random_batch(edge_features=4)._replace(nodes=torch.randn(20, 4))
    ours = GCN(4, widths=(6,), activation="none")
    theirs = geometric.GCNConv(4, 6)
    theirs.lin.weight.data, theirs.bias.data = ours.linears[0].weight.data, ours.biases[0].data
    torch.testing.assert_close(ours(batch).parts, theirs(batch.nodes, batch.edges))
    gin = GIN(4, hidden=4, depth=1, edge_features=4)
    gine = geometric.GINEConv(gin.perceptrons[0])
    edges = gin.edge_inputs[0](batch.edge_features.float())
    expected = gin.eval().norms[0](gine(gin.inputs(batch.nodes), batch.edges, edges))
    torch.testing.assert_close(gin(batch._replace(edge_features=batch.edge_features.float())).parts, expected)


def test_a_network_is_given_what_its_forward_names():
    torch.manual_seed(0)
    batch = random_batch(edge_features=1)
    weighed = Network(OWN, 3, edge_features=1, edge_weight=0)
    adjacency = dense_adjacency(batch).float()
    for number, (source, target) in enumerate(pairs_of(batch)):
        adjacency[target, source] = batch.edge_features[number, 0]
    rows = weighed.network.layer(batch.nodes.float())
    torch.testing.assert_close(weighed(batch).parts, rows + adjacency @ rows)
    assert weighed.width == 5


def test_building_a_network_leaves_the_random_state_and_the_mode_alone():
    torch.manual_seed(0)
    Own(3)
    expected = torch.rand(3)
    torch.manual_seed(0)
    network = Network(OWN, 3)
    assert torch.equal(torch.rand(3), expected)
    assert network.training


def test_a_network_that_does_not_fit_is_named():
    with pytest.raises(ConfigError, match=r"there is no network 'nowhere\.Net'.*give a class path"):
        Network("nowhere.Net", 3)
    with pytest.raises(ConfigError, match="is not a class of torch networks"):
        Network(f"{Own.__module__}.own", 3)
    with pytest.raises(ConfigError, match=r"does not take the options .*depth"):
        Network(OWN, 3, options={"depth": 3})
    with pytest.raises(
        ConfigError, match=r"must return one row per node, \(2, width\) for 2 nodes, got \(1, 5\)"
    ):
        Network(OWN, 3, options={"whole": True})
    with pytest.raises(ConfigError, match=r"cannot encode two nodes of this data"):
        Network(OWN, 3, options={"in_channels": 4})
    with pytest.raises(ConfigError, match=r"takes no edge_attr; leave the edge features out"):
        Network(OWN, 3, edge_features=2)


def test_a_network_of_torch_geometric_that_ignores_edges_is_refused():
    pytest.importorskip("torch_geometric")
    options = {"hidden_channels": 4, "num_layers": 1}
    with pytest.raises(ConfigError, match=r"torch_geometric.nn.GCN takes no edge_attr; leave"):
        Network("torch_geometric.nn.GCN", 3, options=options, edge_features=2)
    weighed = Network("torch_geometric.nn.GCN", 3, options=options, edge_features=2, edge_weight=1)
    assert weighed.width == 4


@pytest.mark.parametrize("encoder", [GIN(4, hidden=2, depth=1), GCN(4, widths=(2,)), Network(OWN, 4)])
def test_other_columns_than_it_was_made_for(encoder):
    with pytest.raises(DataError, match=r"made for 4 columns of features, got .*3"):
        encoder(random_batch())


def test_edge_features_that_are_missing():
    with pytest.raises(DataError, match="made for edge features, but the batch has none"):
        GIN(3, hidden=2, depth=1, edge_features=2)(random_batch())


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match="width 0, depth 5"):
        GIN(3, hidden=0)
    with pytest.raises(ConfigError, match="readout must be one of mean, sum, max, got 'most'"):
        GIN(3, readout="most")
    with pytest.raises(ConfigError, match="layers must be last or all, got 'first'"):
        GIN(3, layers="first")
    with pytest.raises(ConfigError, match=r"got widths \[\]"):
        GCN(3, widths=())
    with pytest.raises(ConfigError, match="activation must be one of relu, prelu, none, got 'gelu'"):
        GCN(3, activation="gelu")
    with pytest.raises(ConfigError, match=r"how many codes each column has; got \(3, 0\)"):
        GIN((3, 0))
