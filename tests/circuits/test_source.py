"""Folders of netlists: what is found, quarantined, cached and said; the totals of real cells."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from netlists import CELL, DSPF, PEX, PXI, write_cell

from diptych.data.identity import Split
from diptych.data.labels import Label
from diptych.data.manifest import Manifest
from diptych.errors import ConfigError, DataError
from diptych_circuits.hetero import columns_of, hetero
from diptych_circuits.readers import find
from diptych_circuits.schema import EdgeKind, Kind
from diptych_circuits.settings import Netlist, Source
from diptych_circuits.source import Prepared, one_design, prepare

DATA = os.environ.get("DIPTYCH_DATA")
needs_data = pytest.mark.skipif(DATA is None, reason="DIPTYCH_DATA is not set")


def prepared(folder: Path, cache: Path, netlist: Netlist | None = None, **source: object) -> Prepared:
    return prepare(
        Source(path=str(folder), **source), netlist or Netlist(), {}, Split(), cache=cache, workers=1
    )


def cells(folder: Path) -> Path:
    """Three designs, one of them in two drive strengths; every netlist is another."""
    for number, name in enumerate(("inv_1", "inv_2", "nand_1", "or")):
        write_cell(folder / name.split("_")[0], name, cell=CELL.replace("W=0.65", f"W=0.{number + 4}"))
    return folder


def test_files_of_a_cell_are_one_netlist(tmp_path: Path) -> None:
    folder = cells(tmp_path / "data")
    (folder / "notes.txt").write_text("x")
    found = find(sorted(folder.rglob("*.*")), folder, only="auto", top=None)
    assert [item.name for _, item in found.items] == ["inv/inv_1", "inv/inv_2", "nand/nand_1", "or/or"]
    assert {len(item.files) for _, item in found.items} == {3}
    assert [path.name for path in found.other] == ["notes.txt"]


def test_drive_strengths_are_one_design(tmp_path: Path) -> None:
    made = prepared(cells(tmp_path / "data"), tmp_path / "cache")
    assert made.circuits.designs == ["inv", "inv", "nand", "or"]
    table = made.table
    assert table["patient"].nunique() == 3
    assert table["recording"].nunique() == 4
    assert table["patient"][0] == table["patient"][1]
    assert table.groupby("patient")["split"].nunique().max() == 1
    extracted = [f"a/{name}" for name in ("sky130_fd_sc_hd__inv_4_k25d_pex_netlist", "buf_16", "x/latch")]
    pattern = Source(path="x").names
    import re

    assert [re.search(str(pattern), name)["design"] for name in extracted] == [
        "sky130_fd_sc_hd__inv",
        "buf",
        "latch",
    ]


def test_joined_graph_equals_its_netlists_one_by_one(tmp_path: Path) -> None:
    folder = cells(tmp_path / "data")
    together = prepared(folder, tmp_path / "cache").circuits
    for number, name in enumerate(("inv/inv_1", "inv/inv_2", "nand/nand_1", "or/or")):
        one = prepared(folder / f"{name}.spice", tmp_path / "other").circuits
        rows = slice(together.starts[number], together.starts[number + 1])
        np.testing.assert_array_equal(together.nodes[rows], one.nodes)
        np.testing.assert_array_equal(together.ground[rows], one.ground)
        edges = together.netlist[together.edges[0]] == number
        np.testing.assert_array_equal(together.edges[:, edges] - together.starts[number], one.edges)
        chosen = together.netlist[together.couplings.first] == number
        np.testing.assert_array_equal(
            together.couplings.first[chosen] - together.starts[number], one.couplings.first
        )
        np.testing.assert_array_equal(together.couplings.farad[chosen], one.couplings.farad)
        assert together.names_of(number) == one.names_of(0)
    assert together.name(int(together.starts[1])) == "A"
    assert together.names_of(0)[-1] == "DX4_noxref:n"
    assert len(set(together.names_of(0))) == len(together.names_of(0))


def test_edges_go_both_ways_between_the_right_kinds(tmp_path: Path) -> None:
    circuits = prepared(cells(tmp_path / "data"), tmp_path / "cache").circuits
    pairs = set(map(tuple, circuits.edges.T.tolist()))
    assert len(pairs) == circuits.edges.shape[1]
    assert pairs == {(b, a) for a, b in pairs}
    kinds = np.sort(circuits.kind[circuits.edges], axis=0)
    wanted = np.where(circuits.edge_kind == EdgeKind.DEVICE_PIN, Kind.DEVICE, Kind.NET)
    np.testing.assert_array_equal(kinds[0], wanted)
    assert set(kinds[1].tolist()) == {Kind.PIN}


def test_the_cache_is_found_by_content_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, cache = cells(tmp_path / "data"), tmp_path / "cache"
    first = prepared(folder, cache)
    folder = folder.rename(tmp_path / "elsewhere")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr("diptych_circuits.source.store", fail)
        again = prepared(folder, cache)
    np.testing.assert_array_equal(first.circuits.nodes, again.circuits.nodes)
    kept = prepared(folder, cache, Netlist(supplies="keep"))
    assert len(kept.circuits) > len(first.circuits)
    (folder / "or/or.pex.spice").write_text(PEX.replace("{NAME}", "OR").replace("10.5", "11.5"))
    changed = prepared(folder, cache)
    net = changed.circuits.starts[3]
    assert changed.circuits.resistance[net] == first.circuits.resistance[net] + 1
    for piece in cache.rglob("*.safetensors"):
        piece.write_bytes(piece.read_bytes()[:100])
    np.testing.assert_array_equal(prepared(folder, cache).circuits.nodes, changed.circuits.nodes)


def test_broken_netlists_go_to_quarantine(tmp_path: Path) -> None:
    folder = cells(tmp_path / "data")
    (folder / "a_bad.spice").write_text(".subckt a x\nm1 x x x nch\n.ends\n")
    (folder / "b_empty.spice").write_text("")
    (folder / "c_fill.spice").write_text(".subckt fill VGND VPWR\n.ends\n")
    (folder / "d_binary.spice").write_bytes(bytes(range(256)) * 40)
    (folder / "e_pex.spice").write_text(CELL.replace("{name}", "nowhere"))
    made = prepared(folder, tmp_path / "cache", Netlist(max_quarantined=0.6))
    reasons = {row.path: row.reason for row in made.quarantine.rows}
    assert sorted(reasons) == [
        "a_bad.spice",
        "b_empty.spice",
        "c_fill.spice",
        "d_binary.spice",
        "e_pex.spice",
    ]
    assert reasons["a_bad.spice"].startswith("wrong node count: 'm1' in line 2")
    assert reasons["b_empty.spice"] == "empty file"
    assert reasons["c_fill.spice"].startswith("no pins: it has no devices")
    assert reasons["e_pex.spice"].startswith("missing include: 'nowhere.pex.spice' in line 2")
    assert len(made.circuits.netlists) == 4
    with pytest.raises(DataError, match="5 of 9"):
        prepared(folder, tmp_path / "cache")


def test_no_netlist_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no netlists in .*: expected SPICE or CDL"):
        prepared(tmp_path, tmp_path / "cache")
    (tmp_path / "a.spice").write_text(".subckt a x\n.ends\n")
    with pytest.raises(DataError, match=r"no netlist can be used: no pins: .* \(1\)"):
        prepared(tmp_path, tmp_path / "cache")
    with pytest.raises(ConfigError, match="needs the package 'nowhere', which is not installed"):
        prepare(Source(path="package:nowhere/x"), Netlist(), {}, Split())
    with pytest.raises(ConfigError, match=r"netlist\.supply: '\(' is no regular expression"):
        Netlist(supply=["("])


def test_netlists_without_parasitics_are_kept_and_said(tmp_path: Path) -> None:
    (tmp_path / "a.sp").write_text(".subckt a x y\nm1 x y x y nch w=1u l=1u\n.ends\n")
    made = prepared(tmp_path, tmp_path / "cache")
    assert len(made.circuits.couplings) == 0
    assert np.isnan(made.circuits.ground).all()
    assert made.report["parasitics"].startswith("none: heads cannot be trained or tested on these netlists")


def test_a_net_that_only_couples_is_a_node(tmp_path: Path) -> None:
    circuits = prepared(cells(tmp_path / "data"), tmp_path / "cache").circuits
    node = circuits.names_of(0).index("floating")
    assert circuits.kind[node] == Kind.NET
    assert node not in circuits.edges
    assert node in circuits.couplings.first[:8] or node in circuits.couplings.second[:8]


def test_circuits_of_one_library_are_netlists_of_their_own(tmp_path: Path) -> None:
    library = "".join(
        f".subckt {name} a y\nm1 y a {'y' if i else 'a'} 0 nch w={i + 1}u l=1u\n.ends\n"
        for i, name in enumerate(("inv_1", "inv_2", "buf_1"))
    )
    (tmp_path / "lib.cdl").write_text(library)
    (tmp_path / "top.dspf").write_text(DSPF)
    made = prepared(tmp_path, tmp_path / "cache")
    assert made.circuits.netlists == ["lib.cdl:inv_1", "lib.cdl:inv_2", "lib.cdl:buf_1", "top.dspf"]
    assert made.circuits.designs == ["inv", "inv", "buf", "top"]
    assert prepared(tmp_path, tmp_path / "cache", format="dspf").circuits.netlists == ["top.dspf"]
    only = prepared(tmp_path, tmp_path / "cache", Netlist(top="buf_1"), format="spice")
    assert len(only.circuits.netlists) == 1


def test_designs_with_the_same_graph_are_one() -> None:
    designs, joined = one_design(["b", "a", "c", "d", "a"], ["x", "y", "y", "z", "x"])
    assert designs == ["a", "a", "a", "d", "a"]
    assert joined == 2


def test_copies_under_two_names_share_a_split(tmp_path: Path) -> None:
    folder = cells(tmp_path / "data")
    write_cell(folder / "copy", "copy_1", cell=CELL.replace("W=0.65", "W=0.6"))
    made = prepared(folder, tmp_path / "cache")
    assert made.circuits.designs[made.circuits.netlists.index("nand/nand_1.spice")] == "copy"
    assert made.report["designs joined"].startswith("1: they hold the same netlist")


def test_labels_and_manifest(tmp_path: Path) -> None:
    folder = cells(tmp_path / "data")
    (tmp_path / "t.csv").write_text("cell,delay\ninv_1,2.5\nor,1\n")
    source = Source(path=str(folder), table=str(tmp_path / "t.csv"), table_id="cell")
    made = prepare(
        source, Netlist(), {"delay": Label(column="delay", number=True)}, Split(), cache=tmp_path / "cache"
    )
    np.testing.assert_array_equal(made.labels["delay"], [2.5, np.nan, np.nan, 1.0])
    path = tmp_path / "manifest.csv"
    made.manifest.write(path)
    entries = Manifest.read(path).entries
    assert len(entries) == 12
    facts = {each.path: each.facts for each in entries}
    assert facts["or/or.spice"]["mos_pins"] == 12
    assert json.dumps(facts["or/or.pxi.spice"]) == "{}"
    again = prepare(Source(path=str(path)), Netlist(), {}, Split(), cache=tmp_path / "cache")
    assert again.circuits.netlists == made.circuits.netlists
    (folder / "or/or.pxi.spice").write_text(PXI)
    with pytest.raises(DataError, match="1 of 12 files are not what the manifest says"):
        prepare(Source(path=str(path)), Netlist(), {}, Split(), cache=tmp_path / "cache")


@needs_data
def test_the_cells_of_sky130_give_the_known_totals(tmp_path: Path) -> None:
    made = prepared(
        Path(str(DATA)) / "circuits/sky130_fd_sc_hd", tmp_path / "cache", Netlist(supplies="keep")
    )
    assert len(made.circuits.netlists) == 428
    assert made.quarantine.kinds() == {"no pins": 9}
    wanted = {
        "mos": 8_379, "mos_pins": 33_516, "nets": 5_917, "couplings": 179_690, "pin_pin": 1_913, "pin_net": 25_461,
        "net_net": 12_726, "grounded": 4_043,
    }  # fmt: skip
    assert {name: made.totals[name] for name in wanted} == wanted
    circuits = made.circuits
    assert np.bincount(circuits.couplings.kind).tolist() == [1_913, 25_461, 12_726]
    assert circuits.couplings.farad.min() == pytest.approx(2.0e-19, rel=0.01)
    assert circuits.couplings.farad.max() == pytest.approx(2.0e-15, rel=0.03)
    nets = circuits.ground[circuits.kind == Kind.NET]
    assert np.nanmin(nets) == pytest.approx(2.6e-20, rel=0.02)
    assert np.nanmax(nets) == pytest.approx(1.7e-15, rel=0.02)


@needs_data
def test_the_latch_and_cells_of_kpex(tmp_path: Path) -> None:
    folder = Path(str(DATA)) / "circuits/kpex_sky130"
    made = prepared(folder, tmp_path / "cache")
    assert len(made.quarantine) == 0
    latch = made.circuits.netlists.index("adc_comp_latch_k25d_pex_netlist.spice")
    assert made.circuits.designs[latch] == "adc_comp_latch"
    inside = made.circuits.in_netlists(np.array([latch]))
    assert int((made.circuits.kind[inside] == Kind.DEVICE).sum()) == 86
    assert "sky130_fd_sc_hd__inv" in made.circuits.designs
    cells, shipped = (
        prepare(source, Netlist(), {}, Split(), cache=tmp_path / "cache").circuits
        for source in (
            Source(path=str(folder), exclude=["adc_*"]),
            Source(path="package:diptych_circuits/examples"),
        )
    )
    assert len(shipped.netlists) == 24
    np.testing.assert_array_equal(shipped.nodes, cells.nodes)


def test_heterogeneous_graph_holds_the_same(tmp_path: Path) -> None:
    circuits = prepared(cells(tmp_path / "data"), tmp_path / "cache", Netlist(supplies="keep")).circuits
    data = hetero(circuits, np.array([1, 3]))
    data.validate(raise_on_error=True)
    inside = circuits.in_netlists(np.array([1, 3]))
    assert {name: data[name].num_nodes for name in ("net", "device", "pin")} == {
        kind.name.lower(): int((circuits.kind[inside] == kind).sum()) for kind in Kind
    }
    edges = set()
    for owner, relation in (("device", "has"), ("net", "joins")):
        a, b = data[owner, relation, "pin"].edge_index
        pairs = set(zip(data[owner].node[a].tolist(), data["pin"].node[b].tolist(), strict=True))
        reverse = data["pin", f"rev_{relation}", owner].edge_index
        assert torch.equal(reverse.flip(0), torch.stack([a, b]))
        edges |= pairs | {(y, x) for x, y in pairs}
    chosen = inside[circuits.edges[0]]
    assert edges == set(map(tuple, circuits.edges[:, chosen].T.tolist()))
    farad = {}
    for a, name, b in (("pin", "couples", "pin"), ("pin", "couples", "net"), ("net", "couples", "net")):
        index, values = data[a, name, b].edge_index, data[a, name, b].farad
        ends = zip(data[a].node[index[0]].tolist(), data[b].node[index[1]].tolist(), strict=True)
        farad |= dict(zip(ends, values.tolist(), strict=True))
    couplings = circuits.couplings
    rows = inside[couplings.first]
    pairs = zip(couplings.first[rows].tolist(), couplings.second[rows].tolist(), strict=True)
    assert farad == dict(zip(pairs, couplings.farad[rows].tolist(), strict=True))
    assert data["device"].x[0, columns_of(Kind.DEVICE).index("W")] == pytest.approx(0.5)
