"""What a reader of images returns: one image with its place in the world, or the reason why a file is none."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import Header
from diptych.errors import ConfigError

Affine = NDArray[np.float64]

_CODES = ("RL", "AP", "SI")  # the two letters of every axis of the body


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What the config says about reading: what files lack, and what to do with those that do not fit.

    Args:
        dims: Axes of an image: 2 or 3. With 2, every DICOM file is an image; with 3, every series.
        channels: Channels that one file is expected to have (3 where ``colour`` is "rgb").
        colour: Colour images are rejected, made grey by their luminance (0.299 R + 0.587 G + 0.114 B, ITU-R
            BT.601), or kept as three channels, which grey images then get too.
        spacing: Size of a voxel in mm, one number per array axis, of files that carry none (pictures, arrays);
            None takes 1, so that lengths of such images are in pixels.
        orientation: Where the array axes run to in files that do not say it, such as "RAS" (right, anterior,
            superior) or "LPS". None takes arrays and stacked pictures as "RAS" and rejects NIfTI and NRRD
            volumes without orientation.
        array_axes: Axes of a NumPy array (after its first one where it holds many images).
        array_name: The array of an .npz archive that holds images; None takes all that have the right number
            of axes.
        mask_name: The same for archives of label maps.
        gaps: A DICOM series with missing or unequally spaced slices is rejected, or interpolated linearly
            between its slices onto an even grid, as long as no gap is wider than four typical ones.
        tilt: A DICOM series whose slices are not stacked along their normal (gantry tilt) is rejected, moved
            onto a rectangular grid by shifting slices in their planes, or kept with a sheared affine.
        secondary: Secondary captures (screenshots, scanned film) are rejected or kept. Some public sets of
            X-rays were exported as secondary captures.
    """

    dims: Literal[2, 3] = 3
    channels: int = 1
    colour: Literal["reject", "grey", "rgb"] = "reject"
    spacing: tuple[float, ...] | None = None
    orientation: str | None = None
    array_axes: Literal["space", "channels_first", "channels_last"] = "space"
    array_name: str | None = None
    mask_name: str | None = None
    gaps: Literal["reject", "resample"] = "reject"
    tilt: Literal["reject", "correct", "ignore"] = "reject"
    secondary: Literal["reject", "keep"] = "reject"

    def __post_init__(self) -> None:
        if self.dims not in (2, 3):
            raise ConfigError(f"dims: an image has 2 or 3 axes, not {self.dims}")
        if self.channels < 1:
            raise ConfigError(f"channels: expected at least 1, got {self.channels}")
        if self.colour == "rgb" and self.channels != 3:
            raise ConfigError(f"colour: 'rgb' gives 3 channels, but channels is {self.channels}")
        if self.spacing is not None and (
            len(self.spacing) != self.dims or not all(np.isfinite(s) and s > 0 for s in self.spacing)
        ):
            raise ConfigError(f"spacing: expected {self.dims} positive numbers (mm), got {self.spacing}")
        if self.orientation is not None:
            letters = self.orientation.upper()
            axes = [axis for letter in letters for axis, pair in enumerate(_CODES) if letter in pair]
            if len(letters) != 3 or sorted(axes) != [0, 1, 2]:
                raise ConfigError(
                    "orientation: expected one letter of each of R/L, A/P and S/I, such as 'RAS', "
                    f"got {self.orientation!r}"
                )


@dataclass(frozen=True, kw_only=True)
class ImageHeader(Header):
    """What is known without decoding the voxels.

    ``shape`` counts voxels along the array axes as they lie in the file (not yet turned to RAS). ``affine`` leads
    from voxel indices to mm: (4, 4), to right-anterior-superior coordinates, for volumes; (3, 3) with the
    spacing on the diagonal for pictures, whose axes are rows and columns.
    """

    shape: tuple[int, ...]
    channels: int
    affine: Affine = field(repr=False)
    modality: str | None = None  # DICOM's code: "CT", "MR", "DX" ...; None where the file does not say

    def __post_init__(self) -> None:
        if self.affine.shape != (self.dims + 1, self.dims + 1):
            raise ValueError(f"affine of shape {self.affine.shape} for an image of shape {self.shape}")
        if min(self.shape) < 1 or self.channels < 1:
            raise ValueError(f"an image of {self.channels} channels and shape {self.shape}")

    @property
    def dims(self) -> int:
        """Axes of the image, without channels."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance of neighbouring voxels along every array axis, mm."""
        columns = self.affine[:-1, :-1]
        return tuple(float(length) for length in np.sqrt((columns**2).sum(axis=0)))


@dataclass(frozen=True, kw_only=True)
class Image:
    """One decoded image: ``data`` is (channels, *shape) float32, in the units of the file (CT: HU)."""

    data: NDArray[np.float32] = field(repr=False)
    header: ImageHeader

    def __post_init__(self) -> None:
        if self.data.shape != (self.header.channels, *self.header.shape):
            raise ValueError(f"data of shape {self.data.shape} for a header of {self.header.shape}")
