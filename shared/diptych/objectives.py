"""Objectives: which rows of the encoded views are contrasted, under which ids, and how that is averaged.

Each is ``(online, target, batch) -> scalar`` (:class:`diptych.method.Objective`). Over several processes the
mean of what they return, and of its gradient, is that of one process with all rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from diptych.distributed import gather_rows, mean_over_processes
from diptych.errors import ConfigError
from diptych.losses.alignment import AlignmentForm, alignment
from diptych.losses.contrast import Similarity, contrast, mean_over_anchors, mean_over_pairs
from diptych.losses.masked import Form
from diptych.losses.matching import Positives
from diptych.losses.scattering import batch_centre, scattering
from diptych.queue import Queue
from diptych.rows import GridScope, Level, grid_rows, parts_rows, whole_rows
from diptych.types import Encoded, Rows, Views

# As CLIP clips it, against an unstable training (Radford et al. 2021, section 2.5).
LOWEST_LEARNED_TEMPERATURE = 0.01


class InfoNCE(nn.Module):
    """Contrast the rows of a level by group: NT-Xent, supervised contrast, time steps, patients, queues.

    Args:
        group: the ids that make positives: "sample" is NT-Xent, a label or patient id supervised contrast.
        level: contrast whole samples, positions of dense maps, or parts.
        scope: for "grid", compare within a "sample" (then positions are the groups) or a "position"; for
            "whole" and "parts" the name of the ids of what is compared ("patient": windows of one patient
            with each other only), or None for all.
        temperature: divides similarities; the start value where it is ``learned``.
        form: average several positives outside ("out") or inside ("in") the logarithm.
        positives: "later" counts each unordered pair once (see :func:`diptych.losses.contrast.contrast`).
        average: weigh every anchor ("anchors") or every pair of an anchor and a positive ("pairs") alike.
        queue: further keys from earlier batches; filled from the keys of each training batch.

    Keys are the target branch's rows where the pass has one, else the online rows themselves; with several
    processes the rows of all. A key under an anchor's own row id (same sample, same view) is left out.

    Raises:
        ConfigError: a temperature not above 0, a scope or queue that does not fit the level.
    """

    def __init__(
        self,
        *,
        group: str = "sample",
        level: Level = "whole",
        scope: str | None = None,
        temperature: float = 0.1,
        learned: bool = False,
        similarity: Similarity = "cosine",
        form: Form = "out",
        positives: Positives = "others",
        average: Literal["anchors", "pairs"] = "anchors",
        queue: Queue | None = None,
        block: int | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(
                f"the temperature must be above 0, got {temperature}; 0.05 to 0.5 is usual for cosines"
            )
        if level == "grid" and scope not in ("sample", "position"):
            raise ConfigError(f"level grid needs scope sample or position, got {scope!r}")
        if queue is not None and scope is not None:
            raise ConfigError(
                f"a queue is compared with every anchor; leave out the scope {scope!r} or the queue"
            )
        if queue is not None and level != "whole":
            raise ConfigError(f"a queue holds whole samples, but the level is {level}; leave the queue out")
        if average == "pairs" and form == "in":
            raise ConfigError(
                "average pairs needs form out: form in has one term per anchor, not one per pair"
            )
        self.group, self.level, self.scope, self.average = group, level, scope, average
        self.similarity: Similarity = similarity
        self.form: Form = form
        self.positives: Positives = positives
        self.block = block
        self.queue = queue
        self._temperature = temperature
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learned else None

    @property
    def temperature(self) -> float | Tensor:
        """The temperature in use; a tensor with gradient where it is learned, never below 0.01."""
        if self.log_temperature is None:
            return self._temperature
        return self.log_temperature.exp().clamp(min=LOWEST_LEARNED_TEMPERATURE)

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of this process's anchors, as a share of all processes' mean."""
        anchors = self._rows(online, batch)
        keys = self._keys(anchors, target, batch)
        found = contrast(
            anchors,
            keys,
            temperature=self.temperature,
            similarity=self.similarity,
            form=self.form,
            positives=self.positives,
            block=self.block,
        )
        return mean_over_pairs(found) if self.average == "pairs" else mean_over_anchors(found)

    def _keys(self, anchors: Rows, target: tuple[Encoded, ...], batch: Views) -> Rows | None:
        """What anchors are compared with; None for themselves. Trains the queue."""
        own = self._rows(target, batch) if target else anchors
        keys = own if self.scope == "sample" and self.level == "grid" else gather_rows(own)
        if self.queue is not None:
            joined = self.queue.behind(keys)
            if self.training:
                self.queue.push_gathered(keys)
            return joined
        return None if keys is anchors else keys

    def _rows(self, encoded: Sequence[Encoded], batch: Views) -> Rows:
        if self.level == "whole":
            return whole_rows(encoded, batch.groups, self.group, scope=self.scope)
        if self.level == "parts":
            return parts_rows(encoded, batch.groups, self.group, scope=self.scope)
        scope: GridScope = "sample" if self.scope == "sample" else "position"
        return grid_rows(encoded, batch.groups, scope=scope, group=self.group)


class Alignment(nn.Module):
    """Predict each view's target rows from the online rows of the other views (BYOL), or of the same view.

    Args:
        form: "distance" is 2 - 2 cos (BYOL), "cosine" is -cos (SimSiam, representation scattering).
        level: whole samples, positions of dense maps, or parts.
        pairs: "across" averages over all ordered pairs of different views, "same" pairs each with itself.
    """

    def __init__(
        self,
        *,
        form: AlignmentForm = "distance",
        level: Level = "whole",
        pairs: Literal["across", "same"] = "across",
    ) -> None:
        super().__init__()
        self.form: AlignmentForm = form
        self.level: Level = level
        self.pairs = pairs

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """Mean over the pairs of views and all rows of all processes.

        Raises:
            ConfigError: no target branch, or too few views to pair.
        """
        if not target:
            raise ConfigError(
                "alignment needs a target branch: a teacher, or the online encoder without gradient"
            )
        views = range(len(online))
        wanted = [(i, j) for i in views for j in range(len(target)) if (i == j) == (self.pairs == "same")]
        if not wanted:
            raise ConfigError(
                f"alignment across views needs at least 2 views, got {len(online)}; or set pairs: same"
            )
        rows = [_level_rows(each, self.level) for each in online]
        aims = [_level_rows(each, self.level).detach() for each in target]
        losses = torch.stack([alignment(rows[i], aims[j], form=self.form) for i, j in wanted])
        return mean_over_processes(losses.sum(), torch.tensor(losses.numel(), device=losses.device))


class Scattering(nn.Module):
    """Push the online rows of each view away from their common centre (representation scattering).

    Args:
        level: whole samples, positions of dense maps, or parts.
        momentum: 0 takes the centre of the batch; above 0 the centre is a moving mean over batches, to which each
            adds its own, with gradient, with a weight of 1 - momentum.
        width: of the rows; needed for a moving mean, which is kept in checkpoints.

    Raises:
        ConfigError: a momentum outside 0..1, or a moving mean of rows of unknown width.
    """

    centre: Tensor
    batches: Tensor

    def __init__(self, *, level: Level = "whole", momentum: float = 0.0, width: int | None = None) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ConfigError(f"a centre's momentum must lie in 0..1 and below 1, got {momentum}")
        if momentum and width is None:
            raise ConfigError("a moving centre needs the width of the rows; give width")
        self.level: Level = level
        self.momentum = momentum
        if momentum:
            self.register_buffer("centre", torch.zeros(width or 0))
            self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """Mean over views of the scattering loss over the rows of all processes."""
        rows = [_level_rows(each, self.level) for each in online]
        if not self.momentum:
            return torch.stack([scattering(each) for each in rows]).mean()
        return torch.stack([scattering(each, self._moved(each)) for each in rows]).mean()

    def _moved(self, rows: Tensor) -> Tensor:
        """The moving centre with these rows in it; remembered in training. Divided by the weight it has so far."""
        moved = self.momentum * self.centre + (1 - self.momentum) * batch_centre(rows)
        batches = self.batches + 1
        if self.training:
            self.centre.copy_(moved.detach())
            self.batches.copy_(batches)
        return moved / (1 - self.momentum ** batches.to(moved.dtype))


def _level_rows(encoded: Encoded, level: Level) -> Tensor:
    """The rows of a level as (rows, width)."""
    if level == "whole":
        return encoded.whole
    values = encoded.parts if level == "parts" else encoded.grid
    if values is None:
        raise ConfigError(f"the objective reads {level}, but the encoder returns none; choose another level")
    return values if level == "parts" else values.flatten(2).transpose(1, 2).flatten(0, 1)
