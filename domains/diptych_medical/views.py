"""Augmented views of images: changes of intensity, and two views whose place in the image is known.

Intensities are expected in 0..1, where 0 is background. Letters: n samples, c channels, d = 2 or 3 dimensions,
*space array axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diptych.augment import Augment, Augmentation, check_range, uniform
from diptych.errors import ConfigError
from diptych.places import Located, common_points
from diptych_medical.spatial import Spatial

Shape = tuple[int, ...]


def _each(shape: Shape, channels: int = 1) -> Shape:
    """The shape of one number per sample, and per channel where given, for images (n, c, *space)."""
    return (shape[0], channels, *(1 for _ in shape[2:]))


class Change(NamedTuple):
    """A factor about each channel's mean, and what is added, (n, c, 1...) each."""

    factor: Tensor
    shift: Tensor


@dataclass(frozen=True, kw_only=True)
class Brightness:
    """Stretches the intensities of each channel about their mean, and shifts them.

    Args:
        contrast: factors are log-uniform between 1 / contrast and contrast.
        shift: largest number that is added or taken away.
    """

    contrast: float = 1.3
    shift: float = 0.1

    def __post_init__(self) -> None:
        check_range("brightness's contrast", self.contrast, low=1.0, high=math.inf)
        check_range("brightness's shift", self.shift)

    def draw(self, shape: Shape, device: torch.device, generator: torch.Generator | None = None) -> Change:
        """A factor and a shift for every channel of every sample."""
        limit, each = math.log(self.contrast), _each(shape, shape[1])
        factor = uniform(each, -limit, limit, device, generator).exp()
        return Change(factor, uniform(each, -self.shift, self.shift, device, generator))

    @staticmethod
    def apply(x: Tensor, parameters: Change) -> Tensor:
        """The changed images."""
        mean = x.mean(tuple(range(2, x.ndim)), keepdim=True)
        return (mean + (x - mean) * parameters.factor + parameters.shift).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Gamma:
    """Raises intensities to a power; what lies below 0 becomes 0.

    Args:
        largest: powers are log-uniform between 1 / largest and largest.
    """

    largest: float = 1.5

    def __post_init__(self) -> None:
        check_range("gamma's largest power", self.largest, low=1.0, high=math.inf)

    def draw(self, shape: Shape, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Powers (n, 1, 1...)."""
        limit = math.log(self.largest)
        return uniform(_each(shape), -limit, limit, device, generator).exp()

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Raises to the powers."""
        return x.clamp(min=0) ** parameters.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """Adds Gaussian noise.

    Args:
        deviation: largest standard deviation of the noise; every sample has its own.
    """

    deviation: float = 0.05

    def __post_init__(self) -> None:
        check_range("noise's deviation", self.deviation, high=math.inf)

    def draw(self, shape: Shape, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Noise (n, c, *space)."""
        deviation = uniform(_each(shape), 0.0, self.deviation, device, generator)
        return deviation * torch.randn(shape, device=device, generator=generator)

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Adds the noise."""
        return x + parameters.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Blur:
    """Smooths with a Gaussian of the same width along all axes; the border's values go on outside.

    Args:
        deviation: largest standard deviation of the Gaussian in voxels; every sample has its own.
    """

    deviation: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.deviation < math.inf:
            raise ConfigError(f"blur's deviation must be above 0 and finite, got {self.deviation:g}")

    def draw(self, shape: Shape, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """The weights of every sample's Gaussian, (n, taps), symmetric and of sum 1."""
        reach = math.ceil(3 * self.deviation)
        deviation = uniform((shape[0], 1), 0.0, self.deviation, device, generator).clamp(min=1e-3)
        offset = torch.arange(-reach, reach + 1, device=device)
        return torch.softmax(-(offset**2) / (2 * deviation**2), dim=1)

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Smooths one axis after the other."""
        reach = parameters.shape[1] // 2
        for axis in range(2, x.ndim):
            line = x.movedim(axis, -1)
            rows = functional.pad(line.flatten(1, -2), (reach, reach), mode="replicate")
            smooth = torch.zeros_like(rows[..., : line.shape[-1]])
            for tap, weight in enumerate(parameters.to(x.dtype).unbind(1)):
                smooth.addcmul_(weight[:, None, None], rows[..., tap : tap + line.shape[-1]])
            x = smooth.view(line.shape).movedim(-1, axis)
        return x


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """Sets boxes to 0, the background.

    Args:
        boxes: per sample; they may overlap.
        share: largest side of a box, as a share of the axis; sides are drawn for every axis by itself.
    """

    boxes: int = 3
    share: float = 0.2

    def __post_init__(self) -> None:
        check_range("cutout's share", self.share)
        check_range("cutout's boxes", self.boxes, low=1, high=math.inf)

    def draw(self, shape: Shape, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """First position and end of every box, (n, boxes, d, 2), as shares of the axes."""
        each = (shape[0], self.boxes, len(shape) - 2)
        side = uniform(each, 0.0, self.share, device, generator)
        first = uniform(each, 0.0, 1.0, device, generator) * (1 - side)
        return torch.stack([first, first + side], dim=3)

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Clears the voxels whose middle lies in a box."""
        inside = torch.ones((), dtype=torch.bool, device=x.device)
        for axis, size in enumerate(x.shape[2:]):
            middle = (torch.arange(size, device=x.device) + 0.5) / size
            low, high = parameters[:, :, axis, 0, None], parameters[:, :, axis, 1, None]
            along = (middle >= low) & (middle < high)  # (n, boxes, size)
            inside = inside & along.view(
                *along.shape[:2], *(size if each == axis else 1 for each in range(x.ndim - 2))
            )
        return x.masked_fill(inside.any(1, keepdim=True), 0.0)


def usual_intensity() -> tuple[Augmentation, ...]:
    """Brightness, gamma, blur and noise, in this order, with their default settings."""
    return (Brightness(), Gamma(), Blur(), Noise())


class TwoViews(nn.Module):
    """Two views of every image: an affine one, then changes of intensity, both drawn independently.

    Args:
        spatial: what the affine part may do; None leaves images where they are.
        intensity: changes of intensity, in this order; () for none.
        probability: of each change of intensity, for each image.
        points: how many common points of both views are named for dense methods; None for none.

    Raises:
        ConfigError: neither kind of change, so that both views would be the same.
    """

    def __init__(
        self,
        spatial: Spatial | None,
        intensity: Sequence[Augmentation],
        probability: float = 0.5,
        points: int | None = None,
    ) -> None:
        super().__init__()
        if spatial is None and not intensity:
            raise ConfigError("both views would be the same image; give spatial, intensity or both")
        self.spatial = spatial
        self.intensity = Augment(intensity, probability) if intensity else None
        self.points = points

    @torch.no_grad()
    def located(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Located, Located]:
        """Two views of x (n, c, *space), of its shape, with the place of every voxel in x."""
        space = tuple(x.shape[2:])
        spatial = Spatial(rotation=(0.0,), scale=(1.0, 1.0)) if self.spatial is None else self.spatial
        matrices = [spatial.draw((len(x), *space), x.device, generator) for _ in range(2)]
        views = [x if self.spatial is None else spatial.apply(x, matrix) for matrix in matrices]
        if self.intensity is not None:
            views = [self.intensity.view(view, generator) for view in views]
        points: Sequence[Tensor | None] = (None, None)
        if self.points is not None:
            points = common_points(matrices, space, space, self.points, generator)
        first, second = (
            Located(view, space, matrix, space, each)
            for view, matrix, each in zip(views, matrices, points, strict=True)
        )
        return first, second

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`located`, the images alone."""
        first, second = self.located(x, generator)
        return first.view, second.view
