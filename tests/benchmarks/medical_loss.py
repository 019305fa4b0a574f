"""GEMINI's loss head of a pair of volumes against its literal implementation: CPU seconds and peak memory of one
forward and backward pass at 64^3 with 32 channels, one thread.

    python tests/benchmarks/medical_loss.py [--rounds 3] [--steps 3] [--size 64] [--channels 32]

Every measurement runs in a process of its own, the contenders in turn within a round. Printed are medians over all
steps but each process's first two, with their range; the peak is the highest resident memory during the steps minus
that before the first, so it holds the gradients but not the images, features and flows. Then: how far totals and
gradients lie from the literal ones, relative to their largest value; with the literal correlation in float32, whose
variances lose digits by subtraction, and in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from medical_literal import Pair, literal_head, random_pair
from torch import Tensor

from diptych_medical.correspondence import warped_similarity
from diptych_medical.similarity import local_ncc, smoothness
from diptych_medical.warp import Convention, inside, warp

CONTENDERS = {
    "literal": "formula by formula",
    "official": "Diptych, official convention",
    "aligned": "Diptych, aligned convention",
}
WARM_UP = 2


class Batched:
    """The same pair as the library meets it: images, features and flows of both stacked."""

    def __init__(self, pair: Pair) -> None:
        self.images = torch.cat([pair.a, pair.b])
        self.features = torch.cat([pair.features_a, pair.features_b]).detach().requires_grad_()
        self.flows = torch.cat([pair.flow_ab, pair.flow_ba]).detach().requires_grad_()


def head(pair: Batched, convention: Convention) -> Tensor:
    """0.4 L_smo + 0.8 L_gss + 1.0 L_gvs of both directions."""
    mask = inside(pair.flows, convention=convention)
    moved = warp(pair.images, pair.flows, convention=convention)
    # One sum of losses per direction: the released code averages over each direction's own mask.
    gvs = torch.stack([local_ncc(pair.images[1 - i, None], moved[i, None], mask[i, None]) for i in range(2)])
    gss = warped_similarity(pair.features, pair.flows, mask, convention=convention)
    return 0.4 * 2 * smoothness(pair.flows) + 0.8 * gss + gvs.sum()


def resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def step(contender: str, size: int, channels: int) -> Callable[[], None]:
    """A forward and backward pass of a contender on one random pair, gradients set anew."""
    pair = random_pair(size, channels)
    leaves, loss = list(pair[2:]), partial(literal_head, pair)
    if contender != "literal":
        batched = Batched(pair)
        leaves = [batched.features, batched.flows]
        loss = partial(head, batched, "official" if contender == "official" else "aligned")

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return run


def measure(contender: str, size: int, channels: int, steps: int) -> None:
    """Print CPU seconds of every step and the peak of resident memory as JSON."""
    torch.set_num_threads(1)
    step(
        contender, 16, channels
    )()  # so that the code of the libraries is in memory before and does not count
    run = step(contender, size, channels)
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = resident("VmRSS"), []
    for _ in range(WARM_UP + steps):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    print(json.dumps({"seconds": seconds[WARM_UP:], "peak": resident("VmHWM") - before}))


def parity(size: int, channels: int, ncc_type: torch.dtype) -> dict[str, float]:
    """The largest deviation from the literal total and gradients, relative to their largest value."""
    pair = random_pair(size, channels)
    batched = Batched(pair)
    expected, found = literal_head(pair, ncc_type), head(batched, "official")
    expected.backward()
    found.backward()
    assert batched.features.grad is not None
    assert batched.flows.grad is not None
    names = ["features a", "features b", "flow ab", "flow ba"]
    gradients = [*batched.features.grad.split(1), *batched.flows.grad.split(1)]
    deviations = {"total": float((found / expected - 1).detach().abs())}
    for name, leaf, gradient in zip(names, pair[2:], gradients, strict=True):
        assert leaf.grad is not None
        deviations[name] = float((gradient - leaf.grad).abs().max() / leaf.grad.abs().max())
    return deviations


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measure(options.only, options.size, options.channels, options.steps)
        return
    found: dict[str, list[dict[str, list[float] | int]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name in CONTENDERS:
            command = [sys.executable, __file__, "--only", name, "--size", str(options.size)]
            command += ["--channels", str(options.channels), "--steps", str(options.steps)]
            environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
            output = subprocess.run(
                command, env=environment, check=True, capture_output=True, text=True
            ).stdout
            found[name].append(json.loads(output))
    report(found)
    print("relative deviation from the literal total and gradients, official convention:")
    for ncc_type in (torch.float32, torch.float64):
        deviations = parity(options.size, options.channels, ncc_type).items()
        print(
            f"  its correlation in {ncc_type}: "
            + ", ".join(f"{name} {each:.1e}" for name, each in deviations)
        )


def report(found: dict[str, list[dict[str, list[float] | int]]]) -> None:
    """Medians with their range, and ratios to the literal implementation."""
    seconds = {name: [each for run in runs for each in run["seconds"]] for name, runs in found.items()}
    peaks = {name: [run["peak"] for run in runs] for name, runs in found.items()}
    base, base_peak = statistics.median(seconds["literal"]), statistics.median(peaks["literal"])
    print(
        f"{'contender':30} {'CPU s a step (range)':26} {'times less':>10} {'peak MB':>8} {'share':>6}  target"
    )
    for name, text in CONTENDERS.items():
        median, peak = statistics.median(seconds[name]), statistics.median(peaks[name])
        spread = f"{median:6.2f} ({min(seconds[name]):.2f} to {max(seconds[name]):.2f})"
        target = "" if name == "literal" else ">= 2x, peak <= 0.60"
        print(
            f"{text:30} {spread:26} {base / median:10.2f} {peak / 1e6:8.0f} {peak / base_peak:6.2f}  {target}"
        )


if __name__ == "__main__":
    main()
