"""Labels carried from slices that have them to one that has none, by the likeness of features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Labelled(NamedTuple):
    """A slice whose classes are known or were predicted."""

    features: Tensor  # (width, H, W)
    labels: Tensor  # (classes, H, W): shares of the classes, 0 all over where nothing is known


def carry(
    sources: Sequence[Labelled], target: Tensor, *, radius: int, neighbours: int, temperature: float
) -> Tensor:
    """Shares of the classes for every pixel of a slice, (classes, H, W).

    A pixel asks those within ``radius`` of its place, along both axes, in every source. The most alike by
    cosine vote with weights softmax(cosine / temperature), as labels of videos are carried by Jabri et al.,
    Space-time correspondence as a contrastive random walk, NeurIPS 2020, section 4.

    Args:
        sources: Slices with labels, on the same grid.
        target: (width, H, W) features of the slice.
        radius: Pixels.
        neighbours: How many vote.
        temperature: Of the weights; small lets the most alike decide.
    """
    height, width = target.shape[1:]
    own = F.normalize(target, dim=0)
    likeness = torch.cat([_likeness(F.normalize(each.features, dim=0), own, radius) for each in sources])
    best, which = likeness.topk(min(neighbours, len(likeness)), dim=0)
    weights = (best / temperature).softmax(0)  # what lies outside is -inf: its weight is 0
    side = 2 * radius + 1
    source, offset = which // side**2, which % side**2
    rows = torch.arange(height, device=target.device)[:, None] + offset // side - radius
    columns = torch.arange(width, device=target.device) + offset % side - radius
    place = source * height * width + rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    labels = torch.stack([each.labels for each in sources], 1).flatten(1)  # (classes, sources * H * W)
    return (labels[:, place] * weights).sum(1)


def _likeness(source: Tensor, target: Tensor, radius: int) -> Tensor:
    """Cosines of every pixel with those around its place, ((2 radius + 1)^2, H, W); -inf outside."""
    height, width = target.shape[1:]
    padded = F.pad(source, [radius] * 4)
    exists = F.pad(torch.zeros_like(source[0]), [radius] * 4, value=-torch.inf)
    side = range(2 * radius + 1)
    return torch.stack(
        [
            torch.einsum("chw,chw->hw", padded[:, r : r + height, c : c + width], target)
            + exists[r : r + height, c : c + width]
            for r in side
            for c in side
        ]
    )
