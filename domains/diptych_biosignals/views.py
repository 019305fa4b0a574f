"""Augmented views of windows (n, T, C): each is a draw of parameters and a pure function that applies them.

``draw`` takes a shape and a generator, ``apply`` a batch and what was drawn; so a view can be replayed, and tested
exactly. All are vectorised over the batch, on its device. Windows are expected to be normalised (mean 0, standard
deviation 1 per channel), as "hidden" means 0.

Letters: n windows, T time steps, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.augment import check_range, uniform
from diptych_biosignals.masks import Segments, draw_segments, hide

Size = tuple[int, ...]  # (n, T, C)


@dataclass(frozen=True, kw_only=True)
class Jitter:
    """Adds Gaussian noise.

    Args:
        deviation: standard deviation of the noise, in those of the signal.
    """

    deviation: float = 0.1

    def __post_init__(self) -> None:
        check_range("jitter's deviation", self.deviation, high=math.inf)

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
        check_range("scale's largest factor", self.largest, low=1.0, high=math.inf)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Factors (n, 1, C)."""
        limit = math.log(self.largest)
        return uniform((shape[0], 1, shape[2]), -limit, limit, device, generator).exp()

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
        check_range("crop's shortest part", self.shortest)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """First and last position, in steps, of every window's part: (n, 2) within 0..T - 1."""
        length = uniform((shape[0],), self.shortest, 1.0, device, generator)
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
        check_range("time mask's share", self.share)
        check_range("time mask's segments", self.segments, low=1, high=math.inf)

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
        check_range("lead drop's probability", self.probability)

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
        check_range("band stop's highest frequency", self.highest, high=0.5)
        check_range("band stop's width", self.width, high=self.highest)

    def draw(self, shape: Size, device: torch.device, generator: torch.Generator | None = None) -> Tensor:
        """Lower and upper end of every window's band: (n, 2), as shares of the sampling rate."""
        low = uniform((shape[0],), 0.0, self.highest - self.width, device, generator)
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
