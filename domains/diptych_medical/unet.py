"""GEMINI's backbone: a U-Net for 2D images and 3D volumes that gives a feature of every voxel.

Source: the released code of GEMINI (He et al. 2025, IEEE T-PAMI, doi 10.1109/TPAMI.2025.3540644). With the widths
given by default and one channel its 3D network has 23,538,144 weights.

Letters: n images, c channels, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from diptych.errors import ConfigError, DataError
from diptych.types import Encoded
from diptych_medical.stages import (
    CHANNELS_A_GROUP,
    DoubleConv,
    downsample,
    laid_out,
    pad_to_multiple,
)


class UNet(nn.Module):
    """Images (n, c, *space) to one embedding per image and a feature per voxel, (n, widths[0], *space).

    An encoder of double convolutions and maximum pooling, and a decoder that joins each level to the upsampled one
    below it. Each axis is padded with zeros to a multiple of 2 ** (levels - 1), here 16, and cut back at the end.
    Features are neither normalised nor projected.

    Its weights are ``enter`` (the first stage), ``down.0`` to ``down.3`` and ``up.0`` (the deepest) to ``up.3``;
    in each ``first`` and ``second`` with ``conv.weight``, ``conv.bias``, ``norm.weight`` and ``norm.bias``. The
    channels of an ``up`` stage's first convolution are those of its own level, then the upsampled ones.

    Args:
        channels: of the images.
        dims: 2 for images (bilinear upsampling), 3 for volumes (trilinear).
        widths: channels of the levels, from the full size down; each a multiple of 8.
        whole: what an image's embedding is the mean over: the deepest map ("bottleneck", of width widths[-1]),
            or the features of all voxels ("grid", of width widths[0]).
        checkpointing: makes the two stages of full size again in the backward pass instead of keeping them: less
            memory, more time, the same numbers.

    Raises:
        ConfigError: dims that are not 2 or 3, fewer than 2 levels, or a width that is not a multiple of 8.
    """

    def __init__(
        self,
        channels: int,
        dims: int,
        *,
        widths: tuple[int, ...] = (32, 64, 128, 256, 512),
        whole: Literal["bottleneck", "grid"] = "bottleneck",
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if dims not in (2, 3):
            raise ConfigError(f"a U-Net is for 2 or 3 dimensions, got {dims}")
        if len(widths) < 2 or any(width < 1 or width % CHANNELS_A_GROUP for width in widths):
            raise ConfigError(
                f"widths of a U-Net are at least 2 multiples of {CHANNELS_A_GROUP} (its group norms have "
                f"{CHANNELS_A_GROUP} channels a group), got {list(widths)}"
            )
        if whole not in ("bottleneck", "grid"):
            raise ConfigError(f"whole must be bottleneck or grid, got {whole!r}")
        self.channels, self.dims, self.whole = channels, dims, whole
        self.grid_width = widths[0]
        self.columns_width = sum(widths)
        self.width = widths[-1] if whole == "bottleneck" else widths[0]
        self.checkpointing = checkpointing
        self.enter = DoubleConv(channels, widths[0], dims)
        self.down = nn.ModuleList(DoubleConv(above, below, dims) for above, below in pairwise(widths))
        self.up = nn.ModuleList(
            DoubleConv(above + below, above, dims) for below, above in pairwise(widths[::-1])
        )

    @property
    def multiple(self) -> int:
        """What every axis is padded to a multiple of."""
        return int(2 ** len(self.down))

    def forward(self, x: Tensor) -> Encoded:
        """Images (n, c, *space) to ``whole`` (n, width) and ``grid`` (n, grid_width, *space).

        Raises DataError when the images have another number of channels or dimensions.
        """
        (deepest, *_, finest), place = self._decoded(x)
        grid = finest[place]
        averaged = deepest if self.whole == "bottleneck" else grid
        return Encoded(averaged.flatten(2).mean(2), None, grid)

    def columns(self, x: Tensor) -> Tensor:
        """What all stages of the decoder say of every voxel, the deepest first: (n, columns_width, *space).

        Coarser maps are upsampled as the network itself does. Features of the last stage alone know little of where
        in the body they lie; those of the deeper ones do (hypercolumns, Hariharan et al. 2015).
        """
        maps, place = self._decoded(x)
        size, volume = maps[-1].shape[2:], self.dims == 3
        mode = "trilinear" if volume else "bilinear"
        upsampled = [
            functional.interpolate(each, size, mode=mode, align_corners=volume) for each in maps[:-1]
        ]
        return torch.cat([*upsampled, maps[-1]], 1)[place]

    def _decoded(self, x: Tensor) -> tuple[list[Tensor], tuple[slice, ...]]:
        """The deepest map and what every stage of the decoder makes of it, padded; and where the images lie."""
        if x.ndim != self.dims + 2 or x.shape[1] != self.channels:
            raise DataError(
                f"this U-Net takes {self.dims}D images with {self.channels} channels, (n, {self.channels}, "
                f"{'depth, ' if self.dims == 3 else ''}height, width), got {tuple(x.shape)}"
            )
        padded, place = pad_to_multiple(x, self.multiple)
        levels = [self._full_size(self.enter, laid_out(padded))]
        for stage in self.down:
            levels.append(stage(downsample(levels[-1])))
        maps = [levels.pop()]
        for stage in self.up:
            skip = levels.pop()
            joined = cast(DoubleConv, stage).joined
            maps.append(joined(skip, maps[-1]) if levels else self._full_size(joined, skip, maps[-1]))
        return maps, place

    def _full_size(self, stage: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        if not (self.checkpointing and self.training):
            return stage(*maps)
        made: Tensor = checkpoint(stage, *maps, use_reentrant=False, preserve_rng_state=False)
        return made

    def layers(self) -> list[nn.Module]:
        """The parts from input to output, for learning rates that grow with depth."""
        return [self.enter, *self.down, *self.up]
