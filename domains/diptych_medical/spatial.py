"""Random affine views of images: rotation, scale, shear, shift, flips and crops as one matrix per sample.

A matrix says where each voxel of the view is read in the image: ``input = matrix[:, :d] @ output + matrix[:, d]``,
in voxels, component i along array axis i, (0, ..., 0) being the centre of the first voxel. So one drawn matrix
moves an image, its mask and its partner alike, and gives every voxel of a view its place in the original.

Letters: n samples, c channels, d = 2 or 3 dimensions, *space array axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.places import places
from diptych_medical.warp import Mode, Padding, sample_at

# The planes that a 3D image is turned in, by the axis that stays: (from, to).
_PLANES_3D = ((1, 2), (2, 0), (0, 1))


@dataclass(frozen=True, kw_only=True)
class Spatial:
    """What a random affine view may do. Angles and shapes are those of voxels: equal spacings are assumed.

    Args:
        rotation: largest angle in degrees, about every axis; or one per array axis (3D). In 2D a single one.
        scale: least and largest magnification, drawn for every axis by itself.
        translation: largest shift, as a share of the size of each axis.
        shear: largest angle of shear in degrees, of every axis along every later one.
        flips: array axes that are mirrored in half of the views; [0] is left and right in volumes.
        crop: least and largest share of the image (area or volume) that a view shows, stretched to its size; the
            part is where it fits, before rotation. (1, 1) shows all.

    Raises:
        ConfigError: a range that is empty or out of bounds.
    """

    rotation: tuple[float, ...] = (20.0,)
    scale: tuple[float, float] = (0.75, 1.25)
    translation: float = 0.0
    shear: float = 0.0
    flips: tuple[int, ...] = ()
    crop: tuple[float, float] = (1.0, 1.0)

    def __post_init__(self) -> None:
        if len(self.rotation) not in (1, 3) or not all(0 <= each <= 180 for each in self.rotation):
            raise ConfigError(
                f"rotation must be one angle or three, of 0 to 180 degrees, got {tuple(self.rotation)}"
            )
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale must be 0 < least <= largest, got {tuple(self.scale)}")
        if not 0 <= self.translation <= 1:
            raise ConfigError(f"translation must be a share of 0 to 1, got {self.translation}")
        if not 0 <= self.shear < 90:
            raise ConfigError(f"shear must be an angle of 0 to below 90 degrees, got {self.shear}")
        if not 0 < self.crop[0] <= self.crop[1] <= 1:
            raise ConfigError(f"crop must be 0 < least <= largest <= 1, got {tuple(self.crop)}")
        if any(axis not in (0, 1, 2) for axis in self.flips) or len(set(self.flips)) < len(self.flips):
            raise ConfigError(f"flips must be different array axes among 0, 1, 2, got {tuple(self.flips)}")

    def draw(
        self, shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None
    ) -> Tensor:
        """Matrices (n, d, d + 1) float32 for images of shape (n, *space): voxels of the view to the image's.

        Raises:
            ConfigError: rotation or flips name more axes than the images have.
        """
        n, space = shape[0], tuple(shape[1:])
        d = len(space)
        self._check_axes(d)

        def uniform(columns: int, low: float = -1.0, high: float = 1.0) -> Tensor:
            return low + (high - low) * torch.rand(n, columns, device=device, generator=generator)

        angles = self._angles(d)
        turned = rotation(_scaled(uniform(len(angles)), angles))
        sheared = _shear(uniform(d * (d - 1) // 2) * math.radians(self.shear), d)
        signs = torch.ones(n, d, device=device)
        for axis, chance in zip(self.flips, uniform(len(self.flips)).unbind(1), strict=True):
            signs[:, axis] = torch.where(chance < 0, -1.0, 1.0)
        side = uniform(1, *self.crop) ** (1 / d)  # of the part shown, as a share of each axis
        zoom = side * signs / uniform(d, *self.scale)
        with torch.autocast(device.type, enabled=False):
            linear = turned @ sheared @ torch.diag_embed(zoom)
        middle = [(size - 1) / 2 for size in space]
        shift = _scaled(uniform(d) * (1 - side), middle)
        shift = shift + _scaled(uniform(d), [self.translation * size for size in space])
        centre = _scaled(torch.ones(n, d, device=device), middle)
        return about(linear, centre + shift, centre)

    @staticmethod
    def apply(x: Tensor, matrix: Tensor, *, mode: Mode = "linear", padding: Padding = "zeros") -> Tensor:
        """The views (n, c, *space) of x that ``matrix`` describes; masks take mode "nearest"."""
        return sample_at(x, positions(matrix, x.shape[2:]), mode=mode, padding=padding)

    def _check_axes(self, d: int) -> None:
        if d == 2 and len(self.rotation) != 1:
            raise ConfigError(f"2D images are turned by one angle, got {tuple(self.rotation)}")
        if any(axis >= d for axis in self.flips):
            raise ConfigError(f"{d}D images have the axes 0 to {d - 1}, but flips are {tuple(self.flips)}")

    def _angles(self, d: int) -> list[float]:
        """The largest angle of every turn, in radians."""
        turns = 1 if d == 2 else 3
        return [
            math.radians(each)
            for each in (self.rotation * turns if len(self.rotation) == 1 else self.rotation)
        ]


def rotation(angles: Tensor) -> Tensor:
    """Rotation matrices of angles in radians: (n, 1) to (n, 2, 2), or (n, 3) to (n, 3, 3), about axes 0, 1 and 2."""
    n, turns = angles.shape
    d = 2 if turns == 1 else 3
    cos, sin = angles.cos(), angles.sin()
    result = torch.eye(d, device=angles.device).expand(n, d, d)
    for turn, (i, j) in enumerate(((0, 1),) if turns == 1 else _PLANES_3D):
        step = torch.eye(d, device=angles.device).repeat(n, 1, 1)
        step[:, i, i] = step[:, j, j] = cos[:, turn]
        step[:, i, j] = -sin[:, turn]
        step[:, j, i] = sin[:, turn]
        with torch.autocast(angles.device.type, enabled=False):
            result = step @ result
    return result


def about(linear: Tensor, to: Tensor, centre: Tensor) -> Tensor:
    """Matrices (n, d, d + 1) that act as ``linear`` (n, d, d) about ``centre`` (n, d), which goes to ``to`` (n, d)."""
    offset = to - (linear * centre[:, None]).sum(2)
    return torch.cat([linear, offset[..., None]], dim=2)


def positions(matrix: Tensor, space: Sequence[int]) -> Tensor:
    """Where every voxel of a view of size ``space`` is read: (n, d, d + 1) -> (n, d, *space), in voxels, float32."""
    return places(matrix, space)


def _shear(angles: Tensor, d: int) -> Tensor:
    """Unit upper triangular matrices (n, d, d) with the tangents of (n, d (d - 1) / 2) angles above the diagonal."""
    matrix = torch.eye(d, device=angles.device).repeat(len(angles), 1, 1)
    rows, columns = torch.triu_indices(d, d, 1, device=angles.device)
    matrix[:, rows, columns] = angles.tan()
    return matrix


def _scaled(values: Tensor, factors: Sequence[float]) -> Tensor:
    """Every column of values (n, m) times its factor; factors stay on the host, so that no device waits for them."""
    return torch.stack([column * factor for column, factor in zip(values.unbind(1), factors, strict=True)], 1)
