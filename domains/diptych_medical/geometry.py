"""Where voxels lie: affines from array indices to mm, turning to RAS, and moving between grids.

An affine is (d + 1, d + 1) float64 and maps indices along the array axes to mm. For volumes mm are
right-anterior-superior (RAS): x grows to the patient's right, y to the front, z to the head (NIfTI-1, Cox et al.
2004; DICOM counts x and y the other way, "LPS").
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diptych.data.readable import Unreadable
from diptych_medical.image import Affine

_Scalar = TypeVar("_Scalar", bound=np.generic)

_POSITIVE, _NEGATIVE = "RAS", "LPI"
_FLAT = 1e-6  # of the product of the spacings: below this volume, the axes of a voxel lie in one plane


class Orientation(NamedTuple):
    """How an array is turned to RAS: axis i of the result is axis ``axes[i]``, reversed where ``flips[i]``."""

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]


def spacing_of(affine: Affine) -> tuple[float, ...]:
    """Distance of neighbouring voxels along every array axis, mm."""
    return tuple(float(length) for length in np.sqrt((affine[:-1, :-1] ** 2).sum(axis=0)))


def diagonal(spacing: Sequence[float] | NDArray[np.float64]) -> Affine:
    """The affine of axes that run along the coordinates, with the first voxel at 0."""
    return np.diag([*spacing, 1.0]).astype(np.float64)


def from_codes(codes: str, spacing: Sequence[float] | NDArray[np.float64]) -> Affine:
    """The affine of a volume whose axes run to the given sides, such as "LPS"; its first voxel lies at 0."""
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (letter, length) in enumerate(zip(codes.upper(), spacing, strict=True)):
        if letter in _POSITIVE:
            affine[_POSITIVE.index(letter), axis] = length
        else:
            affine[_NEGATIVE.index(letter), axis] = -length
    return affine


def from_lps(affine: Affine) -> Affine:
    """An affine to LPS coordinates (DICOM, many NRRD files) as one to RAS."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine


def check_affine(affine: Affine) -> Affine:
    """The affine itself. Raises Unreadable where it is no invertible map (NaN, a zero column, flat axes)."""
    if not np.isfinite(affine).all():
        raise Unreadable("bad affine: it has values that are no finite numbers")
    lengths = np.array(spacing_of(affine))
    if not (lengths > 0).all():
        raise Unreadable("bad affine: the spacing along an axis is zero")
    if abs(np.linalg.det(affine[:-1, :-1] / lengths)) < _FLAT:
        raise Unreadable("bad affine: its axes lie in one plane")
    return affine


def shear(affine: Affine) -> float:
    """Largest deviation of two array axes from a right angle, degrees; 0 for rectangular grids."""
    directions = affine[:-1, :-1] / np.array(spacing_of(affine))
    cosines = directions.T @ directions - np.eye(len(directions))
    return float(np.degrees(np.arcsin(min(float(np.abs(cosines).max()), 1.0))))


def codes_of(affine: Affine) -> str:
    """The sides that the axes of a volume run to, nearest first: "RAS", "LPS" ..."""
    turn = orientation_of(affine)
    letters = [""] * 3
    for world, (axis, flip) in enumerate(zip(turn.axes, turn.flips, strict=True)):
        letters[axis] = (_NEGATIVE if flip else _POSITIVE)[world]
    return "".join(letters)


def orientation_of(affine: Affine) -> Orientation:
    """The turn by quarter rotations and mirrorings that brings a volume nearest to RAS."""
    directions = affine[:3, :3] / np.array(spacing_of(affine))
    axes = max(permutations(range(3)), key=lambda order: sum(abs(directions[i, order[i]]) for i in range(3)))
    flips = [bool(directions[i, axis] < 0) for i, axis in enumerate(axes)]
    return Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))


def turn(array: NDArray[_Scalar], orientation: Orientation) -> NDArray[_Scalar]:
    """Turn the last three axes of an array; a view without copies."""
    lead = array.ndim - 3
    turned = array.transpose(*range(lead), *(lead + axis for axis in orientation.axes))
    mirrored: NDArray[_Scalar] = turned[_reversals(orientation)]
    return mirrored


def turn_back(array: NDArray[_Scalar], orientation: Orientation) -> NDArray[_Scalar]:
    """The inverse of :func:`turn`; a view without copies."""
    lead = array.ndim - 3
    straight: NDArray[_Scalar] = array[_reversals(orientation)]
    return straight.transpose(*range(lead), *(lead + int(i) for i in np.argsort(orientation.axes)))


def _reversals(orientation: Orientation) -> tuple[Any, ...]:
    return (..., *(slice(None, None, -1 if flip else 1) for flip in orientation.flips))


def turned_affine(affine: Affine, shape: Sequence[int], orientation: Orientation) -> Affine:
    """The affine after :func:`turn`: every voxel stays at its place in the world.

    Args:
        affine: (4, 4) of the array before it is turned.
        shape: Its three axes before it is turned.
        orientation: The turn.
    """
    to_old = np.zeros((4, 4))
    to_old[3, 3] = 1
    for new, (old, flip) in enumerate(zip(orientation.axes, orientation.flips, strict=True)):
        to_old[old, new] = -1 if flip else 1
        to_old[old, 3] = shape[old] - 1 if flip else 0
    return affine @ to_old


def same_space(
    shape: Sequence[int], affine: Affine, other_shape: Sequence[int], other: Affine, *, tolerance: float = 0.1
) -> bool:
    """Whether two grids are one: the same shape, and no corner apart by more than a share of a voxel.

    Args:
        shape: Voxels of the first grid.
        affine: Its affine.
        other_shape: Voxels of the second grid.
        other: Its affine.
        tolerance: Share of the smallest spacing by which corners may differ (files round their affines).
    """
    if tuple(shape) != tuple(other_shape):
        return False
    corners = np.stack(np.meshgrid(*([0, size - 1] for size in shape), indexing="ij"), axis=-1)
    corners = corners.reshape(-1, len(shape))
    apart = corners @ (affine - other)[:-1, :-1].T + (affine - other)[:-1, -1]
    return bool(np.sqrt((apart**2).sum(axis=1)).max() <= tolerance * min(spacing_of(affine)))


def even_grid(
    shape: Sequence[int], affine: Affine, spacing: Sequence[float]
) -> tuple[tuple[int, ...], Affine]:
    """The grid of another spacing that covers the same extent, voxel borders included, with the same axes.

    Raises Unreadable where the axes are sheared: such a grid would be no picture of lengths in mm.
    """
    if shear(affine) > 1.0:
        raise Unreadable("sheared affine: its axes are not at right angles")
    factor = np.array(spacing) / np.array(spacing_of(affine))
    sizes = tuple(max(1, round(size / step)) for size, step in zip(shape, factor, strict=True))
    scaled = affine.copy()
    scaled[:-1, :-1] = affine[:-1, :-1] * factor
    old_centre, new_centre = (np.array(shape) - 1) / 2, (np.array(sizes) - 1) / 2
    scaled[:-1, -1] += affine[:-1, :-1] @ old_centre - scaled[:-1, :-1] @ new_centre
    return sizes, scaled


def resample(
    array: NDArray[_Scalar], affine: Affine, shape: Sequence[int], target: Affine, *, nearest: bool = False
) -> NDArray[_Scalar]:
    """The values of an array (*space) on another grid; beyond its border the border's values go on.

    Linear interpolation; before the grid gets coarser, a Gaussian takes away what it cannot hold (sigma of
    (step - 1) / 2 voxels, step being the ratio of the spacings, as scikit-image does).

    Args:
        array: (*space) values.
        affine: Affine of ``array``.
        shape: Voxels of the wanted grid.
        target: Affine of the wanted grid.
        nearest: Take the nearest voxel instead: for label maps.
    """
    matrix = np.linalg.inv(affine) @ target
    if not nearest:
        step = np.abs(matrix[:-1, :-1]).max(axis=1)
        sigma = np.maximum(step - 1, 0) / 2
        if (sigma > 0).any():
            array = ndimage.gaussian_filter(array, sigma, mode="nearest")
    moved: NDArray[_Scalar] = ndimage.affine_transform(
        array,
        matrix[:-1, :-1],
        matrix[:-1, -1],
        output_shape=tuple(shape),
        order=0 if nearest else 1,
        mode="nearest",
    )
    return moved
