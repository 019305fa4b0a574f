"""TS2Vec: contrast of overlapping crops, between windows and between time steps, at all scales of time.

Source: Yue, Wang, Duan, Yang, Huang, Tong and Xu 2022, "TS2Vec: Towards Universal Representation of Time Series"
(AAAI).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from diptych.distributed import processes
from diptych.errors import ConfigError, DataError
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import Averaging, averaged
from diptych.types import Encoded, Views
from diptych_biosignals.encoder import DilatedEncoder
from diptych_biosignals.levels import batch_positions, halve_time, observation_loss, sample_loss, stacked
from diptych_biosignals.masks import MASKS, MaskName, Shape, draw_mask


class Overlap(NamedTuple):
    """Two crops of a window, [left, end) and [start, right), that share [start, end); left <= start < end."""

    left: int
    start: int
    end: int
    right: int


def draw_overlap(steps: int, device: torch.device) -> Overlap:
    """Overlapping crops as TS2Vec draws them (Yue et al. 2022, section 3.2): a shared part of at least 2 steps,
    uniform in length and place, then the outer ends, uniform in what is left. The same in every process.

    Raises DataError for windows of a single step.
    """
    if steps < 2:
        raise DataError(f"overlapping crops need windows of at least 2 time steps, got {steps}")
    chances = torch.rand(4, dtype=torch.float64, device=device if processes() > 1 else None)
    if processes() > 1:
        dist.broadcast(chances, src=0)
    length, place, before, after = chances.tolist()
    shared = 2 + int(length * (steps - 1))
    start = int(place * (steps - shared + 1))
    end = start + shared
    return Overlap(int(before * (start + 1)), start, end, end + int(after * (steps - end + 1)))


class OverlappingViews(nn.Module):
    """Two overlapping crops of every window, shifted alike per window, masked, encoded, cut to the shared part."""

    def __init__(self, encoder: DilatedEncoder, mask: MaskName) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask: MaskName = mask

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """Encode two crops of ``batch.views[0]`` (n, T, C); their grids are (n, width, shared steps)."""
        x: Tensor = batch.views[0]
        n, steps, _ = x.shape
        cut = draw_overlap(steps, x.device)
        shift = torch.randint(-cut.left, steps - cut.right + 1, (n, 1), device=x.device)
        encoded = []
        for first, last in ((cut.left, cut.end), (cut.start, cut.right)):
            at = shift + torch.arange(first, last, device=x.device)  # (n, length)
            crop = x.gather(1, at[..., None].expand(-1, -1, x.shape[2]))
            shape = Shape(n, last - first, self.encoder.input_fc.out_features, x.device)
            z = self.encoder.dropout(self.encoder.trunk(crop, draw_mask(self.mask, shape)))
            encoded.append(self.encoder.encoded(z[cut.start - first : cut.end - first]))
        return tuple(encoded)


@dataclass(frozen=True, kw_only=True)
class HierarchicalContrast:
    """TS2Vec's loss (Yue et al. 2022, equations 1-3): windows against windows at a step, and steps within a window.

    The mean over the scales T, T // 2, ..., 1 of ``alpha`` instance + (1 - alpha) temporal contrast; at length 1
    the instance contrast alone.
    """

    alpha: float = 0.5

    def __call__(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of two grids (n, width, T)."""
        z = stacked(online, (0, 1))
        positions, windows = batch_positions(z.shape[2], z.device)
        losses = []
        while True:
            loss = self.alpha * sample_loss(z, positions, windows)
            if len(z) > 1:
                loss = loss + (1 - self.alpha) * observation_loss(z, windows)
            losses.append(loss)
            if len(z) == 1:
                return torch.stack(losses).mean()
            z = halve_time(z)


@dataclass(frozen=True, kw_only=True)
class TS2Vec:
    """Hierarchical contrast of overlapping crops (Yue et al. 2022).

    Args:
        alpha: share of the instance contrast in the loss; the temporal contrast has the rest.
        mask: how the hidden units of each crop are masked.
        averaging: which weights are kept: their mean ("uniform", TS2Vec), moving mean ("ema"), the last ("none").
        decay: of the moving mean.
    """

    alpha: float = 0.5
    mask: MaskName = "binomial"
    averaging: Averaging = "uniform"
    decay: float = 0.999

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"alpha must lie in 0..1, got {self.alpha:g}")
        if self.mask not in MASKS:
            raise ConfigError(f"mask must be one of {', '.join(MASKS)}, got {self.mask!r}")

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, a DilatedEncoder, on its grid."""
        if not isinstance(encoder, DilatedEncoder):
            raise ConfigError(
                f"TS2Vec masks the hidden units of a DilatedEncoder, got a {type(encoder).__name__}; set the "
                "encoder to diptych_biosignals.encoder.DilatedEncoder or choose another method, such as NTXent"
            )
        kept, parts, after = averaged(encoder, self.averaging, self.decay)
        term = Term(name="hierarchical", objective=HierarchicalContrast(alpha=self.alpha))
        phase = Phase(
            name="ts2vec",
            passes=[Pass(online=OverlappingViews(encoder, self.mask), terms=[term])],
            trains=[encoder],
            optimizer=optimizer,
            schedule=schedule,
            after=after,
        )
        return Method(parts, [phase], kept)
