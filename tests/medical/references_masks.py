"""Naive counterparts of what evaluation of label maps computes, as plain loops over voxels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

Voxel = tuple[int, ...]


def voxels_of(mask: np.ndarray) -> set[Voxel]:
    return {place for place in itertools.product(*map(range, mask.shape)) if mask[place]}


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Twice the common voxels over the sum of both."""
    first, second = voxels_of(one), voxels_of(other)
    return 2 * len(first & second) / (len(first) + len(second))


def surface(mask: np.ndarray) -> list[Voxel]:
    """Voxels of which a face neighbour is not set or lies outside."""
    inside = voxels_of(mask)
    found = []
    for place in sorted(inside):
        steps = itertools.product(range(mask.ndim), (-1, 1))
        neighbours = [tuple(p + (k == axis) * step for k, p in enumerate(place)) for axis, step in steps]
        if any(neighbour not in inside for neighbour in neighbours):
            found.append(place)
    return found


def distances(source: list[Voxel], target: list[Voxel], spacing: Sequence[float]) -> list[float]:
    """From each voxel of one surface to the closest of the other."""
    return [
        min(
            math.sqrt(sum(((p - q) * step) ** 2 for p, q, step in zip(a, b, spacing, strict=True)))
            for b in target
        )
        for a in source
    ]


def quantile(values: list[float], share: float) -> float:
    """Linear between the two closest ranks."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def hd95(one: np.ndarray, other: np.ndarray, spacing: Sequence[float]) -> float:
    first, second = surface(one), surface(other)
    return max(
        quantile(distances(first, second, spacing), 0.95), quantile(distances(second, first, spacing), 0.95)
    )


def surface_dice(one: np.ndarray, other: np.ndarray, spacing: Sequence[float], tolerance: float) -> float:
    first, second = surface(one), surface(other)
    there, back = distances(first, second, spacing), distances(second, first, spacing)
    close = sum(d <= tolerance for d in there) + sum(d <= tolerance for d in back)
    return close / (len(first) + len(second))


def propagated(
    source: np.ndarray,
    target: np.ndarray,
    labels: np.ndarray,
    radius: int,
    neighbours: int,
    temperature: float,
) -> np.ndarray:
    """Soft labels (classes, H, W) of a slice from those of another one, voxel by voxel.

    Features are (width, H, W); only voxels within the radius along both axes are asked.
    """
    height, width = target.shape[1:]
    found = np.zeros_like(labels)
    for row, column in itertools.product(range(height), range(width)):
        own = target[:, row, column]
        candidates = []
        for r in range(max(0, row - radius), min(height, row + radius + 1)):
            for c in range(max(0, column - radius), min(width, column + radius + 1)):
                other = source[:, r, c]
                cosine = float(own @ other / (np.linalg.norm(own) * np.linalg.norm(other)))
                candidates.append((cosine, r, c))
        best = sorted(candidates, reverse=True)[:neighbours]
        weights = [math.exp(cosine / temperature) for cosine, _, _ in best]
        for weight, (_, r, c) in zip(weights, best, strict=True):
            found[:, row, column] += weight / sum(weights) * labels[:, r, c]
    return found
