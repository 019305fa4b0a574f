"""A synthetic set of images: noise with two blobs, "bright" and "dark", at patient-dependent places.

It satisfies what evaluations ask of a prepared data set. Every patient has one image unless asked otherwise;
shapes differ; the classes are told by intensity alone, which :class:`Knowing` reads off.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from diptych.data.loading import OrderedBatches, ResumableLoader
from diptych.data.manifest import Manifest
from diptych.data.quarantine import Quarantine
from diptych.method import Method
from diptych.study import Samples, Study
from diptych.types import Encoded, Views
from diptych_medical.prepare import Stored

Shape = tuple[int, ...]


@dataclass
class SyntheticImages:
    """n images in memory."""

    values: list[Any]
    masks: list[Any]
    samples: Samples
    crop_shape: Shape
    steps: Shape | tuple[float, ...] = field(default=())
    classes: tuple[str, ...] = ("background", "bright", "dark")
    channels: int = 1

    @property
    def dims(self) -> int:
        return len(self.crop_shape)

    @property
    def labelled(self) -> np.ndarray:
        return np.array([mask is not None for mask in self.masks])

    def image(self, index: int) -> Any:
        return self.values[index]

    def mask(self, index: int) -> Any:
        return self.masks[index]

    def corners(self, indices: np.ndarray, places: np.ndarray | None = None) -> np.ndarray:
        spare = np.array([np.subtract(self.shape(k), self.crop_shape) for k in indices.tolist()])
        middle = spare // 2
        return (
            middle
            if places is None
            else np.where(spare > 0, np.floor(places * (spare + 1)), middle).astype(int)
        )

    def shape(self, index: int) -> Shape:
        found: Shape = self.values[index].shape[1:]
        return found

    def spacing(self, index: int) -> tuple[float, ...]:
        return self.steps or (1.0,) * self.dims

    def stored(self, index: int) -> Stored:
        """It is in no file: its grid is that of the array."""
        affine = np.eye(self.dims + 1)
        facts = {"grid": list(self.shape(index)), "affine": affine.tolist(), "grid_affine": affine.tolist()}
        return Stored(data=self.values[index], mask=self.masks[index], affine=affine, facts=facts)

    def batch(self, indices: np.ndarray, corners: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        x = np.zeros((len(indices), self.channels, *self.crop_shape), np.float32)
        known = np.full((len(indices), *self.crop_shape), -1, np.int64)
        starts = self.corners(indices) if corners is None else corners
        for row, (index, corner) in enumerate(zip(indices.tolist(), starts.tolist(), strict=True)):
            inner = tuple(
                slice(max(0, first), min(first + crop, size))
                for first, crop, size in zip(corner, self.crop_shape, self.shape(index), strict=True)
            )
            place = tuple(slice(s.start - c, s.stop - c) for s, c in zip(inner, corner, strict=True))
            x[row][(slice(None), *place)] = self.values[index][(slice(None), *inner)]
            if self.masks[index] is not None:
                known[row][place] = self.masks[index][inner]
        return x, known


@dataclass(frozen=True, kw_only=True)
class SyntheticStudy(Study):
    """A study of synthetic images."""

    images: Any


class Plain(nn.Module):
    """Two convolutions; the grid is as fine as the image, or half of it."""

    def __init__(self, dims: int, width: int = 6, stride: int = 1) -> None:
        super().__init__()
        conv: Any = nn.Conv2d if dims == 2 else nn.Conv3d
        self.first = conv(1, 8, 3, padding=1, stride=stride)
        self.second = conv(8, width, 3, padding=1)
        self.width = self.grid_width = width

    def forward(self, x: Tensor) -> Encoded:
        grid = self.second(torch.relu(self.first(x)))
        return Encoded(grid.flatten(2).mean(2), None, grid)


class Knowing(nn.Module):
    """Features from which a linear head reads the class: the intensity, and how far it lies from the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.width = self.grid_width = 2
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Encoded:
        grid = torch.cat([x, (x - 0.5).abs()], dim=1) * self.scale
        return Encoded(grid.flatten(2).mean(2), None, grid)


class Whole(nn.Module):
    """An encoder without a grid."""

    width = 3

    def forward(self, x: Tensor) -> Encoded:
        return Encoded(x.flatten(1)[:, :3])


class _Fetching:
    def __init__(self, images: SyntheticImages) -> None:
        self.images = images

    def batch(self, indices: np.ndarray) -> Views:
        return Views(
            (torch.from_numpy(self.images.batch(indices)[0]),), {"sample": torch.from_numpy(indices)}
        )


def blobs(shape: Shape, draws: np.random.Generator, noise: float = 0.02) -> tuple[np.ndarray, np.ndarray]:
    """An image (1, *shape) and its mask."""
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    mask = np.zeros(shape, np.int64)
    for number, share in ((1, 0.32), (2, 0.68)):
        centre = share * np.array(shape) + draws.uniform(-1, 1, len(shape))
        radius = 0.16 * min(shape) + draws.uniform(0, 0.5)
        mask[np.linalg.norm(places - centre, axis=-1) <= radius] = number
    values = 0.5 + 0.3 * (mask == 1) - 0.3 * (mask == 2) + noise * draws.normal(size=shape)
    return values[None].astype(np.float32), mask


def images(
    *,
    patients: int = 12,
    shape: Shape = (18, 20),
    each: int = 1,
    crop: Shape | None = None,
    noise: float = 0.02,
    unlabelled: tuple[int, ...] = (),
) -> SyntheticImages:
    """The first half of the patients trains, the last third is tested, the rest validates."""
    draws = np.random.default_rng(0)
    n = patients * each
    shapes = [
        tuple(size - (number % 3) * (axis == 0) for axis, size in enumerate(shape)) for number in range(n)
    ]
    made = [blobs(one, draws, noise) for one in shapes]
    owner = np.arange(n) // each
    split = np.where(
        owner < patients // 2, "train", np.where(owner >= patients - patients // 3, "test", "validation")
    )
    ids = pd.DataFrame(
        {
            "patient": [f"p{k:02d}" for k in owner],
            "recording": [f"r{k:02d}" for k in range(n)],
            "trial": [f"r{k:02d}" for k in range(n)],
            "split": split,
        }
    )
    labels = pd.DataFrame({"sex": np.where(owner % 2, "F", "M")})
    manifest = Manifest(Path("synthetic"), [])
    return SyntheticImages(
        values=[image for image, _ in made],
        masks=[None if k in unlabelled else mask for k, (_, mask) in enumerate(made)],
        samples=Samples(ids=ids, labels=labels, manifest=manifest, quarantine=Quarantine()),
        crop_shape=crop or shape,
    )


def study(of: SyntheticImages, encoder: Any = None) -> SyntheticStudy:
    """A study over synthetic images with :class:`Plain` encoders."""
    return SyntheticStudy(
        samples=of.samples,
        new_encoder=encoder or (lambda: Plain(of.dims)),
        method=no_method,
        training=no_training,
        plain=lambda indices: ResumableLoader(_Fetching(of), OrderedBatches(indices, 4), shared=False),
        images=of,
    )


def no_method(encoder: nn.Module) -> Method:
    """Evaluations of an encoder pretrain nothing."""
    raise AssertionError("an evaluation asked for the pretraining method")


def no_training(indices: np.ndarray, seed: int) -> Any:
    """Evaluations do not see augmented views."""
    raise AssertionError("an evaluation asked for the pretraining loader")
