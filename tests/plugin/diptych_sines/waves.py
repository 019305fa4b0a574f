"""Waves from a folder of .npy files, or simulated; cut into windows, with ids, labels and loaders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.loading import Draw, OrderedBatches, ResumableLoader, ShuffledBatches
from diptych.data.manifest import Entry, Manifest, checksum
from diptych.data.quarantine import Quarantine
from diptych.errors import DataError
from diptych.study import Indices, Samples
from diptych.types import Views

WINDOW = 64  # time steps


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where waves come from.

    Args:
        path: A folder with one wave a file, PATIENT_NUMBER.npy; null simulates waves instead.
        people: How many people are simulated, each with a pitch of their own.
        seed: What the simulated waves are drawn from.
    """

    path: str | None = None
    people: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        if self.people < 1:
            raise ValueError(f"expected at least 1 person, came {self.people}")


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label "high" or "low" by a wave's frequency.

    Args:
        above: The frequency in cycles a window from which on a wave is high.
    """

    above: float


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Waves a batch.
        noise: Standard deviation of the noise added to each view.
        workers: Processes that load in parallel.
    """

    batch_size: int = 32
    noise: float = 0.1
    workers: int = 0


@dataclass(frozen=True)
class Windows:
    """Windows (n, 1, time) and their ids; fetches whole batches."""

    values: NDArray[np.float32]
    patients: NDArray[np.int64]

    def batch(self, indices: Indices) -> Views:
        """One clean view."""
        wave = torch.from_numpy(self.values[indices])
        groups = {"sample": torch.from_numpy(indices), "patient": torch.from_numpy(self.patients[indices])}
        return Views((wave,), groups)


@dataclass(frozen=True)
class Noisy:
    """Turns one clean view into two noisy ones."""

    noise: float

    def __call__(self, views: Views, draw: Draw) -> Views:
        wave = views.views[0]
        drawn = np.stack([_noise(key, wave.shape[1:]) for key in draw.keys()], axis=1)  # noqa: SIM118  (not a mapping)
        return Views(tuple(wave + self.noise * torch.from_numpy(each) for each in drawn), views.groups)


def read(source: Source, labels: Mapping[str, Label], split: Split) -> tuple[Samples, Windows]:
    """All windows with their ids; a wave that cannot be used goes to quarantine.

    Raises DataError for a folder without waves.
    """
    quarantine = Quarantine()
    entries: list[Entry] = []
    rows: list[tuple[str, str, str]] = []
    windows: list[NDArray[np.float32]] = []
    for person, recording, wave, entry in _waves(source, quarantine):
        entries += [entry] if entry else []
        whole = len(wave) // WINDOW
        windows.append(wave[: whole * WINDOW].reshape(whole, 1, WINDOW))
        rows += [(person, recording, split.of(person))] * whole
    if not rows:
        raise DataError(
            f"expected waves as PATIENT_NUMBER.npy files in {source.path!r}, found none that can be used"
        )
    values = np.concatenate(windows)
    ids = pd.DataFrame(rows, columns=["patient", "recording", "split"]).assign(trial=lambda x: x["recording"])
    ids["patient"] = [salted_key(pseudonym_salt(), each) for each in ids["patient"]]
    pitch = _cycles(values[:, 0])
    columns = {name: np.where(pitch > each.above, "high", "low") for name, each in labels.items()}
    samples = Samples(
        ids=ids,
        labels=pd.DataFrame(columns, index=ids.index),
        manifest=Manifest(source.path or ".", entries),
        quarantine=quarantine,
    )
    return samples, Windows(values, pd.factorize(ids["patient"])[0].astype(np.int64))


def training_loader(windows: Windows, loading: Loading, indices: Indices, seed: int) -> ResumableLoader:
    """Two noisy views of each wave, in an order drawn anew each epoch."""
    plan = ShuffledBatches(indices, loading.batch_size, seed)
    return ResumableLoader(windows, plan, transform=Noisy(loading.noise), workers=loading.workers)


def plain_loader(windows: Windows, loading: Loading, indices: Indices) -> ResumableLoader:
    """One clean view of each wave, in the given order."""
    return ResumableLoader(windows, OrderedBatches(indices, loading.batch_size), workers=loading.workers)


def _waves(
    source: Source, quarantine: Quarantine
) -> Iterator[tuple[str, str, NDArray[np.float32], Entry | None]]:
    if source.path is None:
        generator = np.random.default_rng(source.seed)
        for person in range(source.people):
            for take in range(2):
                yield f"p{person}", f"p{person}_{take}", _simulated(person, generator), None
        return
    for path in sorted(Path(source.path).glob("*.npy")):
        person = path.stem.partition("_")[0]
        wave = np.load(path).astype(np.float32)
        reason = "not finite: NaN or infinity" if not np.isfinite(wave).all() else ""
        reason = reason or (f"too short: {len(wave)} steps" if len(wave) < WINDOW else "")
        if reason:
            quarantine.add(path.name, reason)
            continue
        recording = salted_key(pseudonym_salt(), path.stem)
        size, sha256 = checksum(path)
        patient = salted_key(pseudonym_salt(), person)
        yield (
            person,
            recording,
            wave,
            Entry(path=path.name, size=size, sha256=sha256, patient=patient, recording=recording),
        )


def _simulated(person: int, generator: np.random.Generator) -> NDArray[np.float32]:
    time = np.arange(4 * WINDOW) / WINDOW
    cycles = 2 + person % 12 + generator.uniform(0, 0.5)
    wave = np.sin(2 * np.pi * (cycles * time + generator.uniform()))
    return (wave + generator.normal(0, 0.05, len(time))).astype(np.float32)


def _noise(key: np.uint64, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Noise for the two views of one sample, (2, *shape)."""
    return np.random.default_rng(key).standard_normal((2, *shape), dtype=np.float32)


def _cycles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cycles a window, (n,): half the sign changes."""
    return np.count_nonzero(np.diff(np.signbit(values), axis=1), axis=1) / 2
