"""CPU seconds and peak memory of reading netlists, one thread, each size in a process of its own.

    python tests/benchmarks/circuit_loading.py [--sizes 10000 100000 1000000] [--forms flat hierarchy]

The 428 cells of sky130_fd_sc_hd where DIPTYCH_DATA is set: everything from finding files to the joined graph. Then
generated (synthetic) netlists of growing numbers of transistors, flat and as a hierarchy of gates in rows and blocks:
reading, expanding and the graph with its nodes, edges and features. Ratios are those to a tenth of the size: 10 is
linear.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from diptych.data.identity import Split
from diptych_circuits.graph import build_graph
from diptych_circuits.netlist.flatten import Hierarchy
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.tops import top_of
from diptych_circuits.settings import Netlist, Source
from diptych_circuits.source import prepare

GATE = """.subckt gate a b y
m1 y a n 0 nch w=0.65 l=0.15 ad=0.1 as=0.2 pd=1 ps=2
m2 n b 0 0 nch w=0.65 l=0.15 ad=0.1 as=0.2 pd=1 ps=2
m3 y a vdd vdd pch w=1 l=0.15 ad=0.1 as=0.2 pd=1 ps=2
m4 y b vdd vdd pch w=1 l=0.15 ad=0.1 as=0.2 pd=1 ps=2
.ends
"""
ROW, BLOCK = 25, 10  # gates in a row, rows in a block


def flat_lines(devices: int) -> Iterator[str]:
    """Gates of four transistors in a chain, every transistor a line, with a coupling for each gate."""
    yield ".global vdd\n.subckt top in\n"
    for i in range(devices // 4):
        a, b, y = f"net{i}", f"net{max(0, i - 7)}", f"net{i + 1}"
        for k, (d, g, s, bulk, model) in enumerate(
            (
                (y, a, f"s{i}", "0", "nch"),
                (f"s{i}", b, "0", "0", "nch"),
                (y, a, "vdd", "vdd", "pch"),
                (y, b, "vdd", "vdd", "pch"),
            )
        ):
            yield f"m{i}_{k} {d} {g} {s} {bulk} {model} w=0.{i % 90 + 10} l=0.15 ad=0.1 as=0.2 pd=1 ps=2\n"
        yield f"c{i} {a} {y} 0.{i % 90 + 10}f\n"
    yield ".ends\n"


def hierarchy_lines(devices: int) -> Iterator[str]:
    """The same gates as subcircuits: rows of gates, blocks of rows, a top of blocks."""
    yield ".global vdd\n" + GATE
    for name, inner, count in (
        ("row", "gate", ROW),
        ("block", "row", BLOCK),
        ("top", "block", devices // (4 * ROW * BLOCK)),
    ):
        yield f".subckt {name} a b y\n"
        for i in range(count):
            yield f"x{i} {'a' if not i else f'n{i}'} b {'y' if i == count - 1 else f'n{i + 1}'} {inner}\n"
        yield ".ends\n"


FORMS = {"flat": flat_lines, "hierarchy": hierarchy_lines}


def generated(form: str, devices: int, folder: Path) -> dict[str, float]:
    """Write a netlist, read it, and say what that took."""
    path = folder / "top.spice"
    with path.open("w") as file:
        file.writelines(FORMS[form](devices))
    settings = Netlist()
    Path("/proc/self/clear_refs").write_text("5")
    before, start = _resident("VmRSS"), time.process_time()
    library = parse(path, settings.reading, settings.device_types)
    read = time.process_time()
    flat = Hierarchy(library, settings.naming).flatten(top_of(library, None))
    expanded = time.process_time()
    graph = build_graph(flat, list(library.models), library.model_types, settings.device_types, settings.nets)
    end = time.process_time()
    assert graph.totals["mos"] == devices, graph.totals
    return {
        "parse": read - start, "expand": expanded - read, "graph": end - expanded, "seconds": end - start,
        "peak": _resident("VmHWM") - before, "megabytes": path.stat().st_size / 1e6,
    }  # fmt: skip


def real(folder: Path) -> dict[str, float]:
    """The cells of sky130 from files to the joined graph, and again from the cache."""
    source = Source(path="$DIPTYCH_DATA/circuits/sky130_fd_sc_hd")
    times = []
    for _ in range(2):
        start = time.process_time()
        made = prepare(source, Netlist(), {}, Split(), cache=folder, workers=1)
        times.append(time.process_time() - start)
    return {"seconds": times[0], "again": times[1], "netlists": float(len(made.circuits.netlists))}


def _resident(which: str) -> int:
    """Bytes, from the kernel's record of this process."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(which))
    return int(line.split()[1]) * 1024


def _alone(*options: str) -> dict[str, float]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *options]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table; with --only what one process measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="transistors"
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS), help="flat, hierarchy")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        if given.only == "real":
            print(json.dumps(real(Path(place))))
            return
        if given.only:
            print(json.dumps(generated(given.only, given.sizes[0], Path(place))))
            return
    if os.environ.get("DIPTYCH_DATA"):
        found = _alone("--only", "real")
        print(
            f"{found['netlists']:.0f} cells of sky130_fd_sc_hd: {found['seconds']:.2f} CPU s (target: at most 6), "
            f"{found['again']:.2f} from the cache"
        )
    columns = ("file MB", "CPU s", "parse", "expand", "graph", "ratio", "peak MB", "ratio")
    print(f"{'synthetic netlist':22} " + " ".join(f"{name:>8}" for name in columns))
    for form in given.forms:
        last: dict[str, float] | None = None
        for size in given.sizes:
            found = _alone("--only", form, "--sizes", str(size))
            ratios = [
                "" if last is None else f"{found[name] / last[name]:.1f}" for name in ("seconds", "peak")
            ]
            cells = [f"{found['megabytes']:.1f}"]
            cells += [f"{found[name]:.2f}" for name in ("seconds", "parse", "expand", "graph")]
            cells += [ratios[0], f"{found['peak'] / 1e6:.0f}", ratios[1]]
            print(f"{form + f' {size:,}':22} " + " ".join(f"{cell:>8}" for cell in cells), flush=True)
            last = found


if __name__ == "__main__":
    main()
