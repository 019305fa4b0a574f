"""An encoder of waves, a contrastive method for it, and an evaluator."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from diptych.branch import Branch
from diptych.errors import ConfigError
from diptych.evaluation.embeddings import embed
from diptych.evaluation.table import Column, Row, Score, Table
from diptych.heads import Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.objectives import InfoNCE
from diptych.study import Study
from diptych.types import Encoded


class WaveEncoder(nn.Module):
    """Two convolutions over a wave.

    Args:
        channels: Channels of the wave.
        width: Size of an embedding.
    """

    def __init__(self, channels: int, width: int = 16) -> None:
        super().__init__()
        self.width = width
        self.layers = nn.Sequential(
            nn.Conv1d(channels, width, 9, padding=4), nn.GELU(), nn.Conv1d(width, width, 9, padding=4)
        )

    def forward(self, wave: Tensor) -> Encoded:
        """(n, channels, time) to whole (n, width) and grid (n, width, time)."""
        grid = self.layers(wave)
        return Encoded(whole=functional.gelu(grid).mean(dim=2), grid=grid)


class NoiseContrast:
    """Contrasts two noisy copies of each wave with those of all others (NT-Xent, Chen et al. 2020).

    Args:
        temperature: Divides the cosine similarities.
        width: Size of the projector's output.
    """

    def __init__(self, temperature: float = 0.2, width: int = 16) -> None:
        if temperature <= 0:
            raise ValueError(f"expected a temperature above 0, came {temperature}")
        self.temperature, self.width = temperature, width

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None
    ) -> Method:
        """The method that pretrains this encoder."""
        branch = Branch(encoder, Projector(encoder.width, 32, self.width, normalize=False))
        copies = Term(name="copies", objective=InfoNCE(temperature=self.temperature))
        phase = Phase(
            name="contrast",
            passes=[Pass(online=branch, terms=[copies])],
            trains=[branch],
            optimizer=optimizer,
            schedule=schedule,
        )
        return Method({"branch": branch}, [phase], encoder)


def nearest(study: Study, encoder: nn.Module, *, label: str, device: str = "auto") -> Table:
    """How many test waves have the label of the training wave nearest to them.

    Args:
        study: The waves.
        encoder: The pretrained encoder.
        label: Name of the label.
        device: Where to embed.
    """
    samples = study.samples
    if label not in samples.labels:
        raise ConfigError(
            f"there is no label {label!r}; the config has {', '.join(samples.labels) or 'none'}"
        )
    train, test = samples.where("train"), samples.where("test")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = study.new_encoder()
    rows = [
        _row(name, *(embed(each, study.plain(indices), device) for indices in (train, test)), study, label)
        for name, each in (("pretrained", encoder), ("random weights", untrained))
    ]
    if study.baseline is not None:
        spectrum = study.baseline(train), study.baseline(test)
        rows.append(_row(spectrum[0].name, spectrum[0].values, spectrum[1].values, study, label))
    return Table(
        title=f"{label}: label of the nearest training wave",
        metrics=["accuracy"],
        levels=["sample"],
        rows=rows,
        test_patients=samples.ids["patient"].iloc[test].nunique(),
        test_samples=len(test),
    )


def _row(name: str, train: NDArray[np.floating], test: NDArray[np.floating], study: Study, label: str) -> Row:
    labels = study.samples.labels[label].to_numpy()
    distance = np.linalg.norm(test[:, None] - train[None], axis=2)
    found = labels[study.samples.where("train")][distance.argmin(axis=1)]
    correct = float((found == labels[study.samples.where("test")]).mean())
    return Row(name=name, scores={Column("sample", "accuracy"): Score(correct)})
