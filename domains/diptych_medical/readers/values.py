"""What every format asks of decoded values: the number of channels, colour, whole numbers in label maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.data.readable import Unreadable
from diptych_medical.image import Reading

_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_NEAR = 1e-3  # by which a stored label may miss its whole number (float32 maps, scaled integers)

AnyArray = NDArray[Any]


def channels_of(found: int, reading: Reading, *, colour: bool = False) -> int:
    """Channels that an image has once it is read as the config says.

    Args:
        found: Channels in the file; 3 where ``colour``.
        reading: What the config says.
        colour: Whether the file says that they are red, green and blue.

    Raises Unreadable where the config expects another number, or no colour.
    """
    if colour and reading.colour == "reject":
        raise Unreadable("colour: a colour image where grey is expected")
    given = found
    if colour and reading.colour == "grey":
        given = 1
    elif found == 1 and reading.colour == "rgb":
        given = 3
    if given != reading.channels:
        raise Unreadable(f"channels: {given} where {reading.channels} are expected")
    return given


def coloured(values: AnyArray, reading: Reading, *, colour: bool) -> NDArray[np.float32]:
    """(channels, *space) values as the config wants colour; grey ones are copied into three where it says "rgb"."""
    data = values.astype(np.float32, copy=False)
    if colour and reading.colour == "grey":
        return np.tensordot(_LUMINANCE, data, axes=1)[None].astype(np.float32, copy=False)
    if not colour and reading.colour == "rgb" and len(data) == 1:
        return np.repeat(data, 3, axis=0)
    return data


def whole_numbers(values: AnyArray) -> NDArray[np.int64]:
    """Label values as int64. Raises Unreadable where they are no whole numbers."""
    if values.dtype.kind in "biu":
        return values.astype(np.int64)
    if values.dtype.kind != "f":
        raise Unreadable("label map: its values are no numbers")
    if not np.isfinite(values).all():
        raise Unreadable("label map: it has values that are no finite numbers")
    rounded = np.rint(values)
    if np.abs(values - rounded).max(initial=0) > _NEAR:
        raise Unreadable("label map: its values are no whole numbers (was it interpolated?)")
    return rounded.astype(np.int64)


def wrong_axes(found: int, expected: int) -> Unreadable:
    """The reason for an image with another number of axes than the config says."""
    return Unreadable(f"axes: {found}D where {expected}D is expected")
