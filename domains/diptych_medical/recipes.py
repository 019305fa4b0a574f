"""Other ways to pretrain on the same images: NT-Xent, BYOL, DenseCL and PixPro, in 2D and 3D.

Each is a ``method`` of the recipe. NT-Xent and BYOL train an encoder's ``whole`` rows; DenseCL and PixPro its
``grid`` too, of which they take ``points`` positions where it is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from diptych.augment import Augmentation, check_range
from diptych.dense import DenseBranch, MomentumContrast, PixelConsistency, Propagation
from diptych.heads import Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.queue import Queue
from diptych.recipes import Augmented, Averaging, SharedViews, byol, grid_width_of, ntxent, width_of
from diptych.teacher import Teacher
from diptych_medical.spatial import Spatial
from diptych_medical.views import TwoViews, usual_intensity

USUAL = Spatial(rotation=(15.0,), scale=(0.9, 1.1), crop=(0.3, 1.0))


@dataclass(frozen=True, kw_only=True)
class NTXent:
    """Two views of an image attract, all others of the batch repel (Chen et al. 2020, SimCLR).

    Args:
        spatial: rotation, scale, crops and flips of a view; None for none. By default up to 15 degrees, scale 0.9 to
            1.1 and crops of 0.3 to 1; a config that gives some of it takes the rest from Spatial itself.
        intensity: changes of intensity, in this order; by default Brightness, Gamma, Blur and Noise of
            diptych_medical.views.
        probability: of each change of intensity, for each image.
        group: ids that make positives: "sample" (SimCLR), "patient", or a label (Khosla et al. 2020).
        scope: ids of what is compared, or all.
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer.
        width: of the projection.
        normalize: batch norm in the projector; leave it out for batches of few images.
        averaging: which weights are kept: the last ones ("none"), their mean ("uniform") or moving mean ("ema").
        decay: of the moving mean.
    """

    spatial: Spatial | None = USUAL
    intensity: Sequence[Augmentation] | None = None
    probability: float = 0.5
    group: str = "sample"
    scope: str | None = None
    temperature: float = 0.1
    hidden: int = 512
    width: int = 128
    normalize: bool = True
    averaging: Averaging = "none"
    decay: float = 0.999

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        return ntxent(
            encoder,
            _views(self),
            optimizer,
            schedule,
            group=self.group,
            scope=self.scope,
            temperature=self.temperature,
            hidden=self.hidden,
            width=self.width,
            averaging=self.averaging,
            decay=self.decay,
            normalize=self.normalize,
        )


@dataclass(frozen=True, kw_only=True)
class BYOL:
    """One view predicts what a slowly moving average of the encoder makes of another (Grill et al. 2020).

    Args:
        spatial: rotation, scale, crops and flips of a view; None for none. By default up to 15 degrees, scale 0.9 to
            1.1 and crops of 0.3 to 1; a config that gives some of it takes the rest from Spatial itself.
        intensity: changes of intensity, in this order; by default Brightness, Gamma, Blur and Noise of
            diptych_medical.views.
        probability: of each change of intensity, for each image.
        hidden: units of the hidden layers of projector and predictor.
        width: of the projection.
        normalize: batch norm in projector and predictor; without it BYOL may collapse.
        decay: of the average that makes the targets.
    """

    spatial: Spatial | None = USUAL
    intensity: Sequence[Augmentation] | None = None
    probability: float = 0.5
    hidden: int = 512
    width: int = 128
    normalize: bool = True
    decay: float = 0.99

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        return byol(
            encoder,
            _views(self),
            optimizer,
            schedule,
            hidden=self.hidden,
            width=self.width,
            decay=self.decay,
            normalize=self.normalize,
        )


@dataclass(frozen=True, kw_only=True)
class DenseCL:
    """Contrast of images and of their positions with a teacher's view and a queue (Wang et al. 2021, DenseCL).

    One view goes through the encoder, another through the teacher. A position's positive is the teacher's position
    that both encoders' maps find most alike; negatives are means over the positions of other images. With
    volumes in batches of a few a queue of earlier means is what there is to compare with.

    Args:
        spatial: rotation, scale, crops and flips of a view; None for none. By default up to 15 degrees, scale 0.9 to
            1.1 and crops of 0.3 to 1; a config that gives some of it takes the rest from Spatial itself.
        intensity: changes of intensity, in this order; by default Brightness, Gamma, Blur and Noise of
            diptych_medical.views.
        probability: of each change of intensity, for each image.
        points: positions taken of a map, where both views show the image; all in maps of fewer, and with None.
        group: ids whose images are never negatives of each other: "sample", or "patient" for slices.
        temperature: divides the cosines.
        weight: of the positions' loss; that of the images has 1 - weight.
        queue: earlier keys; 0 contrasts within the batch. The paper has 65536, of a million images.
        hidden: units of both projectors' hidden layers.
        width: of both projections.
        decay: of the moving average that makes the teacher.
    """

    spatial: Spatial | None = USUAL
    intensity: Sequence[Augmentation] | None = None
    probability: float = 0.5
    points: int | None = 1024
    group: str = "sample"
    temperature: float = 0.2
    weight: float = 0.5
    queue: int = 1024
    hidden: int = 2048
    width: int = 128
    decay: float = 0.999

    def __post_init__(self) -> None:
        check_range("DenseCL's weight", self.weight)

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows and its ``grid``."""
        projector = Projector(width_of(encoder), self.hidden, self.width, normalize=False)
        dense = Projector(grid_width_of(encoder), self.hidden, self.width, normalize=False)
        teacher = Teacher(
            DenseBranch(encoder, projector, dense, points=self.points, views=(1,)), decay=self.decay
        )
        online = DenseBranch(encoder, projector, dense, points=self.points, views=(0,))
        views = SharedViews(_views(self, self.points).located)
        parts: dict[str, nn.Module] = {
            "encoder": encoder,
            "projector": projector,
            "dense_projector": dense,
            "teacher": teacher,
        }
        terms = []
        for level, weight in (("whole", 1 - self.weight), ("grid", self.weight)):
            queue = Queue(self.queue, self.width) if self.queue else None
            objective = MomentumContrast(
                level="grid" if level == "grid" else "whole",
                group=self.group,
                temperature=self.temperature,
                queue=queue,
            )
            terms.append(Term(name=level, objective=objective, weight=weight))
            if queue is not None:
                parts[f"{level}_queue"] = queue
        phase = Phase(
            name="densecl",
            passes=[Pass(online=Augmented(views, online), target=Augmented(views, teacher), terms=terms)],
            trains=[encoder, projector, dense],
            optimizer=optimizer,
            schedule=schedule,
            after=[teacher.update],
        )
        return Method(parts, [phase], encoder)


@dataclass(frozen=True, kw_only=True)
class PixPro:
    """Positions predict what a teacher makes of the same place in another view (Xie et al. 2021, PixPro).

    Trains the encoder's ``grid``; its ``whole`` rows only where they are made of the same layers.

    Args:
        spatial: rotation, scale, crops and flips of a view; None for none. By default up to 15 degrees, scale 0.9 to
            1.1 and crops of 0.3 to 1; a config that gives some of it takes the rest from Spatial itself.
        intensity: changes of intensity, in this order; by default Brightness, Gamma, Blur and Noise of
            diptych_medical.views.
        probability: of each change of intensity, for each image.
        points: positions taken of a map, where both views show the image; all in maps of fewer, and with None.
        distance: up to which positions are the same place, in diagonals of the larger of both views' cells.
        power: sharpness of the propagation that predicts a position from those like it.
        hidden: units of the projector's hidden layer.
        width: of the projection.
        normalize: batch norm in the projector, over positions of all images.
        decay: of the moving average that makes the teacher.
        decay_steps: steps over which the decay grows to 1 along a cosine, as published over all of a training; None
            keeps it.
    """

    spatial: Spatial | None = USUAL
    intensity: Sequence[Augmentation] | None = None
    probability: float = 0.5
    points: int | None = 1024
    distance: float = 0.7
    power: float = 2.0
    hidden: int = 2048
    width: int = 256
    normalize: bool = True
    decay: float = 0.99
    decay_steps: int | None = None

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``grid``."""
        projector = Projector(grid_width_of(encoder), self.hidden, self.width, normalize=self.normalize)
        propagation = Propagation(self.width, self.power)
        # The i-th online view is set against the i-th of the teacher: the other one.
        teacher = Teacher(
            DenseBranch(encoder, None, projector, points=self.points, views=(1, 0)),
            average="constant" if self.decay_steps is None else "cosine",
            decay=self.decay,
            steps=self.decay_steps,
        )
        online = DenseBranch(encoder, None, projector, propagation, points=self.points, views=(0, 1))
        views = SharedViews(_views(self, self.points).located)
        term = Term(name="consistency", objective=PixelConsistency(distance=self.distance))
        phase = Phase(
            name="pixpro",
            passes=[Pass(online=Augmented(views, online), target=Augmented(views, teacher), terms=[term])],
            trains=[encoder, projector, propagation],
            optimizer=optimizer,
            schedule=schedule,
            after=[teacher.update],
        )
        parts = {"encoder": encoder, "projector": projector, "propagation": propagation, "teacher": teacher}
        return Method(parts, [phase], encoder)


def _views(method: NTXent | BYOL | DenseCL | PixPro, points: int | None = None) -> TwoViews:
    intensity = usual_intensity() if method.intensity is None else method.intensity
    return TwoViews(method.spatial, intensity, method.probability, points)
