"""Dense pretraining: positions of maps projected, sampled where maps are large, and the objectives on them.

Letters: n samples, p positions taken of a map, w width of the encoder's map, d dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from diptych.distributed import gather_rows, mean_over_processes
from diptych.errors import ConfigError
from diptych.losses.dense import consistency, match, paired_contrast, propagate
from diptych.places import (
    Located,
    cell_diagonal,
    cells_at,
    places,
    places_of,
    random_cells,
    rows_of,
    take,
    within,
)
from diptych.queue import Queue
from diptych.types import Rows, Views


class Dense(NamedTuple):
    """What a dense branch says of one view: its samples, and p positions of each with their places."""

    whole: Tensor  # (n, width): projected samples
    rows: Tensor  # (n, p, width): projected positions
    features: Tensor  # (n, p, w): the same positions as the encoder gives them
    places: Tensor  # (n, p, d): where they lie in the original, in voxels; infinite outside of it
    diagonal: Tensor  # (n,): of a position's cell, in voxels of the original


class Propagation(nn.Module):
    """PixPro's predictor: each position becomes a sum over those like it (Xie et al. 2021, equations 4 and 5).

    Args:
        width: of the rows.
        power: how fast the share of less similar positions falls.
    """

    def __init__(self, width: int, power: float = 2.0) -> None:
        super().__init__()
        if not power > 0:
            raise ConfigError(f"the propagation's power must be above 0, got {power}")
        self.transform = nn.Linear(width, width)
        self.power = power

    def forward(self, rows: Tensor) -> Tensor:
        """Smoothed rows (n, p, width) of rows (n, p, width)."""
        return propagate(rows, rows, self.transform(rows), power=self.power)


class DenseBranch(nn.Module):
    """Encodes located views, takes positions of their maps and projects them; any encoder with a ``grid`` serves.

    Maps of more than ``points`` positions are read at the points that the views name, or at random ones, before
    they are projected: the projection of a whole volume would not fit into memory.

    Args:
        encoder: returns :class:`diptych.types.Encoded` with a grid.
        projector: of samples, (n, width of whole) to (n, width); None leaves them as they are.
        dense_projector: of positions, as rows (n p, w) to (n p, width).
        predictor: of positions, (n, p, width) to (n, p, width), such as :class:`Propagation`.
        points: how many positions are taken of a map; all when None.
        views: which of the batch's views are encoded, in this order; all when None.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module | None,
        dense_projector: nn.Module,
        predictor: nn.Module | None = None,
        *,
        points: int | None = None,
        views: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if points is not None and points < 2:
            raise ConfigError(f"at least 2 points of a map are needed, got {points}")
        self.encoder = encoder
        self.projector = projector
        self.dense_projector = dense_projector
        self.predictor = predictor
        self.points = points
        self.views = None if views is None else tuple(views)

    def forward(self, batch: Views) -> tuple[Dense, ...]:
        """One :class:`Dense` per view; ``batch.views`` are :class:`diptych.places.Located`.

        Raises:
            ConfigError: the encoder returns no grid.
        """
        chosen = range(len(batch.views)) if self.views is None else self.views
        return tuple(self._one(batch.views[view]) for view in chosen)

    def _one(self, located: Located) -> Dense:
        encoded = self.encoder(located.view)
        if encoded.grid is None:
            raise ConfigError(
                f"dense pretraining needs an encoder with a grid; {type(self.encoder).__name__} returns none"
            )
        features, at = self._positions(encoded.grid, located)
        n, p, width = features.shape
        rows = self.dense_projector(features.reshape(n * p, width)).view(n, p, -1)
        if self.predictor is not None:
            rows = self.predictor(rows)
        whole = encoded.whole if self.projector is None else self.projector(encoded.whole)
        outside = ~within(at.transpose(1, 2), located.extent)
        diagonal = cell_diagonal(located.matrix, located.space, encoded.grid.shape[2:])
        return Dense(whole, rows, features, at.masked_fill(outside[..., None], torch.inf), diagonal)

    def _positions(self, grid: Tensor, located: Located) -> tuple[Tensor, Tensor]:
        """Features (n, p, w) and places (n, p, d) of the positions that are taken."""
        cells = tuple(grid.shape[2:])
        if self.points is None or math.prod(cells) <= self.points:
            return rows_of(grid), rows_of(places(located.matrix, located.space, cells))
        if located.points is not None:
            index = cells_at(located.points, located.space, cells)
        else:
            index = random_cells(len(grid), math.prod(cells), self.points, grid.device)
        return take(grid, index), places_of(located.matrix, located.space, cells, index)


class MomentumContrast(nn.Module):
    """A row against its own in a teacher's view, and other samples as negatives (MoCo; DenseCL's two losses).

    The i-th online view is compared with the i-th target view, which must be another view of the samples. Level
    "whole" contrasts samples. Level "grid" contrasts positions: the positive of each is the target's position that
    the encoder's maps find most alike, the negatives are other samples' means over positions (Wang et al. 2021).

    Negatives are the other samples of the batch and of the queue. That of the paper has the queue alone, and may
    hold earlier keys of the anchor's own sample; here those are left out, as they are often met in small data.

    Args:
        level: "whole" samples, or positions of the "grid".
        group: ids whose samples are never negatives of each other: "sample", or "patient" for slices.
        temperature: divides the cosines.
        queue: of earlier keys; the batch alone when None.

    Raises:
        ConfigError: a temperature not above 0.
    """

    def __init__(
        self,
        *,
        level: Literal["whole", "grid"] = "whole",
        group: str = "sample",
        temperature: float = 0.2,
        queue: Queue | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(
                f"the temperature must be above 0, got {temperature}; 0.05 to 0.5 is usual for cosines"
            )
        self.level, self.group, self.temperature = level, group, temperature
        self.queue = queue

    def forward(self, online: tuple[Dense, ...], target: tuple[Dense, ...], batch: Views) -> Tensor:
        """Mean over views and rows of all processes.

        Raises:
            ConfigError: views that are not in pairs, or ids that the batch does not have.
        """
        ids = self._ids(batch)
        totals = []
        for view, aim in _pairs(online, target):
            each = 1 if self.level == "whole" else view.rows.shape[1]
            totals.append(self._one(view, aim, ids).sum() / each)
        return mean_over_processes(torch.stack(totals).mean(), torch.tensor(len(ids), device=ids.device))

    def _one(self, view: Dense, aim: Dense, ids: Tensor) -> Tensor:
        """The losses of one pair of views; trains the queue."""
        if self.level == "whole":
            anchors, positives, keys, rows = view.whole, aim.whole, aim.whole, ids
        else:
            partner = match(view.features, aim.features)
            found = aim.rows.gather(1, partner[..., None].expand(-1, -1, aim.rows.shape[2]))
            anchors, positives, keys = view.rows.flatten(0, 1), found.flatten(0, 1), aim.rows.mean(1)
            rows = ids.repeat_interleave(view.rows.shape[1])
        others = gather_rows(Rows(keys.detach(), ids, ids))
        compared = others if self.queue is None else self.queue.behind(others)
        losses = paired_contrast(
            Rows(anchors, rows, rows), positives.detach(), compared, temperature=self.temperature
        )
        if self.queue is not None and self.training:
            self.queue.push_gathered(others)
        return losses

    def _ids(self, batch: Views) -> Tensor:
        if self.group not in batch.groups:
            raise ConfigError(
                f"the batch has no ids named {self.group!r}; it has {', '.join(sorted(batch.groups))}"
            )
        ids = batch.groups[self.group]
        # A sample without an id of the group stands for itself.
        return torch.where(ids < 0, -2 - batch.groups["sample"], ids)


class PixelConsistency(nn.Module):
    """Each position predicts the target's positions near it in the image (PixPro, Xie et al. 2021, equation 6).

    As released: the sum over pairs of views of -2 times the mean cosine of nearby positions, averaged over
    samples; a sample whose views do not overlap counts as 0. The i-th online view is set against the i-th target
    view.

    Args:
        distance: up to which positions are near, in diagonals of the larger of the two views' cells.

    Raises:
        ConfigError: a distance not above 0.
    """

    def __init__(self, *, distance: float = 0.7) -> None:
        super().__init__()
        if not distance > 0:
            raise ConfigError(f"the distance must be above 0, got {distance}; PixPro has 0.7")
        self.distance = distance

    def forward(self, online: tuple[Dense, ...], target: tuple[Dense, ...], batch: Views) -> Tensor:
        """Sum over pairs of views, mean over the samples of all processes.

        Raises:
            ConfigError: views that are not in pairs.
        """
        totals = []
        for view, aim in _pairs(online, target):
            limit = self.distance * torch.maximum(view.diagonal, aim.diagonal)
            mean, _ = consistency(view.rows, aim.rows, view.places, aim.places, limit)
            totals.append(-2 * mean.sum())
        samples = torch.tensor(len(online[0].rows), device=online[0].rows.device)
        return mean_over_processes(torch.stack(totals).sum(), samples)


def _pairs(online: tuple[Dense, ...], target: tuple[Dense, ...]) -> Iterator[tuple[Dense, Dense]]:
    if not online or len(online) != len(target):
        raise ConfigError(
            f"every online view needs a target view of its own, got {len(online)} online and {len(target)} target"
        )
    return zip(online, target, strict=True)
