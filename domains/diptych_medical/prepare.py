"""One image made ready for training, and labels of it brought back to where its file has them.

A volume is turned to RAS by swapping and mirroring axes, which loses nothing; then its intensity is mapped, and
then it is resampled, so that it is interpolated once at most. Label maps are never interpolated.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from diptych.data.atomic import replacing
from diptych.data.readable import Unreadable
from diptych_medical import geometry
from diptych_medical.image import Affine, Image
from diptych_medical.intensity import Voxels, check_voxels, content_hash, scaled
from diptych_medical.settings import BACKGROUND, Imaging, Masks, Plane

LabelMap = NDArray[np.int16]
UNLABELLED = -1

PLANES: Mapping[Plane, int] = {
    "sagittal": 0,
    "coronal": 1,
    "axial": 2,
}  # the axis a slice stands at right angles to


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One image or slice as it is stored.

    ``facts`` are plain values that lead back to the file: ``shape`` and ``affine`` of its array, ``grid`` and
    ``grid_affine`` after the turn to RAS and before resampling, and with slices ``plane`` (an axis) and
    ``slice`` (an index); further ``content`` (a hash of the decoded voxels), ``low`` (the lowest stored value)
    and ``modality``.
    """

    data: Voxels = field(repr=False)  # (c, *space)
    mask: LabelMap | None = field(repr=False)  # (*space): -1 unlabelled, 0 background, 1 ... the classes
    affine: Affine = field(repr=False)  # (d + 1, d + 1) of the stored grid; of a slice, its own two axes
    facts: Mapping[str, Any] = field(repr=False)


def prepare_image(image: Image, mask: NDArray[np.int64] | None, imaging: Imaging) -> Stored:
    """Check, turn, scale and resample one image and its mask.

    Args:
        image: As read, (c, *shape) in the array axes of its file.
        mask: (*shape) numbers of classes (see :func:`classes_of`) on the same grid, or None.
        imaging: What is made of it.

    Raises:
        Unreadable: missing or infinite voxels, a constant image, or one that is constant in its window.
    """
    check_voxels(image.data, colour=imaging.colour == "rgb")
    facts: dict[str, Any] = {
        "shape": list(image.header.shape),
        "affine": image.header.affine.tolist(),
        "content": content_hash(image.data),
        "modality": image.header.modality,
    }
    data, labels, affine = image.data, mask, image.header.affine
    if image.header.dims == 3:
        to_ras = geometry.orientation_of(affine)
        affine = geometry.turned_affine(affine, image.header.shape, to_ras)
        data = geometry.turn(data, to_ras)
        labels = None if labels is None else geometry.turn(labels, to_ras)
    data = scaled(data, imaging)
    facts |= {"grid": list(data.shape[1:]), "grid_affine": affine.tolist()}
    shape, wanted = _target(data.shape[1:], affine, imaging)
    if shape != data.shape[1:] or not np.allclose(wanted, affine, rtol=0, atol=1e-6 * np.abs(affine).max()):
        data = np.stack([geometry.resample(each, affine, shape, wanted) for each in data])
        if labels is not None:
            labels = geometry.resample(labels, affine, shape, wanted, nearest=True)
        affine = wanted
    return Stored(
        data=np.ascontiguousarray(data, np.float32),
        mask=None if labels is None else np.ascontiguousarray(labels, np.int16),
        affine=affine,
        facts={**facts, "low": float(data.min())},
    )


def slices_of(stored: Stored, imaging: Imaging) -> list[Stored]:
    """The slices of a volume as 2D images, from the first on, every so many; axes keep their order.

    A slice of one value all over is left out: it shows nothing that could be contrasted. The facts of each are
    those of the volume, with its own ``slice`` and ``low``.
    """
    if imaging.slices is None:
        raise ValueError("slices_of needs image.slices")
    axis = PLANES[imaging.slices]
    facts = {
        **stored.facts,
        "plane": axis,
        "volume": list(stored.data.shape[1:]),
        "volume_affine": stored.affine.tolist(),
    }
    found = []
    for place in range(0, stored.data.shape[1 + axis], imaging.every):
        at = (slice(None),) * axis + (place,)
        data: Voxels = stored.data[(slice(None), *at)]
        if data.max() == data.min():
            continue
        mask: LabelMap | None = None if stored.mask is None else stored.mask[at]
        affine = plane_affine(facts)
        if imaging.size is not None:
            shape, wanted = _resized(data.shape[1:], affine, imaging.size)
            data = np.stack([geometry.resample(each, affine, shape, wanted) for each in data])
            mask = None if mask is None else geometry.resample(mask, affine, shape, wanted, nearest=True)
            affine = wanted
        own = {**facts, "slice": place, "low": float(data.min())}
        found.append(Stored(data=data, mask=mask, affine=affine, facts=own))
    return found


def plane_affine(facts: Mapping[str, Any]) -> Affine:
    """The affine (3, 3) of a slice before resizing: its two spacings on the diagonal."""
    spacing = geometry.spacing_of(np.array(facts["volume_affine"]))
    return geometry.diagonal([each for axis, each in enumerate(spacing) if axis != facts["plane"]])


def to_input_space(prediction: NDArray[Any], stored: Stored) -> tuple[NDArray[Any], Affine]:
    """Labels on the stored grid, brought to the grid of the file: (*shape), and the file's affine.

    Args:
        prediction: (*stored space) labels; nearest neighbours are taken, so no value is made up. Labels of a
            slice come back as a volume that is 0 elsewhere.
        stored: The image they belong to; only its affine and facts are used.

    Raises:
        ValueError: labels of another shape than the stored image's.
    """
    facts = stored.facts
    affine, shape = stored.affine, stored.data.shape[1:]
    if prediction.shape != shape:
        raise ValueError(f"labels of shape {prediction.shape} for an image stored as {shape}")
    if "slice" in facts:
        volume = np.zeros(facts["volume"], prediction.dtype)
        plane = tuple(size for axis, size in enumerate(facts["volume"]) if axis != facts["plane"])
        if shape != plane:
            prediction = geometry.resample(prediction, affine, plane, plane_affine(facts), nearest=True)
        volume[(slice(None),) * facts["plane"] + (facts["slice"],)] = prediction
        return _back(volume, np.array(facts["volume_affine"]), facts)
    return _back(prediction, affine, facts)


def _back(labels: NDArray[Any], affine: Affine, facts: Mapping[str, Any]) -> tuple[NDArray[Any], Affine]:
    grid, grid_affine = tuple(facts["grid"]), np.array(facts["grid_affine"])
    if labels.shape != grid or not np.array_equal(affine, grid_affine):
        labels = geometry.resample(labels, affine, grid, grid_affine, nearest=True)
    original = np.array(facts["affine"])
    if len(grid) == 3:
        labels = geometry.turn_back(labels, geometry.orientation_of(original))
    return np.ascontiguousarray(labels), original


def _target(shape: Sequence[int], affine: Affine, imaging: Imaging) -> tuple[tuple[int, ...], Affine]:
    """The grid that an image is brought to."""
    if imaging.size is not None and imaging.file_dims == 2:
        return _resized(shape, affine, imaging.size)
    if imaging.spacing is not None:
        return geometry.even_grid(shape, affine, imaging.spacing)
    return tuple(shape), affine


def _resized(shape: Sequence[int], affine: Affine, size: Sequence[int]) -> tuple[tuple[int, ...], Affine]:
    """The grid of ``size`` voxels that covers the same extent, voxel borders included."""
    step = np.array(shape) / np.array(size)
    out = affine.copy()
    out[:-1, :-1] = affine[:-1, :-1] * step
    out[:-1, -1] = affine[:-1, -1] + affine[:-1, :-1] @ ((step - 1) / 2)
    return tuple(size), out


def classes_of(values: NDArray[np.int64], masks: Masks) -> NDArray[np.int64]:
    """Numbers of classes from the values in a mask file: -1 unlabelled, 0 background, 1 ... as in masks.names.

    Raises Unreadable on a value that is not listed and on a mask without foreground.
    """
    present = np.unique(values)
    table = {0: 0, **dict.fromkeys(masks.unlabelled, UNLABELLED)}
    if masks.classes:
        for name, listed in masks.values.items():
            table.update({value: 0 if name == BACKGROUND else masks.names.index(name) for value in listed})
    else:
        table.update({int(value): 1 for value in present if value > 0 and value not in table})
    if unknown := [int(value) for value in present if int(value) not in table]:
        raise Unreadable(
            f"label value outside the list: {', '.join(map(str, unknown[:5]))} (masks.classes lists "
            f"{', '.join(map(str, sorted(table)[:20]))})"
        )
    numbers = np.array([table[int(value)] for value in present], np.int64)
    if masks.empty == "reject" and not (numbers > 0).any():
        raise Unreadable("empty label: the mask holds background only (masks.empty: keep takes it)")
    return numbers[np.searchsorted(present, values)]


class HasStored(Protocol):
    """What writing a prediction needs of a prepared data set."""

    def stored(self, index: int, /) -> Stored:
        """One image with what leads back to its file."""


def write_prediction(
    path: str | Path, labels: NDArray[Any], images: HasStored, index: int | Sequence[int]
) -> Path:
    """Write labels so that they open over the image's file in a viewer, and return the path.

    Labels of volumes and of their slices become NIfTI with the shape and affine of the file's array (of a DICOM
    series, of its stacked slices); those of pictures become PNG with one number a pixel.

    Args:
        path: ends in .nii.gz or .nii for volumes and slices, in .png for pictures; parents are made.
        labels: (*space) numbers of classes on the stored grid; for several slices (n, *space).
        images: the data set.
        index: which image; several slices of one volume are put into one file, which is 0 elsewhere.

    Raises:
        ValueError: another suffix, labels that do not fit, or slices of several volumes.
    """
    path = Path(path)
    together = labels[None] if isinstance(index, int) else labels
    chosen = [index] if isinstance(index, int) else list(index)
    every = [images.stored(each) for each in chosen]
    if len({each.facts["content"] for each in every}) != 1 or len(together) != len(every):
        raise ValueError(f"{len(together)} label maps for {len(every)} images; expected slices of one volume")
    brought = [to_input_space(one, each) for one, each in zip(together, every, strict=True)]
    out, affine = brought[0]
    for more, _ in brought[1:]:
        out = np.maximum(out, more)  # slices do not overlap, and are 0 elsewhere
    out = out.astype(_smallest(out))
    wanted = (".png",) if out.ndim == 2 else (".nii.gz", ".nii")
    if not path.name.endswith(wanted):
        raise ValueError(f"labels of {out.ndim} axes are written to {' or '.join(wanted)}; got {path.name!r}")
    content = _png(out) if out.ndim == 2 else _nifti(out, affine)
    with replacing(path) as partial:
        partial.write_bytes(gzip.compress(content, mtime=0) if path.name.endswith(".gz") else content)
    return path


def _smallest(labels: NDArray[Any]) -> type[np.generic]:
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        return np.int16
    return np.uint8 if high < 256 else np.uint16


def _png(labels: NDArray[Any]) -> bytes:
    from PIL import Image as Pillow

    if labels.dtype == np.int16:
        raise ValueError("a PNG holds no negative labels")
    file = io.BytesIO()
    Pillow.fromarray(labels).save(file, format="PNG")
    return file.getvalue()


def _nifti(labels: NDArray[Any], affine: Affine) -> bytes:
    nibabel: Any = import_module("nibabel")  # imported when it is needed; it comes half typed
    image = nibabel.Nifti1Image(labels, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)  # scanner coordinates: viewers then lay it over the image by its place
    image.set_qform(affine, code=1)
    content: bytes = image.to_bytes()
    return content
