"""A small synthetic study for tests of training: patients are points, samples are noisy copies of them.

Run as a script it trains in a process of its own, which a test can kill:
    python synthetic.py RUN '{"max_steps": 40}' [--resume] [--workers 2] [--kill-at 17 --signal 9]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

from diptych.data.loading import Draw, OrderedBatches, ResumableLoader, ShuffledBatches
from diptych.data.manifest import Entry, Manifest
from diptych.data.quarantine import Quarantine
from diptych.errors import UserError
from diptych.method import Method, Pass, Phase, Term
from diptych.monitors import MonitorOptions, Monitors
from diptych.objectives import InfoNCE
from diptych.pretrainer import Pretrainer
from diptych.runs import Run
from diptych.schedules import WarmupCosine
from diptych.study import Samples, Study
from diptych.training import TrainerOptions, pretrain
from diptych.types import Encoded, Views

FEATURES = 12
OPTIONS: dict[str, Any] = {"accelerator": "cpu", "log_every": 3, "progress": "off"}


class Encoder(nn.Module):
    """Two linear layers with dropout, which takes random numbers from torch's global generator."""

    def __init__(self, width: int = 8, dropout: float = 0.1) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, width)
        )

    def forward(self, view: Tensor) -> Encoded:
        return Encoded(self.layers(view))


class EachView(nn.Module):
    """Encodes every view of a batch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        return tuple(self.encoder(view) for view in batch.views)


class Contrast(nn.Module):
    """NT-Xent between two views, over the batch of this process."""

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        one, other = (nn.functional.normalize(each.whole, dim=1) for each in online[:2])
        return nn.functional.cross_entropy(one @ other.T / 0.2, torch.arange(len(one)))


class Apart(nn.Module):
    """Mean squared distance of each sample's first view from a learned point: a plain mean over samples."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.point = nn.Parameter(torch.ones(width))

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        return (online[0].whole - self.point).square().mean()


class Together(nn.Module):
    """Pulls all samples to one direction: the collapse that a monitor has to see."""

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        unit = nn.functional.normalize(online[0].whole, dim=1)
        return -(unit @ unit.T).mean()


class Points:
    """Samples as rows of a matrix; fetches whole batches."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def batch(self, indices: np.ndarray) -> Views:
        rows = torch.from_numpy(self.values[indices])
        return Views((rows,), {"sample": torch.from_numpy(indices)})


def two_views(views: Views, draw: Draw) -> Views:
    """Adds noise that each sample has of its own, in whichever process it is loaded."""
    shape = views.views[0].shape[1:]
    keys = draw.keys()
    noise = np.stack([np.random.default_rng(key).normal(size=(2, *shape)) for key in keys])
    pair = [views.views[0] + 0.3 * torch.from_numpy(noise[:, k]).float() for k in range(2)]
    return Views(tuple(pair), views.groups)


def two_noisy_views(views: Views, draw: Draw) -> Views:
    """Takes noise from the global generators too, as data sets of others do."""
    one, other = two_views(views, draw).views
    return Views((one + 0.1 * torch.randn(one.shape), other + 0.1 * np.random.rand()), views.groups)  # noqa: NPY002


def contrast_method(encoder: nn.Module, rate: float = 1e-2) -> Method:
    """One phase with two passes: contrast, then distance to a learned point."""
    branch, contrast, apart = EachView(encoder), Contrast(), Apart()
    phase = Phase(
        name="contrast",
        passes=[
            Pass(online=branch, terms=[Term(name="contrast", objective=contrast)]),
            Pass(online=branch, terms=[Term(name="apart", objective=apart, weight=0.01)]),
        ],
        trains=[branch, apart],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=rate),
        schedule=lambda optimizer, total_steps: WarmupCosine(optimizer, total_steps, warmup=0.15),
    )
    return Method({"branch": branch, "apart": apart}, [phase], encoder)


def shared_method(encoder: nn.Module) -> Method:
    """Two phases whose gradients meet: what a distributed run has to average several times a step.

    The second phase trains its own point only, though its gradient reaches the encoder too; no pass uses all
    weights.
    """
    branch, contrast = EachView(encoder), InfoNCE(temperature=0.2)
    first, second = Apart(), Apart()
    rounds = [
        Pass(online=branch, terms=[Term(name="contrast", objective=contrast)]),
        Pass(online=branch, terms=[Term(name="apart", objective=first, weight=0.5)]),
    ]
    again = [Pass(online=branch, terms=[Term(name="again", objective=second)])]
    phases = [
        Phase(name="align", passes=rounds, trains=[branch, first], optimizer=sgd),
        Phase(name="restore", passes=again, trains=[second], optimizer=sgd),
    ]
    return Method({"branch": branch, "first": first, "second": second}, phases, encoder)


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Plain momentum: a gradient of the wrong size changes the weights, which Adam would hide."""
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def collapsing_method(encoder: nn.Module) -> Method:
    """Trains everything towards one point."""
    branch, together = EachView(encoder), Together()
    phase = Phase(
        name="collapse",
        passes=[Pass(online=branch, terms=[Term(name="together", objective=together)])],
        trains=[branch],
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-2),
    )
    return Method({"branch": branch}, [phase], encoder)


def study(
    *,
    patients: int = 24,
    each: int = 4,
    batch_size: int = 10,
    workers: int = 0,
    method: Callable[[nn.Module], Method] = contrast_method,
    dropout: float = 0.1,
    digest_of: str = "a",
    transform: Callable[[Views, Draw], Views] = two_noisy_views,
) -> Study:
    """Patients of two classes; 2 of 3 patients train, the others validate and test."""
    draws = np.random.default_rng(7)
    classes = np.arange(patients) % 2
    centres = draws.normal(size=(patients, FEATURES)) + 1.5 * classes[:, None]
    values = np.repeat(centres, each, axis=0) + 0.2 * draws.normal(size=(patients * each, FEATURES))
    values = values.astype(np.float32)
    splits = np.array(["train", "train", "train", "train", "validation", "test"])[np.arange(patients) % 6]
    names = [f"p{number:03d}" for number in range(patients)]
    ids = pd.DataFrame({"patient": np.repeat(names, each), "split": np.repeat(splits, each)})
    ids["recording"] = ids["trial"] = [f"r{number:04d}" for number in range(len(ids))]
    entry = Entry(path="values.npy", size=1, sha256=digest_of * 64, patient="p", recording="r")
    samples = Samples(
        ids=ids,
        labels=pd.DataFrame({"class": np.where(np.repeat(classes, each) == 1, "yes", "no")}),
        manifest=Manifest(Path("synthetic"), [entry]),
        quarantine=Quarantine(),
    )
    points = Points(values)
    return Study(
        samples=samples,
        new_encoder=lambda: Encoder(dropout=dropout),
        method=method,
        training=lambda indices, seed: ResumableLoader(
            points, ShuffledBatches(indices, batch_size, seed), transform=transform, workers=workers
        ),
        plain=lambda indices: ResumableLoader(points, OrderedBatches(indices, 16), shared=False),
        summary={"source": "synthetic points"},
    )


class KillAt(Callback):
    """Sends one process a signal in the middle of a step's hooks, before any checkpoint of that step."""

    def __init__(self, step: int, number: int, rank: int) -> None:
        self.step = step
        self.number = number
        self.rank = rank

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        assert isinstance(pl_module, Pretrainer)
        if pl_module.step == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


def monitors(of: Study, run: Run, **options: Any) -> Monitors:
    """All monitors, looking often."""
    return Monitors(of, run, MonitorOptions(**({"alarm_every": 5, "probe": "class"} | options)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("options", type=json.loads)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--kill-at", type=int)
    parser.add_argument("--signal", type=int, default=signal.SIGKILL)
    parser.add_argument("--kill-rank", type=int, default=0)
    parser.add_argument("--monitors", action="store_true")
    parser.add_argument(
        "--shared", action="store_true", help="the method whose numbers do not depend on processes"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    of = study(workers=given.workers)
    if given.shared:
        of = study(method=shared_method, dropout=0.0, transform=two_views)
    run = Run(given.run)
    watched = monitors(of, run, keep="best_probe") if given.monitors else None
    callbacks: list[Callback] = [] if watched is None else list(watched.callbacks)
    if given.kill_at is not None:
        callbacks.append(KillAt(given.kill_at, given.signal, given.kill_rank))
    try:
        pretrain(
            of,
            run,
            trainer=TrainerOptions(**(OPTIONS | given.options)),
            seed=5,
            resume=given.resume,
            callbacks=callbacks,
            choose=None if watched is None else watched.choose,
        )
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
