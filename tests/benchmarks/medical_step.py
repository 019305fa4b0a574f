"""GEMINI's step (align and restore) against its literal implementation: CPU seconds and peak memory at 64 x 64 x 64
voxels, one pair, one thread.

    python tests/benchmarks/medical_step.py [--rounds 3] [--steps 2] [--size 64]

Every measurement runs in a process of its own, the contenders in turn within a round. A step is both phases with
their encodings, losses, backward passes and Adam; images are given, not moved at random. The library's steps draw a
corruption, the literal one is given its image. Printed are medians over all steps but each process's first, with
their range; the peak is the highest resident memory during the steps minus that before the first.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import in_turn, measure, report

HERE = Path(__file__).resolve().parent
CONTENDERS = {
    "literal": "one by one, all kept",
    "official": "GEMINI, as released",
    "checkpointed": "GEMINI, as released, checkpointing",
    "aligned": "GEMINI, aligned, displacement",
    "integrated": "GEMINI, aligned, 7 squarings",
}
RELEASED = {"convention": "official", "integrate": 0, "smooth": 0.4}
WARM_UP = 1
TARGETS = {"official": ">= 2x, peak <= 0.70", "checkpointed": "peak <= 0.50"}


def literal_step(size: int) -> Callable[[], None]:
    """One step of the literal implementation."""
    sys.path.insert(0, str(HERE))
    from medical_step_literal import LiteralGemini, LiteralStep

    torch.manual_seed(0)
    a, b = images(size)
    return partial(LiteralStep(LiteralGemini(1, 3)), a, b, a.roll(1, 2))


def library_step(size: int, *, checkpointing: bool = False, **settings: Any) -> Callable[[], None]:
    """One step of the library: what the Pretrainer does, without its bookkeeping."""
    from diptych.types import Views
    from diptych_medical.gemini import GEMINI
    from diptych_medical.unet import UNet

    torch.manual_seed(0)
    encoder = UNet(1, 3, checkpointing=checkpointing)
    build = GEMINI(spatial=None, checkpointing=checkpointing, **settings)
    method = build(encoder, partial(torch.optim.Adam, lr=1e-4), None)
    optimizers = [phase.optimizer(list(phase.parameters())) for phase in method.phases]
    batch = Views((torch.cat(images(size)),), {})

    def step() -> None:
        for phase, optimizer in zip(method.phases, optimizers, strict=True):
            (each,) = phase.passes
            online: Any = each.online(batch)
            losses = [term.weight * term.objective(online, (), batch) for term in each.terms]
            del online
            torch.stack(losses).sum().backward()
            optimizer.step()
            for parameter in method.parameters():
                parameter.grad = None

    return step


def images(size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random images (1, 1, size, size, size) in 0..1."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 1, 1, size, size, size, generator=generator).unbind()
    return a, b


STEPS: dict[str, Callable[[int], Callable[[], None]]] = {
    "literal": literal_step,
    "official": partial(library_step, **RELEASED),
    "checkpointed": partial(library_step, **RELEASED, checkpointing=True),
    "aligned": partial(library_step, integrate=0),
    "integrated": partial(library_step, integrate=7),
}


def measured(contender: str, size: int, steps: int) -> None:
    """Print CPU seconds of every step and the peak of resident memory as JSON."""
    torch.set_num_threads(1)
    step = STEPS[contender](size)
    measure(step, warm_up=WARM_UP, steps=steps)


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measured(options.only, options.size, options.steps)
        return
    found = in_turn(
        __file__,
        list(CONTENDERS),
        options.rounds,
        ["--size", str(options.size), "--steps", str(options.steps)],
    )
    report(found, CONTENDERS, TARGETS)


if __name__ == "__main__":
    main()
