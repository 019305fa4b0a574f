"""Corruptions of one image as loops over blocks, voxels and boxes, for what was drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]


def shuffled(image: Image, starts: NDArray[np.int64], order: NDArray[np.int64], sides: list[int]) -> Image:
    """(c, *space): every block's voxels permuted, read from the image as it was, blocks written one after another."""
    result = image.copy()
    for start in starts:
        box = (slice(None), *(slice(first, first + side) for first, side in zip(start, sides, strict=True)))
        rows = image[box].reshape(len(image), -1)
        result[box] = rows[:, order].reshape(result[box].shape)
    return result


def bent(image: Image, curves: NDArray[np.float64]) -> Image:
    """(c, *space) through one curve (c, 2, points) a channel."""
    return np.stack([np.interp(values, *curve) for values, curve in zip(image, curves, strict=True)])


def filled(image: Image, starts: NDArray[np.int64], sides: NDArray[np.int64], noise: Image) -> Image:
    """(c, *space) with boxes replaced by noise."""
    result = image.copy()
    for start, side in zip(starts, sides, strict=True):
        box = (slice(None), *(slice(first, first + size) for first, size in zip(start, side, strict=True)))
        result[box] = noise[box]
    return result
