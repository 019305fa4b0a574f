"""Ways to pretrain on graphs: GraphCL and MolCLR contrast graphs, GRACE, BGRL, SGRL and gCooL their nodes.

Each is a ``method`` of a recipe. Those over nodes are in :mod:`diptych.graphs.node_recipes`, and can be had from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from diptych.branch import Branch
from diptych.errors import ConfigError
from diptych.graphs.branches import AcrossViews
from diptych.graphs.node_recipes import BGRL, GRACE, SGRL, GCooL
from diptych.graphs.one_phase import Augmentations, Fill, one_phase
from diptych.graphs.views import DropEdges, DropNodes, GraphViews, MaskFeatures, OneOf, Subgraph
from diptych.heads import Projector
from diptych.method import Method, Objective, OptimizerFactory, ScheduleFactory
from diptych.objectives import InfoNCE
from diptych.recipes import width_of

__all__ = ["BGRL", "GRACE", "SGRL", "GCooL", "GraphCL", "MolCLR"]


@dataclass(frozen=True, kw_only=True)
class GraphCL:
    """Two views of a graph attract, all others of the batch repel (You et al. 2020).

    The loss is NT-Xent over both views of all graphs by default: the paper's own, "one_sided", compares the first view
    with the second only and leaves the positive out of the sum, so it can be negative and sees half of the negatives.

    Args:
        fraction: of nodes dropped, and left out of a subgraph, in the default views.
        first: what the first view goes through; by default dropping nodes or taking a subgraph, at random.
        second: the same of the second view; None takes those of the first.
        form: "ntxent" or "one_sided".
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer.
        width: of the projection.
    """

    fraction: float = 0.2
    first: Augmentations | None = None
    second: Augmentations | None = None
    form: Literal["ntxent", "one_sided"] = "ntxent"
    temperature: float = 0.1
    hidden: int = 300
    width: int = 300

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        if self.form not in ("ntxent", "one_sided"):
            raise ConfigError(f"form must be ntxent or one_sided, got {self.form!r}")
        usual = [OneOf([DropNodes(fraction=self.fraction), Subgraph(fraction=1 - self.fraction)])]
        projector = Projector(width_of(encoder), self.hidden, self.width, normalize=False)
        objective: Objective = InfoNCE(temperature=self.temperature)
        if self.form == "one_sided":
            objective = AcrossViews(temperature=self.temperature, positive_among=False, both=False)
        views = GraphViews(usual if self.first is None else self.first, self.second)
        branch = Branch(encoder, projector)
        return one_phase("graphcl", encoder, branch, projector, views, objective, optimizer, schedule)


@dataclass(frozen=True, kw_only=True)
class MolCLR:
    """Two views of a molecule with masked atoms and without some bonds attract (Wang et al. 2022).

    Args:
        fraction: of nodes whose features are masked, at least one in a graph, and of bonds that are dropped, each
            with both directions.
        fill: what is written over masked features: a number for each column, such as its code for "masked".
        first: what the first view goes through instead.
        second: the same of the second view; None takes those of the first.
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer.
        width: of the projection.
    """

    fraction: float = 0.25
    fill: Fill = 0.0
    first: Augmentations | None = None
    second: Augmentations | None = None
    temperature: float = 0.1
    hidden: int = 512
    width: int = 256

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows."""
        usual: Augmentations = [
            MaskFeatures(fraction=self.fraction, what="nodes", least=1, fill=self.fill),
            DropEdges(fraction=self.fraction, exact=True),
        ]
        projector = Projector(width_of(encoder), self.hidden, self.width, normalize=False)
        views = GraphViews(usual if self.first is None else self.first, self.second)
        objective = InfoNCE(temperature=self.temperature)
        branch = Branch(encoder, projector)
        return one_phase("molclr", encoder, branch, projector, views, objective, optimizer, schedule)
