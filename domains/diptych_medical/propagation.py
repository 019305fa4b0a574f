"""Labels of one slice carried through a volume: whether features know what continues from slice to slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, UserError
from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.frozen import encoders_of, random_encoder
from diptych.evaluation.per_patient import Scored, compare_units
from diptych.evaluation.table import Table
from diptych.study import Study
from diptych_medical.agreement import dice
from diptych_medical.carry import Labelled, carry
from diptych_medical.columns import Stages, read
from diptych_medical.evaluated import Images, Labels, images_of, labelled_images
from diptych_medical.features import surroundings
from diptych_medical.settings import Plane
from diptych_medical.sliding import features_at, frozen_copy
from diptych_medical.stacks import Stack, stacks_of

COPIED = "copied mask"
INTENSITIES = "intensities"

# slices of a stack -> their features (slices, width, H, W)
Features = Callable[[Stack, list[int]], Tensor]


class Search(NamedTuple):
    """How labels are carried."""

    distances: tuple[int, ...]
    radius: int
    neighbours: int
    temperature: float


def propagation(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    plane: Plane = "axial",
    stages: Stages = "last",
    distances: tuple[int, ...] = (1, 2, 4, 8),
    radius: int = 5,
    neighbours: int = 5,
    temperature: float = 0.1,
    overlap: float = 0.5,
    seeds: int = 3,
    draws: int = 2000,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Carry the labels of one slice to the next ones by the nearest features, without any training.

    It starts in the slice with the largest labelled area and goes both ways, slice by slice; the first slice
    and the one before vote together. Rows: pretrained, random weights, intensities with their surroundings,
    and the first slice's mask copied unchanged. Dice by the distance from the first slice.

    Args:
        study: The data, with masks: volumes, or slices of them.
        encoder: The pretrained encoder, or a list with one from each pretraining seed.
        plane: Of volumes, the plane of the slices. Where images are slices, theirs is taken.
        stages: What is compared of a pixel: the features of the decoder's last stage, which are the encoder's grid,
            or those of all stages.
        distances: Distances from the first slice, in slices, whose Dice is shown.
        radius: How far, in pixels along each axis, a pixel looks for others like it.
        neighbours: How many pixels vote.
        temperature: Of their weights, softmax(cosine / temperature).
        overlap: Share of a window that the next one repeats.
        seeds: Number of encoders with random weights.
        draws: Number of bootstrap resamples of the test patients.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to compute: auto, cpu, cuda.
    """
    search = _checked(distances, radius, neighbours, temperature, seeds, overlap)
    images = images_of(study)
    stacks = stacks_of(images, labelled_images(images, "test", run_splits), plane)
    where = choose_device(device)

    def learned(network: nn.Module) -> Features:
        frozen = frozen_copy(read(network, stages), where)

        def features(stack: Stack, places: list[int]) -> Tensor:
            parts = [
                features_at(
                    frozen,
                    images.image(index),
                    np.concatenate([stack.voxels(place) for place in own]),
                    images.crop_shape,
                    overlap=overlap,
                    device=where,
                )
                for index, own in stack.by_image(places)
            ]
            found = torch.cat(parts)
            if not bool(torch.isfinite(found).all()):
                raise UserError("the encoder's features are not finite; take an earlier checkpoint")
            return found.view(len(places), *stack.labels.shape[1:], -1).movedim(-1, 1)

        return features

    rows = {
        "pretrained": [_scores(stacks, images, search, learned(each)) for each in encoders_of(encoder)],
        "random weights": [
            _scores(stacks, images, search, learned(random_encoder(study, seed))) for seed in range(seeds)
        ],
        INTENSITIES: [_scores(stacks, images, search, _intensities(images))],
        COPIED: [_scores(stacks, images, search, None)],
    }
    metrics = ["Dice", *(f"Dice at {distance}" for distance in search.distances)]
    return compare_units(
        [
            Scored(
                name=name, scores={metric: np.array([each[metric] for each in found]) for metric in metrics}
            )
            for name, found in rows.items()
        ],
        [(stack.patient,) for stack in stacks],
        title=f"labels of one slice carried on: {', '.join(images.classes[1:])}",
        metrics=metrics,
        draws=draws,
        notes=[
            f"Dice is the mean over all slices up to {max(search.distances)} away, both ways; Dice at 2 is that "
            "of the slices two away",
            f"{neighbours} neighbours within {radius} pixels, temperature {temperature:g}; slices without any "
            "structure are left out",
        ],
    )


def _scores(
    stacks: Sequence[Stack], images: Images, search: Search, features: Features | None
) -> dict[str, list[float]]:
    """Each metric's value for every stack."""
    metrics: dict[str, list[float]] = {"Dice": []}
    metrics |= {f"Dice at {distance}": [] for distance in search.distances}
    for stack in stacks:
        found: dict[int, list[float]] = {distance: [] for distance in range(1, max(search.distances) + 1)}
        start = int((stack.labels > 0).sum(axis=(1, 2)).argmax())
        most = max(search.distances)
        places = list(range(max(0, start - most), min(len(stack.labels), start + most + 1)))
        maps = None if features is None else dict(zip(places, features(stack, places), strict=True))
        for ahead in (places[places.index(start) + 1 :], places[: places.index(start)][::-1]):
            step = 1 if ahead and ahead[0] > start else -1
            carried = _carried(stack.labels, len(images.classes), search, maps, start, ahead)
            for distance, predicted in enumerate(carried, 1):
                truth = stack.labels[start + step * distance]
                found[distance].append(dice(predicted, truth, images.classes)["Dice"])
        metrics["Dice"].append(_mean([value for values in found.values() for value in values]))
        for distance in search.distances:
            metrics[f"Dice at {distance}"].append(_mean(found[distance]))
    return metrics


def _carried(
    labels: Labels,
    classes: int,
    search: Search,
    maps: Mapping[int, Tensor] | None,
    start: int,
    ahead: Sequence[int],
) -> list[Labels]:
    """The predicted labels of slices, from the one after ``start`` on; copies of its mask without ``maps``."""
    if maps is None:
        return [labels[start]] * len(ahead)
    known = torch.from_numpy(labels[start])
    shares = F.one_hot(known.clamp_min(0), classes).movedim(-1, 0) * (known >= 0)
    first = Labelled(maps[start], shares.float())
    sources, predicted = [first], []
    for place in ahead:
        found = carry(
            sources,
            maps[place],
            radius=search.radius,
            neighbours=search.neighbours,
            temperature=search.temperature,
        )
        predicted.append(found.argmax(0).numpy())
        sources = [first, Labelled(maps[place], found)]
    return predicted


def _intensities(images: Images) -> Features:
    """Intensities with their surroundings, each standardised over its image."""

    def features(stack: Stack, places: list[int]) -> Tensor:
        slices = []
        for index, own in stack.by_image(places):
            maps = surroundings(images.image(index))
            axes = tuple(range(1, maps.ndim))
            spread = np.maximum(maps.std(axis=axes, keepdims=True), 1e-6)
            maps = (maps - maps.mean(axis=axes, keepdims=True)) / spread
            slices += [stack.slice_of(maps, place) for place in own]
        return torch.from_numpy(np.stack(slices))

    return features


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def _checked(
    distances: Sequence[int], radius: int, neighbours: int, temperature: float, seeds: int, overlap: float
) -> Search:
    wrong = []
    if not distances or min(distances) < 1:
        wrong.append(f"distances are whole numbers from 1 on, got {', '.join(map(str, distances)) or 'none'}")
    if min(radius, neighbours, seeds) < 1:
        wrong.append(f"radius, neighbours and seeds are at least 1, got {radius}, {neighbours} and {seeds}")
    if not temperature > 0:
        wrong.append(f"temperature is above 0, got {temperature:g}")
    if not 0.0 <= overlap < 1.0:
        wrong.append(f"overlap is from 0 to below 1, got {overlap:g}")
    if wrong:
        raise ConfigError("; ".join(wrong))
    return Search(tuple(sorted(set(distances))), radius, neighbours, temperature)
