"""Random views of samples: each augmentation is a draw of parameters and a pure function that applies them.

``draw`` takes a shape and a generator, ``apply`` a batch and what was drawn; so a view can be replayed, and tested
exactly. Both work on a whole batch at once, on its device.

Letter: n samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError


class Augmentation(Protocol):
    """What makes a random view: ``apply(x, draw(shape, device, generator))``."""

    def draw(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None = None
    ) -> Any:
        """Random parameters for samples of a shape, (n, ...)."""
        ...

    def apply(self, x: Tensor, parameters: Any) -> Tensor:
        """The view of x, of its shape, that the parameters describe."""
        ...


def uniform(
    shape: tuple[int, ...], low: float, high: float, device: torch.device, generator: torch.Generator | None
) -> Tensor:
    """Random numbers in low..high."""
    return low + (high - low) * torch.rand(shape, device=device, generator=generator)


def check_range(name: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    """Raises ConfigError when a setting lies outside of low..high."""
    if not low <= value <= high:
        raise ConfigError(f"{name} must lie in {low:g}..{high:g}, got {value:g}")


class Augment(nn.Module):
    """Two views of a batch, each through all augmentations in order.

    Args:
        augmentations: what a view goes through; every sample takes part in each with ``probability``.
        probability: of an augmentation to be applied to a sample.
    """

    def __init__(self, augmentations: Sequence[Augmentation], probability: float = 1.0) -> None:
        super().__init__()
        check_range("the probability of an augmentation", probability)
        if not augmentations:
            raise ConfigError("without augmentations both views are the same; give at least one")
        self.augmentations = tuple(augmentations)
        self.probability = probability

    def view(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """One view of x (n, ...), of the same shape."""
        for augmentation in self.augmentations:
            drawn = augmentation.draw(tuple(x.shape), x.device, generator)
            changed = augmentation.apply(x, drawn)
            if self.probability < 1:
                each = (len(x), *(1 for _ in x.shape[1:]))
                taken = torch.rand(each, device=x.device, generator=generator) < self.probability
                changed = torch.where(taken, changed, x)
            x = changed
        return x

    @torch.no_grad()
    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Two views of x (n, ...), drawn independently."""
        return self.view(x, generator), self.view(x, generator)
