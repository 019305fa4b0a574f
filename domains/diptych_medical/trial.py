"""One evaluation of segmentation: its images and options, and the scores that are found."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from diptych.errors import ConfigError
from diptych.study import Indices, Study
from diptych_medical.agreement import agreement
from diptych_medical.evaluated import (
    Images,
    Labels,
    few_images,
    patients_at,
)
from diptych_medical.saved import Saved

Mode = Literal["linear", "finetune"]
PRETRAINED = "pretrained"
INTENSITIES = "intensities, voxel classifier"


class Task(NamedTuple):
    """One training: a row, on how many labelled patients, and the number of the repeat."""

    row: str
    patients: int
    repeat: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of :func:`segmentation`, checked."""

    mode: Mode
    steps: int
    rate: float
    head_rate: float
    batch_size: int
    voxels: int
    overlap: float
    tolerance: float
    save: Path | None
    device: torch.device

    def __post_init__(self) -> None:
        least = {"steps": self.steps, "batch_size": self.batch_size, "voxels": self.voxels}
        wrong = [f"{name} is at least 1, got {number}" for name, number in least.items() if number < 1]
        if not 0.0 <= self.overlap < 1.0:
            wrong.append(f"overlap is from 0 to below 1, got {self.overlap:g}")
        if not self.tolerance >= 0.0:
            wrong.append(f"tolerance is at least 0, got {self.tolerance:g}")
        if not (self.rate > 0.0 and self.head_rate > 0.0):
            wrong.append(f"learning rates are above 0, got {self.rate:g} and {self.head_rate:g}")
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True)
class Trial:
    """The images of one evaluation, and the scores that are found."""

    study: Study
    images: Images
    train: Indices
    test: Indices
    options: Options
    scores: dict[Task, list[dict[str, float]]] = field(default_factory=lambda: defaultdict(list))
    saved: dict[Task, Saved] = field(default_factory=dict)

    def train_images(self, task: Task, seeds: int) -> Indices:
        """The labelled images that a training sees."""
        return few_images(self.images, self.train, task.patients, task.repeat % seeds)

    @property
    def patients(self) -> int:
        """The number of labelled training patients."""
        return len(np.unique(patients_at(self.images, self.train)))

    def truth(self, index: int) -> Labels:
        """The mask of a labelled image."""
        mask = self.images.mask(index)
        if mask is None:
            raise ValueError(f"image {index} has no mask")
        return mask

    def score(self, task: Task, index: int, predicted: Labels) -> None:
        """Score one test image; keep the first pretrained repeat's prediction where that is asked for."""
        classes, spacing = self.images.classes, self.images.spacing(index)
        found = agreement(predicted, self.truth(index), classes, spacing, self.options.tolerance)
        self.scores[task].append(found)
        if self.options.save is not None and task.row == PRETRAINED and task.repeat == 0:
            if task not in self.saved:
                folder = self.options.save / f"{task.patients}_patients"
                self.saved[task] = Saved(folder, self.images, self.test.tolist())
            self.saved[task].add(index, predicted)
