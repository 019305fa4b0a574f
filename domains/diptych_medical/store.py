"""Prepared images on disk, memory-mapped: a batch is a few slices of the maps."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych_medical.pieces import mask_path
from diptych_medical.prepare import UNLABELLED

Integers = NDArray[np.int64]

_MOST_OPEN = 8192  # files mapped at a time; the kernel allows some 65,000 maps a process


class Store:
    """n images of many shapes out of memory-mapped files.

    Sent to another process it carries paths and tables only; files are mapped when first used.
    """

    def __init__(
        self,
        files: list[Path],
        file: Integers,
        starts: Integers,
        mask_starts: Integers,
        shapes: Integers,
        fills: NDArray[np.float32],
        channels: int,
    ) -> None:
        """Where the images lie.

        Args:
            files: Pieces, paths without suffix.
            file: (n,) in which one image i lies.
            starts: (n,) the place of its first voxel.
            mask_starts: (n,) the place of its mask's first voxel, -1 where it has none.
            shapes: (n, d) its voxels, without channels.
            fills: (n,) the value of voxels outside the image.
            channels: Its channels.
        """
        self.files, self.file = files, file
        self.starts, self.mask_starts, self.shapes = starts, mask_starts, shapes
        self.fills, self.channels = fills, channels
        self._open: OrderedDict[tuple[int, bool], NDArray[Any]] = OrderedDict()

    def image(self, index: int) -> NDArray[Any]:
        """The stored voxels of one image (c, *space), a view of the map."""
        return self._view(index, mask=False)

    def mask(self, index: int) -> NDArray[np.int16] | None:
        """The label map of one image (*space), a view of the map; None where it has none."""
        return self._view(index, mask=True)[0] if self.mask_starts[index] >= 0 else None

    def crops(
        self, indices: Integers, corners: Integers, shape: tuple[int, ...], *, masks: bool
    ) -> tuple[NDArray[np.float32], Integers | None]:
        """Boxes of equal shape: images (n, c, *shape) float32 and masks (n, *shape) int64 or None.

        Args:
            indices: (n,) which images.
            corners: (n, d) the first voxel of each box, in voxels of the image; the box may reach beyond it.
            shape: Voxels of a box.
            masks: Whether masks are wanted too; they are -1 outside the image and where there is none.
        """
        images = np.empty((len(indices), self.channels, *shape), np.float32)
        maps = np.full((len(indices), *shape), UNLABELLED, np.int64) if masks else None
        for row, (index, corner) in enumerate(zip(indices.tolist(), corners.tolist(), strict=True)):
            space = self.shapes[index].tolist()
            ends = [first + size for first, size in zip(corner, shape, strict=True)]
            inner: tuple[slice, ...] = tuple(
                slice(max(0, a), min(b, s)) for a, b, s in zip(corner, ends, space, strict=True)
            )
            place: tuple[slice, ...] = tuple(
                slice(each.start - a, each.stop - a) for each, a in zip(inner, corner, strict=True)
            )
            if min(corner) < 0 or any(b > s for b, s in zip(ends, space, strict=True)):
                images[row] = self.fills[index]
            images[row][(slice(None), *place)] = self.image(index)[(slice(None), *inner)]
            if maps is not None and (mask := self.mask(index)) is not None:
                maps[row][place] = mask[inner]
        return images, maps

    def _view(self, index: int, *, mask: bool) -> NDArray[Any]:
        start = int((self.mask_starts if mask else self.starts)[index])
        shape = (1 if mask else self.channels, *self.shapes[index].tolist())
        size = int(np.prod(shape))
        return self._map(int(self.file[index]), mask)[start : start + size].reshape(shape)

    def _map(self, file: int, mask: bool) -> NDArray[Any]:
        mapped = self._open.get((file, mask))
        if mapped is None:
            if len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)
            target = self.files[file]
            path = mask_path(target) if mask else target.with_suffix(".npy")
            mapped = np.asarray(np.load(path, mmap_mode="r"))
            self._open[file, mask] = mapped
        return mapped

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
