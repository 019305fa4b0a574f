"""Other ways to pretrain on the same batches: NT-Xent, BYOL and CLOCS. Each is a ``method`` of the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diptych.augment import Augment, Augmentation
from diptych.distributed import gather_rows
from diptych.errors import DataError
from diptych.heads import Projector
from diptych.losses.contrast import contrast, mean_over_pairs
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import Averaging, averaged, byol, ntxent, width_of
from diptych.types import Encoded, Rows, Views
from diptych_biosignals.levels import batch_positions
from diptych_biosignals.views import BandStop, Crop, Jitter, LeadDrop, Scale, TimeMask


def usual_augmentations() -> tuple[Augmentation, ...]:
    """Crop, scale, jitter, time mask, band-stop and lead drop, in this order, with their default settings."""
    return (Crop(), Scale(), Jitter(), TimeMask(), BandStop(), LeadDrop())


@dataclass(frozen=True, kw_only=True)
class NTXent:
    """Two augmented views of a window attract, all others of the batch repel (Chen et al. 2020, SimCLR).

    Args:
        augmentations: what a view goes through, in this order; by default Crop, Scale, Jitter, TimeMask,
            BandStop and LeadDrop of diptych_biosignals.views.
        probability: of each augmentation, for each window.
        group: ids that make positives: "sample" (SimCLR), or "trial" or "patient" (Khosla et al. 2020, with
            those ids in the place of labels).
        scope: ids of what is compared, or all. Group "trial" in scope "patient" tells the recordings of one
            patient apart, so that what differs between patients is of no help: for states of a person.
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer.
        width: of the projection.
        averaging: which weights are kept: the last ones ("none"), their mean ("uniform") or moving mean ("ema").
        decay: of the moving mean.
    """

    augmentations: Sequence[Augmentation] | None = None
    probability: float = 0.5
    group: str = "sample"
    scope: str | None = None
    temperature: float = 0.1
    hidden: int = 512
    width: int = 128
    averaging: Averaging = "none"
    decay: float = 0.999

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        return ntxent(
            encoder,
            Augment(self.augmentations or usual_augmentations(), self.probability),
            optimizer,
            schedule,
            group=self.group,
            scope=self.scope,
            temperature=self.temperature,
            hidden=self.hidden,
            width=self.width,
            averaging=self.averaging,
            decay=self.decay,
        )


@dataclass(frozen=True, kw_only=True)
class BYOL:
    """One view predicts what a slowly moving average of the encoder makes of another (Grill et al. 2020).

    Args:
        augmentations: what a view goes through, in this order; by default Crop, Scale, Jitter, TimeMask,
            BandStop and LeadDrop of diptych_biosignals.views.
        probability: of each augmentation, for each window.
        hidden: units of the hidden layers of projector and predictor.
        width: of the projection.
        decay: of the average that makes the targets.
    """

    augmentations: Sequence[Augmentation] | None = None
    probability: float = 0.5
    hidden: int = 512
    width: int = 128
    decay: float = 0.99

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        return byol(
            encoder,
            Augment(self.augmentations or usual_augmentations(), self.probability),
            optimizer,
            schedule,
            hidden=self.hidden,
            width=self.width,
            decay=self.decay,
        )


@dataclass(frozen=True, kw_only=True)
class PatientContrast:
    """The two views of all windows of a patient attract each other (Kiyasseh et al. 2021, CLOCS, equations 1-3).

    With a, b windows of one patient, a = b among them, and s the cosine / temperature of view 1 of a with view 2
    of b: the mean over all such pairs of [ logsumexp_j s_aj - s_ab ], and the same from view 2.
    """

    temperature: float = 0.1

    def __call__(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of two views' ``whole`` (n, width)."""
        if "patient" not in batch.groups:
            raise DataError(
                "the patient contrast needs the id 'patient' of every window; this data has only "
                f"{', '.join(sorted(batch.groups))}"
            )
        ids = batch.groups["patient"]
        positions, windows = batch_positions(len(ids), ids.device)
        sides = Rows(online[0].whole, ids, positions), Rows(online[1].whole, ids, positions + windows)
        keys = gather_rows(sides[0]), gather_rows(sides[1])
        losses = [
            mean_over_pairs(contrast(anchors, others, temperature=self.temperature))
            for anchors, others in ((sides[0], keys[1]), (sides[1], keys[0]))
        ]
        return torch.stack(losses).mean()


class SplitViews(nn.Module):
    """Two views of every window that share no sample: its halves in time, or two halves of its leads."""

    def __init__(self, encoder: nn.Module, views: Literal["segments", "leads"]) -> None:
        super().__init__()
        self.encoder = encoder
        self.views = views

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """Encode two views of ``batch.views[0]`` (n, T, C). Raises DataError when there is nothing to split."""
        x: Tensor = batch.views[0]
        n, steps, channels = x.shape
        axis = steps if self.views == "segments" else channels
        if axis < 2:
            raise DataError(
                f"views {self.views} need windows of at least 2 {'steps' if self.views == 'segments' else 'leads'}"
                f", got {axis}; use the other kind of views"
            )
        if self.views == "segments":
            return self.encoder(x[:, : steps // 2]), self.encoder(x[:, steps // 2 : 2 * (steps // 2)])
        first = (torch.rand(n, channels, device=x.device).argsort(1) < channels // 2)[:, None]
        return self.encoder(x * first), self.encoder(x * ~first)


@dataclass(frozen=True, kw_only=True)
class CLOCS:
    """Contrast of patients across time or leads (Kiyasseh et al. 2021).

    Args:
        views: "segments" sets the two halves of a window against each other (their CMSC), "leads" two random
            halves of its leads, the others being 0 (after their CMLC, for an encoder of all leads).
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer; 0 contrasts the embedding itself, as they do.
        width: of the projection.
        averaging: which weights are kept: the last ones ("none"), their mean ("uniform") or moving mean ("ema").
        decay: of the moving mean.
    """

    views: Literal["segments", "leads"] = "segments"
    temperature: float = 0.1
    hidden: int = 0
    width: int = 128
    averaging: Averaging = "none"
    decay: float = 0.999

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        kept, parts, after = averaged(encoder, self.averaging, self.decay)
        online: nn.Module = SplitViews(encoder, self.views)
        trains = [encoder]
        if self.hidden:
            projector = Projector(width_of(encoder), self.hidden, self.width)
            online = Projected(online, projector)
            trains.append(projector)
            parts = parts | {"projector": projector}
        term = Term(name="patient", objective=PatientContrast(temperature=self.temperature))
        phase = Phase(
            name="clocs",
            passes=[Pass(online=online, terms=[term])],
            trains=trains,
            optimizer=optimizer,
            schedule=schedule,
            after=after,
        )
        return Method(parts, [phase], kept)


class Projected(nn.Module):
    """What ``views`` encodes, its ``whole`` rows projected."""

    def __init__(self, views: nn.Module, projector: nn.Module) -> None:
        super().__init__()
        self.views = views
        self.projector = projector

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """Encode and project every view."""
        return tuple(each._replace(whole=self.projector(each.whole)) for each in self.views(batch))
