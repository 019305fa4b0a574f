"""Augmented views of windows (n, T, C): each is a draw of parameters and a pure function that applies them.

``draw`` takes a shape and a generator, ``apply`` a batch and what was drawn; so a view can be replayed, and tested
exactly. All are vectorised over the batch, on its device. Windows are expected to be normalised (mean 0, standard
deviation 1 per channel), as "hidden" means 0.

Letters: n windows, T time steps, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych_biosignals.masks import Segments, draw_segments, hide

Size = tuple[int, int, int]


class Augmentation(Protocol):
    """What makes a random view: ``apply(x, draw(shape, device, generator))``."""

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Any:
        """Random parameters for windows of shape (n, T, C)."""
        ...

    def apply(self, x: Tensor, parameters: Any) -> Tensor:
        """The view (n, T, C) of x that the parameters describe."""
        ...


def _uniform(
    shape: tuple[int, ...], low: float, high: float, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    return low + (high - low) * torch.rand(shape, device=device, generator=generator)


def _share(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in {low:g}..{high:g}, got {value:g}")


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Adds Gaussian noise.

    Args:
        deviation: standard deviation of the noise, in those of the signal.
    """

    deviation: float = 0.1

    def __post_init__(self) -> None:
        _share("jitter's deviation", self.deviation, high=math.inf)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Noise (n, T, C)."""
        return self.deviation * torch.randn(shape, device=device, generator=generator)

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Adds the noise."""
        return x + parameters.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Multiplies every channel of every window by a factor.

    Args:
        largest: factors are log-uniform between 1 / largest and largest.
    """

    largest: float = 1.5

    def __post_init__(self) -> None:
        _share("scale's largest factor", self.largest, low=1.0, high=math.inf)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Factors (n, 1, C)."""
        limit = math.log(self.largest)
        return _uniform((shape[0], 1, shape[2]), -limit, limit, device, generator).exp()

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Multiplies by the factors."""
        return x * parameters.to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Cuts a part out of every window and stretches it back to T steps by linear interpolation.

    Args:
        shortest: the least length of the part, as a share of the window.
    """

    shortest: float = 0.6

    def __post_init__(self) -> None:
        _share("crop's shortest part", self.shortest)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """First and last position, in steps, of every window's part: (n, 2) within 0..T - 1."""
        length = _uniform((shape[0],), self.shortest, 1.0, device, generator)
        first = (1 - length) * torch.rand(shape[0], device=device, generator=generator)
        return torch.stack([first, first + length], dim=1).clamp(max=1.0) * (shape[1] - 1)

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Reads x at T positions evenly spaced from first to last."""
        steps = x.shape[1]
        first, last = parameters.to(x.dtype).unbind(1)
        along = torch.arange(steps, device=x.device, dtype=x.dtype) / max(steps - 1, 1)
        at = (first[:, None] + (last - first)[:, None] * along).clamp(0, steps - 1)  # (n, T)
        below = at.floor().long()
        above = (below + 1).clamp(max=steps - 1)
        left, right = (x.gather(1, index[..., None].expand(x.shape)) for index in (below, above))
        return torch.lerp(left, right, (at - below)[..., None])


@dataclass(frozen=True, kw_only=True)
class TimeMask:
    """Sets runs of time steps to 0 in all channels.

    Args:
        segments: runs per window; they may overlap.
        share: length of a run as a share of the window.
    """

    segments: int = 2
    share: float = 0.1

    def __post_init__(self) -> None:
        _share("time mask's share", self.share)
        _share("time mask's segments", self.segments, low=1, high=math.inf)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Segments:
        """Where the runs start, and their length."""
        return draw_segments(shape[0], shape[1], device, generator, segments=self.segments, share=self.share)

    @staticmethod
    def apply(x: Tensor, parameters: Segments) -> Tensor:
        """Hides the runs."""
        return x * hide(parameters, x.shape[1])[..., None]


@dataclass(frozen=True, kw_only=True)
class LeadDrop:
    """Sets whole channels to 0; at least one of every window is left.

    Args:
        probability: of each channel to be dropped.
    """

    probability: float = 0.3

    def __post_init__(self) -> None:
        _share("lead drop's probability", self.probability)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Which channels are kept: (n, C) bool."""
        chance = torch.rand(shape[0], shape[2], device=device, generator=generator)
        return (chance >= self.probability) | (chance == chance.amax(1, keepdim=True))

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Hides the other channels."""
        return x * parameters[:, None, :]


@dataclass(frozen=True, kw_only=True)
class BandStop:
    """Removes a band of frequencies, by setting bins of the discrete Fourier transform to 0.

    Args:
        width: of the band, as a share of the sampling rate; 0.02 is 5 Hz at 250 Hz.
        highest: upper end of the range that bands are drawn from, as a share of the sampling rate; at most 0.5.
    """

    width: float = 0.02
    highest: float = 0.2

    def __post_init__(self) -> None:
        _share("band stop's highest frequency", self.highest, high=0.5)
        _share("band stop's width", self.width, high=self.highest)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Lower and upper end of every window's band: (n, 2), as shares of the sampling rate."""
        low = _uniform((shape[0],), 0.0, self.highest - self.width, device, generator)
        return torch.stack([low, low + self.width], dim=1)

    @staticmethod
    def apply(x: Tensor, parameters: Tensor) -> Tensor:
        """Removes frequencies f with low <= f < high."""
        wide = x if x.dtype == torch.float64 else x.float()
        spectrum = torch.fft.rfft(wide, dim=1)
        frequency = torch.fft.rfftfreq(x.shape[1], device=x.device, dtype=wide.dtype)
        low, high = parameters.to(wide.dtype).unbind(1)
        keep = (frequency < low[:, None]) | (frequency >= high[:, None])  # (n, bins)
        filtered: Tensor = torch.fft.irfft(spectrum * keep[..., None], n=x.shape[1], dim=1)
        return filtered.to(x.dtype)


class Augment(nn.Module):
    """Two views of a batch, each through all augmentations in order.

    Args:
        augmentations: what a view goes through; every window takes part in each with ``probability``.
        probability: of an augmentation to be applied to a window.
    """

    def __init__(self, augmentations: Sequence[Augmentation], probability: float = 1.0) -> None:
        super().__init__()
        _share("the probability of an augmentation", probability)
        if not augmentations:
            raise ConfigError("without augmentations both views are the same window; give at least one")
        self.augmentations = tuple(augmentations)
        self.probability = probability

    def view(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One view of x (n, T, C), of the same shape."""
        n, steps, channels = x.shape
        for augmentation in self.augmentations:
            drawn = augmentation.draw((n, steps, channels), x.device, generator)
            changed = augmentation.apply(x, drawn)
            if self.probability < 1:
                taken = torch.rand(n, 1, 1, device=x.device, generator=generator) < self.probability
                changed = torch.where(taken, changed, x)
            x = changed
        return x

    @torch.no_grad()
    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two views of x (n, T, C), drawn independently."""
        return self.view(x, generator), self.view(x, generator)
