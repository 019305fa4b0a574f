"""The recipe of the biosignals domain: its typed signature is the YAML and the command line of every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from diptych.data.folder import expand
from diptych.data.identity import Split
from diptych.data.loading import OrderedBatches, ResumableLoader
from diptych.errors import ConfigError
from diptych.method import MethodBuilder, OptimizerFactory, ScheduleFactory
from diptych.study import Indices, Study
from diptych.types import Views
from diptych_biosignals.features import baseline
from diptych_biosignals.sampling import SampleOrder, TrialBatches
from diptych_biosignals.simulate import simulate
from diptych_biosignals.source import Label, Prepared, Signal, Source, prepare


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How batches are made.

    Args:
        batch_size: Windows in a batch, over all processes.
        order: Which windows share a batch: "trial" keeps a trial's windows together, so that the trial and
            patient levels have positives, "random" ignores trials, "batch" is the release's third order.
        trials_per_patient: With order trial, how many trials of one patient follow each other.
        fixed: Draw who shares a batch once for all epochs, as the release does, instead of each epoch.
        workers: Processes that load batches; windows are slices of a memory map and rarely need any.
        cache: Folder of prepared signals; by default DIPTYCH_CACHE or the user's cache folder.
        readers: Processes that read and prepare recordings; by default one per CPU.
    """

    batch_size: int = 64
    order: SampleOrder = "trial"
    trials_per_patient: int = 1
    fixed: bool = False
    workers: int = 0
    cache: str | None = None
    readers: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(
                f"loader.batch_size is at least 2, since windows are contrasted; got {self.batch_size}"
            )


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """Simulated ECG for a first try: no result on it is a finding.

    Args:
        patients: Simulated patients.
        recordings: Recordings of each.
        seconds: Length of a recording.
        seed: What they are drawn from.
    """

    patients: int = 24
    recordings: int = 2
    seconds: float = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.patients, self.recordings) < 1 or not self.seconds > 0:
            raise ConfigError(
                f"simulation: at least 1 patient and 1 recording of more than 0 s; got {self.patients}, "
                f"{self.recordings} and {self.seconds:g} s"
            )


class Windows:
    """The windows of prepared recordings as batches with their ids."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared

    def batch(self, indices: Indices) -> Views:
        """One view (n, T, leads) and the ids of samples, trials and patients."""
        return Views(
            views=(torch.from_numpy(self.prepared.batch(indices)),),
            groups={
                "sample": torch.from_numpy(np.asarray(indices, np.int64)),
                "trial": torch.from_numpy(self.prepared.trial_ids[indices]),
                "patient": torch.from_numpy(self.prepared.patient_ids[indices]),
            },
        )


def build(
    *,
    data: Source,
    signal: Signal = Signal(),  # noqa: B008  (frozen)
    labels: Mapping[str, Label] = {},
    simulation: Simulation | None = None,
    split: Split = Split(),  # noqa: B008  (frozen)
    loader: Loading = Loading(),
    encoder: Callable[[int], nn.Module],
    method: MethodBuilder,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
    features: Literal["ecg", "eeg", "none"] = "none",
    features_of: Literal["recording", "window"] = "recording",
) -> Study:
    """Builds a study of ECG or EEG recordings.

    Args:
        data: Which recordings there are, whose they are, and the table that describes them.
        signal: Leads, rate, filters, normalisation, trials and windows.
        labels: What evaluators may predict, by name.
        simulation: Writes simulated ECG to data.path before it is read; for demos and tests.
        split: Shares of patients in train, validation and test.
        loader: How batches are made.
        encoder: The network; it is given the number of leads.
        method: How the encoder is pretrained, such as diptych_biosignals.comet.Comet.
        optimizer: A torch optimiser.
        schedule: A learning-rate schedule of torch, or diptych.schedules.WarmupCosine.
        features: Hand-made features for the classical rows of evaluation tables.
        features_of: What hand-made features describe: the recording of a window, or the window alone.
    """
    if simulation is not None:
        simulate(expand(data.path, "data.path"), **asdict(simulation), workers=loader.readers)
    prepared = prepare(data, signal, labels, split, cache=loader.cache, workers=loader.readers)
    windows = Windows(prepared)

    def training(indices: Indices, seed: int) -> ResumableLoader:
        plan = TrialBatches(
            indices,
            prepared.trial_ids[indices],
            prepared.patient_ids[indices],
            batch_size=loader.batch_size,
            seed=seed,
            order=loader.order,
            trials_per_patient=loader.trials_per_patient,
            fixed=loader.fixed,
        )
        return ResumableLoader(windows, plan, workers=loader.workers)

    def plain(indices: Indices) -> ResumableLoader:
        return ResumableLoader(windows, OrderedBatches(indices, 256), shared=False)

    def new_encoder() -> nn.Module:
        return encoder(len(prepared.leads))

    return Study(
        samples=prepared.samples,
        new_encoder=new_encoder,
        method=partial(_method, method, optimizer, schedule),
        training=training,
        plain=plain,
        baseline=None
        if features == "none"
        else partial(baseline, prepared, kind=features, unit=features_of, workers=loader.readers),
        summary={
            **prepared.report,
            "leads": ", ".join(prepared.leads),
            "rate": f"{prepared.rate:g} Hz",
            "window": f"{prepared.window} samples ({prepared.window / prepared.rate:g} s)",
        },
    )


def _method(
    method: MethodBuilder, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, encoder: nn.Module
) -> Any:
    return method(encoder, optimizer, schedule)
