"""Runs methods in one process and in two gloo processes that share a batch, for test_comet_distributed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from diptych.types import Views
from diptych_biosignals.comet import Comet
from diptych_biosignals.encoder import DilatedEncoder
from diptych_biosignals.recipes import CLOCS
from diptych_biosignals.ts2vec import TS2Vec

WINDOWS, STEPS, CHANNELS = 7, 9, 2
# Without dropout and random masks, so that each process draws nothing that the others do not.
METHODS: dict[str, Any] = {
    "own": Comet(mask="mask_last"),
    "shared, order-free": Comet(mask="mask_last", views="shared", order="order_free"),
    "clocs": CLOCS(),
    "ts2vec": TS2Vec(mask="all_true"),
}


def batch(start: int, stop: int) -> Views:
    """Windows ``start`` to ``stop`` of the batch."""
    x = torch.randn(WINDOWS, STEPS, CHANNELS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ids = {
        "sample": torch.arange(WINDOWS),
        "trial": torch.tensor([0, 1, 0, 2, 1, 0, -1]),
        "patient": torch.tensor([0, 1, 0, 1, 1, 0, -1]),
    }
    return Views((x[start:stop],), {name: values[start:stop] for name, values in ids.items()})


def outcome(name: str, start: int, stop: int) -> tuple[dict[str, float], list[torch.Tensor]]:
    """The terms of a method and the gradient of its weighted total, for one process's windows."""
    torch.manual_seed(0)
    encoder = DilatedEncoder(CHANNELS, width=6, hidden=4, depth=3, dropout=0.0).double()
    method = METHODS[name](encoder, partial(torch.optim.SGD, lr=0.1), None)
    torch.manual_seed(4)  # draws crops that reach both ends, so that no window is shifted
    terms: dict[str, float] = {}
    views = batch(start, stop)
    for each in method.phases[0].passes:
        online = each.online(views)
        for number, term in enumerate(each.terms, start=1):
            loss = term.objective(online, (), views)
            (term.weight * loss).backward(retain_graph=number < len(each.terms))
            terms[term.name] = loss.item()
    return terms, [weight.grad for weight in encoder.parameters() if weight.grad is not None]


def _work(rank: int, folder: str, cuts: Sequence[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(cuts) - 1
    )
    torch.save({name: outcome(name, cuts[rank], cuts[rank + 1]) for name in METHODS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_processes(folder: Path, cuts: Sequence[int]) -> list[dict[str, Any]]:
    """What each process returns when process r holds windows cuts[r] to cuts[r + 1]."""
    mp.spawn(_work, (str(folder), tuple(cuts)), nprocs=len(cuts) - 1)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(cuts) - 1)]
