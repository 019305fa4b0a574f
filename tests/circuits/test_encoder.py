"""The encoder reads what nodes are, passes messages along edges only, and knows no order of nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from random_circuits import permuted, random_circuit, random_circuits
from torch import nn
from torch_geometric.nn import GraphConv

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch, join
from diptych.types import Encoded
from diptych_circuits.encoder import CONVOLUTIONS, CircuitEncoder, Inputs, columns_of
from diptych_circuits.schema import COLUMN, Kind

SMALL: dict[str, Any] = {"width": 8, "layers": 2, "dropout": 0.0}
OPTIONS: dict[str, dict[str, Any]] = {
    **{name: {"convolution": name} for name in CONVOLUTIONS},
    "a class of the user's": {"convolution": GraphConv},
    "batch norm and PReLU": {"normalize": True, "activation": "prelu"},
    "residual": {"residual": True},
    "all layers side by side": {"jumping": "concatenated"},
    "mean of layers": {"jumping": "mean"},
    "kinds alone": {"statistics": False},
    "walks": {"walks": 5},
    "dspd": {"position": "dspd"},
    "drnl": {"position": "drnl"},
}


def small(**options: Any) -> CircuitEncoder:
    torch.manual_seed(0)
    return CircuitEncoder(**{**SMALL, **options}).eval()


def links(batch: GraphBatch) -> GraphBatch:
    """The batch with two roots in each graph: its first and its last node."""
    first = torch.searchsorted(batch.graph, torch.arange(batch.graphs))
    last = torch.searchsorted(batch.graph, torch.arange(batch.graphs), right=True) - 1
    return batch._replace(roots=torch.cat([first, last]))


def encoded(encoder: CircuitEncoder, batch: GraphBatch) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        found: Encoded = encoder(batch)
    assert found.parts is not None
    return found.whole, found.parts


@pytest.mark.parametrize("name", OPTIONS)
def test_another_order_of_nodes_and_edges_gives_the_same_rows_in_that_order(name: str) -> None:
    encoder, batch = small(**OPTIONS[name]), links(random_circuits())
    order = torch.argsort(
        batch.graph + torch.rand(len(batch.graph), generator=torch.Generator().manual_seed(1)) * 0.9
    )
    whole, parts = encoded(encoder, batch)
    whole_of_permuted, parts_of_permuted = encoded(encoder, permuted(batch, order))
    torch.testing.assert_close(parts_of_permuted, parts[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(whole_of_permuted, whole, atol=1e-5, rtol=1e-5)
    assert parts.shape == (len(batch.nodes), encoder.width)


@pytest.mark.parametrize("name", OPTIONS)
def test_graphs_of_a_batch_do_not_see_each_other(name: str) -> None:
    encoder = small(**OPTIONS[name])
    each = [links(random_circuit(seed, devices=4 + seed)) for seed in range(3)]
    alone = [encoded(encoder, one)[1] for one in each]
    torch.testing.assert_close(encoded(encoder, join(each))[1], torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_whole_rows_are_those_of_the_roots_or_means_of_graphs() -> None:
    batch = random_circuits()
    whole, parts = encoded(small(), batch)
    means = [parts[batch.graph == graph].mean(0) for graph in range(batch.graphs)]
    torch.testing.assert_close(whole, torch.stack(means))
    roots = torch.tensor([3, 0, 3])
    assert torch.equal(encoded(small(), batch._replace(roots=roots))[0], parts[roots])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_node_hears_of_others_as_far_as_there_are_layers(layers: int) -> None:
    """On the chain net - pin - device - pin - net - ... a change reaches one node further with each layer."""
    encoder, chain = small(layers=layers), 9
    one_way = torch.tensor([range(chain - 1), range(1, chain)])
    batch = random_circuit(0, nets=chain, devices=0)
    batch = batch._replace(
        edges=torch.cat([one_way, one_way.flip(0)], dim=1),
        edge_features=torch.zeros(2 * (chain - 1), 1, dtype=torch.int64),
    )
    changed = batch._replace(nodes=batch.nodes.clone())
    changed.nodes[0, COLUMN["terminals"]] += 1
    moved = (encoded(encoder, batch)[1] != encoded(encoder, changed)[1]).any(1)
    assert moved.tolist() == [node <= layers for node in range(chain)]


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_layers_that_take_edges_tell_their_kinds_apart(name: str) -> None:
    encoder, batch = small(convolution=name), random_circuits()
    assert batch.edge_features is not None
    swapped = batch._replace(edge_features=1 - batch.edge_features)
    same = torch.equal(encoded(encoder, batch)[1], encoded(encoder, swapped)[1])
    assert same != (name in ("gine", "gat", "resgatedgcn"))


def test_inputs_are_shares_for_the_kind_and_for_the_statistics_of_the_kind() -> None:
    batch, inputs = random_circuits(), Inputs(7, statistics=True, position="none", farthest=3, walks=0)
    rows = inputs(batch)
    statistics = inputs.statistics
    assert statistics is not None
    for node, row in zip(batch.nodes, rows, strict=True):
        kind = int(node[COLUMN["kind"]])
        if kind == Kind.NET:
            expected = statistics.of_net(node[columns_of("net")])
        elif kind == Kind.DEVICE:
            expected = statistics.of_device(node[columns_of("device")])
            expected = expected + statistics.device_type.weight[int(node[COLUMN["device_type"]])]
        else:
            expected = statistics.pin_kind.weight[int(node[COLUMN["pin_kind"]])]
        torch.testing.assert_close(row, torch.cat([inputs.kind.weight[kind], expected]))


def test_columns_of_a_kind_are_those_that_the_schema_describes_as_its_own() -> None:
    assert {"W", "L", "AD"} <= {name for name, place in COLUMN.items() if place in columns_of("device")}
    assert {"gates", "sum_W"} <= {name for name, place in COLUMN.items() if place in columns_of("net")}
    codes = [COLUMN[name] for name in ("kind", "device_type", "pin_kind")]
    assert sorted([*columns_of("net"), *columns_of("device"), *codes]) == list(range(len(COLUMN)))


def test_without_statistics_nodes_of_a_kind_are_alike_but_for_their_neighbours() -> None:
    batch = random_circuits()
    other = batch._replace(nodes=batch.nodes.clone())
    other.nodes[:, 1:] = torch.rand_like(other.nodes[:, 1:])
    other.nodes[:, COLUMN["device_type"]] = 3
    other.nodes[:, COLUMN["pin_kind"]] = 2
    assert torch.equal(encoded(small(statistics=False), batch)[1], encoded(small(statistics=False), other)[1])
    assert not torch.equal(encoded(small(), batch)[1], encoded(small(), other)[1])


def test_positions_tell_the_roots_from_others() -> None:
    """Two subgraphs that differ in their roots alone."""
    batch = links(random_circuits())
    assert batch.roots is not None
    other = batch._replace(roots=batch.roots - batch.roots.clamp(max=1) + 1)
    for position, differs in (("none", False), ("dspd", True), ("drnl", True)):
        encoder = small(position=position)
        assert (not torch.equal(encoded(encoder, batch)[1], encoded(encoder, other)[1])) == differs


def test_every_layer_has_an_activation_and_a_norm_of_its_own() -> None:
    encoder = small(activation="prelu", normalize=True, layers=4)
    for kind in (nn.PReLU, nn.BatchNorm1d):
        assert len({id(module) for module in encoder.modules() if isinstance(module, kind)}) == 4


def test_dropout_is_at_work_in_training_only() -> None:
    encoder, batch = small(dropout=0.5), random_circuits()
    torch.manual_seed(0)
    assert torch.equal(encoded(encoder, batch)[1], encoded(encoder, batch)[1])
    encoder.train()
    assert not torch.equal(encoded(encoder, batch)[1], encoded(encoder, batch)[1])


def test_a_net_without_pins_and_an_empty_graph_have_finite_rows() -> None:
    batch = join([random_circuit(0, nets=2, devices=0), random_circuit(1)])._replace(graphs=3)
    for name in CONVOLUTIONS:
        whole, parts = encoded(small(convolution=name), batch)
        assert whole.isfinite().all()
        assert parts.isfinite().all()
        assert whole[2].eq(0).all()


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no convolution 'cluster'; expected clustergcn, sage"):
        CircuitEncoder(convolution="cluster")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"at least 1 layer and dropout in 0\.\.1, got 0 and 0\.3"):
        CircuitEncoder(layers=0)
    with pytest.raises(ConfigError, match="4 heads that share the width; 10 is not a multiple"):
        CircuitEncoder(convolution="gat", width=10)
    with pytest.raises(ConfigError, match="a width of 2 is too small for 3 inputs"):
        CircuitEncoder(width=2, walks=3)
    with pytest.raises(DataError, match="takes the kinds of edges, but the batch has no edge features"):
        small(convolution="gine")(random_circuits()._replace(edge_features=None))
    with pytest.raises(DataError, match=r"need 1 or 2 roots in each of the 3 subgraphs, got none"):
        small(position="dspd")(random_circuits())
