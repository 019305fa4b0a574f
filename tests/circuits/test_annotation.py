"""Netlists with predicted capacitors: everything else stays, sums are kept, and ngspice takes them."""

import re
import shutil
import subprocess

import pytest

from diptych_circuits.annotation import Capacitor, element_lines, flat_netlist, with_elements
from diptych_circuits.netlist.flatten import Hierarchy
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.tops import top_of
from diptych_circuits.settings import Netlist

BUFFER = """* a buffer
.subckt inverter a y vdd vss
M1 y a vss vss nmodel L=0.15u W=0.65u
M2 y a vdd vdd pmodel L=0.15u W=1u
.ends
.subckt buffer in out vdd vss
X1 in middle vdd vss inverter
X2 middle out vdd vss inverter
.ends buffer
"""
MODELS = ".model nmodel nmos level=1\n.model pmodel pmos level=1\n"
SOURCES = "Vdd vdd 0 1.8\nVin in 0 pulse(0 1.8 1n 0.1n 0.1n 5n 10n)\n"


def elements(*triples):
    return element_lines([Capacitor(*each) for each in triples])


def flattened(path, text):
    path.write_text(text)
    settings = Netlist()
    library = parse(path, settings.reading, settings.device_types)
    flat = Hierarchy(library, settings.naming).flatten(top_of(library, None))
    return flat, list(library.models)


def test_capacitors_between_the_same_nets_are_one_element_with_their_sum():
    lines = elements(("a", "b", 1e-16), ("b", "a", 2e-16), ("c", "0", 5e-17))
    assert [line.split()[1:] for line in lines] == [["0", "c", "5e-17"], ["a", "b", "3e-16"]]
    assert len({line.split()[0] for line in lines}) == 2


def test_a_net_has_no_capacitor_to_itself():
    assert elements(("a", "A", 1e-16)) == []


def test_text_stays_as_it_was_but_for_elements_before_the_end_of_its_subcircuit():
    added = elements(("in", "out", 1e-16))
    found = with_elements(BUFFER, "buffer", added)
    before, after = found.split(added[0] + "\n")
    assert after == ".ends buffer\n"
    assert "".join(
        line for line in before.splitlines(keepends=True) if "predictions of a model" not in line
    ) == (BUFFER.removesuffix(".ends buffer\n"))


def test_without_subcircuit_elements_stand_before_the_end():
    found = with_elements("* t\nM1 a b c d n\n.end\n", "", ["C1 a b 1f"])
    assert found.splitlines()[-2:] == ["C1 a b 1f", ".end"]
    assert with_elements("* t\nM1 a b c d n\n", "", ["C1 a b 1f"]).splitlines()[-1] == "C1 a b 1f"


def test_a_subcircuit_within_another_ends_where_it_ends():
    nested = ".subckt outer a\n.subckt inner b\n.ends\nM1 a a a a n\n.ends\n"
    assert with_elements(nested, "inner", ["C1 b 0 1f"]).splitlines()[-4] == "C1 b 0 1f"
    assert with_elements(nested, "outer", ["C1 a 0 1f"]).splitlines()[-2] == "C1 a 0 1f"


def test_text_that_does_not_define_the_subcircuit_has_no_place_for_elements():
    assert with_elements('.include "other.spice"\n', "buffer", ["C1 a b 1f"]) is None


def test_a_flat_netlist_has_all_devices_with_nets_models_and_sizes(tmp_path):
    flat, models = flattened(tmp_path / "buffer.spice", BUFFER)
    lines = flat_netlist(flat, models, "buffer", []).splitlines()
    assert ".subckt buffer in out vdd vss" in lines
    assert "MX2.M1 out middle vss vss nmodel w=6.5e-07 l=1.5e-07" in lines
    assert sum(line.startswith("M") for line in lines) == 4


def test_a_flat_netlist_reads_back_as_the_same_circuit(tmp_path):
    flat, models = flattened(tmp_path / "buffer.spice", BUFFER)
    again, _ = flattened(tmp_path / "again.spice", flat_netlist(flat, models, "buffer", []))
    assert [again.nets[net] for net in again.terminals] == [flat.nets[net] for net in flat.terminals]
    assert again.numbers == pytest.approx(flat.numbers, nan_ok=True)


needs_ngspice = pytest.mark.skipif(shutil.which("ngspice") is None, reason="ngspice is not installed")


def run_ngspice(path, text):
    """What ngspice prints, where it takes the netlist."""
    path.write_text(text)
    done = subprocess.run(
        ["ngspice", "-b", str(path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert not re.search(r"(?im)^\s*(fatal )?error", done.stderr + done.stdout), done.stderr
    return done.stdout


def deck(netlist):
    control = ".tran 10p 20n\n.print tran v(out)\n"
    return f"* test\n{MODELS}{SOURCES}{netlist}Xdut in out vdd 0 buffer\n{control}.end\n"


def crossing(printed):
    """When the output first passes half of the supply on its way up, in seconds."""
    rows = [line.split() for line in printed.splitlines() if re.match(r"\d+\s+\d", line)]
    return next(float(row[1]) for row in rows if float(row[2]) > 0.9)


@needs_ngspice
@pytest.mark.parametrize("flat", [False, True])
def test_ngspice_takes_the_netlist_and_its_capacitors_slow_the_circuit(tmp_path, flat):
    circuit, models = flattened(tmp_path / "buffer.spice", BUFFER)
    load = elements(("middle", "0", 2e-14), ("out", "0", 2e-14))
    made = {
        name: flat_netlist(circuit, models, "buffer", each) if flat else with_elements(BUFFER, "buffer", each)
        for name, each in {"bare": [], "loaded": load}.items()
    }
    times = {name: crossing(run_ngspice(tmp_path / f"{name}.cir", deck(text))) for name, text in made.items()}
    assert times["loaded"] > times["bare"] + 5e-11


@needs_ngspice
def test_nets_inside_of_instances_are_those_that_ngspice_expands(tmp_path):
    """A huge capacitor at a net two levels down holds the output low."""
    deeper = BUFFER.replace("X1 in middle vdd vss inverter\n", "X1 in middle vdd vss twice\n").replace(
        ".subckt buffer",
        ".subckt twice a y vdd vss\nX1 a b vdd vss inverter\nX2 b c vdd vss inverter\nX3 c y vdd vss inverter\n"
        ".ends\n.subckt buffer",
    )
    circuit, _ = flattened(tmp_path / "deeper.spice", deeper)
    assert "X1.b" in circuit.nets
    free = run_ngspice(tmp_path / "free.cir", deck(with_elements(deeper, "buffer", [])))
    crossing(free)
    held = run_ngspice(
        tmp_path / "held.cir", deck(with_elements(deeper, "buffer", elements(("X1.b", "0", 1e-6))))
    )
    with pytest.raises(StopIteration):
        crossing(held)
