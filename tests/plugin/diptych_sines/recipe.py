"""The recipe: its typed signature is the config of ``diptych sines pretrain`` and its command line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from torch import nn

from diptych.data.identity import Split
from diptych.method import Method, MethodBuilder, OptimizerFactory, ScheduleFactory
from diptych.study import Baseline, Indices, Study
from diptych_sines.waves import Label, Loading, Source, Windows, plain_loader, read, training_loader


def build(
    *,
    data: Source = Source(),  # noqa: B008  (frozen)
    labels: Mapping[str, Label] = {},
    split: Split = Split(),  # noqa: B008  (frozen)
    loader: Loading = Loading(),  # noqa: B008  (frozen)
    encoder: Callable[[int], nn.Module],
    method: MethodBuilder,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
) -> Study:
    """Builds a study of sine waves.

    Args:
        data: Where the waves come from.
        labels: What evaluators may predict, by name.
        split: Shares of people in train, validation and test.
        loader: How batches are made.
        encoder: The network; it is given the number of channels.
        method: How the encoder is pretrained.
        optimizer: A torch optimiser.
        schedule: A learning-rate schedule.
    """
    samples, windows = read(data, labels, split)

    def new_encoder() -> nn.Module:
        return encoder(1)

    def new_method(made: nn.Module) -> Method:
        return method(made, optimizer, schedule)

    return Study(
        samples=samples,
        new_encoder=new_encoder,
        method=new_method,
        training=partial(training_loader, windows, loader),
        plain=partial(plain_loader, windows, loader),
        baseline=partial(spectrum, windows),
        summary={"waves": "simulated" if data.path is None else "from files"},
    )


def spectrum(windows: Windows, indices: Indices) -> Baseline:
    """The power spectrum of each window: what a classical model is fitted on."""
    power = np.abs(np.fft.rfft(windows.values[indices, 0])) ** 2
    return Baseline(name="power spectrum", values=power)
