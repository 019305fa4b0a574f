"""A command of this domain alone: ``diptych sines draw``."""

from __future__ import annotations

import numpy as np

from diptych.errors import ConfigError


def draw(pitch: float, *, points: int = 8) -> None:
    """Prints one period of a wave of amplitude 1.

    Args:
        pitch: Its frequency in Hz, above 0.
        points: How many values are printed.
    """
    if not pitch > 0:
        raise ConfigError(f"a pitch is above 0 Hz, got {pitch:g}")
    time = np.arange(points) / (points * pitch)
    print(" ".join(f"{value:.2f}" for value in np.sin(2 * np.pi * pitch * time) + 0.0))
