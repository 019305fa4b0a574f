"""From slices of a DICOM series to a volume: order, gaps and gantry tilt, by positions along the normal.

Slice k has its first pixel at p_k = ImagePositionPatient; rows run along r, columns along c (both unit vectors of
ImageOrientationPatient); n = r x c is the normal. Its height is p_k . n and its drift (p_k . r, p_k . c), both
counted from the first slice (DICOM PS3.3 C.7.6.2.1.1). A rectangular series has drift 0; gantry tilt makes it
grow with the height.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diptych.data.readable import Unreadable
from diptych_medical.geometry import from_lps
from diptych_medical.image import Affine, Reading

Vector = NDArray[np.float64]

_UNEVEN = 0.1  # share of the step by which a slice may lie off the even grid
_DRIFT = 0.25  # share of a pixel that slices may drift in their planes
_WIDEST = 4.0  # gaps of more than so many typical ones are not interpolated
_SAME = 0.01  # mm; slices nearer than this lie at one place
_MULTIPLE = 0.1  # share of the step by which a gap may miss a multiple of it and count as missing slices


@dataclass(frozen=True, kw_only=True)
class Stack:
    """How slices become a volume of ``shape`` (columns, rows, slices) with an affine to RAS mm.

    ``order`` sorts the slices upwards. ``shifts`` (n, 2) says how many pixels each sorted slice is moved along
    its columns and rows, to lie on the grid of the volume; None: none is. ``heights`` are those of the sorted
    slices and ``wanted`` those of the volume's, mm; None: the slices are the volume's.
    """

    order: NDArray[np.intp] = field(repr=False)
    shape: tuple[int, int, int]
    affine: Affine = field(repr=False)
    heights: Vector = field(repr=False)
    shifts: Vector | None = field(default=None, repr=False)
    wanted: Vector | None = field(default=None, repr=False)


def plan(
    positions: Vector, row: Vector, column: Vector, pixel: Vector, size: tuple[int, int], reading: Reading
) -> Stack:
    """Decide how slices are put together.

    Args:
        positions: (n, 3) LPS mm of the first pixel of every slice, in any order.
        row: (3,) unit vector along which the column index grows.
        column: (3,) unit vector along which the row index grows.
        pixel: (2,) mm between neighbouring columns and between neighbouring rows.
        size: Columns and rows.
        reading: What is done with gaps and tilt.

    Raises:
        Unreadable: one slice only, two at one place, uneven heights or tilt that the config rejects, positions
            that follow no line.
    """
    if len(positions) < 2:
        raise Unreadable("too few slices: a volume needs at least 2")
    normal = np.cross(row, column)
    order = np.argsort(positions @ normal, kind="stable")
    apart = positions[order] - positions[order[0]]
    heights = apart @ normal
    gaps = np.diff(heights)
    if (gaps < _SAME).any():
        raise Unreadable(
            f"duplicate positions: {int((gaps < _SAME).sum())} of {len(positions)} slices lie where another does"
        )
    step, wanted = _even(heights, gaps, reading)
    drift = apart @ np.stack([row, column], axis=1)
    per_mm, tilted = _tilt(drift, heights, pixel, reading)
    shifts, first, total = None, np.zeros(2), np.array(size)
    upwards = normal + per_mm @ np.stack([row, column])
    if tilted and reading.tilt == "correct":
        moving = np.abs(drift).max(axis=0) > _DRIFT * pixel  # the other axis is left as it is, unblurred
        shifts = np.where(moving, drift / pixel, 0.0)
        first = np.floor(shifts.min(axis=0))
        total = total + (np.ceil(shifts.max(axis=0)) - first).astype(int)
        shifts = shifts - first
        upwards = normal
    origin = positions[order[0]] + first * pixel @ np.stack([row, column])
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * pixel[0], column * pixel[1], upwards * step], axis=1)
    affine[:3, 3] = origin
    count = len(positions) if wanted is None else len(wanted)
    return Stack(
        order=order,
        shape=(int(total[0]), int(total[1]), count),
        affine=from_lps(affine),
        heights=heights,
        shifts=shifts,
        wanted=wanted,
    )


def _even(heights: Vector, gaps: Vector, reading: Reading) -> tuple[float, Vector | None]:
    """The distance of slices in the volume, and their heights where they are not those of the series."""
    count = len(heights)
    step = float(heights[-1] / (count - 1))
    if np.abs(heights - step * np.arange(count)).max() <= _UNEVEN * step:
        return step, None
    if reading.gaps == "reject":
        multiples = gaps / _typical(gaps)
        if np.abs(multiples - np.rint(multiples)).max() <= _MULTIPLE:
            missing = int(np.rint(multiples).sum()) - len(gaps)
            raise Unreadable(f"missing slices: {missing} between {count} evenly spaced ones")
        raise Unreadable(f"unequal gaps: slices lie {gaps.min():.3g} to {gaps.max():.3g} mm apart")
    step = _typical(gaps)
    if gaps.max() > _WIDEST * step:
        raise Unreadable(
            f"too wide a gap: {gaps.max():.3g} mm without a slice where others lie {step:.3g} mm apart; "
            "interpolation would make it up"
        )
    return step, step * np.arange(int(heights[-1] / step + 1e-3) + 1, dtype=np.float64)


def _typical(gaps: Vector) -> float:
    """The lower median: a distance that the series has."""
    return float(np.sort(gaps)[(len(gaps) - 1) // 2])


def _tilt(drift: Vector, heights: Vector, pixel: Vector, reading: Reading) -> tuple[Vector, bool]:
    """Drift (2,) per mm of height, and whether it is more than rounding."""
    per_mm: Vector = drift[-1] / heights[-1]
    tilted = bool((np.abs(drift) > _DRIFT * pixel).any())
    if not tilted or reading.tilt == "correct":
        return per_mm, tilted
    if (np.abs(drift - heights[:, None] * per_mm) > _DRIFT * pixel).any():
        raise Unreadable("irregular positions: slices are moved in their planes, along no line")
    if reading.tilt == "reject":
        angle = np.degrees(np.arctan(np.linalg.norm(per_mm)))
        raise Unreadable(f"gantry tilt: slices are stacked {angle:.1f} degrees off their normal")
    return per_mm, tilted


def assemble(slices: NDArray[Any], stack: Stack, *, fill: float, nearest: bool = False) -> NDArray[Any]:
    """The volume (columns, rows, slices) of slices (n, columns, rows), in the order of the series.

    Linear interpolation in the planes (tilt) and along the heights (gaps); so a field that is linear in space
    stays what it is. Where one of the slices that a voxel lies between does not reach, it is filled.

    Args:
        slices: As decoded, not yet sorted; float32, or whole numbers with ``nearest``.
        stack: From :func:`plan`.
        fill: Value of voxels that are not covered.
        nearest: Take the nearest pixel and slice instead: for label maps.
    """
    volume = slices[stack.order]
    if stack.shifts is not None:
        outside = fill if nearest else np.nan
        volume = np.stack(
            [
                ndimage.affine_transform(
                    each,
                    np.ones(2),
                    -shift,
                    output_shape=stack.shape[:2],
                    order=0 if nearest else 1,
                    mode="constant",
                    cval=outside,
                )
                for each, shift in zip(volume, stack.shifts, strict=True)
            ]
        )
    if stack.wanted is not None:
        volume = _between(volume, stack.heights, stack.wanted, nearest=nearest)
    if stack.shifts is not None and not nearest:
        volume = np.where(np.isnan(volume), volume.dtype.type(fill), volume)
    return volume.transpose(1, 2, 0)


def _between(volume: NDArray[Any], heights: Vector, wanted: Vector, *, nearest: bool) -> NDArray[Any]:
    """Slices at the wanted heights, from those at ``heights``; one at the height of a slice is that slice."""
    below = np.clip(np.searchsorted(heights, wanted, side="right") - 1, 0, len(volume) - 2)
    share = (wanted - heights[below]) / (heights[below + 1] - heights[below])
    share = np.clip(np.where(np.abs(share - np.rint(share)) < 1e-6, np.rint(share), share), 0, 1)
    if nearest:
        return volume[below + (share > 0.5)]
    slices = []
    for low, weight in zip(below, share.astype(volume.dtype), strict=True):
        if weight in (0, 1):
            slices.append(volume[low + int(weight)])
        else:
            slices.append(volume[low] * (1 - weight) + volume[low + 1] * weight)
    return np.stack(slices)
