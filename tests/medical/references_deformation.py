"""Naive references for the deformation modules: plain loops over voxels, float64, no library code."""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def read(image: Array, place: tuple[float, ...], convention: str) -> float:
    """One value of an image at a place, weighing the voxels around it, 0 outside."""
    if convention == "official":
        place = tuple(u * size / (size - 1) - 0.5 for u, size in zip(place, image.shape, strict=True))
    lower = [math.floor(u) for u in place]
    total = 0.0
    for corner in itertools.product((0, 1), repeat=len(place)):
        voxel = tuple(low + step for low, step in zip(lower, corner, strict=True))
        if all(0 <= v < size for v, size in zip(voxel, image.shape, strict=True)):
            total += image[voxel] * math.prod(1 - abs(u - v) for u, v in zip(place, voxel, strict=True))
    return total


def warped(image: Array, flow: Array, convention: str) -> Array:
    """An image (*space) read at every voxel plus its flow (d, *space)."""
    found = np.zeros(image.shape)
    for voxel in np.ndindex(*image.shape):
        place = tuple(voxel[i] + float(flow[(i, *voxel)]) for i in range(image.ndim))
        found[voxel] = read(image, place, convention)
    return found


def mean_squared_correlation(one: Array, two: Array, mask: Array, window: int, guard: float) -> float:
    """1 - mean over the mask of cross^2 / (var var + guard), images (c, *space) with zeros around."""
    half, space = window // 2, one.shape[1:]
    around = [(0, 0)] + [(half, half)] * len(space)
    one, two = np.pad(one, around), np.pad(two, around)
    total, weight = 0.0, 0.0
    for voxel in np.ndindex(*space):
        at = (slice(None), *[slice(v, v + window) for v in voxel])
        a, b = one[at].ravel(), two[at].ravel()
        a, b = a - a.mean(), b - b.mean()
        scale = one.shape[0]
        cross, first, second = (a @ b) / scale, (a @ a) / scale, (b @ b) / scale
        total += mask[voxel] * cross**2 / (first * second + guard)
        weight += mask[voxel]
    return 1 - total / weight


def mean_cosine_distance(moved: Array, fixed: Array, mask: Array) -> float:
    """1 - mean over the mask (*space) of the cosine of two maps (w, *space)."""
    total = 0.0
    for voxel in np.ndindex(*mask.shape):
        x, y = moved[(slice(None), *voxel)], fixed[(slice(None), *voxel)]
        total += mask[voxel] * (x @ y) / (np.linalg.norm(x) * np.linalg.norm(y))
    return 1 - total / float(mask.sum())


def roughness(flow: Array) -> float:
    """Mean over axes of the mean squared forward difference of a flow (d, *space)."""
    means = []
    for axis in range(1, flow.ndim):
        found = []
        for voxel in np.ndindex(*flow.shape):
            if voxel[axis] + 1 < flow.shape[axis]:
                following = tuple(v + (i == axis) for i, v in enumerate(voxel))
                found.append((flow[following] - flow[voxel]) ** 2)
        means.append(np.mean(found))
    return float(np.mean(means))


def corner_determinants(flow: Array) -> Array:
    """(2^d, *interior): det of forward (first) or backward differences of p + flow(p), without the border."""
    dims, space = flow.shape[0], flow.shape[1:]
    found = np.zeros((2**dims, *[size - 2 for size in space]))
    for number, ahead in enumerate(itertools.product((True, False), repeat=dims)):
        for voxel in np.ndindex(*[size - 2 for size in space]):
            p = tuple(v + 1 for v in voxel)
            matrix = np.zeros((dims, dims))
            for axis in range(dims):
                after = tuple(v + (ahead[axis] and i == axis) for i, v in enumerate(p))
                before = tuple(v - (not ahead[axis] and i == axis) for i, v in enumerate(p))
                for i in range(dims):
                    matrix[i, axis] = (flow[(i, *after)] - flow[(i, *before)]) + (i == axis)
            found[(number, *voxel)] = np.linalg.det(matrix)
    return found


def central_determinants(flow: Array) -> Array:
    """(*space): det by ``numpy.gradient`` of p + flow(p)."""
    dims = flow.shape[0]
    slopes = [np.gradient(flow[i]) for i in range(dims)]
    found = np.zeros(flow.shape[1:])
    for voxel in np.ndindex(*found.shape):
        matrix = [[slopes[i][axis][voxel] + (i == axis) for axis in range(dims)] for i in range(dims)]
        found[voxel] = np.linalg.det(np.array(matrix))
    return found
