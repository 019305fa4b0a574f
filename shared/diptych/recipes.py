"""Pretraining methods that every domain has: what is made of an encoder, given the domain's way to make views."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from torch import nn

from diptych.branch import Branch
from diptych.errors import ConfigError
from diptych.heads import Predictor, Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.objectives import Alignment, InfoNCE
from diptych.teacher import Teacher
from diptych.types import Views

Averaging = Literal["uniform", "ema", "none"]
MakeViews = Callable[[Any], tuple[Any, ...]]


def width_of(encoder: nn.Module) -> int:
    """The encoder's ``width``. Raises ConfigError when it has none."""
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        raise ConfigError(f"an encoder says how wide its embedding is; {type(encoder).__name__} has no width")
    return width


def grid_width_of(encoder: nn.Module) -> int:
    """The width of the encoder's dense map: its ``grid_width``, or ``width`` where it names no other."""
    width = getattr(encoder, "grid_width", None)
    return width if isinstance(width, int) else width_of(encoder)


def parts_width_of(encoder: nn.Module) -> int:
    """The width of the encoder's rows of parts: its ``parts_width``, or ``width`` where it names no other."""
    width = getattr(encoder, "parts_width", None)
    return width if isinstance(width, int) else width_of(encoder)


def averaged(
    encoder: nn.Module, averaging: Averaging, decay: float
) -> tuple[nn.Module, dict[str, nn.Module], list[Callable[[], None]]]:
    """The module to keep, a method's parts, and what to call after each step, for a way of averaging."""
    if averaging == "none":
        return encoder, {"encoder": encoder}, []
    teacher = Teacher(encoder, average="uniform" if averaging == "uniform" else "constant", decay=decay)
    return teacher.copy, {"encoder": encoder, "average": teacher}, [teacher.update]


class Augmented(nn.Module):
    """Views of a batch's samples, encoded by what follows.

    Args:
        augment: makes the views of ``batch.views[0]``.
        branch: encodes them.
    """

    def __init__(self, augment: MakeViews, branch: nn.Module) -> None:
        super().__init__()
        self.augment = augment
        self.branch = branch

    def forward(self, batch: Views) -> Any:
        """What the branch makes of the views of ``batch.views[0]``."""
        return self.branch(batch._replace(views=self.augment(batch.views[0])))


class SharedViews:
    """Gives the target branch and the online branch of a pass the same views of a batch, made once.

    The first call for some samples makes their views, the second returns them and forgets them.
    """

    def __init__(self, make: MakeViews) -> None:
        self.make = make
        self._waiting: tuple[Any, tuple[Any, ...]] | None = None

    def __call__(self, samples: Any) -> tuple[Any, ...]:
        """The views of the samples."""
        if self._waiting is not None and self._waiting[0] is samples:
            views = self._waiting[1]
            self._waiting = None
            return views
        views = self.make(samples)
        self._waiting = (samples, views)
        return views


def ntxent(
    encoder: nn.Module,
    augment: MakeViews,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None,
    *,
    group: str,
    scope: str | None,
    temperature: float,
    hidden: int,
    width: int,
    averaging: Averaging,
    decay: float,
    normalize: bool = True,
) -> Method:
    """Views of a sample attract, all others of the batch repel (Chen et al. 2020, SimCLR).

    Args:
        encoder: trained on its ``whole`` rows.
        augment: makes the views of a batch's samples.
        optimizer: of encoder and projector.
        schedule: of its rate.
        group: ids that make positives.
        scope: ids of what is compared, or all.
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer.
        width: of the projection.
        averaging: which weights are kept: the last ones ("none"), their mean ("uniform") or moving mean ("ema").
        decay: of the moving mean.
        normalize: batch norm in the projector.
    """
    projector = Projector(width_of(encoder), hidden, width, normalize=normalize)
    online = Augmented(augment, Branch(encoder, projector))
    objective = InfoNCE(group=group, scope=scope, temperature=temperature)
    kept, parts, after = averaged(encoder, averaging, decay)
    phase = Phase(
        name="ntxent",
        passes=[Pass(online=online, terms=[Term(name=group, objective=objective)])],
        trains=[encoder, projector],
        optimizer=optimizer,
        schedule=schedule,
        after=after,
    )
    return Method(parts | {"projector": projector}, [phase], kept)


def byol(
    encoder: nn.Module,
    augment: MakeViews,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None,
    *,
    hidden: int,
    width: int,
    decay: float,
    normalize: bool = True,
) -> Method:
    """One view predicts what a slowly moving average of the encoder makes of another (Grill et al. 2020).

    Args:
        encoder: trained on its ``whole`` rows.
        augment: makes the views of a batch's samples; the two branches call it each.
        optimizer: of encoder, projector and predictor.
        schedule: of its rate.
        hidden: units of the hidden layers of projector and predictor.
        width: of the projection.
        decay: of the average that makes the targets.
        normalize: batch norm in projector and predictor.
    """
    projector = Projector(width_of(encoder), hidden, width, normalize=normalize)
    predictor = Predictor(width, hidden, normalize=normalize)
    teacher = Teacher(Branch(encoder, projector), decay=decay)
    phase = Phase(
        name="byol",
        passes=[
            Pass(
                online=Augmented(augment, Branch(encoder, projector, predictor)),
                target=Augmented(augment, teacher),
                terms=[Term(name="alignment", objective=Alignment())],
            )
        ],
        trains=[encoder, projector, predictor],
        optimizer=optimizer,
        schedule=schedule,
        after=[teacher.update],
    )
    parts = {"encoder": encoder, "projector": projector, "predictor": predictor, "teacher": teacher}
    return Method(parts, [phase], encoder)
