"""Batches hold what was asked for, with ids that keep their meaning, and a whole study runs from files."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graph_files import random_data, save

from diptych.errors import ConfigError
from diptych.graphs.recipes import GRACE, SGRL, GraphCL
from diptych.runs import Run
from diptych.testing import check_domain
from diptych.training import TrainerOptions, pretrain
from diptych_graphs import domain
from diptych_graphs.columns import GCN, GIN, Network
from diptych_graphs.recipe import build
from diptych_graphs.settings import Label, Loading, Neighbours, Shape, Simulation, Source


def adam(parameters):
    return torch.optim.Adam(parameters, lr=1e-3)


def study(folder, **settings):
    given = {
        "encoder": lambda columns: GIN(columns, hidden=8, depth=2),
        "method": GraphCL(),
        "optimizer": adam,
    }
    return build(data=Source(path=str(folder)), **(given | settings))


@pytest.fixture
def folder(tmp_path):
    save(
        tmp_path / "all.pt",
        [random_data(seed, n=4 + seed % 5, y=torch.tensor([seed % 2])) for seed in range(30)],
    )
    return tmp_path


def test_a_batch_of_graphs_is_those_graphs_with_ids_of_the_whole_data_set(folder):
    made = study(folder)
    (batch,) = made.plain(np.array([7, 2, 11]))
    view = batch.views[0]
    parts = [random_data(seed, n=4 + seed % 5) for seed in (7, 2, 11)]
    assert torch.equal(view.nodes, torch.cat([each.x for each in parts]))
    starts = np.cumsum([0, *(len(each.x) for each in parts)])
    edges = torch.cat([each.edge_index + int(start) for each, start in zip(parts, starts, strict=False)], 1)
    assert torch.equal(view.edges, edges)
    assert view.graph.bincount().tolist() == [len(each.x) for each in parts]
    assert batch.groups["sample"].tolist() == [7, 2, 11]
    (alone,) = made.plain(np.array([2]))
    own = batch.groups["part"][view.graph == 1]
    assert own.tolist() == alone.groups["part"].tolist()


def test_roots_are_the_nodes_that_were_asked_for(folder):
    whole = study(folder, level="node", method=GRACE())
    rows = np.array([40, 3, 17])
    sampled = Loading(neighbours=Neighbours(hops=1, limit=2), whole=0)
    for made in (whole, study(folder, level="node", method=GRACE(), loader=sampled)):
        (batch,) = made.plain(rows)
        view = batch.views[0]
        expected = torch.cat([random_data(seed, n=4 + seed % 5).x for seed in range(30)])[rows]
        assert torch.equal(view.nodes[view.roots], expected)
        assert batch.groups["part"][view.roots].tolist() == rows.tolist() == batch.groups["sample"].tolist()
        assert (view.graph.diff() >= 0).all()
        assert view.graphs == int(view.graph[-1]) + 1


def test_sampled_surroundings_of_an_embedding_do_not_depend_on_the_batch(folder):
    loader = Loading(neighbours=Neighbours(hops=2, limit=1), whole=0)
    made = study(folder, level="node", method=GRACE(), loader=loader)
    encoder = made.new_encoder().eval()

    def rows(indices):
        return torch.cat([encoder(batch.views[0]).whole for batch in made.plain(indices)])

    together = rows(np.arange(20))
    torch.testing.assert_close(together[[4, 9]], rows(np.array([4, 9])))


def test_surroundings_are_drawn_anew_in_every_epoch_and_repeat_with_the_seed(folder):
    loader = Loading(neighbours=Neighbours(hops=2, limit=1), batch_size=None)
    made = study(folder, level="node", method=GRACE(), loader=loader)
    train = made.samples.where("train")

    def epochs(seed):
        found = made.training(train, seed)
        seen = []
        for epoch in range(2):
            found.position.set_epoch(epoch)
            (batch,) = list(found)
            assert sorted(batch.groups["sample"].tolist()) == train.tolist()
            seen.append(batch.groups["part"][batch.views[0].edges].T.tolist())
        return [sorted(each) for each in seen]

    first = epochs(0)
    assert first == epochs(0)
    assert first[0] != first[1]
    assert first != epochs(1)


ENCODERS = {
    "gin": lambda columns: GIN(columns, hidden=8, depth=2),
    "gcn": lambda columns: GCN(columns, widths=(8,)),
    "sage": lambda columns: Network(
        columns, network="torch_geometric.nn.GraphSAGE", options={"hidden_channels": 8, "num_layers": 2}
    ),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("level", ["graph", "node"])
def test_a_study_of_files_trains_and_keeps_its_encoder(folder, tmp_path, encoder, level):
    method = GraphCL() if level == "graph" else SGRL(hops=0)
    smooth = 1 if level == "node" else 0
    made = study(folder, level=level, method=method, encoder=ENCODERS[encoder], smooth=smooth)
    options = TrainerOptions(max_steps=2, accelerator="cpu", progress="off")
    result = pretrain(made, Run(tmp_path / "run"), trainer=options, seed=0)
    fresh = made.new_encoder()
    assert fresh.state_dict().keys() == result.encoder.state_dict().keys()
    (batch, *_) = made.plain(np.arange(6))
    rows = result.encoder(batch.views[0]).whole
    assert rows.shape == (6, fresh.width)
    assert rows.isfinite().all()


def test_statistics_are_those_of_each_graph_or_node(folder):
    made = study(folder, features="statistics", graph=Shape(codes=False))
    values = made.baseline(np.array([5, 3])).values
    data = random_data(5, n=4)
    degree = data.edge_index[1].bincount(minlength=4).double().numpy()
    x = data.x.double().numpy()
    np.testing.assert_allclose(
        values[0], [4, degree.mean(), degree.std(), degree.max(), *x.mean(0), *x.std(0)], atol=1e-12
    )
    nodes = study(folder, level="node", method=GRACE(), features="statistics")
    first = random_data(0, n=4)
    x, edges = first.x.double().numpy(), first.edge_index.numpy()
    own = x[edges[0][edges[1] == 2]]
    expected = [*x[2], np.log1p(len(own)), *(own.mean(0) if len(own) else np.zeros(3))]
    np.testing.assert_allclose(nodes.baseline(np.array([2])).values[0], expected, atol=1e-12)


def test_simulated_graphs_are_always_the_same(tmp_path):
    for kind in ("families", "blocks"):
        label = {"families": "family", "blocks": "block"}[kind]
        makes = {
            "simulation": Simulation(kind=kind, count=40),
            "level": "graph" if kind == "families" else "node",
            "labels": {label: Label(attribute=label)},
            "method": GraphCL() if kind == "families" else GRACE(),
        }
        one, two = (study(tmp_path / kind / str(i), **makes) for i in range(2))
        assert one.samples.ids["split"].tolist() == two.samples.ids["split"].tolist() or kind == "blocks"
        assert one.samples.labels.equals(two.samples.labels)
        assert len(one.samples) == 40
        counts = one.samples.labels[label].value_counts()
        assert len(counts) == (3 if kind == "families" else 4)


def test_bad_settings_are_named(folder):
    with pytest.raises(ConfigError, match="are for level node; leave them out, or set level: node"):
        study(folder, unit="node")
    with pytest.raises(ConfigError, match=r"loader\.batch_size is at least 2.*got 1"):
        Loading(batch_size=1)
    with pytest.raises(ConfigError, match="hops are at least 0 and the limit at least 1; got 2 and 0"):
        Neighbours(limit=0)
    with pytest.raises(ConfigError, match=r"simulation\.count is at least 10; got 3"):
        Simulation(count=3)


def test_the_domain_keeps_its_contract(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_domain(domain, [("simulation.count", "40")])
