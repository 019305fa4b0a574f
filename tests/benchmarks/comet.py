"""COMET's step against its literal implementation: CPU seconds and peak memory, B=64, T=300, C=15, one
thread.

    python tests/benchmarks/comet.py [--rounds 3] [--steps 3] [--windows 64]

Every measurement runs in a process of its own, the contenders in turn within a round. A step is zeroing of
gradients, all encodings, levels and backward passes, AdamW and the averaging of weights. Printed are medians
over all steps but each process's first two, with their range; the peak is the highest resident memory during
the steps minus that before the first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from measuring import in_turn, measure, report

HERE = Path(__file__).resolve().parent
CONTENDERS = {
    "literal": "8 passes, full matrices",
    "own": "Comet(views=own), exact",
    "shared": "Comet(views=shared)",
    "own-bf16": "Comet(views=own), bfloat16 autocast",
}
WARM_UP = 2
TARGETS = {name: f">= {times}x, peak <= 0.20" for name, times in {"own": 2.2, "shared": 3.5}.items()}


def literal_step(windows: int) -> Callable[[], None]:
    """One step of the literal implementation on random windows of 4 to a trial and 8 to a patient."""
    sys.path.insert(0, str(HERE))
    from comet_literal import LiteralComet, LiteralEncoder

    x, ids = data(windows)
    return partial(LiteralComet(LiteralEncoder(15)).step, x, ids // 8, ids // 4)


def comet_step(windows: int, views: str, autocast: bool = False) -> Callable[[], None]:
    """One step of the library: what the Pretrainer does, without its bookkeeping."""
    from diptych.types import Views
    from diptych_biosignals.comet import Comet
    from diptych_biosignals.encoder import DilatedEncoder

    x, ids = data(windows)
    batch = Views((x,), {"sample": ids, "patient": ids // 8, "trial": ids // 4})
    method = Comet(views=views)(DilatedEncoder(15), partial(torch.optim.AdamW, lr=1e-4), None)
    (phase,) = method.phases
    optimizer = phase.optimizer(list(phase.parameters()))

    def step() -> None:
        optimizer.zero_grad()
        for each in phase.passes:
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                online = each.online(batch)
                loss = torch.stack([t.weight * t.objective(online, (), batch) for t in each.terms]).sum()
            loss.backward()
        optimizer.step()
        for call in phase.after:
            call()

    return step


def data(windows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random windows (n, 300, 15) and their numbers."""
    torch.manual_seed(0)
    return torch.randn(windows, 300, 15), torch.arange(windows)


def measured(contender: str, windows: int, steps: int) -> None:
    """Print CPU seconds of every step and the peak of resident memory as JSON."""
    torch.set_num_threads(1)
    step = {
        "literal": partial(literal_step, windows),
        "own": partial(comet_step, windows, "own"),
        "shared": partial(comet_step, windows, "shared"),
        "own-bf16": partial(comet_step, windows, "own", autocast=True),
    }[contender]()
    measure(step, warm_up=WARM_UP, steps=steps)


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measured(options.only, options.windows, options.steps)
        return
    found = in_turn(
        __file__,
        list(CONTENDERS),
        options.rounds,
        ["--windows", str(options.windows), "--steps", str(options.steps)],
    )
    report(found, CONTENDERS, TARGETS)


if __name__ == "__main__":
    main()
