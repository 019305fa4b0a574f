"""The ``data:``, ``image:`` and ``masks:`` sections of a config."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from string import Formatter
from typing import Literal

from diptych.data.source import Source as Recordings
from diptych.errors import ConfigError
from diptych_medical.image import Reading

Plane = Literal["sagittal", "coronal", "axial"]
Intensity = Literal["ct", "mr", "minmax", "none"]
BACKGROUND = "background"

_MOST_CLASSES = 32767  # masks are stored as int16


@dataclass(frozen=True, kw_only=True)
class Source(Recordings):
    """Which images there are, whose they are, and the table that describes them.

    A rule is one of: record, path, folder, folder:2, row, name:GROUP, header, header:NAME, comment,
    comment:FIELD, table:COLUMN. In templates of files {record} is the image's name without suffix, and {GROUP}
    a group of ``names``.

    Args:
        format: Only files of this format; auto takes every known one.
        channel_files: Files with further channels of the same image, as templates of paths below the folder,
            such as "{case}_t2.nii.gz"; they must lie on the image's grid.
        spacing: Size of a voxel in mm, one number per axis, of pictures and arrays, which carry none; by
            default lengths of such images are in pixels.
        orientation: Where the axes of arrays and stacked pictures run to, such as "RAS" or "LPS".
        array_axes: Axes of a NumPy array, after its first one where it holds many images.
        array_name: The array of an .npz file that holds the images, where it has several.
        copies: The same voxels under two ids stop the run, or all but the first are put into quarantine.
    """

    format: Literal["auto", "nifti", "nrrd", "dicom", "picture", "numpy"] = "auto"
    channel_files: list[str] = field(default_factory=list)
    spacing: tuple[float, ...] | None = None
    orientation: str | None = None
    array_axes: Literal["space", "channels_first", "channels_last"] = "space"
    array_name: str | None = None
    copies: Literal["stop", "reject"] = "stop"

    def __post_init__(self) -> None:
        super().__post_init__()
        for template in self.channel_files:
            self.check_template(template, "data.channel_files")

    def check_template(self, template: str, setting: str) -> None:
        """Raise ConfigError where a template names another field than record and the groups of names."""
        known = {"record", *re.compile(self.names or "").groupindex}
        try:
            fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
        except ValueError as error:
            raise ConfigError(f"{setting}: {template!r} is no template: {error}") from None
        if unknown := fields - known:
            raise ConfigError(
                f"{setting}: {{{sorted(unknown)[0]}}} is neither {{record}} nor a group of data.names "
                f"(groups: {', '.join(sorted(known - {'record'})) or 'none'})"
            )
        if not fields:
            raise ConfigError(
                f"{setting}: {template!r} is one file for all images; write {{record}} or {{GROUP}} of data.names"
            )


@dataclass(frozen=True, kw_only=True)
class Imaging:
    """What is made of an image: orientation, voxel size, intensity, and how much of it a batch holds.

    The order is: turned to RAS without interpolation, intensity, resampling, slices or resizing. Axis 0 of a
    volume then runs from left to right, axis 1 from posterior to anterior, axis 2 from inferior to superior.

    Args:
        dims: 3 for volumes, 2 for pictures or slices of volumes.
        slices: Slices of volumes as 2D images: the plane they lie in.
        every: With slices, take every so many of them.
        spacing: Size of a voxel in mm that all images are resampled to, one number per axis (three where
            slices are cut from volumes). By default each keeps its own; they must then agree to 1 %.
        mixed_spacing: Images of different spacing may stand side by side unresampled.
        size: 2D: rows and columns in pixels that every image is resized to, whatever its shape.
        crop: What a batch holds of an image, one length per axis: mm where the data have a spacing, pixels
            where they have none or size is set. By default the largest image, to which others are padded.
        small: An image smaller than the crop is padded, or put into quarantine.
        intensity: ct: the window, to 0..1. mr: percentiles of each channel, to 0..1. minmax: the whole range of
            the image, to 0..1. none: as in the file.
        window: For ct, the lowest and highest value in HU.
        percentiles: For mr, the percentiles of all voxels that become 0 and 1.
        channels: Channels of an image, those of data.channel_files included.
        colour: Colour images are put into quarantine, made grey, or kept as three channels.
        gaps: A DICOM series with missing or unequally spaced slices is put into quarantine, or resampled onto
            an even grid.
        tilt: A DICOM series with gantry tilt is put into quarantine, sheared upright, or kept as it is.
        secondary: DICOM secondary captures (screenshots, scanned film) are put into quarantine, or kept.
        precision: Type of prepared voxels on disk; float16 keeps 11 bits of 0..1.
        max_quarantined: Largest share of images in quarantine, beyond which nothing is run.
    """

    dims: Literal[2, 3] = 3
    slices: Plane | None = None
    every: int = 1
    spacing: tuple[float, ...] | None = None
    mixed_spacing: bool = False
    size: tuple[int, ...] | None = None
    crop: tuple[float, ...] | None = None
    small: Literal["pad", "reject"] = "pad"
    intensity: Intensity = "minmax"
    window: tuple[float, float] = (-160.0, 240.0)
    percentiles: tuple[float, float] = (0.5, 99.5)
    channels: int = 1
    colour: Literal["reject", "grey", "rgb"] = "reject"
    gaps: Literal["reject", "resample"] = "reject"
    tilt: Literal["reject", "correct", "ignore"] = "reject"
    secondary: Literal["reject", "keep"] = "reject"
    precision: Literal["float16", "float32"] = "float16"
    max_quarantined: float = 0.2

    def __post_init__(self) -> None:
        if faults := list(_faults(self)):
            raise ConfigError("; ".join(faults))

    @property
    def file_dims(self) -> Literal[2, 3]:
        """Axes of an image as its file holds it."""
        return 3 if self.slices else self.dims


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Label maps of images, and what their values mean.

    Args:
        files: Template of the mask's path, below data.path or absolute, such as "labelsTr/{record}.nii.gz" or
            "{case}_label.nrrd". An image without one is unlabelled.
        classes: Names of the structures and their values in the file, one or a list; 0 is background unless
            it is listed, and further values may be listed as "background". Without names every value above 0
            is the one class "foreground". A mask with another value is put into quarantine.
        array_name: The array of an .npz file that holds the masks, where it has several.
        unlabelled: Values of voxels of which nothing is said (numbered -1): they count for no loss or score.
        empty: A mask with background only is put into quarantine, or kept.
    """

    files: str
    classes: Mapping[str, list[int] | int] = field(default_factory=dict)
    array_name: str | None = None
    unlabelled: list[int] = field(default_factory=list)
    empty: Literal["reject", "keep"] = "reject"

    def __post_init__(self) -> None:
        values = [*self.unlabelled, *(value for listed in self.values.values() for value in listed)]
        if len(set(values)) != len(values):
            twice = sorted({value for value in values if values.count(value) > 1})
            raise ConfigError(f"masks.classes: the value {twice[0]} is listed twice; each has one class")
        if hollow := [name for name, listed in self.values.items() if not listed]:
            raise ConfigError(f"masks.classes: {hollow[0]!r} has no value")
        if set(self.classes) == {BACKGROUND}:
            raise ConfigError("masks.classes names the background only; name the structures")
        if len(self.classes) > _MOST_CLASSES:
            raise ConfigError(f"masks.classes: at most {_MOST_CLASSES} classes, got {len(self.classes)}")

    @property
    def values(self) -> dict[str, list[int]]:
        """The values of every structure, as lists."""
        return {name: [one] if isinstance(one, int) else list(one) for name, one in self.classes.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The classes by number, the background first."""
        named = [name for name in self.classes if name != BACKGROUND]
        return (BACKGROUND, *(named or ["foreground"]))


def reading(source: Source, imaging: Imaging, masks: Masks | None = None) -> Reading:
    """What readers need to know of the sections.

    Raises ConfigError where channels cannot be shared among the files of an image.
    """
    files = 1 + len(source.channel_files)
    if imaging.channels % files:
        raise ConfigError(
            f"image.channels: {imaging.channels} channels cannot come from {files} files an image "
            f"(data.channel_files names {files - 1} further ones); set it to {files}"
        )
    return Reading(
        dims=imaging.file_dims,
        channels=imaging.channels // files,
        colour=imaging.colour,
        spacing=source.spacing,
        orientation=source.orientation,
        array_axes=source.array_axes,
        array_name=source.array_name,
        mask_name=None if masks is None else masks.array_name,
        gaps=imaging.gaps,
        tilt=imaging.tilt,
        secondary=imaging.secondary,
    )


def _faults(image: Imaging) -> Iterator[str]:
    """All faults of the section that can be seen without data."""
    if image.slices and image.dims == 3:
        yield "image.slices cuts volumes into 2D images; set image.dims: 2"
    if image.every < 1 or (image.every > 1 and not image.slices):
        yield f"image.every counts slices, at least 1, and goes with image.slices; got {image.every}"
    for name, wanted in (("spacing", image.file_dims), ("crop", image.dims), ("size", 2)):
        given: tuple[float, ...] | None = getattr(image, name)
        if given is None:
            continue
        if len(given) != wanted or not all(math.isfinite(each) and each > 0 for each in given):
            yield f"image.{name} is a list of {wanted} numbers above 0; got {list(given)}"
    if image.size is not None and image.dims == 3:
        yield "image.size resizes 2D images; for volumes set image.spacing and image.crop"
    if image.size is not None and (image.spacing is not None or image.mixed_spacing):
        yield "image.size already brings all images to one shape; leave out image.spacing and image.mixed_spacing"
    if image.mixed_spacing and (image.spacing is not None or image.crop is not None):
        yield "image.mixed_spacing goes with neither image.spacing nor image.crop: a crop in mm has one size"
    low, high = image.window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        yield f"image.window is [lowest, highest] in HU, ascending; got {[low, high]}"
    low, high = image.percentiles
    if not 0 <= low < high <= 100:
        yield f"image.percentiles is [lower, upper] from 0 to 100, ascending; got {[low, high]}"
    if image.channels < 1:
        yield f"image.channels is at least 1; got {image.channels}"
    if image.colour == "rgb" and image.channels != 3:
        yield f"image.colour: rgb gives 3 channels; set image.channels: 3 (it is {image.channels})"
    if image.intensity == "none" and image.precision == "float16":
        yield "image.intensity: none keeps values that float16 cannot hold; set image.precision: float32"
    if not 0 <= image.max_quarantined <= 1:
        yield f"image.max_quarantined is a share from 0 to 1; got {image.max_quarantined:g}"
