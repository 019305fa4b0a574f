"""What evaluations of images share: labelled images of each split, draws of few patients, names of files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError
from diptych.evaluation.few_labels import draw_patients
from diptych.evaluation.target import check_samples
from diptych.study import Indices, Samples, Study
from diptych_medical.prepare import Stored

Array32 = NDArray[np.float32]
Labels = NDArray[np.int64]


class Images(Protocol):
    """A prepared data set, as evaluations use it; index i is row i of ``samples``."""

    @property
    def samples(self) -> Samples:
        """Ids, labels and splits."""

    @property
    def channels(self) -> int:
        """Channels of every image."""

    @property
    def dims(self) -> int:
        """2 or 3."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the mask's classes by number, "background" first; () without masks."""

    @property
    def crop_shape(self) -> tuple[int, ...]:
        """Voxels along each axis that a batch holds."""

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """(n,) whether an image has a mask."""

    def image(self, index: int, /) -> Array32:
        """One whole image, (c, *space)."""

    def mask(self, index: int, /) -> Labels | None:
        """Its classes, (*space), -1 where unknown; None for an image without mask."""

    def spacing(self, index: int, /) -> tuple[float, ...]:
        """Distance of its voxels along each axis, in mm (pixels where images carry none)."""

    def stored(self, index: int, /) -> Stored:
        """One image with what leads back to its file."""

    def batch(
        self, indices: Indices, corners: NDArray[np.int64] | None = None, /
    ) -> tuple[Array32, Labels | None]:
        """Crops (n, c, *crop_shape) and classes (n, *crop_shape), -1 where unknown or padded."""

    def corners(self, indices: Indices, places: NDArray[np.float64] | None = None, /) -> NDArray[np.int64]:
        """First voxels (n, d) of crops at relative places, 0 to below 1; by default in the middle."""


def images_of(study: Study, *, labelled: bool = True) -> Images:
    """The study's images. Raises ConfigError when it has none, or no masks where these are needed."""
    images: Images | None = getattr(study, "images", None)
    if images is None:
        raise ConfigError("this evaluation needs images, and the study has none")
    if labelled and len(images.classes) < 2:
        raise ConfigError(
            "this evaluation needs masks: name them in the section masks (files and classes) of the config, or "
            "with --masks.files"
        )
    return images


def labelled_images(
    images: Images, split: Literal["train", "test"], run_splits: str | Path | None, patients: int = 2
) -> Indices:
    """Those images of a split that have a mask.

    Args:
        images: The data set.
        split: Which part.
        run_splits: ``splits.csv`` of the run that trained the encoder; none of its training patients may be
            among the test patients.
        patients: How many are needed at least.

    Raises:
        DataError: a leak between splits, or too few patients with a mask.
    """
    check_samples(images.samples, run_splits)
    members = images.samples.where(split)
    found = members[images.labelled[members]]
    names = set(patients_at(images, found))
    if len(names) < patients:
        raise DataError(
            f"{len(names)} {split} patients have a mask; expected at least {patients}. Change the shares of the "
            "split, or look at masks.files: images whose mask is not found are unlabelled"
        )
    return found


def patients_at(images: Images, indices: Indices) -> NDArray[np.str_]:
    """The salted key of each image's patient."""
    return images.samples.ids["patient"].to_numpy(dtype=np.str_)[indices]


def checked_counts(patients: Sequence[int], available: int) -> list[int]:
    """Numbers of labelled training patients, each once and the largest first; 0 stands for all.

    Raises ConfigError for a number that cannot be drawn.
    """
    if not patients or any(count < 0 or count > available for count in patients):
        given = ", ".join(str(count) for count in patients) or "none"
        raise ConfigError(
            f"patients: expected numbers from 1 to {available} (the labelled training patients), or 0 for all; "
            f"got {given}"
        )
    return sorted({count or available for count in patients}, reverse=True)


def few_images(images: Images, labelled: Indices, count: int, seed: int) -> Indices:
    """The images of so many patients; of one seed, fewer patients are always among more."""
    owners = patients_at(images, labelled)
    names = np.unique(owners).tolist()
    chosen = draw_patients(dict.fromkeys(names), count / len(names), seed)
    return labelled[np.isin(owners, sorted(chosen))]
