"""KMPNN with Set2Set against its literal implementation: CPU seconds of forward and backward, one thread.

    python tests/benchmarks/kmpnn.py [--rounds 3] [--steps 3]

Molecules are those of RDKit's own file of NCI's first 5,000 that have 20 to 30 atoms, as ZINC's have, in its order.
"literal" makes a matrix for every edge of the explicit graph in every step, 16 molecules at a time; "released" does so
with the networks of both types of edges for every edge, as the released code. Every measurement runs in a process of
its own, the contenders in turn within a round. Printed are medians over all steps but each process's first two, with
their range, and CPU milliseconds a molecule; the peak is the highest resident memory during the steps minus that before
the first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from measuring import in_turn, measure, report

CONTENDERS = {
    "literal": "literal, 16 molecules",
    "released": "literal, both networks for every edge",
    "fast-16": "KMPNN, 16 molecules",
    "fast-64": "KMPNN, 64 molecules",
    "fast-256": "KMPNN, 256 molecules",
}
MOLECULES = {"literal": 16, "released": 16, "fast-16": 16, "fast-64": 64, "fast-256": 256}
TARGETS = {"fast-16": ">= 100x the released form", "fast-256": "<= 3 ms a molecule"}
WARM_UP = 2


def step_of(contender: str) -> Callable[[], None]:
    """Forward and backward of a sum over the rows of molecules."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "molecules"))
    from graphs_of import graph_of, nci_smiles
    from references_kmpnn import LiteralKMPNN, augmented_graphs

    from diptych_molecules.kmpnn import KMPNN

    torch.manual_seed(0)
    batch = graph_of(nci_smiles(MOLECULES[contender], least=20, most=30))
    encoder = KMPNN()
    literal, graphs = LiteralKMPNN(encoder, both=contender == "released"), []
    if contender in ("literal", "released"):
        graphs = augmented_graphs(batch)

    def step() -> None:
        encoder.zero_grad()
        whole = literal(graphs)[0] if graphs else encoder(batch).whole
        whole.square().sum().backward()

    return step


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        torch.set_num_threads(1)
        measure(step_of(options.only), warm_up=WARM_UP, steps=options.steps)
        return
    found = in_turn(__file__, list(CONTENDERS), options.rounds, ["--steps", str(options.steps)])
    report(found, CONTENDERS, TARGETS)
    for name, runs in found.items():
        each = [1e3 * seconds / MOLECULES[name] for run in runs for seconds in run["seconds"]]
        print(
            f"{CONTENDERS[name]:38} {statistics.median(each):.2f} ms a molecule ({min(each):.2f} to {max(each):.2f})"
        )


if __name__ == "__main__":
    main()
