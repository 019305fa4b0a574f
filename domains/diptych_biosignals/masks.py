"""Masks on the encoder's projected input: which time steps (and hidden channels) a view may see.

True means keep. Source: Wang et al. 2023 (COMET), whose observation and sample levels make their two views by
independent "continuous" masks, and Yue et al. 2022 (TS2Vec), who use "binomial". All draws are vectorised
over the batch, on its device; what is random (:class:`Segments`) is drawn apart from its application.

Letters: n windows, T time steps, H hidden units, S segments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

MaskName = Literal[
    "all_true", "all_false", "mask_last", "continuous", "binomial", "channel_binomial", "channel_continuous"
]


class Shape(NamedTuple):
    """What a mask is drawn for."""

    n: int
    steps: int
    hidden: int
    device: torch.device


class Segments(NamedTuple):
    """Runs of time steps to hide, S per window; they may overlap."""

    starts: Tensor  # (n, S) int64
    length: int


def draw_segments(
    n: int,
    steps: int,
    device: torch.device,
    generator: torch.Generator | None = None,
    *,
    segments: int = 5,
    share: float = 0.1,
) -> Segments:
    """S runs of floor(share * T) steps per window (at least one), starts uniform on 0..T - length inclusive.

    The number of segments is clipped to 1..T // 2.
    """
    count = max(min(segments, steps // 2), 1)
    length = max(int(share * steps), 1)
    starts = torch.randint(steps - length + 1, (n, count), device=device, generator=generator)
    return Segments(starts, length)


def covered(segments: Segments, steps: int) -> Tensor:
    """Which steps each segment hides: (n, S, T) bool."""
    since = torch.arange(steps, device=segments.starts.device) - segments.starts.unsqueeze(-1)
    return (since >= 0) & (since < segments.length)


def hide(segments: Segments, steps: int) -> Tensor:
    """Hide all channels in the segments: (n, T) bool."""
    return ~covered(segments, steps).any(1)


def hide_channels(segments: Segments, halves: Tensor, steps: int) -> Tensor:
    """Hide in every segment the channels of its own ``halves`` (n, S, H): (n, T, H) bool."""
    return ~(covered(segments, steps).unsqueeze(-1) & halves.unsqueeze(2)).any(1)


def draw_halves(
    n: int, segments: int, hidden: int, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """A random half of the hidden channels, H // 2 of them, for every segment: (n, S, H) bool."""
    order = torch.rand(n, segments, hidden, device=device, generator=generator).argsort(-1)
    return order < hidden // 2


def keep_fraction(steps: int, segments: int = 5, share: float = 0.1) -> float:
    """The expected share of steps that a "continuous" mask keeps.

    mean over t of (1 - c_t / (T - l + 1))^S with l the length of a segment and c_t the number of starts whose
    segment covers t.
    """
    count, length = max(min(segments, steps // 2), 1), max(int(share * steps), 1)
    starts = steps - length + 1
    hits = [min(t, starts - 1) - max(t - length + 1, 0) + 1 for t in range(steps)]
    return sum((1 - hit / starts) ** count for hit in hits) / steps


def _full(value: bool) -> Callable[..., Tensor]:
    def mask(shape: Shape, generator: torch.Generator | None, segments: int, share: float) -> Tensor:
        return torch.full((shape.n, shape.steps), value, device=shape.device)

    return mask


def _mask_last(shape: Shape, generator: torch.Generator | None, segments: int, share: float) -> Tensor:
    keep = torch.ones(shape.n, shape.steps, dtype=torch.bool, device=shape.device)
    keep[:, -1] = False
    return keep


def _continuous(shape: Shape, generator: torch.Generator | None, segments: int, share: float) -> Tensor:
    drawn = draw_segments(shape.n, shape.steps, shape.device, generator, segments=segments, share=share)
    return hide(drawn, shape.steps)


def _binomial(shape: Shape, generator: torch.Generator | None, segments: int, share: float) -> Tensor:
    return torch.rand(shape.n, shape.steps, device=shape.device, generator=generator) < 0.5


def _channel_binomial(shape: Shape, generator: torch.Generator | None, segments: int, share: float) -> Tensor:
    size = (shape.n, shape.steps, shape.hidden)
    return torch.rand(size, device=shape.device, generator=generator) < 0.5


def _channel_continuous(
    shape: Shape, generator: torch.Generator | None, segments: int, share: float
) -> Tensor:
    drawn = draw_segments(shape.n, shape.steps, shape.device, generator, segments=segments, share=share)
    halves = draw_halves(shape.n, drawn.starts.shape[1], shape.hidden, shape.device, generator)
    return hide_channels(drawn, halves, shape.steps)


MASKS: Mapping[MaskName, Callable[[Shape, torch.Generator | None, int, float], Tensor]] = {
    "all_true": _full(True),
    "all_false": _full(False),
    "mask_last": _mask_last,
    "continuous": _continuous,
    "binomial": _binomial,
    "channel_binomial": _channel_binomial,
    "channel_continuous": _channel_continuous,
}


def draw_mask(
    name: MaskName,
    shape: Shape,
    generator: torch.Generator | None = None,
    *,
    segments: int = 5,
    share: float = 0.1,
) -> Tensor:
    """A mask by its name in the paper's code: (n, T), or (n, T, H) for the two "channel" masks.

    "all_true", "all_false", "mask_last" (all but the last step); "continuous": per window ``segments`` runs of
    floor(``share`` T) steps are hidden; "binomial": each step kept with probability 1/2; "channel_binomial":
    each step of each hidden channel; "channel_continuous": each segment hides a random half of the channels.
    """
    return MASKS[name](shape, generator, segments, share)
