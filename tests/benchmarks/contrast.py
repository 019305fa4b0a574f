"""Time and peak memory of the tiled contrast against a dense cross-entropy of the same value.

    python tests/benchmarks/contrast.py

One thread; CPU seconds are medians over runs that alternate between the two in one process; memory is the
peak above the inputs, each in a process of its own. Both are forward and backward.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import Tensor
from torch.nn import functional as F

from diptych.losses.contrast import contrast, mean_over_anchors
from diptych.types import Rows


class Case(NamedTuple):
    """One shape: two views of n rows each, with or without leading scopes."""

    shape: tuple[int, ...]
    cosine: bool
    runs: int
    transposed: bool = False  # scopes are the second dimension in memory, as time is in (n, time, width)


CASES = {
    "2 x 256, width 128": Case((512, 128), True, 60),
    "2 x 1024, width 128": Case((2048, 128), True, 15),
    "2 x 4096, width 128": Case((8192, 128), True, 5),
    "64 windows of 2 x 300 steps, width 320": Case((64, 600, 320), False, 5),
    "300 steps of 2 x 64 windows, width 320": Case((300, 128, 320), False, 7, True),
}


def inputs(case: Case) -> Tensor:
    """Normal rows; short ones where logits are raw dot products."""
    generator = torch.Generator().manual_seed(0)
    shape = (case.shape[1], case.shape[0], case.shape[2]) if case.transposed else case.shape
    z = torch.randn(*shape, generator=generator) * (1 if case.cosine else 0.3)
    return (z.transpose(0, 1) if case.transposed else z).requires_grad_()


def dense(z: Tensor, case: Case) -> Tensor:
    """Normalise, multiply, take out the diagonal, cross-entropy."""
    n = case.shape[-2]
    unit = F.normalize(z, dim=-1) if case.cosine else z
    logits = unit @ unit.mT / (0.1 if case.cosine else 1.0)
    logits.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    positive = (torch.arange(n) + n // 2) % n
    return F.cross_entropy(logits.flatten(0, -2), positive.repeat(logits.numel() // n**2))


def tiled(z: Tensor, case: Case) -> Tensor:
    """The same through the contrast kernel."""
    n = case.shape[-2]
    rows = Rows(z, torch.arange(n // 2).repeat(2), torch.arange(n))
    temperature = 0.1 if case.cosine else 1.0
    return mean_over_anchors(
        contrast(rows, temperature=temperature, similarity="cosine" if case.cosine else "dot")
    )


KINDS: dict[str, Callable[[Tensor, Case], Tensor]] = {"dense": dense, "tiled": tiled}


def seconds(case: Case) -> dict[str, float]:
    """Median CPU seconds of a forward and backward pass of each kind, after one warm-up each."""
    z = inputs(case)
    spent: dict[str, list[float]] = {kind: [] for kind in KINDS}
    values: dict[str, float] = {}
    for run in range(case.runs + 1):
        for kind, loss in KINDS.items():
            start = time.process_time()
            value = loss(z, case)
            torch.autograd.grad(value, z)
            if run:
                spent[kind].append(time.process_time() - start)
            values[kind] = float(value.detach())
    if abs(values["dense"] - values["tiled"]) > 1e-5 * abs(values["dense"]):
        raise SystemExit(f"the two disagree: {values}")
    return {kind: median(times) for kind, times in spent.items()}


def peak_megabytes(name: str, kind: str) -> float:
    """Peak resident memory above the inputs over three passes, measured in a fresh process."""
    command = [sys.executable, str(Path(__file__).resolve()), "--memory", name, "--kind", kind]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def own_peak(case: Case, kind: str) -> float:
    """Peak of this process above what it held with the inputs made and the libraries warm, in MB."""
    small = Case((*case.shape[:-2], 8, 8), case.cosine, 1)
    if len(small.shape) > 2:
        small = small._replace(shape=(2, 8, 8))
    torch.autograd.grad(KINDS[kind](warm := inputs(small), small), warm)
    z = inputs(case)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    for _ in range(3):
        torch.autograd.grad(KINDS[kind](z, case), z)
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise SystemExit(f"/proc/self/status has no {field}; peak memory is measured on Linux only")


def main() -> None:
    """Print the table, or one memory figure for the process that makes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--memory", choices=CASES, help="measure one case's peak memory in this process")
    parser.add_argument("--kind", choices=KINDS, default="tiled")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print(own_peak(CASES[arguments.memory], arguments.kind))
        return
    print(f"{'rows':40} {'dense':>16} {'tiled':>16} {'time':>6} {'memory':>7}")
    for name, case in CASES.items():
        time_of = seconds(case)
        memory_of = {kind: peak_megabytes(name, kind) for kind in KINDS}
        cells = [f"{1000 * time_of[kind]:7.1f} ms {memory_of[kind]:4.0f} MB" for kind in KINDS]
        print(
            f"{name:40} {cells[0]:>16} {cells[1]:>16} {time_of['tiled'] / time_of['dense']:6.2f} "
            f"{memory_of['tiled'] / memory_of['dense']:7.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
