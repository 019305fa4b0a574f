"""Whole images through a network that sees one window at a time, and features at chosen voxels."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from itertools import product
from typing import Any

import numpy as np
import torch
from monai.data.utils import compute_importance_map
from monai.inferers.utils import sliding_window_inference
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.types import Encoded
from diptych_medical.warp import sample_at

Array32 = NDArray[np.float32]

BLEND = "gaussian"  # a window's middle counts more than its edge, where the network sees less
SIGMA = 0.125  # of the window, as nnU-Net and MONAI have it


class VoxelNetwork(nn.Module):
    """An encoder and a linear map at every voxel: (n, c, *space) to (n, outputs, *space).

    The map acts on the encoder's grid as it is; its outputs are interpolated to the voxels of the image.
    Interpolation is linear, so this equals interpolating the features first, at less memory.
    """

    def __init__(self, encoder: nn.Module, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(grid_width(encoder), outputs)

    def forward(self, x: Tensor) -> Tensor:
        """x (n, c, *space) -> (n, outputs, *space)."""
        grid = dense(self.encoder, x)
        mapped: Tensor = self.head(grid.movedim(1, -1)).movedim(-1, 1)
        return mapped if mapped.shape[2:] == x.shape[2:] else resize(mapped, x.shape[2:])


def grid_width(encoder: nn.Module) -> int:
    """Width of the encoder's grid. Raises ConfigError when it makes none."""
    width = getattr(encoder, "grid_width", None)
    if not isinstance(width, int):
        raise ConfigError(
            f"{type(encoder).__name__} has no grid_width, so it gives no features at voxels; choose an encoder "
            "that returns a grid, such as diptych_medical.unet.UNet"
        )
    return width


def dense(encoder: nn.Module, x: Tensor) -> Tensor:
    """The grid of a batch, (n, width, *cells). Raises ConfigError when the encoder returns none."""
    encoded = encoder(x)
    if not isinstance(encoded, Encoded) or encoded.grid is None:
        raise ConfigError(
            f"{type(encoder).__name__} returns no grid; choose the level of a network that is a map of the image"
        )
    return encoded.grid


def resize(maps: Tensor, space: Sequence[int]) -> Tensor:
    """Linear interpolation of (n, k, *cells) to (n, k, *space), cells being as wide as the voxels they cover."""
    mode = "bilinear" if maps.ndim == 4 else "trilinear"
    return F.interpolate(maps, size=tuple(space), mode=mode, align_corners=False)


def frozen_copy(encoder: nn.Module, device: torch.device) -> nn.Module:
    """A copy in evaluation mode, on the device, without gradient; the encoder itself stays as it is."""
    return deepcopy(encoder).to(device).eval().requires_grad_(False)


def slide(
    network: nn.Module,
    image: Array32,
    window: Sequence[int],
    *,
    overlap: float = 0.5,
    device: torch.device | None = None,
) -> Tensor:
    """What a network makes of a whole image, (outputs, *space) float32 on the CPU, blended over windows.

    Args:
        network: Takes (n, c, *window), gives (n, outputs, *window).
        image: (c, *space); smaller ones than the window are padded with their lowest value, as batches are, and
            the outputs cropped.
        window: Voxels along each axis that the network sees.
        overlap: Share of a window that the next one repeats, below 1.
        device: Where the network is; outputs are stitched on the CPU.
    """
    where = device or torch.device("cpu")
    with torch.inference_mode():
        outputs: Any = sliding_window_inference(
            torch.from_numpy(image)[None].float(),
            tuple(window),
            1,
            network,
            overlap=overlap,
            mode=BLEND,
            sigma_scale=SIGMA,
            cval=float(image.min()),
            sw_device=where,
            device="cpu",
        )
    result: Tensor = outputs[0]
    return result


def features_at(
    encoder: nn.Module,
    image: Array32,
    voxels: NDArray[np.int64],
    window: Sequence[int],
    *,
    overlap: float = 0.5,
    device: torch.device | None = None,
) -> Tensor:
    """The features of single voxels, (m, width) float32 on the CPU, blended as :func:`slide` does.

    Only these voxels are interpolated and kept, so that wide maps of large images need no memory.

    Args:
        encoder: Returns a grid.
        image: (c, *space).
        voxels: (m, d) array indices.
        window: As in :func:`slide`.
        overlap: As in :func:`slide`.
        device: Where the encoder is.
    """
    where = device or torch.device("cpu")
    padded, before = _padded(image, window)
    places = voxels + before
    importance = compute_importance_map(
        tuple(window), mode=BLEND, sigma_scale=SIGMA, device="cpu", dtype=torch.float32
    ).numpy()
    total = torch.zeros(len(voxels), grid_width(encoder))
    weights = torch.zeros(len(voxels))
    with torch.inference_mode():
        for corner in corners(padded.shape[1:], window, overlap):
            within = ((places >= corner) & (places < corner + np.array(window))).all(axis=1)
            chosen = torch.from_numpy(np.flatnonzero(within))
            if not len(chosen):
                continue
            at = places[within] - corner
            part = tuple(slice(low, low + size) for low, size in zip(corner.tolist(), window, strict=True))
            grid = dense(encoder, torch.from_numpy(padded[(slice(None), *part)])[None].to(where))
            weight = torch.from_numpy(importance[tuple(at.T)])
            total[chosen] += _sampled(grid, at, window).cpu() * weight[:, None]
            weights[chosen] += weight
    return total / weights[:, None]


def corners(shape: Sequence[int], window: Sequence[int], overlap: float) -> list[NDArray[np.int64]]:
    """First voxels of the windows that cover an image which is at least as large, the last ones flush."""
    starts = []
    for size, length in zip(shape, window, strict=True):
        step = length if size == length else max(1, int(length * (1 - overlap)))
        count = 1 + max(0, -(-(size - length) // step))
        starts.append([min(number * step, size - length) for number in range(count)])
    return [np.array(each, dtype=np.int64) for each in product(*starts)]


def _padded(image: Array32, window: Sequence[int]) -> tuple[Array32, NDArray[np.int64]]:
    """The image with its lowest value around it up to the window, and how many voxels are before it."""
    lacking = [max(0, length - size) for size, length in zip(image.shape[1:], window, strict=True)]
    before = [missing // 2 for missing in lacking]
    widths = [(0, 0), *((low, missing - low) for low, missing in zip(before, lacking, strict=True))]
    return np.pad(image, widths, constant_values=image.min()).astype(np.float32), np.array(
        before, dtype=np.int64
    )


def _sampled(grid: Tensor, at: NDArray[np.int64], window: Sequence[int]) -> Tensor:
    """Features at voxels (m, d) of a window from its grid (1, width, *cells), as :func:`resize` gives them."""
    cells = np.array(grid.shape[2:])
    place = (at + 0.5) * cells / np.array(window) - 0.5
    coordinates = torch.from_numpy(place.T.astype(np.float32)).to(grid.device)
    spread = coordinates.reshape(1, len(cells), -1, *[1] * (len(cells) - 1))
    values = sample_at(grid.float(), spread, mode="linear", padding="border")
    return values.flatten(2)[0].T
