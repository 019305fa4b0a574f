"""What the recipe builds: neighbourhoods as batches, scales from training designs, labels of nodes."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from netlists import CELL, PXI, write_cell

from diptych.data.identity import Split
from diptych.data.labels import Label
from diptych.data.loading import Draw
from diptych.errors import ConfigError
from diptych.graphs.recipes import SGRL
from diptych.testing import check_domain
from diptych_circuits import domain
from diptych_circuits.encoder import CircuitEncoder
from diptych_circuits.ranges import CLASSES, COUPLING, Range, classes, range_of
from diptych_circuits.recipe import Loading, build
from diptych_circuits.sampling import NetlistBatches
from diptych_circuits.schema import CODES, COLUMN, Kind
from diptych_circuits.settings import Source
from diptych_circuits.study import CircuitStudy


def study_of(tmp_path: Path, *, scaling: str = "maximum", pxi: str = PXI, **loader: object) -> CircuitStudy:
    for number in range(8):
        text = CELL.replace("W=0.65", f"W=0.{number + 1}")
        factor = str(number + 1)
        write_cell(
            tmp_path / "data",
            f"cell{'abcdefgh'[number]}_1",
            cell=text,
            pxi=pxi.replace("0.02f", f"0.{factor}f"),
        )
    return build(
        data=Source(path=str(tmp_path / "data")),
        scaling=scaling,
        split=Split(train=0.5, validation=0.2, test=0.3),
        loader=Loading(cache=str(tmp_path / "cache"), readers=1, **loader),
        encoder=partial(CircuitEncoder, width=16, layers=2),
        method=SGRL(hops=0, nodes="all"),
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )


@pytest.mark.parametrize("scaling", ["maximum", "logarithm", "none"])
def test_columns_are_scaled_by_training_designs_alone(tmp_path: Path, scaling: str) -> None:
    study = study_of(tmp_path, scaling=scaling)
    circuits, split = study.circuits, study.samples.ids["split"].to_numpy()
    assert set(split) == {"train", "validation", "test"}
    raw = np.array(circuits.nodes, np.float64)
    numbers = [place for name, place in COLUMN.items() if name not in CODES]
    if scaling == "logarithm":
        raw[:, numbers] = np.log1p(raw[:, numbers])
    if scaling != "none":
        for kind in Kind:
            rows = circuits.kind == kind
            for column in numbers:
                largest = raw[rows & (split == "train"), column].max()
                raw[rows, column] /= largest if largest > 0 else 1.0
    got = study.graphs.rows(np.arange(len(circuits)))
    np.testing.assert_allclose(got, raw, rtol=1e-5)
    np.testing.assert_array_equal(got[:, COLUMN["kind"]], circuits.kind)


def test_one_row_for_every_node_in_order(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    ids, circuits = study.samples.ids, study.circuits
    assert len(study.samples) == len(circuits)
    assert ids["recording"].nunique() == ids["patient"].nunique() == 8
    for column in ("patient", "recording", "split"):
        per_netlist = [
            ids[column].iloc[circuits.starts[i] : circuits.starts[i + 1]].nunique() for i in range(8)
        ]
        assert per_netlist == [1] * 8
    assert study.samples.words.unit == "design"
    assert study.samples.words.sample == "node"


def test_labels_of_nodes(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    labels, circuits = study.samples.labels, study.circuits
    train = study.samples.ids["split"].to_numpy() == "train"
    net = (circuits.kind == Kind.NET) & np.isfinite(circuits.ground)
    limits = range_of(circuits.ground[net & train])
    expected = np.log10(circuits.ground[net] / limits.low) / np.log10(limits.high / limits.low)
    np.testing.assert_allclose(labels["ground"][net], np.clip(expected, 0, 1))
    assert labels["ground"][~net].isna().all()
    assert labels["ground_class"].notna().tolist() == net.tolist()
    assert labels["device_type"].notna().tolist() == (circuits.kind == Kind.DEVICE).tolist()
    assert set(labels["device_type"].dropna()) == {"nmos", "pmos", "diode"}


def test_without_parasitics_there_are_no_labels_of_them_and_training_goes_on(tmp_path: Path) -> None:
    study = study_of(tmp_path, pxi="\n".join(line for line in PXI.splitlines() if not line.startswith("cc_")))
    known = study.samples.labels.get("ground")
    assert known is None or known.notna().sum() == 8  # that of the networks' own capacitors
    batch = next(iter(study.training(study.samples.where("train"), 0)))
    assert study.new_encoder()(batch.views[0]).whole.shape == (len(batch.groups["sample"]), 16)


@pytest.mark.parametrize("disjoint", [False, True])
def test_batches_are_neighbourhoods_of_their_roots(tmp_path: Path, disjoint: bool) -> None:
    study = study_of(tmp_path, batch_size=16, hops=2, limit=None, disjoint=disjoint)
    circuits = study.circuits
    neighbours: dict[int, set[int]] = {}
    for a, b in circuits.edges.T.tolist():
        neighbours.setdefault(b, set()).add(a)
    seen: list[int] = []
    train = study.samples.where("train")
    for batch in study.training(train, 3):
        graph, roots, part = batch.views[0], batch.groups["sample"].tolist(), batch.groups["part"]
        seen += roots
        assert part[graph.roots].tolist() == roots
        assert (graph.graph.diff() >= 0).all()
        assert int(graph.graph[-1]) + 1 == graph.graphs
        reached = set(roots)
        for _ in range(2):
            reached |= {x for node in reached for x in neighbours.get(node, ())}
        assert set(part.tolist()) == reached
        real = set(map(tuple, circuits.edges.T.tolist()))
        assert set(map(tuple, part[graph.edges].T.tolist())) <= real
        ends = graph.graph[graph.edges]
        assert torch.equal(ends[0], ends[1])
        np.testing.assert_array_equal(graph.nodes.numpy(), study.graphs.rows(part.numpy()))
        assert batch.groups["netlist"].tolist() == circuits.netlist[roots].tolist()
    assert sorted(seen) == train.tolist()


def test_what_a_batch_holds_depends_on_seed_and_epoch_alone(tmp_path: Path) -> None:
    study = study_of(tmp_path, limit=1, hops=3)
    nodes = study.samples.where("train")[:20]

    def fetched(seed: int, epoch: int) -> list[int]:
        return study.graphs.fetch(Draw(seed, epoch, 0, nodes)).groups["part"].tolist()

    assert fetched(0, 0) == fetched(0, 0)
    assert len({tuple(fetched(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)}) > 1


def test_batches_of_netlists() -> None:
    indices = np.arange(100, 160)
    netlists = np.repeat([7, 3, 9], 20)
    plan = NetlistBatches(indices, netlists, 20, 1, order="netlist")
    batches = plan.batches(0)
    assert [set(netlists[batch - 100]) for batch in batches] != [{7}, {3}, {9}] or len(batches) == 3
    assert all(len(set(netlists[batch - 100])) == 1 for batch in batches)
    assert sorted(np.concatenate(batches)) == indices.tolist()
    assert [b.tolist() for b in plan.batches(0)] == [b.tolist() for b in batches]
    assert [b.tolist() for b in plan.batches(1)] != [b.tolist() for b in batches]
    shuffled = NetlistBatches(indices, netlists, 20, 1, order="random").batches(0)
    assert all(len(set(netlists[batch - 100])) > 1 for batch in shuffled)
    assert [
        len(b) for b in NetlistBatches(np.arange(41), np.zeros(41, int), 20, 1, order="random").batches(0)
    ] == [20, 20]


def test_whole_netlists_keep_their_order(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    circuits = study.circuits
    batch = study.whole(np.array([5, 2]))
    nodes = np.concatenate([np.arange(*circuits.starts[i : i + 2]) for i in (5, 2)])
    np.testing.assert_array_equal(batch.nodes.numpy(), study.graphs.rows(nodes))
    chosen = np.isin(circuits.netlist[circuits.edges[0]], [5, 2])
    assert set(map(tuple, nodes[batch.edges.numpy()].T.tolist())) == set(
        map(tuple, circuits.edges[:, chosen].T.tolist())
    )
    assert batch.graph.bincount().tolist() == [int(np.diff(circuits.starts)[i]) for i in (5, 2)]
    kinds = {
        tuple(edge): int(kind)
        for edge, kind in zip(circuits.edges.T.tolist(), circuits.edge_kind, strict=True)
    }
    assert batch.edge_features is not None
    assert [kinds[tuple(edge)] for edge in nodes[batch.edges.numpy()].T.tolist()] == batch.edge_features[
        :, 0
    ].tolist()


@pytest.mark.parametrize("whole", [20_000, 1])
def test_plain_rows_do_not_depend_on_what_shares_their_batch(tmp_path: Path, whole: int) -> None:
    study = study_of(tmp_path, whole=whole)
    encoder = study.new_encoder().eval()
    indices = np.array([40, 3, 77, 12])

    def rows(chosen: np.ndarray) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([encoder(batch.views[0]).whole for batch in study.plain(chosen)])

    together = rows(indices)
    alone = torch.cat([rows(indices[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_ends_of_a_link_share_a_neighbourhood(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    first, second = study.circuits.couplings.first[:6], study.circuits.couplings.second[:6]
    batch = study.neighbourhoods(np.concatenate([first, second]), np.tile(np.arange(6), 2))
    assert batch.graphs == 6
    assert batch.roots is not None
    assert batch.graph[batch.roots].tolist() == [0, 1, 2, 3, 4, 5] * 2


def test_kinds_of_nodes_that_are_drawn(tmp_path: Path) -> None:
    study = study_of(tmp_path, kinds=["net"])
    drawn = np.concatenate(
        [b.groups["sample"].numpy() for b in study.training(study.samples.where("train"), 0)]
    )
    assert set(study.circuits.kind[drawn]) == {Kind.NET}
    with pytest.raises(ConfigError, match="there are no nodes to make batches of"):
        study.training(np.zeros(0, np.int64), 0)
    with pytest.raises(ConfigError, match=r"loader\.batch_size is at least 2"):
        Loading(batch_size=1)


def test_labels_of_netlists_are_those_of_their_nodes(tmp_path: Path) -> None:
    write_cell(tmp_path / "data", "a_1")
    write_cell(tmp_path / "data", "b_1", cell=CELL.replace("W=1", "W=3"))
    study = build(
        data=Source(path=str(tmp_path / "data"), names=r"(?P<design>[^/_]+)_(?P<strength>\d)"),
        labels={"which": Label(rule="name:design")},
        loader=Loading(cache=str(tmp_path / "cache"), readers=1),
        encoder=partial(CircuitEncoder, width=16),
        method=SGRL(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    assert study.samples.labels["which"].tolist() == [("a", "b")[i] for i in study.circuits.netlist]


def test_ranges_and_classes() -> None:
    assert COUPLING.label([1e-21, 1e-15, 1e-18, 1e-30, 0.0]).tolist() == pytest.approx([0, 1, 0.5, 0, 0])
    farad = np.array([3e-20, 7e-17, 9e-16])
    limits = range_of([*farad, np.nan, 0.0])
    np.testing.assert_allclose(limits.farad(limits.label(farad)), farad)
    assert limits.low <= farad.min()
    assert farad.max() <= limits.high
    assert np.isnan(limits.label([np.nan])).all()
    assert classes([0.0, 0.2, 0.2000001, 0.4, 0.6, 0.80001, 1.0, np.nan]).tolist() == [
        0,
        0,
        1,
        1,
        2,
        4,
        4,
        -1,
    ]
    assert classes(np.linspace(0, 1, 101)).max() == CLASSES - 1
    with pytest.raises(ValueError, match="at least one above 0"):
        range_of([np.nan])
    with pytest.raises(ValueError, match="0 < low < high"):
        Range(1.0, 1.0)


def test_the_domain_keeps_its_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    check_domain(domain)


@pytest.mark.skipif("DIPTYCH_DATA" not in os.environ, reason="DIPTYCH_DATA is not set")
def test_shipped_configs_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diptych.discovery import find_domain
    from diptych.settings.config import read_yaml
    from diptych.settings.plans import plan
    from diptych.settings.shipped import find_config

    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    folder = find_config(domain.demo).parent
    for path in sorted(folder.glob("*.yaml")):
        study = plan(find_domain("circuits"), read_yaml(path), (), str(path)).build()
        assert len(study.samples.where("train")) > 0
        assert len(study.samples.where("test")) > 0
