"""Post-layout netlists: which couplings and capacitances to ground a graph has, against plain loops and by hand."""

import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from netlists import DSPF, write_cell

from diptych.data.readable import Unreadable
from diptych_circuits.graph import Graph, Nets, build_graph
from diptych_circuits.netlist.flatten import Hierarchy
from diptych_circuits.netlist.naming import Naming
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.state import Reading
from diptych_circuits.netlist.tops import top_of
from diptych_circuits.netlist.types import Types
from diptych_circuits.schema import COLUMN, CouplingKind, DeviceType, Kind, PinKind


def graph_of(path: Path, *, nets: Nets | None = None, dspf: bool = False) -> Graph:
    library = parse(path, Reading(), Types(), dspf=dspf)
    flat = Hierarchy(library, Naming()).flatten(top_of(library, None))
    return build_graph(flat, list(library.models), library.model_types, Types(), nets or Nets())


def names_of(graph: Graph) -> list[str]:
    """Names of all nodes; pins as device:place."""
    names = graph.names.tobytes().decode().split("\n")
    devices = [i for i, kind in enumerate(graph.kind) if kind == Kind.DEVICE]
    place: dict[int, int] = defaultdict(int)
    for device, _ in graph.pin_edges.T.tolist():
        names.append(f"{names[device]}:{place[device]}")
        place[device] += 1
    assert len(devices) == len(graph.letters)
    return names


def couplings_of(graph: Graph) -> dict[frozenset[str], float]:
    names = names_of(graph)
    pairs = [frozenset((names[a], names[b])) for a, b in graph.coupling.T.tolist()]
    assert len(set(pairs)) == len(pairs)
    return dict(zip(pairs, graph.farad.tolist(), strict=True))


def test_three_files_by_hand(tmp_path: Path) -> None:
    graph = graph_of(write_cell(tmp_path), nets=Nets(supplies="keep"))
    names = names_of(graph)
    assert [n for n, k in zip(names, graph.kind, strict=True) if k == Kind.NET] == [
        "A",
        "VPWR",
        "Y",
        "VGND",
        "floating",
    ]
    fF = 1e-15
    expected = {
        ("MM1000:1", "MM1001:0"): 0.005, ("A", "Y"): 0.75, ("MM1000:1", "Y"): 0.125, ("A", "VPWR"): 0.0625,
        ("floating", "Y"): 0.002,
    }  # fmt: skip
    got = couplings_of(graph)
    assert got == {frozenset(pair): pytest.approx(value * fF) for pair, value in expected.items()}
    kinds = dict(
        zip(
            map(frozenset, [(names[a], names[b]) for a, b in graph.coupling.T]),
            graph.coupling_kind,
            strict=True,
        )
    )
    assert kinds[frozenset(("MM1000:1", "MM1001:0"))] == CouplingKind.PIN_PIN
    assert kinds[frozenset(("MM1000:1", "Y"))] == CouplingKind.PIN_NET
    assert kinds[frozenset(("A", "Y"))] == CouplingKind.NET_NET
    ground = dict(zip(names, graph.ground.tolist(), strict=True))
    assert ground["A"] == pytest.approx(0.02 * fF + 0.03 * fF + 3e-20)  # of its pins too
    assert ground["MM1000:1"] == pytest.approx(0.03 * fF)
    assert np.isnan(ground["Y"])
    assert np.isnan(ground["MM1000:0"])
    ohm = dict(zip(names, graph.resistance.tolist(), strict=True))
    assert (ohm["A"], ohm["Y"]) == (pytest.approx(30.5), pytest.approx(1000.0))
    assert np.isnan(ohm["VGND"])
    assert graph.totals == {
        "mos": 3, "mos_pins": 12, "devices": 4, "nets": 6, "other_nets": 1, "couplings": 10, "pin_pin": 1,
        "pin_net": 1, "net_net": 3, "grounded": 1,
    }  # fmt: skip


def test_columns_by_hand(tmp_path: Path) -> None:
    graph = graph_of(write_cell(tmp_path), nets=Nets(supplies="keep"))
    rows = dict(zip(names_of(graph), graph.nodes, strict=True))

    def columns(name: str, *wanted: str) -> list[float]:
        return [pytest.approx(float(rows[name][COLUMN[each]]), rel=1e-6) for each in wanted]

    assert columns("MM1001", "device_type", "W", "L", "AD", "AS", "PD", "PS", "multiplier", "fingers", "ports") == [
        DeviceType.NMOS, 0.65, 0.15, 0.08775, 0.169, 0.92, 1.82, 1, 1, 4,
    ]  # fmt: skip
    assert columns("MM1000", "device_type", "multiplier", "AD", "AS") == [DeviceType.PMOS, 2, 0.26, 0.135]
    assert columns("DX4_noxref", "device_type", "AD", "PD", "ports") == [DeviceType.DIODE, 2.8248, 6.73, 2]
    fan_out = ("terminals", "mos", "gates", "source_drains", "bulks", "sum_W", "sum_L", "diodes", "is_port")
    assert columns("A", *fan_out) == [3, 3, 3, 0, 0, 0.65 + 2 + 1, 0.45, 0, 1]
    assert columns("Y", *fan_out) == [3, 3, 0, 3, 0, 0.65 + 2 + 1, 0.45, 0, 1]
    assert columns("floating", *fan_out) == [0.0] * 9
    kinds = [rows[f"MM1001:{i}"][COLUMN["pin_kind"]] for i in range(4)]
    assert kinds == [PinKind.SOURCE_DRAIN, PinKind.GATE, PinKind.SOURCE_DRAIN, PinKind.BULK]
    assert rows["DX4_noxref:0"][COLUMN["pin_kind"]] == PinKind.OTHER


def test_edges_join_devices_pins_and_nets(tmp_path: Path) -> None:
    graph = graph_of(write_cell(tmp_path))
    names = names_of(graph)
    assert {(names[a], names[b]) for a, b in graph.pin_edges.T} == {
        *((f"MM{n}", f"MM{n}:{i}") for n in (1000, 1001, 1002) for i in range(4)),
        *(("DX4_noxref", f"DX4_noxref:{i}") for i in range(2)),
    }
    assert {(names[a], names[b]) for a, b in graph.net_edges.T} == {
        *((f"MM{n}:0", "Y") for n in (1000, 1001, 1002)), *((f"MM{n}:1", "A") for n in (1000, 1001, 1002)),
    }  # fmt: skip


def test_supplies_are_removed_counted_as_ground_or_kept(tmp_path: Path) -> None:
    path = write_cell(tmp_path)
    removed, ground, kept = (
        graph_of(path, nets=Nets(supplies=each)) for each in ("remove", "ground", "keep")
    )
    assert len(couplings_of(kept)) == len(couplings_of(removed)) + 1 == len(couplings_of(ground)) + 1
    assert removed.totals == ground.totals == kept.totals
    of = [dict(zip(names_of(each), each.ground.tolist(), strict=True)) for each in (removed, ground, kept)]
    assert of[0]["A"] == of[2]["A"]
    assert of[1]["A"] == pytest.approx(of[0]["A"] + 0.0625e-15)
    assert "VPWR" not in of[0]
    assert "VNB" not in of[2]


def test_own_names_of_nets(tmp_path: Path) -> None:
    graph = graph_of(write_cell(tmp_path), nets=Nets(supply=["a"], substrate=["v.*", "0"]))
    assert [n for n, k in zip(names_of(graph), graph.kind, strict=True) if k == Kind.NET] == ["Y", "floating"]


def test_nodes_that_resistors_join_are_one_net(tmp_path: Path) -> None:
    text = """.subckt t in out vss
m1 d1 g1 vss vss nch w=1u l=0.1u
m2 out out vss vss nch w=1u l=0.1u
r1 in in:1 10
r2 in:1 g1 5
r3 d1 out 7
c1 in:1 d1 1f
c2 g1 out 2f
c3 in g1 9f
c4 g1 0 4f
.ends
"""
    path = tmp_path / "a.spice"
    path.write_text(text)
    graph = graph_of(path)
    assert [n for n, k in zip(names_of(graph), graph.kind, strict=True) if k == Kind.NET] == ["in", "out"]
    assert couplings_of(graph) == {frozenset(("in", "out")): pytest.approx(3e-15)}
    assert graph.ground[0] == pytest.approx(4e-15)
    assert graph.resistance[:2].tolist() == [15.0, 7.0]


def test_dspf_says_what_its_nodes_are(tmp_path: Path) -> None:
    path = tmp_path / "a.dspf"
    path.write_text(DSPF)
    graph = graph_of(path, nets=Nets(supplies="keep"), dspf=True)
    names = names_of(graph)
    assert couplings_of(graph) == {
        frozenset(("A", "Y")): pytest.approx(0.05e-15),
        frozenset(("M1:0", "M2:1")): pytest.approx(2e-17),
    }
    ground = dict(zip(names, graph.ground.tolist(), strict=True))
    assert (ground["A"], ground["Y"]) == (pytest.approx(0.1e-15), pytest.approx(0.3e-15))
    ohm = dict(zip(names, graph.resistance.tolist(), strict=True))
    assert (ohm["A"], ohm["Y"]) == (15.0, 10.0)
    assert {names[b] for a, b in graph.net_edges.T if names[a] == "M1:1"} == {"A"}
    path.write_text("*|DSPF 1.3\n.SUBCKT t a\n*|S (a:1 0 0)\n.ENDS\n")
    with pytest.raises(Unreadable, match=r"\*\|S in line 3 stands before any \*\|NET"):
        graph_of(path, dspf=True)


def test_lengths_are_micrometres_whatever_the_file_writes(tmp_path: Path) -> None:
    path = tmp_path / "a.spice"
    path.write_text(
        ".subckt t a b\nm1 a b a b nch w=0.65 l=0.15 ad=0.1\n"
        "m2 a b a b nch w=650n l=150n ad=0.1p\nm3 a b a b nch\n.ends\n"
    )
    rows = graph_of(path).nodes[2:5, [COLUMN["W"], COLUMN["L"], COLUMN["AD"], COLUMN["multiplier"]]]
    np.testing.assert_allclose(rows, [[0.65, 0.15, 0.1, 1], [0.65, 0.15, 0.1, 1], [0, 0, 0, 1]], rtol=1e-6)


def naive(path: Path) -> tuple[dict[frozenset[str], float], dict[str, float]]:
    """Couplings by pair of pin or net and ground by net, of a cell in three files, as plain loops over its lines."""

    def end(node: str) -> tuple[str, str]:
        if match := re.fullmatch(r"N_(.+)_(M\w+)_([gdsb])", node):
            return f"M{match[2]}:{'dgsb'.index(match[3])}", match[1]
        if match := re.fullmatch(r"N_(.+)_c_\d+_[np]", node):
            return match[1], match[1]
        return node, node

    def farad(text: str) -> float:
        return float(text[:-1]) * 1e-15 if text.endswith("f") else float(text)

    pairs: dict[frozenset[str], float] = defaultdict(float)
    ground: dict[str, float] = defaultdict(float)
    net = ""
    for suffix in (".pxi.spice", ".pex.spice", ".spice"):
        for line in path.with_suffix(suffix).read_text().splitlines():
            words = line.split()
            if line.startswith(".subckt"):
                net = words[1].partition("%")[2]
            elif line.startswith("cc_"):
                (a, net_a), (b, net_b) = end(words[1]), end(words[2])
                substrate = [each in ("VNB", "VPB") for each in (net_a, net_b)]
                if sum(substrate) == 1:
                    ground[net_b if substrate[0] else net_a] += farad(words[3])
                elif not any(substrate) and net_a != net_b:
                    pairs[frozenset((a, b))] += farad(words[3])
            elif line.startswith("c"):
                ground[net or end(words[1])[1]] += farad(words[3])
    return pairs, ground


@pytest.mark.skipif("DIPTYCH_DATA" not in os.environ, reason="DIPTYCH_DATA is not set")
@pytest.mark.parametrize(
    "cell", ["inv/sky130_fd_sc_hd__inv_2", "dfxtp/sky130_fd_sc_hd__dfxtp_1", "mux4/sky130_fd_sc_hd__mux4_1"]
)
def test_real_cells_equal_plain_loops(cell: str) -> None:
    path = Path(os.environ["DIPTYCH_DATA"]) / "circuits/sky130_fd_sc_hd/cells" / f"{cell}.spice"
    graph = graph_of(path, nets=Nets(supplies="keep"))
    pairs, ground = naive(path)
    assert couplings_of(graph) == {pair: pytest.approx(value, rel=1e-12) for pair, value in pairs.items()}
    known = {
        n: g
        for n, g, k in zip(names_of(graph), graph.ground, graph.kind, strict=True)
        if k == Kind.NET and g > 0
    }
    of_nets = {net: value for net, value in ground.items() if net in known}
    assert known == {net: pytest.approx(value, rel=1e-12) for net, value in of_nets.items()}
    assert len(pairs) > 10
