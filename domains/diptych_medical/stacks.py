"""Volumes as stacks of labelled slices, whether an image is a volume or one of its slices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from diptych.errors import ConfigError
from diptych.study import Indices
from diptych_medical.evaluated import Array32, Images, Labels, patients_at
from diptych_medical.prepare import PLANES
from diptych_medical.settings import Plane


class Stack(NamedTuple):
    """The slices of one volume, in order."""

    patient: str
    indices: list[int]  # of the image of each slice; one and the same for a 3D image
    axis: int | None  # of a 3D image: the one its slices follow on; None where a slice is an image
    labels: Labels  # (slices, H, W)

    def voxels(self, place: int) -> Indices:
        """(H * W, d) array indices of one slice in its image."""
        height, width = self.labels.shape[1:]
        grid = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
        return grid if self.axis is None else np.insert(grid, self.axis, place, axis=1)

    def by_image(self, places: list[int]) -> list[tuple[int, list[int]]]:
        """(image, its slices): all slices of a volume together, so that it goes through a network once."""
        if self.axis is None:
            return [(self.indices[place], [place]) for place in places]
        return [(self.indices[0], places)]

    def slice_of(self, maps: Array32, place: int) -> Array32:
        """(k, H, W) of one slice, from (k, *space) of its image."""
        found: Array32 = maps if self.axis is None else np.take(maps, place, axis=1 + self.axis)
        return found


def stacks_of(images: Images, test: Indices, plane: Plane) -> list[Stack]:
    """The labelled test images as stacks of slices.

    Raises ConfigError where images are neither volumes nor slices of volumes.
    """
    patients = dict(zip(test.tolist(), patients_at(images, test).tolist(), strict=True))
    if images.dims == 3:
        axis = PLANES[plane]
        found = []
        for index in test.tolist():
            labels = np.moveaxis(_mask(images, index), axis, 0)
            found.append(Stack(patients[index], [index] * len(labels), axis, labels))
        return found
    places = {index: images.stored(index).facts.get("slice") for index in test.tolist()}
    if any(place is None for place in places.values()):
        raise ConfigError(
            "labels are carried from slice to slice of volumes; these images are single pictures"
        )
    recordings = images.samples.ids["recording"].to_numpy(dtype=np.str_)[test]
    stacks = []
    for recording in np.unique(recordings):
        members = sorted(test[recordings == recording].tolist(), key=lambda index: int(places[index] or 0))
        labels = np.stack([_mask(images, index) for index in members])
        stacks.append(Stack(patients[members[0]], members, None, labels))
    return stacks


def _mask(images: Images, index: int) -> Labels:
    mask = images.mask(index)
    if mask is None:
        raise ValueError(f"image {index} has no mask")
    return mask
