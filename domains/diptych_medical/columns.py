"""Which of an encoder's maps evaluators read at voxels."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.types import Encoded

Stages = Literal["last", "all"]


class Columns(nn.Module):
    """An encoder whose grid is the features of all stages of its decoder at every voxel.

    Args:
        encoder: has ``columns_width`` and ``columns``, as :class:`diptych_medical.unet.UNet`.

    Raises:
        ConfigError: it has not.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        width = getattr(encoder, "columns_width", None)
        if not isinstance(width, int):
            raise ConfigError(
                f"stages: all reads every stage of a decoder, and {type(encoder).__name__} has no columns of them; "
                "set stages: last, or take diptych_medical.unet.UNet"
            )
        self.encoder = encoder
        self.width = self.grid_width = width

    def forward(self, x: Tensor) -> Encoded:
        """Images (n, c, *space) to ``grid`` (n, grid_width, *space), and its mean ``whole``."""
        grid: Tensor = self.encoder.columns(x)  # type: ignore[operator]
        return Encoded(grid.flatten(2).mean(2), None, grid)


def read(encoder: nn.Module, stages: Stages) -> nn.Module:
    """The encoder as evaluators read it: its own grid ("last"), or all stages of its decoder.

    Raises ConfigError for another word, or an encoder without such stages.
    """
    if stages not in ("last", "all"):
        raise ConfigError(f"stages is last or all; got {stages!r}")
    return Columns(encoder) if stages == "all" else encoder
