"""Some images prepared and stored: the part of preparation that runs in worker processes and is cached.

A piece is up to three files named by a key: ``KEY.npy``, the voxels of all its images one after the other, to be
memory-mapped; ``KEY.mask.npy``, their label maps (int16) where there are any; and ``KEY.npz``, the shapes, the
places in the two, and plain facts. The last is written last, so a piece that has it is whole. None holds text
from a header.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.data.atomic import replacing
from diptych.data.readable import Item, Unreadable
from diptych_medical import geometry, readers
from diptych_medical.image import Image, Reading
from diptych_medical.prepare import Stored, classes_of, prepare_image, slices_of
from diptych_medical.settings import Imaging, Masks

_VERSION = 1  # raise when the same settings give other voxels: older pieces are then made anew

_LATER = ("crop", "small", "mixed_spacing", "max_quarantined")  # settings that act after preparation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every image is prepared."""

    imaging: Imaging
    masks: Masks | None
    reading: Reading


@dataclass(frozen=True, kw_only=True)
class Task:
    """One image: its file, files with further channels, and its mask; None where it has none."""

    kind: str
    item: Item
    channels: tuple[Path, ...]
    mask: Path | None
    digests: tuple[str, ...]  # SHA-256 of all files that it depends on, in the order item, channels, mask


@dataclass(frozen=True, kw_only=True)
class Job:
    """Images that are prepared and stored together."""

    tasks: tuple[Task, ...]

    def key(self, plan: Plan) -> str:
        """Names the piece: a hash of bytes and settings, without any path."""
        settings = {name: value for name, value in asdict(plan.imaging).items() if name not in _LATER}
        masks = None if plan.masks is None else asdict(replace(plan.masks, files=""))
        tasks = [
            (each.kind, each.item.part, len(each.channels), each.mask is not None, each.digests)
            for each in self.tasks
        ]
        text = json.dumps([_VERSION, tasks, settings, masks, asdict(plan.reading)])
        return hashlib.sha256(text.encode()).hexdigest()[:40]


class Piece(NamedTuple):
    """What is stored beside the voxels, for m images or slices of d axes."""

    task: NDArray[np.int64]  # (m,) index into the job's tasks
    shapes: NDArray[np.int64]  # (m, d) voxels, without channels
    starts: NDArray[np.int64]  # (m,) place of the first voxel
    mask_starts: NDArray[np.int64]  # (m,) place of the first voxel of its mask, -1 without one
    affines: NDArray[np.float64]  # (m, d + 1, d + 1)
    slices: NDArray[np.int64]  # (m,) index of the slice in its volume, -1 for whole images
    lows: NDArray[np.float64]  # (m,) lowest value
    facts: list[dict[str, Any]]  # per task: "reason" of a rejected one, else its plain facts


def mask_path(target: Path) -> Path:
    """Where a piece's label maps lie."""
    return target.with_name(f"{target.name}.mask.npy")


def store(job: Job, target: Path, *, plan: Plan) -> list[str] | None:
    """Prepare the images of a job and write the piece ``target``.

    Returns None when it is written, or the reason of each image when all were rejected: those are not stored,
    so that a mended reader meets them again.
    """
    images: list[Stored] = []
    of: list[int] = []
    facts: list[dict[str, Any]] = []
    for number, task in enumerate(job.tasks):
        try:
            made = make(task, plan)
        except Unreadable as error:
            facts.append({"reason": str(error)})
            continue
        facts.append({name: value for name, value in made[0].facts.items() if name not in ("slice", "low")})
        images += made
        of += [number] * len(made)
    if not images:
        return [str(fact["reason"]) for fact in facts]
    masks = [each.mask for each in images if each.mask is not None]
    if masks:
        _save(mask_path(target), np.concatenate([mask.ravel() for mask in masks]))
    precision = np.dtype(plan.imaging.precision)
    _save(
        target.with_suffix(".npy"), np.concatenate([each.data.astype(precision).ravel() for each in images])
    )
    mask_sizes = [0 if each.mask is None else each.mask.size for each in images]
    with replacing(target.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez(
            file,
            task=np.array(of),
            shapes=np.array([each.data.shape[1:] for each in images]),
            starts=_starts([each.data.size for each in images]),
            mask_starts=np.where(np.array(mask_sizes) > 0, _starts(mask_sizes), -1),
            affines=np.stack([each.affine for each in images]),
            slices=np.array([each.facts.get("slice", -1) for each in images]),
            lows=np.array([each.facts["low"] for each in images]),
            facts=np.array(json.dumps(facts)),
        )
    return None


def load(target: Path) -> Piece | None:
    """The stored tables of a piece, or None where it is not there or not whole."""
    if not target.with_suffix(".npz").is_file() or not target.with_suffix(".npy").is_file():
        return None
    try:
        with target.with_suffix(".npz").open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            tables = {name: file[name] for name in Piece._fields[:-1]}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None  # written again
    piece = Piece(**tables, facts=facts)
    return piece if (piece.mask_starts < 0).all() or mask_path(target).is_file() else None


def make(task: Task, plan: Plan) -> list[Stored]:
    """Read and prepare one image, or the slices of one. Raises Unreadable with the reason why not."""
    image = read(task, plan.reading)
    if image.header.channels != plan.imaging.channels:
        raise Unreadable(
            f"channels: the image has {image.header.channels}, image.channels is {plan.imaging.channels}"
        )
    mask = None
    if plan.masks is not None and task.mask is not None:
        mask = classes_of(read_mask(task.mask, task.item, image, plan.reading), plan.masks)
    stored = prepare_image(image, mask, plan.imaging)
    if plan.imaging.slices is None:
        return [stored]
    if not (slices := slices_of(stored, plan.imaging)):
        raise Unreadable("constant image: every slice that is taken is constant")
    return slices


def read(task: Task, reading: Reading) -> Image:
    """The image with the channels of all its files. Raises Unreadable where their grids differ."""
    first = readers.read(task.kind, task.item, reading)
    if not task.channels:
        return first
    data = [first.data]
    for path in task.channels:
        other = readers.read(_format(path), _beside(path, task.item), reading)
        if not geometry.same_space(
            first.header.shape, first.header.affine, other.header.shape, other.header.affine
        ):
            raise Unreadable(
                f"channel on another grid: {_grid(other.header.shape)}, the first has {_grid(first.header.shape)}; "
                "or it lies elsewhere"
            )
        data.append(other.data)
    stacked = np.concatenate(data)
    return Image(data=stacked, header=replace(first.header, channels=len(stacked)))


def read_mask(path: Path, item: Item, image: Image, reading: Reading) -> NDArray[np.int64]:
    """The values of a mask, turned to the image's array axes where its file has others.

    A picture or array has no place in space: only its shape is compared.

    Raises Unreadable where it has another shape or lies elsewhere.
    """
    kind = _format(path)
    values, affine = readers.read_mask(kind, _beside(path, item), reading)
    shape, own = image.header.shape, image.header.affine
    placed = kind not in ("picture", "numpy")
    if placed and image.header.dims == 3:
        to_ras, image_to_ras = geometry.orientation_of(affine), geometry.orientation_of(own)
        affine = geometry.turned_affine(affine, values.shape, to_ras)
        values = geometry.turn(values, to_ras)
        own = geometry.turned_affine(own, shape, image_to_ras)
        shape = tuple(shape[axis] for axis in image_to_ras.axes)
    if values.shape != shape:
        raise Unreadable(f"mask of another shape: {_grid(values.shape)} voxels, the image has {_grid(shape)}")
    if placed and not geometry.same_space(shape, own, values.shape, affine):
        raise Unreadable("mask in another space: its affine puts it elsewhere than the image")
    return geometry.turn_back(values, image_to_ras) if placed and image.header.dims == 3 else values


def _beside(path: Path, item: Item) -> Item:
    """A further file of an image; of an array with many images, the same row."""
    part = item.part if readers.format_of(path) == "numpy" else None
    return Item(path=path, name=item.name, part=part, files=(path,))


def _format(path: Path) -> str:
    if (kind := readers.format_of(path)) is None:
        raise Unreadable("unknown format: a mask or channel file is no image file")
    return kind


def _grid(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _starts(sizes: Sequence[int]) -> NDArray[np.int64]:
    return np.cumsum([0, *sizes[:-1]]).astype(np.int64)


def _save(path: Path, values: NDArray[Any]) -> None:
    with replacing(path) as partial, partial.open("wb") as file:
        np.save(file, values, allow_pickle=False)
