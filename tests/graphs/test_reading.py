"""Graphs are read as they are, whatever the file; what is no graph is listed with its reason."""

from __future__ import annotations

import json
import pickle

import networkx
import numpy as np
import pytest
import torch
from graph_files import random_data, random_network, save
from torch_geometric.data import Data, HeteroData, InMemoryDataset

from diptych.data.identity import Split
from diptych.errors import ConfigError, DataError
from diptych_graphs.settings import Label, Shape, Source
from diptych_graphs.source import prepare


def read(folder, labels=None, level="graph", unit="auto", source=None, **shape):
    shape = {"max_quarantined": 1.0, **shape}
    return prepare(
        Source(path=str(folder), **(source or {})),
        Shape(**shape),
        labels or {},
        Split(),
        level=level,
        unit=unit,
        workers=1,
    )


def quarantined(prepared):
    return {row.path: row.reason for row in prepared.samples.quarantine.rows}


def graph(store, number):
    batch, _ = store.whole(np.array([number]))
    return batch


def test_every_way_to_save_data_gives_the_same_graphs(tmp_path):
    graphs = [random_data(seed, n=5 + seed, y=torch.tensor([seed % 2])) for seed in range(3)]
    for seed, each in enumerate(graphs):
        save(tmp_path / "single" / f"{seed}.pt", each)
        save(tmp_path / "plain" / f"{seed}.pth", dict(each.to_dict()))
    save(tmp_path / "listed" / "all.pt", graphs)
    data, slices = InMemoryDataset.collate(graphs)
    save(tmp_path / "collated" / "all.pt", (data, slices))
    save(tmp_path / "processed" / "all.pt", (data.to_dict(), slices, Data))
    for kind in ("single", "plain", "listed", "collated", "processed"):
        prepared = read(tmp_path / kind, {"y": Label(attribute="y")})
        assert len(prepared.samples) == 3, kind
        assert prepared.samples.labels["y"].tolist() == ["0", "1", "0"]
        for number, expected in enumerate(graphs):
            found = graph(prepared.store, number)
            assert torch.equal(found.nodes, expected.x), kind
            assert torch.equal(found.edges, expected.edge_index), kind


@pytest.mark.parametrize("kind", ["graphml", "gml", "json"])
def test_networks_are_read_with_both_directions_of_an_edge(tmp_path, kind):
    made = random_network(1)
    path = tmp_path / f"one.{kind}"
    if kind == "graphml":
        networkx.write_graphml(made, path)
    elif kind == "gml":
        networkx.write_gml(made, path)
    else:
        path.write_text(json.dumps(networkx.node_link_data(made, edges="links")))
    prepared = read(
        tmp_path,
        {"activity": Label(attribute="activity"), "by_rule": Label(rule="header:activity", number=True)},
        nodes=["mass", "kind"],
        edges=["length"],
    )
    batch = graph(prepared.store, 0)
    expected = [[made.nodes[node]["mass"], made.nodes[node]["kind"]] for node in made.nodes]
    torch.testing.assert_close(batch.nodes, torch.tensor(expected))
    pairs = {(a, b): made.edges[a, b]["length"] for a, b in made.edges}
    pairs |= {(b, a): length for (a, b), length in pairs.items()}
    assert {tuple(pair) for pair in batch.edges.T.tolist()} == set(pairs)
    lengths = [pairs[tuple(pair)] for pair in batch.edges.T.tolist()]
    torch.testing.assert_close(batch.edge_features[:, 0], torch.tensor(lengths))
    assert prepared.samples.labels["activity"].tolist() == ["1"]
    assert prepared.samples.labels["by_rule"].tolist() == [1.0]


def test_directed_networks_stay_directed(tmp_path):
    made = networkx.DiGraph([(0, 1), (1, 2)])
    networkx.write_graphml(made, tmp_path / "one.graphml")
    prepared = read(tmp_path, nodes=[])
    assert graph(prepared.store, 0).edges.tolist() == [[0, 1], [1, 2]]
    assert "directed" in prepared.report["edges"]
    both = read(tmp_path, nodes=[], both_ways=True)
    assert graph(both.store, 0).edges.tolist() == [[0, 1, 1, 2], [1, 2, 0, 1]]
    torch.testing.assert_close(graph(both.store, 0).nodes[:, 0], torch.tensor([1, 2, 1]).float().log1p())


def test_both_ways_adds_what_is_missing_with_its_features(tmp_path):
    edges = torch.tensor([[0, 1, 1, 2], [1, 0, 2, 2]])
    save(tmp_path / "a.pt", Data(x=torch.zeros(3, 1), edge_index=edges, w=torch.arange(4.0)))
    batch = graph(read(tmp_path, edges=["w"], both_ways=True).store, 0)
    assert batch.edges.tolist() == [[0, 1, 1, 2, 2], [1, 0, 2, 2, 1]]
    assert batch.edge_features[:, 0].tolist() == [0, 1, 2, 3, 2]


def test_whole_numbers_are_codes_unless_told_otherwise(tmp_path):
    for seed in range(3):
        save(tmp_path / f"{seed}.pt", random_data(seed, codes=True, width=2))
    codes = read(tmp_path)
    assert codes.store.nodes.dtype == np.int64
    assert codes.store.columns.nodes == tuple((codes.store.nodes.max(0) + 1).tolist())
    numbers = read(tmp_path, codes=False)
    assert numbers.store.nodes.dtype == np.float32
    assert numbers.store.columns.nodes == 2


def test_numbers_are_scaled_by_the_training_graphs(tmp_path):
    save(tmp_path / "all.pt", [random_data(seed) for seed in range(20)])
    prepared = read(tmp_path, scale="zscore")
    train = (prepared.samples.ids["split"] == "train").to_numpy()
    rows = prepared.store.nodes[train[prepared.store.graph_of]]
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(rows.std(0), 1, atol=1e-5)
    assert 0 < train.sum() < 20


class Foreign:
    """Nothing that may be unpickled."""


def test_every_broken_file_is_a_row_and_the_rest_goes_on(tmp_path):
    save(tmp_path / "good.pt", [random_data(seed) for seed in range(3)])
    broken = {
        "nan": random_data(4),
        "far": random_data(5),
        "void": Data(x=torch.zeros(0, 3), edge_index=torch.zeros(2, 0, dtype=torch.int64)),
        "wide": random_data(6, width=4),
        "bare": Data(pos=torch.zeros(3, 2), edge_index=torch.zeros(2, 0, dtype=torch.int64)),
        "float": Data(x=torch.zeros(3, 3), edge_index=torch.rand(2, 4)),
        "rows": Data(x=torch.zeros(3, 3), num_nodes=4, edge_index=torch.zeros(2, 0, dtype=torch.int64)),
        "dense": Data(x=torch.zeros(3, 3)),
        "text": {"weights": torch.zeros(2)},
    }
    broken["nan"].x[2, 1] = float("nan")
    broken["far"].edge_index[0, 0] = 6
    for name, content in broken.items():
        save(tmp_path / f"{name}.pt", content)
    save(tmp_path / "none.pt", [])
    save(tmp_path / "foreign.pt", Foreign())
    save(tmp_path / "hetero.pt", HeteroData())
    (tmp_path / "image.pt").write_bytes(b"\x89PNG" + bytes(200))
    (tmp_path / "old.pt").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "cut.graphml").write_text("<graphml><graph>")
    (tmp_path / "cut.gml").write_text("graph [ node [")
    (tmp_path / "other.json").write_text('{"name": 3}')
    (tmp_path / "notes.txt").write_text("no graph")
    prepared = read(tmp_path)
    assert len(prepared.samples) == 3
    found = quarantined(prepared)
    expected = {
        "nan.pt": "missing numbers: the attribute 'x' of nodes has NaN or infinite values",
        "far.pt": "edge out of range: edges name nodes 0 to 6, but there are 6",
        "void.pt": "empty graph: it has no nodes",
        "wide.pt": "unequal columns: (4, 0) of nodes and edges, most graphs have (3, 0)",
        "bare.pt": "missing attribute: nodes have no 'x'",
        "float.pt": "malformed edges: expected whole numbers (2, e), found float32 of shape (2, 4)",
        "rows.pt": "unequal rows: the attribute 'x' has shape (3, 3), but there are 4 nodes",
        "dense.pt": "no graph: no tensor edge_index (sparse adjacencies and heterogeneous graphs are not read)",
        "text.pt": "no graph: the file holds a dict; save Data or a list of Data",
        "none.pt": "no graph: the file holds an empty list",
        "image.pt": "not a file of torch.save, which is an archive since torch 1.6; save it again",
        "old.pt": "not a file of torch.save, which is an archive since torch 1.6; save it again",
        "cut.graphml": "malformed graphml file (ParseError)",
        "cut.gml": "malformed gml file (NetworkXError)",
        "other.json": "no graph: the file holds no node-link JSON (nodes, and links or edges)",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert "which is not loaded; save Data" in found["foreign.pt"]
    assert "which is not loaded; save Data" in found["hetero.pt"]
    assert set(found) == {*expected, "foreign.pt", "hetero.pt"}
    assert prepared.report["files of no graph"] == ".txt (1)"
    with pytest.raises(DataError, match="cannot be used, more than 20% allowed"):
        read(tmp_path, max_quarantined=0.2)


def test_graphs_without_edges_are_graphs(tmp_path):
    save(
        tmp_path / "a.pt",
        [Data(x=torch.ones(3, 2), edge_index=torch.zeros(2, 0, dtype=torch.int64)), random_data(width=2)],
    )
    prepared = read(tmp_path)
    assert graph(prepared.store, 0).edges.shape == (2, 0)
    assert prepared.report["graphs without edges"] == "1"


def test_an_attribute_that_no_graph_has_is_named_with_the_nearest(tmp_path):
    save(tmp_path / "a.pt", random_data(mass=torch.ones(6), label=torch.tensor([1])))
    with pytest.raises(
        ConfigError, match=r"graph\.nodes: no nodes have an attribute 'mas'; did you mean 'mass'\?"
    ):
        read(tmp_path, nodes=["mas"])
    with pytest.raises(ConfigError, match=r"graph\.edges: no edges have an attribute 'weights'"):
        read(tmp_path, edges=["weights"])
    with pytest.raises(
        ConfigError, match=r"labels\.y\.attribute: no graphs .* 'lable'; did you mean 'label'"
    ):
        read(tmp_path, {"y": Label(attribute="lable")})


def test_attributes_that_are_no_numbers(tmp_path):
    networkx.write_graphml(random_network(), tmp_path / "a.graphml")
    with pytest.raises(DataError, match="not numeric: the attribute 'role' of nodes holds no numbers"):
        read(tmp_path, nodes=["role"])


def test_labels_of_several_numbers_and_missing_ones(tmp_path):
    graphs = [random_data(seed, y=torch.tensor([[1.0, float("nan"), seed]])) for seed in range(2)]
    save(tmp_path / "a.pt", graphs)
    labels = {"first": Label(attribute="y", index=0), "second": Label(attribute="y", index=1)}
    labels["third"] = Label(attribute="y", index=2, number=True)
    found = read(tmp_path, labels).samples.labels
    assert found["first"].tolist() == ["1", "1"]
    assert found["second"].tolist() == [None, None]
    assert found["third"].tolist() == [0.0, 1.0]
    with pytest.raises(
        DataError, match=r"malformed label: the attribute 'y' has 3 values for 1 graph; say which"
    ):
        read(tmp_path, {"y": Label(attribute="y")})


def test_labels_of_nodes(tmp_path):
    save(tmp_path / "a.pt", random_data(y=torch.tensor([0, 1, 2, 0, 1, 2]), name="n"))
    prepared = read(tmp_path, {"y": Label(attribute="y"), "of": Label(rule="header:name")}, level="node")
    assert prepared.samples.labels["y"].tolist() == ["0", "1", "2", "0", "1", "2"]
    assert prepared.samples.labels["of"].tolist() == ["n"] * 6


def test_graphs_that_are_the_same_are_one_unit(tmp_path):
    save(tmp_path / "a.pt", [random_data(seed % 5) for seed in range(20)])
    ids = read(tmp_path).samples.ids
    assert ids["patient"].nunique() == 5
    assert ids["recording"].nunique() == 20
    assert (ids.groupby("patient")["split"].nunique() == 1).all()


def test_rules_say_what_splits_keep_together(tmp_path):
    for seed in range(8):
        save(tmp_path / f"lab{seed % 2}" / f"{seed}.pt", random_data(seed))
    ids = read(tmp_path, source={"patient": "folder"}).samples.ids
    assert ids["patient"].nunique() == 2
    with pytest.raises(ConfigError, match=r"data\.trial: graphs have no trials"):
        Source(path="x", trial="folder")


def test_nodes_of_one_graph_are_split_by_node_and_the_report_says_so(tmp_path):
    save(tmp_path / "a.pt", random_data(n=60))
    prepared = read(tmp_path, level="node")
    assert prepared.samples.ids["patient"].nunique() == 60
    assert set(prepared.samples.ids["split"]) == {"train", "validation", "test"}
    assert "transductive" in prepared.report["split"]
    assert prepared.samples.words.unit == "node"
    again = read(tmp_path, level="node")
    assert prepared.samples.ids.equals(again.samples.ids)


def test_nodes_of_several_graphs_are_split_by_graph(tmp_path):
    save(tmp_path / "a.pt", [random_data(seed, n=5) for seed in range(12)])
    prepared = read(tmp_path, level="node")
    ids = prepared.samples.ids
    assert len(ids) == 60
    assert ids["patient"].nunique() == 12
    assert (ids.groupby("recording")["split"].nunique() == 1).all()
    assert "split" not in prepared.report
    by_node = read(tmp_path, level="node", unit="node")
    assert by_node.samples.ids["patient"].nunique() == 60


def test_bad_labels_are_named():
    with pytest.raises(ConfigError, match="needs one of 'attribute', 'column'"):
        Label()
    with pytest.raises(ConfigError, match="'index' counts the numbers of an 'attribute'"):
        Label(column="a", index=0)
