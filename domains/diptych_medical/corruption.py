"""Corrupting the appearance of images for a network that restores it: shuffled blocks, bent intensities, noise boxes.

Source: Zhou et al. 2019, "Models Genesis" (MICCAI), with the settings of the released code of GEMINI (He et al. 2025,
IEEE T-PAMI), drawn and applied for a whole batch at once on its device. ``draw`` takes a shape and a generator,
``apply`` a batch and what was drawn.

Letters: n images, c channels, d = 2 or 3 dimensions, ``*space`` voxels, p voxels of an image, b blocks or boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from diptych.augment import check_range
from diptych.errors import ConfigError, DataError

CURVE_POINTS = 1000
BORDER = 3  # voxels that noise boxes keep from the border, where an axis is long enough
SMALLEST = 4  # voxels of an axis
# Blocks may overlap; on small images there are fewer than asked for, so that some of it stays where it was.
MOST_SHUFFLED = 1.25


class Drawn(NamedTuple):
    """What happens to the images of a batch."""

    block_starts: Tensor  # (n, b, d) int64: first voxel of each block, in the order they are written
    block_order: Tensor  # (n, voxels of a block) int64: which voxel of a block is written at each place
    shuffled: Tensor  # (n,) bool
    curves: Tensor  # (n, c, 2, points): intensities before and after, both increasing
    bent: Tensor  # (n,) bool
    box_starts: Tensor  # (n, b, d) int64
    box_sides: Tensor  # (n, b, d) int64; 0 for a box that is not there
    noise: Tensor  # (n, c, *space): what boxes are filled with


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """How images in 0..1 are corrupted: local shuffling, then a curve of intensities, then in-painting.

    Blocks are an axis' size / 20 long (2D: / 30), boxes a tenth to a fifth (2D: a twentieth to a tenth), as released,
    but never below 2 voxels, so that small images are corrupted too: there, the released code makes blocks without a
    voxel (axes below 20 voxels) or of one (below 40). No more blocks are shuffled than have one and a quarter times
    the voxels of the image together (at 64 x 64 x 64, all 5000).

    Args:
        shuffle: probability that an image's blocks are shuffled. Each block's voxels are permuted, in all blocks of
            an image alike; where blocks overlap the later one counts. Channels move together.
        blocks: number of blocks; 0 is 5000 in 3D and 1000 in 2D.
        bend: probability that intensities go through an increasing random curve (a cubic Bezier curve whose
            abscissas and ordinates are sorted), one for each channel.
        boxes: the most boxes that are filled with uniform noise; 0 is 30 in 3D and 10 in 2D.
        further: probability that a box is followed by another, and of the first.

    Raises:
        ConfigError: a probability outside 0..1 or a negative number.
    """

    shuffle: float = 0.8
    blocks: int = 0
    bend: float = 0.9
    boxes: int = 0
    further: float = 0.95

    def __post_init__(self) -> None:
        for name in ("shuffle", "bend", "further"):
            check_range(f"corruption's {name}", getattr(self, name))
        if min(self.blocks, self.boxes) < 0:
            raise ConfigError(
                f"numbers of blocks and boxes are at least 0, got {self.blocks} and {self.boxes}; to leave them out "
                "set shuffle or further to 0"
            )

    def draw(
        self, shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None
    ) -> Drawn:
        """What is to happen to images of shape (n, c, *space).

        Raises:
            DataError: an axis of fewer than 4 voxels, in which no block or box fits.
        """
        n, channels, *space = shape
        if min(space) < SMALLEST:
            raise DataError(
                f"images are corrupted in blocks and need at least {SMALLEST} voxels along every axis, got "
                f"{' x '.join(map(str, space))}; use larger crops"
            )
        volume = len(space) == 3

        def random(*size: int) -> Tensor:
            return torch.rand(*size, device=device, generator=generator)

        block = block_sides(space)
        count = min(
            self.blocks or (5000 if volume else 1000), max(1, int(MOST_SHUFFLED * prod(space) / prod(block)))
        )
        limits = _row([size - side + 1 for size, side in zip(space, block, strict=True)], device)
        boxes = self.boxes or (30 if volume else 10)
        starts, sides = self._boxes(random(n, 2, boxes, len(space)), space)
        present = (random(n, boxes) < self.further).cumprod(1)
        return Drawn(
            block_starts=_whole(random(n, count, len(space)), limits),
            block_order=random(n, prod(block)).argsort(1),
            shuffled=random(n) < self.shuffle,
            curves=_curves(random(n, channels, 2, 2)),
            bent=random(n) < self.bend,
            box_starts=starts,
            box_sides=sides * present[..., None],
            noise=random(*shape),
        )

    @staticmethod
    def _boxes(drawn: Tensor, space: Sequence[int]) -> tuple[Tensor, Tensor]:
        """First voxels and sides (n, b, d) of boxes, from uniform numbers (n, 2, b, d)."""
        low, high = (10, 5) if len(space) == 3 else (20, 10)
        least = [max(2, size // low) for size in space]
        most = [max(few, size // high) for few, size in zip(least, space, strict=True)]
        sizes, least_row = _row(space, drawn.device), _row(least, drawn.device)
        spans = _row([many - few + 1 for few, many in zip(least, most, strict=True)], drawn.device)
        sides = least_row + _whole(drawn[:, 0], spans)
        border = ((sizes - sides) // 2).clamp(max=BORDER)
        return border + _whole(drawn[:, 1], sizes - sides - 2 * border + 1), sides

    @staticmethod
    def apply(x: Tensor, drawn: Drawn) -> Tensor:
        """The corrupted images (n, c, *space) of x. Values beyond 0..1 are taken as 0 or 1 where a curve bends them."""
        each = (-1,) + (1,) * (x.ndim - 1)
        x = torch.where(drawn.shuffled.view(each), shuffled(x, drawn.block_starts, drawn.block_order), x)
        x = torch.where(drawn.bent.view(each), bent(x, drawn.curves), x)
        return torch.where(
            covered(drawn.box_starts, drawn.box_sides, x.shape[2:])[:, None], drawn.noise.to(x.dtype), x
        )


def block_sides(space: Sequence[int]) -> list[int]:
    """Sides of the blocks that are shuffled, in voxels."""
    share = 20 if len(space) == 3 else 30
    return [max(2, size // share) for size in space]


def shuffled(x: Tensor, starts: Tensor, order: Tensor) -> Tensor:
    """x (n, c, *space) with blocks at ``starts`` (n, b, d) permuted by ``order`` (n, voxels of a block).

    Voxel i of every block is taken from its voxel ``order[i]`` in the unshuffled image; the last of overlapping
    blocks counts.
    """
    n, channels, *space = x.shape
    strides = _row([prod(space[axis + 1 :]) for axis in range(len(space))], x.device)
    sides = [torch.arange(side, device=x.device) for side in block_sides(space)]
    within = (torch.stack(torch.meshgrid(*sides, indexing="ij"), -1).flatten(0, -2) * strides).sum(1)
    first = (starts * strides).sum(2)  # (n, b)
    voxels = (first[:, :, None] + within).flatten(1)  # what blocks write, (n, b * voxels of a block)
    # Which block writes a voxel last; scattering values themselves would leave it to chance.
    block = torch.arange(starts.shape[1], device=x.device)[:, None].expand(-1, len(within)).flatten()
    last = torch.full((n, prod(space)), -1, device=x.device)
    last.scatter_reduce_(1, voxels, block.expand(n, -1), "amax")
    taken = (first[:, :, None] + within[order][:, None, :]).flatten(1)
    place = torch.arange(prod(space), device=x.device).expand(n, -1)
    counts = last.gather(1, voxels) == block
    spare = prod(space)  # where what is overwritten goes
    source = torch.cat([place, place[:, :1]], 1).scatter(1, torch.where(counts, voxels, spare), taken)[:, :-1]
    return x.flatten(2).gather(2, source[:, None].expand(-1, channels, -1)).view_as(x)


def bent(x: Tensor, curves: Tensor) -> Tensor:
    """x (n, c, *space) through the curves (n, c, 2, points), linearly between their points, constant beyond them."""
    flat = x.flatten(2).to(curves.dtype)
    before, after = (each.contiguous() for each in curves.unbind(2))
    upper = torch.searchsorted(before, flat.contiguous()).clamp(1, before.shape[-1] - 1)
    left, right = before.gather(2, upper - 1), before.gather(2, upper)
    low, high = after.gather(2, upper - 1), after.gather(2, upper)
    share = ((flat - left) / (right - left).clamp(min=torch.finfo(flat.dtype).tiny)).clamp(0, 1)
    return torch.lerp(low, high, share).view_as(x).to(x.dtype)


def covered(starts: Tensor, sides: Tensor, space: Sequence[int]) -> Tensor:
    """Which voxels lie in any of the boxes with first voxels and sides (n, b, d): (n, *space) bool."""
    inside = []
    for axis, size in enumerate(space):
        along = torch.arange(size, device=starts.device)
        begin, end = starts[..., axis, None], (starts + sides)[..., axis, None]
        inside.append(((along >= begin) & (along < end)).float())
    boxes = inside[0]  # (n, b, voxels of the axes so far)
    for along in inside[1:-1]:
        boxes = (boxes[..., None] * along[:, :, None]).flatten(2)
    # How many boxes hold a voxel, without a map of every box.
    return (boxes.transpose(1, 2) @ inside[-1]).view(len(starts), *space) > 0


def _curves(middle: Tensor) -> Tensor:
    """Bezier curves from (0, 0) to (1, 1) with two control points (n, c, 2 points, 2 axes): (n, c, 2, points)."""
    t = torch.linspace(0, 1, CURVE_POINTS, device=middle.device)
    first, second = middle.unbind(2)
    along = 3 * (1 - t) ** 2 * t * first[..., None] + 3 * (1 - t) * t**2 * second[..., None] + t**3
    return along.sort(-1).values


def _row(numbers: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor(list(numbers), device=device)


def _whole(drawn: Tensor, below: Tensor) -> Tensor:
    """Whole numbers from 0 to below ``below``, from uniform ones."""
    return (drawn * below).long().minimum(below - 1)
