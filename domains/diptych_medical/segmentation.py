"""Segmentation with few labelled patients: what an encoder's features are worth at every voxel."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.frozen import encoders_of, random_encoder, torch_seed
from diptych.evaluation.per_patient import Scored, compare_units
from diptych.evaluation.table import Table
from diptych.study import Indices, Study
from diptych_medical.agreement import agreement, measure_names
from diptych_medical.evaluated import (
    Array32,
    Images,
    Labels,
    checked_counts,
    few_images,
    images_of,
    labelled_images,
    patients_at,
)
from diptych_medical.features import VOXEL_FEATURES, voxel_features
from diptych_medical.saved import Saved
from diptych_medical.sliding import VoxelNetwork, features_at, frozen_copy, slide
from diptych_medical.voxels import Drawn, VoxelClassifier, draw_voxels, fit_head, joined, overlap_loss

Mode = Literal["linear", "finetune"]
PRETRAINED = "pretrained"
INTENSITIES = "intensities, voxel classifier"

_VOXELS_OF_CLASSIFIER = 4096  # of each image, for the trees


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


def segmentation(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    mode: Mode = "linear",
    patients: tuple[int, ...] = (0, 10, 5),
    seeds: int = 3,
    draws: int = 2000,
    steps: int = 300,
    rate: float = 1e-3,
    head_rate: float = 3e-2,
    batch_size: int = 2,
    voxels: int = 8192,
    overlap: float = 0.5,
    tolerance: float = 1.0,
    save: str | None = None,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Segment the masks' classes with a linear head on frozen features or by fine-tuning, with few patients.

    Rows: pretrained, the same network with random weights (from scratch with finetune) on the same budget,
    and boosted trees on intensities, their Gaussian means, the gradient and the position of a voxel. Whole
    test images are predicted window by window. The last step is kept, so no validation patient is needed.

    Args:
        study: The data, with masks, and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        mode: linear trains a linear head on the frozen features of single voxels, finetune the whole network.
        patients: Numbers of labelled training patients; 0 takes all. Fewer are always among more.
        seeds: Number of trainings of each row, each with its own head, batches and draw of patients.
        draws: Number of bootstrap resamples of the test patients.
        steps: Training steps, the same for every row and number of patients.
        rate: Learning rate (AdamW, cosine to 0) of the encoder with finetune.
        head_rate: Learning rate of the head.
        batch_size: Crops of a step with finetune.
        voxels: With linear, voxels of each labelled image whose features are kept.
        overlap: Share of a window that the next one repeats.
        tolerance: Distance, in mm, up to which a surface counts as found by surface Dice.
        save: Folder for the label maps that the first pretrained row predicts, in the space of the input.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to compute: auto, cpu, cuda.
    """
    if seeds < 1:
        raise ConfigError(f"the number of seeds is at least 1; got {seeds}")
    options = Options(
        mode=mode,
        steps=steps,
        rate=rate,
        head_rate=head_rate,
        batch_size=batch_size,
        voxels=voxels,
        overlap=overlap,
        tolerance=tolerance,
        save=None if save is None else Path(save),
        device=choose_device(device),
    )
    images = images_of(study)
    trial = Trial(
        study,
        images,
        labelled_images(images, "train", run_splits, patients=1),
        labelled_images(images, "test", run_splits),
        options,
    )
    counts = checked_counts(patients, len(np.unique(patients_at(images, trial.train))))
    encoders = encoders_of(encoder)
    untrained = "random weights" if mode == "linear" else "from scratch"
    run = _linear if mode == "linear" else _finetuned
    repeats = {PRETRAINED: max(seeds, len(encoders)), untrained: seeds, INTENSITIES: seeds}
    run(
        trial,
        PRETRAINED,
        repeats[PRETRAINED],
        seeds,
        counts,
        lambda k: encoders[k % len(encoders)],
        len(encoders),
    )
    run(trial, untrained, seeds, seeds, counts, lambda k: random_encoder(study, k), seeds)
    _classified(trial, seeds, counts)
    return _table(trial, repeats, seeds, counts)


def _linear(
    trial: Trial,
    row: str,
    repeats: int,
    seeds: int,
    counts: Sequence[int],
    make: Callable[[int], nn.Module],
    encoders: int,
) -> None:
    """Heads on frozen features: every image goes once through every encoder, whatever the number of heads."""
    options, classes = trial.options, len(trial.images.classes)
    for number in range(encoders):
        encoder = frozen_copy(make(number), options.device)
        tasks = [Task(row, count, k) for count in counts for k in range(number, repeats, encoders)]
        needed = np.unique(np.concatenate([trial.train_images(task, seeds) for task in tasks]))
        kept = {int(index): _frozen_voxels(trial, encoder, int(index)) for index in needed}
        network = VoxelNetwork(encoder, classes * len(tasks)).eval()
        heads = [
            fit_head(
                joined([kept[int(index)] for index in trial.train_images(task, seeds)]),
                classes,
                steps=options.steps,
                batch=options.voxels,
                rate=options.head_rate,
                seed=task.repeat,
                device=options.device,
            )
            for task in tasks
        ]
        with torch.no_grad():
            network.head.weight.copy_(torch.cat([head.weight for head in heads]))
            network.head.bias.copy_(torch.cat([head.bias for head in heads]))
        _test(trial, network.to(options.device), tasks)


def _frozen_voxels(trial: Trial, encoder: nn.Module, index: int) -> tuple[Tensor, Drawn]:
    options, images = trial.options, trial.images
    drawn = draw_voxels(trial.truth(index), options.voxels, seed=index)
    features = features_at(
        encoder,
        images.image(index),
        drawn.at,
        images.crop_shape,
        overlap=options.overlap,
        device=options.device,
    )
    _check_finite(features, "the encoder's features")
    return features.half() if float(features.abs().max()) < 1e4 else features, drawn


def _finetuned(
    trial: Trial,
    row: str,
    repeats: int,
    seeds: int,
    counts: Sequence[int],
    make: Callable[[int], nn.Module],
    encoders: int,
) -> None:
    """One whole network for every task."""
    for count in counts:
        for repeat in range(repeats):
            task = Task(row, count, repeat)
            encoder = frozen_copy(make(repeat % encoders), trial.options.device).requires_grad_(True)
            with torch_seed(repeat):
                network = _tuned(trial, encoder, trial.train_images(task, seeds), repeat)
            _test(trial, network.eval(), [task])


def _tuned(trial: Trial, encoder: nn.Module, train: Indices, seed: int) -> VoxelNetwork:
    """The encoder and a head after the budget's steps on random crops."""
    options = trial.options
    network = VoxelNetwork(encoder, len(trial.images.classes)).to(options.device).train()
    optimizer = torch.optim.AdamW(
        [
            {"params": list(network.encoder.parameters()), "lr": options.rate},
            {"params": list(network.head.parameters()), "lr": options.head_rate},
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    for x, mask in _crops(trial, train, seed):
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(overlap_loss(network(x), mask))
        optimizer.step()
        schedule.step()
    return network


def _crops(trial: Trial, train: Indices, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one training: images in random order, each anew before any comes twice."""
    options, images = trial.options, trial.images
    generator = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(options.steps):
        while len(order) < options.batch_size:
            order += generator.permutation(train).tolist()
        chosen, order = np.array(order[: options.batch_size]), order[options.batch_size :]
        corners = images.corners(chosen, generator.random((len(chosen), images.dims)))
        x, mask = images.batch(chosen, corners)
        if mask is None:
            raise ValueError("the images have masks, and their batches have none")
        yield torch.from_numpy(x).to(options.device), torch.from_numpy(mask).to(options.device)


def _test(trial: Trial, network: VoxelNetwork, tasks: Sequence[Task]) -> None:
    """Score the tasks' heads, which are stacked in one network, on every test image."""
    classes, images = len(trial.images.classes), trial.images
    for index in trial.test.tolist():
        logits = slide(
            network,
            images.image(index),
            images.crop_shape,
            overlap=trial.options.overlap,
            device=trial.options.device,
        )
        _check_finite(logits, "predictions")
        stacked = logits.view(len(tasks), classes, *logits.shape[1:]).argmax(1).numpy()
        for task, predicted in zip(tasks, stacked, strict=True):
            trial.score(task, index, predicted)


def _classified(trial: Trial, seeds: int, counts: Sequence[int]) -> None:
    """Boosted trees on the hand-made features of single voxels."""
    images = trial.images
    tasks = [Task(INTENSITIES, count, repeat) for count in counts for repeat in range(seeds)]
    needed = np.unique(np.concatenate([trial.train_images(task, seeds) for task in tasks])).tolist()
    kept = {index: _hand_made(images.image(index), trial.truth(index), index) for index in needed}
    trained = [
        VoxelClassifier(
            joined([kept[int(index)] for index in trial.train_images(task, seeds)]),
            len(images.classes),
            task.repeat,
        )
        for task in tasks
    ]
    for index in trial.test.tolist():
        features = voxel_features(images.image(index))
        for task, classifier in zip(tasks, trained, strict=True):
            trial.score(task, index, classifier.predict(features))


def _hand_made(image: Array32, mask: Labels, seed: int) -> tuple[Tensor, Drawn]:
    drawn = draw_voxels(mask, _VOXELS_OF_CLASSIFIER, seed)
    return torch.from_numpy(voxel_features(image)[(slice(None), *drawn.at.T)].T.copy()), drawn


def _table(trial: Trial, repeats: dict[str, int], seeds: int, counts: Sequence[int]) -> Table:
    options, images = trial.options, trial.images
    metrics = measure_names(images.classes)
    rows = []
    for count in counts:
        for name, number in repeats.items():
            tasks = [Task(name, count, repeat) for repeat in range(number)]
            rows.append(
                Scored(
                    name=name,
                    scores={
                        metric: np.array([[found[metric] for found in trial.scores[task]] for task in tasks])
                        for metric in metrics
                    },
                    fraction=count / counts_all(trial),
                    patients=count,
                    samples=round(float(np.mean([len(trial.train_images(task, seeds)) for task in tasks]))),
                )
            )
    how = "linear head on frozen features" if options.mode == "linear" else "fine-tuning"
    return compare_units(
        rows,
        [(str(patient),) for patient in patients_at(images, trial.test)],
        title=f"segmentation of {', '.join(images.classes[1:])}: {how}",
        metrics=metrics,
        notes=[
            f"{options.steps} steps of every network, the last one kept; trees on {VOXEL_FEATURES}",
            f"surface Dice at {options.tolerance:g}; distances in mm (pixels where images carry no spacing)",
            "a class that the truth lacks is left out; where the prediction alone lacks it, Dice is 0 and HD95 "
            "the diagonal of the image",
        ],
    )


def counts_all(trial: Trial) -> int:
    """The number of labelled training patients."""
    return len(np.unique(patients_at(trial.images, trial.train)))


def _check_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            f"{what} are not finite: the training diverged or the weights are damaged; take an earlier checkpoint, "
            "or lower the learning rates"
        )
