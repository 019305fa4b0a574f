"""Voxel values: what is no image, how intensities are scaled, and a hash that tells copies."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import Unreadable
from diptych_medical.settings import Imaging

Voxels = NDArray[np.float32]


def check_voxels(data: Voxels, *, colour: bool) -> None:
    """Raises Unreadable on missing, infinite and constant voxels.

    ``colour``: a channel may be constant (a stain that is not there), not all of them.
    """
    if not (finite := np.isfinite(data)).all():
        share = 1 - finite.mean()
        raise Unreadable(f"missing voxels: {share:.2%} of the values are NaN or infinite")
    flat = data.reshape(len(data), -1)
    constant = flat.max(axis=1) == flat.min(axis=1)
    if constant.all() or (constant.any() and not colour):
        what = "all voxels" if len(data) == 1 else f"{int(constant.sum())} of {len(data)} channels"
        raise Unreadable(f"constant image: {what} have one value")


def scaled(data: Voxels, imaging: Imaging) -> Voxels:
    """Intensities (c, *space) as the settings say; see :class:`diptych_medical.settings.Imaging`.

    Raises Unreadable where nothing differs within the window or the percentiles.
    """
    if imaging.intensity == "none":
        return data
    rows = data.reshape(len(data), -1)
    if imaging.intensity == "ct":
        low, high = np.float32(imaging.window[0]), np.float32(imaging.window[1])
        place = "the window"
    elif imaging.intensity == "mr":
        edges = np.percentile(rows, imaging.percentiles, axis=1).astype(np.float32)
        low, high = (each.reshape(-1, *[1] * (data.ndim - 1)) for each in edges)
        place = "the percentiles"
    else:
        low, high, place = rows.min(), rows.max(), "its range"
    if not (high > low).all():
        raise Unreadable("constant image: the percentiles of a channel are one value")
    out = np.clip((data - low) / (high - low), 0, 1)
    if out.max() == out.min():
        raise Unreadable(f"constant image: all voxels are equal within {place}")
    return np.asarray(out, np.float32)


def content_hash(data: Voxels) -> str:
    """SHA-256 of the decoded voxels: equal for one image stored twice, in whatever files."""
    digest = hashlib.sha256(repr(data.shape).encode())
    digest.update(np.ascontiguousarray(data + np.float32(0), "<f4").tobytes())  # no -0.0
    return digest.hexdigest()
