"""The method of one encoder, one projector and one objective over two views of graphs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import nn

from diptych.graphs.views import GraphAugmentation
from diptych.method import Method, Objective, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import Augmented, MakeViews

Augmentations = Sequence[GraphAugmentation]
Fill = float | Sequence[float] | Literal["mean"]


def one_phase(
    name: str,
    encoder: nn.Module,
    branch: nn.Module,
    projector: nn.Module,
    views: MakeViews,
    objective: Objective,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None,
) -> Method:
    """A method of one phase: views, encoder, projector, one objective."""
    phase = Phase(
        name=name,
        passes=[Pass(online=Augmented(views, branch), terms=[Term(name="sample", objective=objective)])],
        trains=[encoder, projector],
        optimizer=optimizer,
        schedule=schedule,
    )
    return Method({"encoder": encoder, "projector": projector}, [phase], encoder)
