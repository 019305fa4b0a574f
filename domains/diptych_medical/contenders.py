"""The contenders of segmentation: heads on frozen features, whole networks, trees on intensities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import UserError
from diptych.evaluation.frozen import torch_seed
from diptych.study import Indices
from diptych_medical.evaluated import (
    Array32,
    Labels,
)
from diptych_medical.features import voxel_features
from diptych_medical.sliding import VoxelNetwork, features_at, frozen_copy, slide
from diptych_medical.trial import INTENSITIES, Task, Trial
from diptych_medical.voxels import Drawn, VoxelClassifier, draw_voxels, fit_head, joined, overlap_loss

_VOXELS_OF_CLASSIFIER = 4096  # of each image, for the trees


def linear(
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


def finetuned(
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


def classified(trial: Trial, seeds: int, counts: Sequence[int]) -> None:
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


def _check_finite(values: Tensor, what: str) -> None:
    if not bool(torch.isfinite(values).all()):
        raise UserError(
            f"{what} are not finite: the training diverged or the weights are damaged; take an earlier checkpoint, "
            "or lower the learning rates"
        )
