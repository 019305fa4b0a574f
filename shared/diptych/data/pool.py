"""Processes that work through tasks, once it is seen that one alone would take long."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

_LONG = 10.0  # seconds of remaining work for which processes are started
_ENOUGH = 4  # tasks after which the time for the rest is estimated

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def in_pool(
    work: Callable[[_In], _Out],
    tasks: Sequence[_In],
    *,
    workers: int | None,
    what: str,
    unit: str = "recording",
) -> list[_Out]:
    """``work`` on all tasks, in order; in processes once it is seen that the rest would take long in this one.

    Starting processes takes seconds, for they import what the work needs. The bar shows on terminals only.
    """
    count = workers if workers is not None else _processors()
    results: list[_Out] = []
    began = 0.0
    with tqdm(total=len(tasks), desc=what, leave=False, disable=None, unit=unit) as bar:
        for task in tasks:
            results.append(work(task))
            bar.update()
            done = len(results)
            if done == 1:
                began = time.monotonic()  # the first one also imported libraries: it says nothing of the rest
            elif done >= _ENOUGH and count > 1:
                each = (time.monotonic() - began) / (done - 1)
                if each * (len(tasks) - done) > _LONG:
                    break
        rest = tasks[len(results) :]
        if rest:
            # Not forked from here: this process may hold threads of torch and of the linear algebra.
            clean = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
            context = multiprocessing.get_context(clean)
            context.set_forkserver_preload([getattr(work, "func", work).__module__])
            chunk = max(1, min(16, len(rest) // (4 * count)))
            with ProcessPoolExecutor(min(count, len(rest)), mp_context=context) as pool:
                for result in pool.map(work, rest, chunksize=chunk):
                    results.append(result)
                    bar.update()
    return results


def _processors() -> int:
    """Processors that this process may use: fewer than there are, on shared machines."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
