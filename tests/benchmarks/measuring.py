"""What benchmarks share: CPU seconds and peak memory of one contender in a process of its own, and their table."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

Found = dict[str, list[dict[str, Any]]]


def measure(step: Callable[[], object], *, warm_up: int, steps: int) -> None:
    """Print CPU seconds of every step, one thread, and the growth of resident memory to its peak, as JSON."""
    torch.set_num_threads(1)
    Path("/proc/self/clear_refs").write_text("5")
    before, seconds = _resident("VmRSS"), []
    for _ in range(warm_up + steps):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    print(json.dumps({"seconds": seconds[warm_up:], "peak": _resident("VmHWM") - before}))


def in_turn(script: str, names: Sequence[str], rounds: int, options: Sequence[str]) -> Found:
    """What ``script --only NAME`` prints for each contender, ``rounds`` times, the contenders in turn."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    found: Found = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            command = [sys.executable, script, "--only", name, *options]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            found[name].append(json.loads(done.stdout))
    return found


def report(found: Found, contenders: Mapping[str, str], targets: Mapping[str, str]) -> None:
    """Medians with their range, and ratios to the contender "literal"."""
    seconds = {name: [each for run in runs for each in run["seconds"]] for name, runs in found.items()}
    peaks = {name: statistics.median(run["peak"] for run in runs) for name, runs in found.items()}
    base, base_peak = statistics.median(seconds["literal"]), peaks["literal"]
    print(
        f"{'contender':38} {'CPU s a step (range)':26} {'times less':>10} {'peak MB':>8} {'share':>6}  target"
    )
    for name, text in contenders.items():
        median = statistics.median(seconds[name])
        spread = f"{median:6.2f} ({min(seconds[name]):.2f} to {max(seconds[name]):.2f})"
        ratio, share = base / median, peaks[name] / base_peak
        target = targets.get(name, "")
        print(f"{text:38} {spread:26} {ratio:10.2f} {peaks[name] / 1e6:8.0f} {share:6.2f}  {target}")


def milliseconds(batch: Callable[[Any], object], batches: Sequence[Any]) -> list[float]:
    """Wall time of each batch."""
    times = []
    for indices in batches:
        start = time.perf_counter()
        batch(indices)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _resident(field: str) -> int:
    """A field of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))
