"""GEMINI's deformer: features of two images to the field that carries one into the frame of the other.

Source: the released code of GEMINI (He et al. 2025, IEEE T-PAMI, doi 10.1109/TPAMI.2025.3540644); for features of 32
channels its 3D network has 528,675 weights.

Letters: n pairs, w width of the features, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from diptych_medical.stages import (
    ConvNorm,
    conv_of_activated,
    convolve,
    downsample,
    kaiming,
    laid_out,
    pad_to_multiple,
)

STILL = 1e-5  # deviation of the last weights, as in VoxelMorph (Balakrishnan et al. 2019), for flows near 0


class Deformer(nn.Module):
    """A shallow U-Net from two feature maps (n, w, *space) to a field (n, d, *space) in voxels.

    Component i of the field belongs to array axis i. Each axis is padded with zeros to a multiple of 4 and cut back
    at the end. Its weights are ``c1`` to ``c5`` (``conv`` and ``norm`` in each) and ``flow``.

    Args:
        width: channels of the features of one image.
        dims: 2 or 3.
        still: starts from fields near 0, so that training starts from the identity; otherwise the last convolution
            is drawn like the others (as released), and fields of about 1 voxel are what it starts from.
        checkpointing: makes the stages of full size again in the backward pass instead of keeping them.
    """

    def __init__(self, width: int, dims: int, *, still: bool = True, checkpointing: bool = False) -> None:
        super().__init__()
        self.width, self.dims, self.checkpointing = width, dims, checkpointing
        self.c1 = ConvNorm(2 * width, 32, dims)
        self.c2 = ConvNorm(32, 64, dims)
        self.c3 = ConvNorm(64, 64, dims)
        self.c4 = ConvNorm(128, 64, dims)
        self.c5 = ConvNorm(96, 32, dims)
        self.flow = (nn.Conv2d if dims == 2 else nn.Conv3d)(32, dims, 3, padding=1)
        if still:
            nn.init.normal_(self.flow.weight, std=STILL)
            assert self.flow.bias is not None
            nn.init.zeros_(self.flow.bias)
        else:
            kaiming(self.flow)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The field that carries ``source`` into the frame of ``target``."""
        joined, place = pad_to_multiple(torch.cat([source, target], dim=1), 4)
        return self._decoded(self._full_size(self._enter, laid_out(joined)))[place]

    def both(self, features: Tensor) -> Tensor:
        """The fields of both directions between the halves of (2n, w, *space): of first to second, then back.

        Equal to two calls with the maps swapped. The first convolution P first + Q second and its swapped twin are
        the sum and the difference of (P + Q)/2 (first + second) and (P - Q)/2 (first - second), which is half the
        work.
        """
        padded, place = pad_to_multiple(features, 4)
        first, second = padded.chunk(2)
        y = self._full_size(self._enter_both, laid_out(first), laid_out(second))
        return self._decoded(y)[place]

    def _enter(self, joined: Tensor) -> Tensor:
        made: Tensor = self.c1(joined)
        return made

    def _enter_both(self, first: Tensor, second: Tensor) -> Tensor:
        of_first, of_second = torch.split(self.c1.conv.weight, self.width, dim=1)
        bias = self.c1.conv.bias
        assert bias is not None
        even = self._half(first + second, of_first + of_second) + bias.view(1, -1, *[1] * self.dims)
        odd = self._half(first - second, of_first - of_second)
        return self.c1.after(laid_out(torch.cat([even + odd, even - odd])))

    @staticmethod
    def _half(x: Tensor, weight: Tensor) -> Tensor:
        return convolve(x, weight / 2, None)

    def _decoded(self, y: Tensor) -> Tensor:
        """From the first activated map to the field, still padded."""
        skip = self.c2(downsample(y))
        deep = self.c3(downsample(skip))
        middle = self.c4.after(self.c4.joined(skip, deep, skip_first=False))
        return self._full_size(self._leave, y, middle)

    def _leave(self, y: Tensor, middle: Tensor) -> Tensor:
        return conv_of_activated(self.c5.joined(y, middle, skip_first=False), self.c5.norm, self.flow)

    def _full_size(self, stage: Callable[..., Tensor], *maps: Tensor) -> Tensor:
        if not (self.checkpointing and self.training):
            return stage(*maps)
        made: Tensor = checkpoint(stage, *maps, use_reentrant=False, preserve_rng_state=False)
        return made
