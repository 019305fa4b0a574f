"""Simulated volumes for the demo and the tests. They are simulated: no result on them is a finding."""

from __future__ import annotations

import csv
import gzip
import io
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from diptych.data.atomic import replacing, write_text
from diptych.data.pool import in_pool
from diptych.errors import DataError

TABLE = "simulated.csv"
IMAGES, MASKS = "images", "masks"
CLASSES = {"core": 1, "pocket": 2}
MARK = "SIMULATED phantom; no image of a person"

_SPACING = 2.0  # mm
_SMOOTH = 0.12  # share of a side over which the deformation is smooth
_BEND = 0.10  # standard deviation of the deformation, in half sides
_LEVELS = {"bright": (0.75, 0.15), "dark": (0.15, 0.75)}  # of core and pocket, by contrast; the body has 0.45


class Phantom(NamedTuple):
    """What is drawn for one patient."""

    name: str
    lesion: bool
    contrast: str  # "bright" or "dark"


def simulate(
    folder: str | Path, *, patients: int = 24, side: int = 32, seed: int = 0, workers: int | None = None
) -> Path:
    """Write phantoms as NIfTI with masks and a table of labels, and return the folder.

    A phantom is an ellipsoid with two smaller ones in it, bent by a smooth random field, with noise and with or
    without a small bright lesion: ``images/simulated_PP.nii.gz``, ``masks/simulated_PP.nii.gz`` (1 core, 2
    pocket; 0 the rest, lesions included), and ``simulated.csv`` with the columns patient, lesion (none,
    present) and contrast (bright, dark: what the core is), one row each. Both labels are equally frequent and
    independent where ``patients`` is a multiple of 4. Sides are ``side`` voxels of 2 mm give or take an eighth;
    every second file runs to left and back (LPS), as scanners write them. A folder that already holds this
    simulation is left as it is; equal arguments give the same bytes.

    Args:
        folder: Where to; made where it is not there.
        patients: Number of phantoms, at least 1.
        side: Voxels along an axis, 16 to 64.
        seed: What they are drawn from.
        workers: Processes.

    Raises:
        DataError: the folder holds other files.
    """
    folder = Path(folder)
    phantoms = [
        Phantom(
            name=f"simulated_{number:02d}",
            lesion=bool(number % 2),
            contrast="dark" if number // 2 % 2 else "bright",
        )
        for number in range(patients)
    ]
    table = _table(phantoms, side, seed)
    if (folder / TABLE).is_file() and (folder / TABLE).read_text(encoding="utf-8") == table:
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"{str(folder)!r} holds other files than this simulation; take an empty folder or remove them"
        )
    work = partial(_write, folder=folder, side=side, seed=seed)
    in_pool(work, list(enumerate(phantoms)), workers=workers, what="Simulating", unit="volume")
    write_text(folder / TABLE, table)  # last: its presence says that all volumes are there
    return folder


def draw(
    phantom: Phantom, side: int, generator: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """(image, mask) of one phantom, both (*space), axes to right, front and head."""
    space = tuple(int(n) for n in np.round(side * generator.uniform(0.875, 1.125, 3)))
    axes = [np.linspace(-1, 1, n) for n in space]
    place = np.stack(np.meshgrid(*axes, indexing="ij"))
    field = np.stack(
        [
            ndimage.gaussian_filter(generator.normal(size=space), _SMOOTH * side, mode="nearest")
            for _ in range(3)
        ]
    )
    bent = place + _BEND * field / field.std()
    body = _inside(bent, (0, 0, 0), generator.uniform((0.75, 0.8, 0.7), (0.9, 0.95, 0.85)))
    core = _inside(bent, generator.normal((-0.28, 0.1, 0.0), 0.04), generator.uniform(0.26, 0.36, 3))
    pocket = _inside(bent, generator.normal((0.32, -0.12, 0.05), 0.04), generator.uniform(0.18, 0.28, 3))
    levels = _LEVELS[phantom.contrast]
    image = 0.45 * body
    image[core], image[pocket] = levels
    spot = _inside(bent, generator.uniform((-0.2, 0.35, -0.3), (0.3, 0.5, 0.3)), (0.14, 0.14, 0.14))
    if phantom.lesion:
        image[spot] = 1.0
    image = ndimage.gaussian_filter(image, 0.6) * generator.uniform(0.8, 1.2)
    image = np.clip(image + generator.normal(0, 0.04, space), 0, None)
    mask = np.zeros(space, np.uint8)
    mask[core], mask[pocket] = CLASSES["core"], CLASSES["pocket"]
    return np.round(1000 * image).astype(np.int16), mask


def _inside(place: NDArray[np.float64], centre: object, radii: object) -> NDArray[np.bool_]:
    """The voxels of an ellipsoid, (*space)."""
    shift = np.asarray(centre, float).reshape(3, 1, 1, 1)
    scale = np.asarray(radii, float).reshape(3, 1, 1, 1)
    return np.asarray((((place - shift) / scale) ** 2).sum(axis=0) < 1)


def _write(task: tuple[int, Phantom], *, folder: Path, side: int, seed: int) -> None:
    """Image and mask of one phantom."""
    nibabel: Any = import_module("nibabel")  # imported when it is needed; it comes half typed
    number, phantom = task
    image, mask = draw(phantom, side, np.random.default_rng([seed, number]))
    affine = np.diag([_SPACING, _SPACING, _SPACING, 1.0])
    if number % 2:
        image, mask = image[::-1, ::-1], mask[::-1, ::-1]
        affine = np.diag([-_SPACING, -_SPACING, _SPACING, 1.0])
    for place, values in ((IMAGES, image), (MASKS, mask)):
        file = nibabel.Nifti1Image(np.ascontiguousarray(values), affine)
        file.header.set_xyzt_units("mm")
        file.header["descrip"] = MARK
        file.set_sform(affine, code=1)
        with replacing(folder / place / f"{phantom.name}.nii.gz") as partial_file:
            partial_file.write_bytes(gzip.compress(file.to_bytes(), mtime=0))


def _table(phantoms: list[Phantom], side: int, seed: int) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["patient", "lesion", "contrast", "simulation"])
    for each in phantoms:
        lesion = "present" if each.lesion else "none"
        rows.writerow([each.name, lesion, each.contrast, f"seed {seed}, side {side}"])
    return text.getvalue()
