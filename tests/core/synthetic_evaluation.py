"""A synthetic study for tests of evaluation: patients are points; an encoder keeps what tells them or not.

Each patient has two recordings of three samples. "sign" is a class that one direction of the signal carries,
"group" has three classes, "age" is a number along another direction, "state" differs between the recordings
of a patient, and "noise" has nothing to do with the signal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from diptych.data.identity import Split
from diptych.data.loading import OrderedBatches, ResumableLoader
from diptych.data.manifest import Entry, Manifest
from diptych.data.quarantine import Quarantine
from diptych.method import Method
from diptych.study import Baseline, Indices, Samples, Study
from diptych.types import Encoded, Views

FEATURES = 10
SPLIT = Split(salt="synthetic", train=0.6, validation=0.15, test=0.25)


class Encoder(nn.Module):
    """Two layers; ``knowing`` builds one that keeps the signal and drops the nuisance."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Linear(FEATURES, 16)
        self.second = nn.Linear(16, width)

    def forward(self, view: Tensor) -> Encoded:
        return Encoded(self.second(torch.tanh(self.first(view))))


def knowing() -> Encoder:
    """An encoder that reads the three signal directions and nothing else."""
    encoder = Encoder()
    with torch.no_grad():
        for layer in (encoder.first, encoder.second):
            layer.weight.zero_()
            layer.bias.zero_()
        for direction in range(3):
            encoder.first.weight[direction, direction] = 0.3
            encoder.second.weight[direction, direction] = 3.0
    return encoder


class Points:
    """Samples as rows of a matrix; fetches whole batches."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def batch(self, indices: np.ndarray) -> Views:
        return Views((torch.from_numpy(self.values[indices]),), {"sample": torch.from_numpy(indices)})


def study(*, patients: int = 60, baseline: bool = True, seed: int = 3, split: Split = SPLIT) -> Study:
    """The study; nuisance directions are eight times as strong as the signal."""
    draws = np.random.default_rng(seed)
    names = np.array([f"p{number:03d}" for number in range(patients)])
    owner = np.repeat(np.arange(patients), 6)
    recording = np.repeat(np.arange(2 * patients), 3)
    signs = np.arange(patients) % 2
    groups = np.arange(patients) % 3
    ages = draws.uniform(20, 80, patients)
    states = np.arange(2 * patients) % 2
    signal = np.stack(
        [
            (2 * signs - 1)[owner] + 0.5 * draws.normal(size=patients)[owner],
            (ages[owner] - 50) / 20 + (groups[owner] - 1),
            2.0 * states[recording] - 1,
        ],
        axis=1,
    )
    nuisance = 8 * draws.normal(size=(patients, FEATURES - 3))[owner]
    values = np.concatenate([signal, nuisance], axis=1) + 0.5 * draws.normal(size=(len(owner), FEATURES))
    ids = pd.DataFrame({"patient": names[owner], "split": [split.of(name) for name in names[owner]]})
    ids["recording"] = ids["trial"] = [f"r{number:04d}" for number in recording]
    labels = pd.DataFrame(
        {
            "sign": np.where(signs == 1, "plus", "minus")[owner],
            "group": np.array(["a", "b", "c"])[groups][owner],
            "age": ages[owner],
            "state": np.where(states == 1, "task", "rest")[recording],
            "noise": np.where(draws.random(patients) < 0.5, "yes", "no")[owner],
        }
    )
    entries = [
        Entry(path=f"{name}.npy", size=1, sha256=f"{k:064d}", patient=names[k // 2], recording=name)
        for k, name in enumerate(f"r{number:04d}" for number in range(2 * patients))
    ]
    return over(values, ids, labels, Manifest(Path("synthetic"), entries), baseline=baseline)


def over(
    values: np.ndarray, ids: pd.DataFrame, labels: pd.DataFrame, manifest: Manifest, *, baseline: bool = True
) -> Study:
    """A study of given points; its hand-made features are noisy copies of two of them, some missing."""
    draws = np.random.default_rng(0)
    features = values[:, :2] + draws.normal(size=(len(values), 2))
    features[draws.random(features.shape) < 0.1] = np.nan

    def hand_made(indices: Indices) -> Baseline:
        return Baseline(name="two noisy features", values=features[indices])

    points = Points(values.astype(np.float32))
    return Study(
        samples=Samples(ids=ids, labels=labels, manifest=manifest, quarantine=Quarantine()),
        new_encoder=Encoder,
        method=no_method,
        training=no_training,
        plain=lambda indices: ResumableLoader(points, OrderedBatches(indices, 32), shared=False),
        baseline=hand_made if baseline else None,
    )


def no_method(encoder: nn.Module) -> Method:
    """Evaluations pretrain nothing."""
    raise AssertionError("an evaluation asked for the pretraining method")


def no_training(indices: Indices, seed: int) -> Any:
    """Evaluations do not see augmented views."""
    raise AssertionError("an evaluation asked for the pretraining loader")
