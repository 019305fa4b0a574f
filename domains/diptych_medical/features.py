"""Hand-made features of intensities: what a voxel or an image looks like without any network."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional as F

from diptych.study import Baseline, Indices

Array32 = NDArray[np.float32]

SCALES = (1.0, 2.0, 4.0)  # voxels: standard deviations of the Gaussians
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BINS = 16
VOXEL_FEATURES = "intensity, its Gaussian means at three scales, gradient and relative position"
CELLS = {2: 8, 3: 4}  # cells along each axis of the small copy, by the number of axes


class HasImages(Protocol):
    """What the features need of a prepared data set."""

    def image(self, index: int, /) -> Array32:
        """One whole image, (c, *space)."""


def voxel_features(image: Array32) -> Array32:
    """What a voxel classifier sees, (k, *space): :func:`surroundings` and the relative position, 0 to 1.

    The position is that of the voxel in its image: in crops around one organ it alone says much.
    """
    space = image.shape[1:]
    position = np.stack(
        np.meshgrid(*((np.arange(n, dtype=np.float32) + 0.5) / n for n in space), indexing="ij")
    )
    return np.concatenate([surroundings(image), position.astype(np.float32)])


def surroundings(image: Array32) -> Array32:
    """Intensity, Gaussian means at several scales and the gradient's length, (c * 5, *space).

    Args:
        image: (c, *space), any unit.
    """
    values = image.astype(np.float32)
    smooth = [
        np.stack([ndimage.gaussian_filter(channel, scale, mode="nearest") for channel in values])
        for scale in SCALES
    ]
    steep = np.stack(
        [ndimage.gaussian_gradient_magnitude(channel, SCALES[0], mode="nearest") for channel in values]
    )
    return np.concatenate([values, *smooth, steep]).astype(np.float32)


def baseline(images: HasImages, indices: Indices) -> Baseline:
    """Raw intensities of whole images, for a random forest or a linear model.

    A row holds, of every channel, quantiles, a histogram, the mean length of the gradient, and a small copy
    of the image (means over 8 x 8 or 4 x 4 x 4 cells).
    """
    rows = [image_features(images.image(int(index))) for index in indices]
    return Baseline(name="raw intensities", values=np.stack(rows) if rows else np.zeros((0, 1)))


def image_features(image: Array32) -> NDArray[np.float64]:
    """One image's row of :func:`baseline`.

    Args:
        image: (c, *space), prepared intensities; the histogram is over 0 to 1, what lies outside counts in
            its first or last bin.
    """
    parts: list[NDArray[np.float64]] = []
    for channel in image.astype(np.float64):
        counts, _ = np.histogram(np.clip(channel, 0.0, 1.0), bins=BINS, range=(0.0, 1.0))
        steep = ndimage.gaussian_gradient_magnitude(channel, SCALES[0], mode="nearest")
        parts += [
            np.quantile(channel, QUANTILES),
            counts / channel.size,
            np.array([channel.mean(), channel.std(), steep.mean()]),
            _cells(channel).ravel(),
        ]
    return np.concatenate(parts)


def _cells(channel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means over equal cells; an axis with fewer voxels than cells repeats its voxels."""
    voxels = torch.from_numpy(channel)[None]
    cells = CELLS[channel.ndim]
    pooled = (
        F.adaptive_avg_pool2d(voxels, cells) if channel.ndim == 2 else F.adaptive_avg_pool3d(voxels, cells)
    )
    return np.asarray(pooled[0].numpy(), dtype=np.float64)
