"""Runs objectives in one process and in several gloo processes that share a batch, for test_distributed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from diptych.dense import Dense, MomentumContrast, PixelConsistency
from diptych.distributed import gather, gather_rows, mean_over_processes, sum_over_processes
from diptych.objectives import Alignment, InfoNCE, Scattering
from diptych.queue import Queue
from diptych.rows import whole_rows
from diptych.types import Encoded, Views

VIEWS, SAMPLES, POSITIONS, PARTS, WIDTH = 2, 7, 3, 2, 4

OBJECTIVES: dict[str, Callable[[], nn.Module]] = {
    "nt-xent": lambda: InfoNCE(),
    "cold nt-xent": lambda: InfoNCE(temperature=0.01),
    "learned temperature": lambda: InfoNCE(learned=True),
    "supervised": lambda: InfoNCE(group="patient"),
    "supervised in": lambda: InfoNCE(group="patient", form="in"),
    "pairs": lambda: InfoNCE(group="patient", average="pairs"),
    "later pairs": lambda: InfoNCE(group="patient", average="pairs", positives="later"),
    "time steps": lambda: InfoNCE(level="grid", scope="sample", similarity="dot", temperature=1.0),
    "samples at a time step": lambda: InfoNCE(level="grid", scope="position", similarity="dot"),
    "parts": lambda: InfoNCE(level="parts", group="point"),
    "parts of a sample": lambda: InfoNCE(level="parts", group="point", scope="sample_of_part"),
    "queue": lambda: InfoNCE(queue=Queue(20, WIDTH)),
    "no positives": lambda: InfoNCE(group="nobody"),
    "alignment": lambda: Alignment(),
    "alignment of maps": lambda: Alignment(level="grid", form="cosine", pairs="same"),
    "scattering": lambda: Scattering(),
    "scattering of parts": lambda: Scattering(level="parts"),
    "dense samples": lambda: MomentumContrast(group="patient", queue=Queue(20, WIDTH)),
    "dense maps": lambda: MomentumContrast(level="grid", queue=Queue(20, WIDTH)),
    "dense consistency": lambda: PixelConsistency(distance=1.5),
}
TARGETED = ("queue", "alignment", "alignment of maps", "supervised in")
DENSE = tuple(name for name in OBJECTIVES if name.startswith("dense"))


class Outcome(NamedTuple):
    """What two steps of an objective give: losses, and the gradient of their sum."""

    losses: list[float]
    gradients: list[Tensor]


class Layer(nn.Module):
    """The weights whose gradient is compared: one matrix that makes whole, parts and grid."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        return tuple(
            Encoded(
                whole @ self.weight,
                parts.flatten(0, 1) @ self.weight,
                (grid @ self.weight).transpose(1, 2),
            )
            for whole, parts, grid in batch.views
        )


def batch(step: int, start: int, stop: int) -> Views:
    """Samples ``start`` to ``stop`` of a step's batch."""
    generator = torch.Generator().manual_seed(100 + step)
    n = SAMPLES
    views = tuple(
        tuple(
            torch.randn(*shape, generator=generator, dtype=torch.float64)[start:stop]
            for shape in ((n, WIDTH), (n, PARTS, WIDTH), (n, POSITIONS, WIDTH))
        )
        for _ in range(VIEWS)
    )
    sample = torch.arange(n) + 3 * step
    part = (sample[:, None] * PARTS + torch.arange(PARTS))[start:stop].flatten()
    return Views(
        views,
        {
            "sample": sample[start:stop],
            "patient": torch.tensor([0, 1, 0, -1, 1, 2, 0])[start:stop],
            "nobody": torch.full((stop - start,), -1),
            "part": part,
            "point": part % 5,
            "sample_of_part": sample[start:stop].repeat_interleave(PARTS),
        },
    )


def dense(encoded: Encoded) -> Dense:
    """Encoded views with their maps as rows, at places one apart."""
    assert encoded.grid is not None
    rows = encoded.grid.transpose(1, 2)
    places = torch.arange(float(rows.shape[1]))[None, :, None].expand(len(rows), -1, 1)
    return Dense(encoded.whole, rows, rows.square(), places, torch.ones(len(rows)))


def two_steps(name: str, start: int, stop: int) -> Outcome:
    """Losses of two batches (a queue matters in the second) and the gradient of their sum."""
    torch.manual_seed(0)
    layer, objective = Layer(), OBJECTIVES[name]().double()
    losses = []
    for step in range(2):
        views = batch(step, start, stop)
        target: tuple[Encoded, ...] = ()
        if name in TARGETED + DENSE:
            with torch.no_grad():
                target = tuple(Encoded(*(each + 0.3 for each in encoded)) for encoded in layer(views))
        online = layer(views)
        if name in DENSE:
            online, target = (tuple(map(dense, each)) for each in (online, target))
        loss = objective(online, target, views)
        loss.backward()
        losses.append(loss.detach())
    parameters = [layer.weight, *objective.parameters()]
    return Outcome([float(loss) for loss in losses], [p.grad for p in parameters if p.grad is not None])


def primitives(start: int, stop: int) -> dict[str, Any]:
    """What gather and the sums give for one process's rows of 0..7."""
    z = torch.arange(start, stop, dtype=torch.float64)[:, None].repeat(1, 2).requires_grad_()
    everything = gather(z)
    weight = torch.arange(1.0, len(everything) + 1, dtype=torch.float64)[:, None]
    (gradient,) = torch.autograd.grad((everything * weight).sum(), z)
    summed = sum_over_processes(z.sum(0))
    (through_sum,) = torch.autograd.grad((summed * torch.tensor([2.0, 5.0])).sum(), z)
    views = batch(0, start, stop)
    rows = whole_rows([Encoded(whole) for whole, _, _ in views.views], views.groups)
    scoped = rows._replace(z=torch.stack([rows.z, -rows.z]))
    return {
        "gathered": everything.detach(),
        "gradient": gradient,
        "sum": summed.detach(),
        "through sum": through_sum,
        "integers": gather(torch.arange(start, stop)),
        "columns": gather(torch.arange(start, stop)[None].repeat(2, 1), dim=1),
        "rows": tuple(gather_rows(rows)[:3]),
        "scoped": gather_rows(scoped).z,
        "mean": mean_over_processes(z.sum(), torch.tensor(len(z))).detach(),
        "no weight": mean_over_processes(z.sum(), torch.tensor(0)).detach(),
    }


def _work(rank: int, folder: str, cuts: Sequence[int]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=len(cuts) - 1
    )
    own = cuts[rank], cuts[rank + 1]
    outcomes: dict[str, Any] = {name: two_steps(name, *own) for name in OBJECTIVES}
    outcomes["primitives"] = primitives(*own)
    torch.save(outcomes, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def in_processes(folder: Path, cuts: Sequence[int]) -> list[dict[str, Any]]:
    """What each process returns when process r holds samples cuts[r] to cuts[r + 1]."""
    mp.spawn(_work, (str(folder), tuple(cuts)), nprocs=len(cuts) - 1)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(len(cuts) - 1)]
