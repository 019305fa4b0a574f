"""Encoding pairs of images and finding the flows between them: the module that GEMINI trains and evaluators call.

Pairs are kept as two halves of a batch: images i and i + n are a pair, flow i carries image i into the frame of its
partner. So both images go through the networks at once, and so do both directions.

Letters: n pairs, c channels, w width of features, d = 2 or 3 dimensions, ``*space`` voxels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError, DataError
from diptych.types import Views
from diptych_medical.affine import AffineHead
from diptych_medical.deformer import Deformer
from diptych_medical.spatial import Spatial
from diptych_medical.velocity import compose, integrate
from diptych_medical.warp import Convention, inside, warp

COARSE = 8


class Registered(NamedTuple):
    """Pairs of images and what was found between them; see the module for the order of halves."""

    images: Tensor  # (2n, c, *space)
    features: Tensor  # (2n, w, *space): what corresponding voxels should have alike
    flows: Tensor  # (2n, d, *space) voxels: the whole way from each voxel to its place in the partner
    fields: (
        Tensor  # (2n, d, *space): what the deformer gave, a displacement or a velocity; what should be smooth
    )
    masks: Tensor  # (2n, 1, *space): 1 where a flow stays within the image


def partners(halves: Tensor) -> Tensor:
    """The partner of each of 2n images, maps or masks."""
    return halves.roll(len(halves) // 2, 0)


def halves_of(batch: Views, size: int) -> Tensor:
    """The images (2n, c, *space) of a batch (a0, b0, a1, b1, ...), or (a0, b0, l0, ...) of ``size`` 3, as two halves.

    Raises:
        DataError: a number of images that makes no whole groups.
    """
    images: Tensor = batch.views[0]
    return torch.cat(_grouped(images, size)[:2])


def labelled_of(batch: Views) -> tuple[Tensor, Tensor]:
    """The images l0, l1, ... of a batch (a0, b0, l0, a1, ...) with their labels (n, *space), -1 where unknown.

    Raises:
        DataError: no masks, or a number of images that makes no whole groups.
    """
    if "mask" not in batch.groups:
        raise DataError(
            "GEMINI's variant semi learns from masks, but the batches have none; configure masks, or use variant mip"
        )
    return _grouped(batch.views[0], 3)[2], _grouped(batch.groups["mask"], 3)[2]


def _grouped(x: Tensor, size: int) -> tuple[Tensor, ...]:
    if len(x) % size:
        kind = "pairs" if size == 2 else "pairs with a labelled image each"
        raise DataError(
            f"GEMINI learns from {kind}, batches of a multiple of {size} images, got {len(x)}; use the recipe's loader"
        )
    groups: tuple[Tensor, ...] = torch.unflatten(x, 0, (-1, size)).unbind(1)
    return groups


class Registration(nn.Module):
    """The flows between pairs, from the features of an encoder.

    Args:
        encoder: gives a ``grid`` of the size of its images. Not registered here: it is a part of its own.
        deformer: features of two images to a field.
        affine: finds a matrix first, on whose result the deformer works.
        projector: maps features to those that are compared; None compares the features themselves.
        centre: takes each image's mean over voxels off the features that are compared.
        convention: how places are read (:data:`diptych_medical.warp.Convention`).
        steps: squarings that integrate the field as a velocity; 0 takes it as displacement.
        symmetric: makes the velocity of one direction minus that of the other, so that their flows undo each other.
    """

    def __init__(
        self,
        encoder: nn.Module,
        deformer: Deformer,
        *,
        affine: AffineHead | None = None,
        projector: nn.Module | None = None,
        centre: bool = False,
        convention: Convention = "aligned",
        steps: int = 7,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self._encoder = (encoder,)  # in a tuple: it is registered, and saved, where it belongs
        self.deformer = deformer
        self.affine = affine
        self.projector = projector
        self.centre = centre
        self.convention: Convention = convention
        self.steps, self.symmetric = steps, symmetric

    def forward(self, images: Tensor) -> Registered:
        """Register 2n images, the partners of the first half being the second.

        Raises:
            ConfigError: the encoder's map is not of the size of its images.
        """
        features = dense(self._encoder[0], images)
        flows, fields = self._flows(features)
        masks = inside(flows, convention=self.convention)
        if self.projector is not None:
            features = self.projector(features).to(features.dtype)
        if self.centre:
            features = features - features.mean(dim=tuple(range(2, features.ndim)), keepdim=True)
        return Registered(images, features, flows, fields, masks)

    def flows(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Flows (n, d, *space) in voxels between images (n, c, *space) of n pairs.

        The first carries a into the frame of b, ``warp(a, flow, convention=self.convention)`` lying over b; the
        second the other way.
        """
        flows, _ = self._flows(dense(self._encoder[0], torch.cat([a, b])))
        first, second = flows.chunk(2)
        return first, second

    def _flows(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The flows (2n, d, *space) between features (2n, w, *space) and the fields they were made from."""
        exact = features.dtype
        if self.affine is None:
            fields = self.deformer.both(features).to(exact)
            if self.symmetric:
                fields = (fields - partners(fields)) / 2
            return (integrate(fields, self.steps) if self.steps else fields), fields
        fixed = partners(features)
        before = self.affine.flow(coarse(features), coarse(fixed), features.shape[2:])
        fields = self.deformer(warp(features, before), fixed).to(exact)
        return compose(before, integrate(fields, self.steps) if self.steps else fields), fields


def coarse(features: Tensor) -> Tensor:
    """Features averaged over blocks, to at most 8 voxels along every axis: what an affine map is found from."""
    sizes = [min(size, COARSE) for size in features.shape[2:]]
    return functional.interpolate(features, size=sizes, mode="area")


def dense(encoder: nn.Module, images: Tensor) -> Tensor:
    """The encoder's ``grid`` (n, w, *space) of images (n, c, *space), in at least float32.

    Raises:
        ConfigError: there is none, or it is not of the images' size.
    """
    grid: Tensor | None = encoder(images).grid
    if grid is None or grid.shape[2:] != images.shape[2:]:
        came = "none" if grid is None else " x ".join(map(str, grid.shape[2:]))
        raise ConfigError(
            f"GEMINI compares images voxel by voxel and needs an encoder whose map has the size of the image, "
            f"{' x '.join(map(str, images.shape[2:]))}; {type(encoder).__name__} gives {came}. Choose a level of "
            "full size, or diptych_medical.unet.UNet"
        )
    return grid.to(torch.promote_types(grid.dtype, torch.float32))


class AlignPairs(nn.Module):
    """What the first phase of GEMINI makes of a batch: its pairs, moved by one random matrix each, registered.

    Args:
        registration: finds the flows.
        spatial: moves both images of a pair alike; None leaves them as they are.
        size: images of a group in the batch: 2, or 3 where a labelled one follows each pair.
    """

    def __init__(self, registration: Registration, spatial: Spatial | None, size: int) -> None:
        super().__init__()
        self.registration = registration
        self.spatial, self.size = spatial, size

    def forward(self, batch: Views) -> Registered:
        """The registered pairs of a batch (a0, b0, a1, b1, ...)."""
        images = halves_of(batch, self.size)
        if self.spatial is not None:
            n, _, *space = images.shape
            matrix = self.spatial.draw((n // 2, *space), images.device)
            images = self.spatial.apply(images, matrix.repeat(2, 1, 1))
        registered: Registered = self.registration(images)
        return registered
