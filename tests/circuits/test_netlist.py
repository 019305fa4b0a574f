"""Statements, numbers, hierarchy: what is read of a schematic, and what is said of one that is broken."""

from pathlib import Path

import numpy as np
import pytest
from netlists import HIERARCHY

from diptych.data.readable import Unreadable
from diptych.errors import ConfigError
from diptych_circuits.netlist.definition import NUMBERS
from diptych_circuits.netlist.flatten import Flat, Hierarchy
from diptych_circuits.netlist.lines import LONGEST, logical_lines
from diptych_circuits.netlist.naming import Naming
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.state import Reading
from diptych_circuits.netlist.tops import top_of, tops_of
from diptych_circuits.netlist.types import Types
from diptych_circuits.netlist.values import Scope, number
from diptych_circuits.schema import DeviceType


def flat_of(
    path: Path, *, top: str | None = None, reading: Reading | None = None, unknown: str = "reject"
) -> Flat:
    library = parse(path, reading or Reading(), Types())
    return Hierarchy(library, Naming(), unknown).flatten(top_of(library, top))


def write(tmp_path: Path, text: str, name: str = "a.spice") -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4.7k", 4700.0), ("10MEG", 1e7), ("0.15u", 0.15e-6), ("1e-15", 1e-15), ("2pF", 2e-12), ("1F", 1e-15),
        ("3mil", 3 * 25.4e-6), ("5x", 5e6), ("-2.5m", -2.5e-3), ("1e-3k", 1.0), (".5", 0.5), ("10kohm", 1e4),
        ("1T", 1e12), ("7a", 7e-18), ("2G", 2e9), ("abc", None), ("1.2.3", None), ("nan", None), ("", None),
    ],
)  # fmt: skip
def test_engineering_suffixes(text: str, value: float | None) -> None:
    assert number(text) == (None if value is None else pytest.approx(value, rel=1e-15))


def test_expressions_see_the_scopes_around_them() -> None:
    outer = Scope({"l": "100n", "n": "2"})
    inner = Scope({"w": "'l*n + 1u'", "l": "0.2u", "c": "c+1"}, outer)
    assert inner.of("w") == pytest.approx(0.2e-6 * 2 + 1e-6)
    assert inner.value("{max(w, l)**2 > 0}") == 1.0
    assert inner.value("-sqrt(4)+2^3") == 6.0
    with pytest.raises(Unreadable, match="unknown parameter: 'q' has no value"):
        inner.value("q*2")
    with pytest.raises(Unreadable, match="circular parameter: 'c' depends on itself"):
        inner.of("c")
    with pytest.raises(Unreadable, match="no number or expression that can be read"):
        inner.value("__import__('os').getcwd()")


def test_lines_are_joined_and_comments_cut(tmp_path: Path) -> None:
    text = "* c\nm1 a b $ comment\n+ c d\n*between\n+e ; more\n\n  r1 a b 1k\t$x=1\nrr2 a b 1 $[poly] $SUB=s $w=2\r\n"
    lines = list(logical_lines(write(tmp_path, text)))
    assert [(number, line.split()) for number, line in lines] == [
        (2, ["m1", "a", "b", "c", "d", "e"]),
        (7, ["r1", "a", "b", "1k"]),
        (8, ["rr2", "a", "b", "1", "$[poly]", "$SUB=s"]),
    ]


def test_lines_do_not_depend_on_where_blocks_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, HIERARCHY + "\n".join(f"r{i} a b {i}" for i in range(40)))
    whole = list(logical_lines(path))
    for size in (1, 7, 64):
        monkeypatch.setattr("diptych_circuits.netlist.lines._BLOCK", size)
        assert list(logical_lines(path)) == whole


def test_hierarchy_is_expanded_with_parameters_and_multipliers(tmp_path: Path) -> None:
    flat = flat_of(write(tmp_path, HIERARCHY))
    size = {
        name: tuple(np.round(flat.numbers[i, [NUMBERS.index(n) for n in ("W", "L", "multiplier")]], 12))
        for i, name in enumerate(flat.devices)
    }
    nan = float("nan")
    assert size.pop("rload") == pytest.approx((nan, nan, nan), nan_ok=True)
    assert size == {
        "x1.Xone.mn": (0.5e-6, 1e-7, 2), "x1.Xone.mp": (1e-6, 1e-7, 2),
        "x1.X2.mn": (2e-6, 1e-7, 6), "x1.X2.mp": (4e-6, 1e-7, 6),
        "x2.Xone.mn": (0.5e-6, 1e-7, 1), "x2.Xone.mp": (1e-6, 1e-7, 1),
        "x2.X2.mn": (2e-6, 1e-7, 3), "x2.X2.mp": (4e-6, 1e-7, 3),
    }  # fmt: skip
    nets = {
        name: [flat.nets[net] for net in flat.terminals[flat.ends[i] : flat.ends[i + 1]]]
        for i, name in enumerate(flat.devices)
    }
    assert nets["x1.Xone.mn"] == ["x1.mid", "p", "0", "0"]
    assert nets["x2.X2.mp"] == ["r", "x2.mid", "vdd", "vdd"]
    assert sorted(flat.nets) == ["0", "p", "q", "r", "vdd", "x1.mid", "x2.mid"]
    assert len(set(flat.nets)) == len(flat.nets)


def test_expansion_equals_that_of_plain_loops(tmp_path: Path) -> None:
    """A random hierarchy against a recursion that copies one device at a time."""
    generator = np.random.default_rng(0)
    text, cells = [], {}
    for level in range(4):
        for cell in range(3):
            nets = ["a", "b", "c", "n1", "n2", "0"]
            body = [
                ("m", f"m{i}", generator.choice(nets, 4).tolist()) for i in range(generator.integers(1, 4))
            ]
            if level:
                for i in range(generator.integers(1, 4)):
                    child = f"c{level - 1}_{generator.integers(3)}"
                    body.append((child, f"x{i}", generator.choice(nets, 3).tolist()))
            name = f"c{level}_{cell}"
            cells[name] = body
            text.append(f".subckt {name} a b c")
            text += [f"{n} {' '.join(p)} {'nch' if k == 'm' else k}" for k, n, p in body]
            text.append(".ends")

    def expand(cell: str, prefix: str, ports: dict[str, str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for kind, name, nets in cells[cell]:
            outer = [net if net == "0" else ports.get(net, prefix + net) for net in nets]
            if kind == "m":
                found[prefix + name] = outer
            else:
                found |= expand(kind, f"{prefix}{name}.", dict(zip("abc", outer, strict=True)))
        return found

    flat = flat_of(write(tmp_path, "\n".join(text)), top="c3_1")
    got = {
        name: [flat.nets[net] for net in flat.terminals[flat.ends[i] : flat.ends[i + 1]]]
        for i, name in enumerate(flat.devices)
    }
    assert got == expand("c3_1", "", {name: name for name in "abc"})


def test_cdl(tmp_path: Path) -> None:
    text = """*.BIPOLAR
.SUBCKT pair A B VDD
*.PININFO A:I B:O
MM0 B A VSS VSS nch_mac l=60n w=200n nf=2
RR1 A B 100 $[rpoly] $SUB=VDD $W=1u
CC1 A B 1p $[mimcap]
XI0 A B / cell
.ENDS
.SUBCKT cell x y
QQ1 x y x npn 2
DD1 x y ndio 1.5
LL1 x y 1n
.ENDS
"""
    path = write(tmp_path, text, "a.cdl")
    assert tops_of(path) == ["pair"]
    library = parse(path, Reading(), Types())
    flat = Hierarchy(library, Naming()).flatten(top_of(library, None))
    assert flat.devices == ["MM0", "RR1", "CC1", "XI0.QQ1", "XI0.DD1"]
    assert np.diff(flat.ends).tolist() == [4, 3, 2, 3, 2]
    assert library.ignored == {"l": 1}
    assert flat.numbers[0, NUMBERS.index("fingers")] == 2


def test_includes_libraries_and_sections(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    write(
        tmp_path,
        ".lib fast\n.param w0=3u\n.endl\n.lib slow\n.param w0=1u\n.inc 'inner.inc'\n.endl slow\n",
        "models/m.lib",
    )
    write(tmp_path, ".model special PMOS (level=54)\n", "models/inner.inc")
    flat_path = write(
        tmp_path, ".lib 'models/m.lib' SLOW\n.subckt t a b\nm1 a b a b special w=w0 l=1u\n.ends\n"
    )
    library = parse(flat_path, Reading(), Types())
    flat = Hierarchy(library, Naming()).flatten(top_of(library, None))
    assert flat.numbers[0, 0] == pytest.approx(1e-6)
    assert Types().of("m", "special", library.model_types) == DeviceType.PMOS


@pytest.mark.parametrize(
    ("letter", "model", "kind"),
    [
        ("m", "nshort", DeviceType.NMOS), ("m", "phighvt", DeviceType.PMOS),
        ("m", "sky130_fd_pr__pfet_01v8", DeviceType.PMOS),
        ("m", "lvt_nch", DeviceType.NMOS), ("m", "thing", DeviceType.OTHER), ("d", "nwdiode", DeviceType.DIODE),
        ("r", "short", DeviceType.RESISTOR), ("x", "foo", DeviceType.OTHER),
    ],
)  # fmt: skip
def test_device_types(letter: str, model: str, kind: DeviceType) -> None:
    assert Types().of(letter, model, {}) == kind


def test_own_rules_come_first_and_are_checked() -> None:
    assert Types(rules={"pmos": "^thing"}).of("m", "thing", {}) == DeviceType.PMOS
    with pytest.raises(Unreadable, match="unknown model: 'thing' is no n or p transistor"):
        Types(unknown="reject").of("m", "thing", {})
    with pytest.raises(ConfigError, match="there is no type 'jfet'; known: nmos, pmos"):
        Types(rules={"jfet": "x"})
    with pytest.raises(ConfigError, match="the rule of nmos is no regular expression"):
        Types(rules={"nmos": "("})
    with pytest.raises(
        ConfigError, match=r"netlist\.pins needs the named groups device, net, terminal; it lacks net"
    ):
        Naming(pins="(?P<device>a)(?P<terminal>b)")


BROKEN = {
    "include": ('.include "gone.spice"\n', "missing include: 'gone.spice' in line 1"),
    "unknown subcircuit": (".subckt a x\nx1 x nothing\n.ends\n", "unknown subcircuit: 'nothing' in line 2"),
    "recursive": (".subckt t x\nx1 x a\n.ends\n.subckt a x\nx1 x b\n.ends\n.subckt b x\nx1 x a\n.ends\n",
                  "recursive subcircuits: t -> a -> b -> a"),
    "all recursive": (".subckt a x\nx1 x a\n.ends\n", "recursive subcircuits: every one is used by another"),
    "no ends": (".subckt a x\nm1 x x x x nch\n", "unbalanced .ends: the subcircuit 'a' has no .ends"),
    "spare ends": (".subckt a x\n.ends\n.ends\n", "unbalanced .ends: .ends in line 3 closes no .subckt"),
    "nested": (".subckt a x\n.subckt b y\n.ends\n.ends\n", "'b' in line 2 begins before the .ends of 'a'"),
    "other name": (".subckt a x\n.ends b\n", "line 2 closes 'b', but 'a' is open"),
    "MOS nodes": (".subckt a x\nm1 x x x nch w=1\n.ends\n",
                  "wrong node count: 'm1' in line 2 is a MOS transistor, which takes 4 nodes and a model; it has 4"),
    "MOS of a PDK": (".subckt a x\nx1 x x x sky130_fd_pr__nfet_01v8 w=1\n.ends\n",
                     "wrong node count: 'x1' in line 2 is a MOS transistor, which takes 4 nodes; it has 3"),
    "instance nodes": (".subckt a x\nx1 x x b\n.ends\n.subckt b y\n.ends\n",
                       "wrong node count: 'x1' in line 2 gives 2 nodes, the subcircuit 'b' has 1"),
    "resistor nodes": (".subckt a x\nr1 x\n.ends\n", "wrong node count: 'r1' in line 2 takes 2 nodes"),
    "no value": (".subckt a x\nr1 x 5\n.ends\n", "'r1' in line 2 has neither a value nor a model"),
    "duplicate": (".subckt a x\nm1 x x x x nch\nM1 x x x x nch\n.ends\n",
                  "duplicate instance name: 'm1' in line 3 was used in line 2"),
    "duplicate subcircuit": (".subckt a x\n.ends\n.subckt A x\n.ends\n",
                             "duplicate subcircuit: 'A' is defined again in line 3"),
    "negative": (".subckt a x y\nm1 x x x x nch\nc1 x y -1f\n.ends\n", r"capacitance not above 0: -1e-15 F in line 3"),
    "zero": (".subckt a x y\nc1 x y 0\n.ends\n", r"capacitance not above 0: 0 F in line 2"),
    "ascii": (".subckt a x\nm1 x xä x x nch\n.ends\n", "non-ASCII: line 2"),
    "plus": ("+ a b\n", "continuation of nothing: line 1"),
    "nothing": ("* only a comment\n", "no circuit: it defines no subcircuit"),
    "several": (".subckt a x\n.ends\n.subckt b x\n.ends\n", "several circuits: 2 subcircuits are used by no other"),
    "nameless": (".subckt\n", "nameless subcircuit: .subckt in line 1"),
    "garbage": (".subckt a x\n?? x y\n.ends\n", "malformed element: line 2 begins with '?'"),
    "parameter": (".subckt a x\nm1 x x x x nch w='2*q'\n.ends\n", "unknown parameter: 'q' has no value"),
    "value": (".subckt a x\nr1 x y r=foo\n.ends\n", "unknown parameter: 'foo' has no value"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_netlists_are_said_with_line_and_reason(tmp_path: Path, case: str) -> None:
    text, message = BROKEN[case]
    with pytest.raises(Unreadable, match=message):
        flat_of(write(tmp_path, text))


def test_faults_of_an_include_name_it_and_cycles_end(tmp_path: Path) -> None:
    write(tmp_path, ".subckt a x\nc1 x 0 -1\n.ends\n", "inner.inc")
    with pytest.raises(Unreadable, match=r"-1 F in line 2 .*\(in the include 'inner.inc'\)"):
        flat_of(write(tmp_path, ".include inner.inc\n"))
    write(tmp_path, ".include a.spice\n", "inner.inc")
    with pytest.raises(Unreadable, match=r"recursive include: 'a\.spice' includes itself"):
        flat_of(write(tmp_path, ".include inner.inc\n"))


def test_what_may_be_overlooked_on_request(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        ".include 'gone'\n.subckt a x y\nm1 x y x y nch\nm1 x y x y nch\nc1 x y 0\nxq x y what z=1\n.ends\n",
    )
    reading = Reading(missing_includes="ignore", bad_capacitance="skip", duplicates="keep")
    flat = flat_of(path, reading=reading, unknown="other")
    assert flat.devices == ["m1", "m1", "xq"]
    assert len(flat.farad) == 0
    devices = flat_of(
        write(tmp_path, ".subckt a x y\nc1 x y 1p\nr1 x y 5\n.ends\n"), reading=Reading(plain="devices")
    )
    assert (devices.devices, len(devices.farad), len(devices.ohm)) == (["c1", "r1"], 0, 0)


def test_non_ascii_comments_are_comments(tmp_path: Path) -> None:
    path = write(tmp_path, "* µm\n.subckt a x\nm1 x x x x nch w=1u $ 1 µm\n.ends ; ende für a\n")
    assert flat_of(path).devices == ["m1"]


def test_a_line_without_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "long.spice"
    with path.open("wb") as file:
        file.write(b".subckt a x\nm1 ")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
    tracemalloc.start()
    with pytest.raises(
        Unreadable, match=f"line too long: the statement in line 2 has more than {LONGEST} characters"
    ):
        flat_of(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    text = ".subckt a x\nm1\n" + "+ x\n" * (LONGEST // 2) + ".ends\n"
    with pytest.raises(Unreadable, match="line too long: the statement in line 2"):
        flat_of(write(tmp_path, text))


def test_tops_of_a_library(tmp_path: Path) -> None:
    library = ".subckt inv a y\n.ends\n.subckt buf a y\nx1 a m inv\n+ \nx2 m y inv\n.ends\n.subckt nand a b y\n.ends\n"
    assert tops_of(write(tmp_path, library)) == ["buf", "nand"]
    assert tops_of(write(tmp_path, library + "x9 a y buf\n")) == []
