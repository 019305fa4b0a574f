"""A data set of prepared images: whole, in boxes of equal size, and with what leads back to their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.study import Samples
from diptych_medical.assemble import Used
from diptych_medical.prepare import Stored
from diptych_medical.store import Store

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set ready to be cut: row i of ``samples`` is image i, or one slice of a volume."""

    samples: Samples
    channels: int
    dims: int  # of a sample: 2 for pictures and slices
    classes: tuple[str, ...]  # of masks, the background first; () where no masks are configured
    # per sample: numbers of its "patient" and of every text label (-1: missing), and of slices their "place",
    # the tenth of the volume they lie in
    groups: Mapping[str, Integers]
    names: Mapping[str, tuple[str, ...]]  # of the groups that are text labels: the class of each number
    crop_shape: tuple[int, ...]  # voxels of an image in a batch
    spacings: NDArray[np.float64]  # (n, dims) mm
    labelled: NDArray[np.bool_]  # (n,) whether there is a mask
    recordings: pd.DataFrame  # one row an image: keys and split
    recording_of: Integers  # (n,) row of ``recordings``
    store: Store
    report: Mapping[str, str]  # what was found, in lines for inspect and the report
    used: Used = field(repr=False)

    def __len__(self) -> int:
        return len(self.samples)

    def image(self, index: int) -> NDArray[np.float32]:
        """One whole image (c, *space), as prepared: a copy."""
        return np.array(self.store.image(index), np.float32)

    def mask(self, index: int) -> Integers | None:
        """Its label map (*space): -1 unlabelled, 0 background, i the class ``classes[i]``; None without one."""
        mask = self.store.mask(index)
        return None if mask is None else mask.astype(np.int64)

    def shape(self, index: int) -> tuple[int, ...]:
        """Its voxels, without channels."""
        return tuple(self.store.shapes[index].tolist())

    def spacing(self, index: int) -> tuple[float, ...]:
        """Size of its voxels in mm; 1 where files carry none."""
        return tuple(self.spacings[index].tolist())

    def stored(self, index: int) -> Stored:
        """The image with what leads back to its file (see ``prepare.to_input_space``)."""
        facts = dict(self.used.facts[self.recording_of[index]])
        if (place := int(self.used.slices[index])) >= 0:
            facts["slice"] = place
        return Stored(
            data=self.image(index), mask=self.store.mask(index), affine=self.used.affines[index], facts=facts
        )

    def batch(
        self, indices: Integers, corners: Integers | None = None
    ) -> tuple[NDArray[np.float32], Integers | None]:
        """Boxes of ``crop_shape``: (n, c, *crop_shape) float32 and masks (n, *crop_shape) int64.

        Args:
            indices: (n,) which images.
            corners: (n, d) first voxel of each box; by default boxes lie in the middle. Beyond an image its
                lowest value goes on, and masks are -1.

        Returns masks as None where the data set has none; unlabelled images have -1 all over.
        """
        where = self.corners(indices) if corners is None else corners
        return self.store.crops(indices, where, self.crop_shape, masks=bool(self.classes))

    def corners(self, indices: Integers, places: NDArray[np.float64] | None = None) -> Integers:
        """First voxels (n, d) of boxes of ``crop_shape`` at relative places of the images.

        Args:
            indices: (n,) which images.
            places: (n, d) from 0, the first possible box, to below 1, the last; by default the middle. Along
                an axis that is shorter than the crop, boxes lie in the middle whatever the place.
        """
        spare = self.store.shapes[indices] - np.array(self.crop_shape)
        middle: Integers = spare // 2  # rounded down, also where it is negative
        if places is None:
            return middle
        drawn: Integers = np.where(spare > 0, np.floor(places * (spare + 1)).astype(np.int64), middle)
        return drawn

    @property
    def voxels(self) -> int:
        """Voxels of an image in a batch."""
        return int(np.prod(self.crop_shape))
