"""``diptych circuits predict``: netlists out are the netlists in, with capacitors that the table lists too."""

import csv
import re
import shutil
from collections import defaultdict

import numpy as np
import pytest
from studies import EXAMPLES, make_encoder
from test_annotation import BUFFER, MODELS, deck, run_ngspice

from diptych.errors import ConfigError, DataError, UserError
from diptych.weights import save_encoder
from diptych_circuits.evaluated import KINDS, surroundings_of
from diptych_circuits.neighbourly import hops
from diptych_circuits.netlist.flatten import Hierarchy
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.tops import top_of
from diptych_circuits.parasitics import kind_of, pairs_of_kinds
from diptych_circuits.predict import HEADS, HOPS, candidate_pairs, predict, read_source
from diptych_circuits.schema import Kind
from diptych_circuits.settings import Netlist

CONFIG = """
run: {{name: test}}
data: {{path: "{path}"}}
split: {{train: 0.5, validation: 0.2, test: 0.3}}
scaling: logarithm
loader: {{cache: "{cache}", readers: 1}}
encoder:
  class_path: diptych_circuits.encoder.CircuitEncoder
  init_args: {{width: 16, layers: 2, dropout: 0.0}}
method: {{class_path: diptych.graphs.recipes.SGRL}}
optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.001}}}}
"""
LAYOUT = EXAMPLES / "sky130_fd_sc_hd__fa_1_k25d_pex_netlist.spice"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose encoder was pretrained on nothing."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(CONFIG.format(path=EXAMPLES, cache=tmp_path_factory.mktemp("cache")))
    save_encoder(make_encoder(), folder / "encoder.safetensors")
    return folder


@pytest.fixture
def schematic(tmp_path):
    path = tmp_path / "buffer.spice"
    path.write_text(BUFFER)
    return path


def read(path):
    """(capacitors by pair of nets in any case, devices) of a netlist that was written."""
    settings = Netlist()
    library = parse(path, settings.reading, settings.device_types)
    flat = Hierarchy(library, settings.naming).flatten(top_of(library, None))
    found = {
        frozenset(flat.nets[net].lower() for net in nets): farad
        for nets, farad in zip(flat.capacitor_nets.T.tolist(), flat.farad.tolist(), strict=True)
    }
    devices = [
        (
            chr(flat.kind[i]),
            [flat.nets[net].lower() for net in flat.terminals[flat.ends[i] : flat.ends[i + 1]]],
        )
        for i in range(len(flat.devices))
    ]
    return found, devices


def lines_of(table):
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def summed(table, source):
    """Capacitors between nets from the lines of a table."""
    circuit = read_source(source, Netlist(), None)
    node = {name: number for number, name in enumerate(circuit.circuits.names_of(0))}
    found = defaultdict(float)
    for row in lines_of(table):
        ends = [
            row[name] if row[name] == "0" else circuit.net(node[row[name]]) for name in ("first", "second")
        ]
        pair = frozenset(each.lower() for each in ends)
        if len(pair) == 2:
            found[pair] += float(row["farad"])
    return found


def test_a_schematic_stays_as_it_was_and_has_the_capacitors_of_the_table(run, schematic, tmp_path, capsys):
    out, table = tmp_path / "out.spice", tmp_path / "out.csv"
    predict(str(schematic), run=str(run), out=str(out), csv=str(table), probability=0.02, device="cpu")
    text = out.read_text()
    assert (
        "".join(
            line
            for line in text.splitlines(keepends=True)
            if not re.match(r"C_predicted_|\* Capacitors", line)
        )
        == BUFFER
    )
    capacitors, _ = read(out)
    expected = summed(table, schematic)
    assert set(capacitors) == set(expected)
    for pair, farad in capacitors.items():
        assert farad == pytest.approx(expected[pair], rel=1e-4)
    kinds = {row["kind"] for row in lines_of(table)}
    assert kinds == {"net-net", "ground"}  # the run's netlists have no couplings of pins to learn from
    assert str(out) in capsys.readouterr().out


def test_every_net_that_is_no_supply_has_a_capacitance_to_ground(run, schematic, tmp_path):
    out = tmp_path / "out.spice"
    predict(str(schematic), run=str(run), out=str(out), device="cpu")
    to_ground = {next(iter(pair - {"0"})) for pair in read(out)[0] if "0" in pair}
    assert to_ground == {"in", "out", "middle"}


def test_parasitics_that_a_layout_has_are_left_out_and_its_devices_stay(run, tmp_path):
    out = tmp_path / "out.spice"
    predict(str(LAYOUT), run=str(run), out=str(out), device="cpu")
    before, after = read(LAYOUT), read(out)
    assert sorted(map(repr, after[1])) == sorted(map(repr, before[1]))
    assert len(after[1]) == 28
    assert all(line.startswith("C_predicted_") for line in out.read_text().splitlines() if line[:1] in "cC")
    shared = [pair for pair in after[0] if pair in before[0]]
    logs = np.log10([[before[0][pair], after[0][pair]] for pair in shared])
    assert np.abs(np.diff(logs)).mean() < 1.5  # near what the extractor found, no zeros and no farads


def test_heads_are_trained_once_and_kept(run, schematic, tmp_path):
    first, second = tmp_path / "first.spice", tmp_path / "second.spice"
    predict(str(schematic), run=str(run), out=str(first), device="cpu")
    kept = (run / HEADS).read_bytes()
    predict(str(schematic), run=str(run), out=str(second), device="cpu")
    assert (run / HEADS).read_bytes() == kept
    assert second.read_text() == first.read_text()


def test_heads_that_are_no_heads_are_refused(run, schematic, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    shutil.copy(run / "encoder.safetensors", other / HEADS)
    with pytest.raises(
        UserError, match=r"holds no heads of this version .*delete it, and they are trained anew"
    ):
        predict(str(schematic), run=str(other), out=str(tmp_path / "x"), device="cpu")


def test_named_pairs_alone_are_in_the_table_whatever_their_probability(run, schematic, tmp_path):
    pairs, table = tmp_path / "pairs.csv", tmp_path / "out.csv"
    pairs.write_text("first,second\nin,middle\nX1.M1:g,out\n")
    predict(
        str(schematic), run=str(run), out=str(tmp_path / "o"), csv=str(table), pairs=str(pairs), device="cpu"
    )
    rows = [row for row in lines_of(table) if row["kind"] != "ground"]
    assert [{row["first"].lower(), row["second"].lower()} for row in rows] == [
        {"in", "middle"},
        {"x1.m1:g", "out"},
    ]
    assert [row["kind"] for row in rows] == ["net-net", "pin-net"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "has the columns a, b; expected first and second"),
        ("first,second\nin,nowhere\n", "line 2: buffer.spice has no net or pin 'nowhere'"),
        ("first,second\nin,X1.M1\n", "line 2: buffer.spice has no net or pin 'x1.m1'"),
    ],
)
def test_pairs_that_are_none_are_refused(run, schematic, tmp_path, text, message):
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(text)
    with pytest.raises(UserError, match=re.escape(message)):
        predict(str(schematic), run=str(run), out=str(tmp_path / "o"), pairs=str(pairs), device="cpu")


def test_all_pairs_of_pins_and_nets_are_asked_for(schematic):
    circuits = read_source(schematic, Netlist(), None).circuits
    found = candidate_pairs(circuits, [0, 1, 2])
    assert np.bincount(kind_of(circuits, found)).tolist() == pairs_of_kinds(circuits, np.array([0])).tolist()
    assert len({frozenset(pair) for pair in found.tolist()}) == len(found)
    assert not np.any(circuits.kind[found] == Kind.DEVICE)
    assert not np.any(circuits.kind[found[:, 0]] < circuits.kind[found[:, 1]])  # pins before nets
    only = candidate_pairs(circuits, [KINDS.index("net-net")])
    assert np.all(circuits.kind[only] == Kind.NET)


def test_in_a_big_netlist_pairs_a_few_hops_apart_are_asked_for(schematic):
    circuits = read_source(schematic, Netlist(), None).circuits
    everything = candidate_pairs(circuits, [0, 1, 2])
    near = hops(surroundings_of(circuits), everything[:, 0], everything[:, 1]) <= HOPS
    found = candidate_pairs(circuits, [0, 1, 2], most=0)
    assert {tuple(pair) for pair in found.tolist()} == {tuple(pair) for pair in everything[near].tolist()}
    assert 0 < near.sum() < len(near)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ".subckt a vdd vss\nM1 vdd vss vss vss n L=1u W=1u\n.ends\n",
            "has no nets but supplies and substrate",
        ),
        (".subckt a in\nR1 in 0 1k\n.ends\n", "has no devices, so there is nothing to predict"),
        (".subckt a in\nM1 in in in n\n.ends\n", "cannot be read: "),
    ],
)
def test_netlists_of_which_nothing_can_be_predicted_say_why(run, tmp_path, text, message):
    path = tmp_path / "bad.spice"
    path.write_text(text)
    with pytest.raises(DataError, match=f"bad.spice {message}"):
        predict(str(path), run=str(run), out=str(tmp_path / "o"), device="cpu")


def test_what_is_not_there_is_refused(run, schematic, tmp_path):
    with pytest.raises(UserError, match="there is no netlist at"):
        predict(str(tmp_path / "none.spice"), run=str(run), out=str(tmp_path / "o"))
    with pytest.raises(UserError, match="is not a run folder"):
        predict(str(schematic), run=str(tmp_path), out=str(tmp_path / "o"))
    with pytest.raises(ConfigError, match="probability lies between 0 and 1; got 1"):
        predict(str(schematic), run=str(run), out=str(tmp_path / "o"), probability=1.0)


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
def test_ngspice_takes_what_is_predicted_of_a_schematic(run, schematic, tmp_path):
    out = tmp_path / "out.spice"
    predict(str(schematic), run=str(run), out=str(out), probability=0.02, device="cpu")
    printed = run_ngspice(tmp_path / "deck.cir", deck(out.read_text()))
    assert len(re.findall(r"(?m)^\d+\s+\d", printed)) > 100


@pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")
def test_ngspice_takes_what_is_predicted_of_a_layout(run, tmp_path):
    """The sizes are the file's micrometres, and stand-ins replace the foundry's subcircuits."""
    out = tmp_path / "out.spice"
    predict(str(LAYOUT), run=str(run), out=str(out), device="cpu")
    models = sorted(set(re.findall(r"sky130_fd_pr__(\w+)", out.read_text())))
    stand_ins = "".join(
        f".subckt sky130_fd_pr__{name} d g s b l=0.15 w=1 ad=0 as=0 pd=0 ps=0\n"
        f"M1 d g s b {name[0]}model l='l*1u' w='w*1u'\n.ends\n"
        for name in models
    )
    ports = re.search(r"(?m)^\.subckt sky130_fd_sc_hd__fa_1 (.*)$", out.read_text())[1].split()
    fixed = {"VGND": "0", "sky130_gnd": "0", "VPWR": "vdd", "VPB": "vdd", "A": "vdd", "B": "0", "CIN": "0"}
    whole = (
        f"* test\n{MODELS}{stand_ins}{out.read_text()}Vdd vdd 0 1.8\n"
        f"Xdut {' '.join(fixed.get(port, port) for port in ports)} sky130_fd_sc_hd__fa_1\n"
        ".op\n.print op v(SUM) v(COUT)\n.end\n"
    )
    printed = run_ngspice(tmp_path / "deck.cir", whole)
    total, carry = re.search(r"(?m)^0\s+(\S+)\s+(\S+)", printed).groups()
    assert (float(total), float(carry)) == pytest.approx((1.8, 0.0), abs=0.05)  # a full adder: 1 + 0 + 0
