"""Batches of prepared windows against reading every window with wfdb: milliseconds per batch of 64, one thread.

    python tests/benchmarks/loading.py [--batches 40]

The records are simulated (32 of 60 s, 3 leads, 100 Hz), windows of 2 s in random order. The contender reads
each window by its first and last sample, as a data set without preparation does; both read from the page cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import wfdb
from measuring import milliseconds
from numpy.typing import NDArray

from diptych.data.identity import Split
from diptych_biosignals.simulate import simulate
from diptych_biosignals.source import Prepared, Signal, Source, prepare

BATCH = 64


def prepared_windows(folder: Path) -> tuple[Prepared, float]:
    """The data set, and the seconds that its first preparation took."""
    start = time.perf_counter()
    data = prepare(
        Source(path=str(folder)),
        Signal(window=2, normalise_trial="none"),
        {},
        Split(),
        cache=folder.parent / "cache",
    )
    return data, time.perf_counter() - start


def with_wfdb(folder: Path, data: Prepared) -> Callable[[NDArray[np.int64]], NDArray[np.float32]]:
    """Reads the same windows anew each time."""
    records = sorted(str(path.with_suffix("")) for path in folder.glob("*.hea"))

    def batch(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        windows = []
        for recording, (first, last) in zip(
            data.recording_of[indices], np.round(data.times[indices] * data.rate).astype(int), strict=True
        ):
            windows.append(wfdb.rdsamp(records[recording], sampfrom=int(first), sampto=int(last))[0])
        return np.stack(windows).astype(np.float32)

    return batch


def main() -> None:
    """Print both medians with their ranges and the ratio; fail where the windows differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=40, help="batches to time (default: %(default)s)")
    count = parser.parse_args().batches
    with tempfile.TemporaryDirectory() as place:
        folder = simulate(Path(place) / "simulated", patients=16, seconds=60)
        data, first = prepared_windows(folder)
        _, again = prepared_windows(folder)
        literal = with_wfdb(folder, data)
        draw = np.random.default_rng(0)
        batches = [draw.choice(len(data), BATCH, replace=False) for _ in range(count)]
        np.testing.assert_allclose(data.batch(batches[0]), literal(batches[0]), atol=1e-5)
        print(f"preparation of 32 records: {first:.2f} s, from the cache {again:.2f} s")
        medians = {}
        for name, work in (("prepared", data.batch), ("wfdb", literal)):
            times = milliseconds(work, batches)
            medians[name] = statistics.median(times)
            print(f"{name:>10}: {medians[name]:9.3f} ms a batch ({min(times):.3f} to {max(times):.3f})")
        print(f"wfdb takes {medians['wfdb'] / medians['prepared']:.0f} times as long")


if __name__ == "__main__":
    main()
