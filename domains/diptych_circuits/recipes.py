"""Pretraining of netlist graphs over their nodes: CircuitGCL's scattering, GRACE and BGRL, from the core's.

Each is a ``method`` of the recipe; it trains the encoder on the rows of nodes of one view. See also
:mod:`diptych_circuits.dice` and :mod:`diptych_circuits.links`, and the core's methods over graphs.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from diptych.augment import check_range
from diptych.distributed import sum_over_processes
from diptych.errors import ConfigError
from diptych.graphs import recipes
from diptych.graphs.batch import GraphBatch
from diptych.graphs.branches import Nodes
from diptych.graphs.segments import segment_count, segment_sum
from diptych.graphs.views import DropEdges, GraphAugmentation
from diptych.losses.similarity import unit_rows
from diptych.method import Method, OptimizerFactory, ScheduleFactory
from diptych.types import Encoded, Views
from diptych_circuits.schema import CODES, COLUMN, WIDTH, Kind


@dataclass(frozen=True, kw_only=True)
class MaskStatistics:
    """Sets statistics of nodes to 0, and leaves alone what a node is (:data:`diptych_circuits.schema.CODES`).

    Args:
        fraction: of the columns, each masked with that probability ("columns"; Zhu et al. 2020, GRACE), or of the
            nodes, each with that probability in all columns ("nodes").
        what: "columns" or "nodes".
    """

    fraction: float = 0.3
    what: Literal["columns", "nodes"] = "columns"
    keeps_nodes = True

    def __post_init__(self) -> None:
        check_range("the fraction of statistics that are masked", self.fraction)

    def draw(self, batch: GraphBatch, generator: torch.Generator | None = None) -> Tensor:
        """What is masked, bool: (1, columns) or (m, columns)."""
        device = batch.nodes.device
        rows = (1, WIDTH) if self.what == "columns" else (len(batch.nodes), 1)
        masked = torch.rand(rows, device=device, generator=generator) < self.fraction
        codes = torch.zeros(WIDTH, dtype=torch.bool, device=device)
        codes[[COLUMN[name] for name in CODES]] = True
        return masked & ~codes

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view with masked statistics."""
        return batch._replace(nodes=batch.nodes.masked_fill(parameters, 0.0))


class ScatteringByKind(nn.Module):
    """Scatters nets, devices and pins each from their own centre (:func:`scattering_by_group`).

    With one centre for all (He et al. 2024) it is enough to set the kinds apart, which their embeddings do at once:
    the loss is near its least value while all nets point one way.

    Args:
        nodes: as for the branch whose rows it reads: roots, or all nodes.
        directions: also spread over all directions.
    """

    def __init__(self, nodes: Nodes = "roots", *, directions: bool = False) -> None:
        super().__init__()
        self.nodes, self.directions = nodes, directions

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """Mean over views, over the rows of all processes."""
        graphs: GraphBatch = batch.views[0]
        kind = graphs.nodes[:, COLUMN["kind"]].long()
        of_roots = self.nodes == "roots" and graphs.roots is not None
        kind = kind[graphs.roots] if of_roots else kind
        rows = [each.whole if of_roots or each.parts is None else each.parts for each in online]
        losses = [scattering_by_group(each, kind, len(Kind), directions=self.directions) for each in rows]
        return torch.stack(losses).mean()


def scattering_by_group(z: Tensor, group: Tensor, groups: int, *, directions: bool = False) -> Tensor:
    """The mean over the groups with rows of |c_g|^2 - 1, c_g the mean of a group's unit rows, with gradient.

    |c_g|^2 is the mean cosine s of all pairs of a group. Rows at two opposite points have the least there can be,
    although they span one direction: so with ``directions`` it is the mean of s + s^2, which also asks for even
    directions (the frame potential, Benedetto & Fickus 2003). mean s^2 = |U^T U / n|^2 takes width^2 memory.

    Args:
        z: (n, width).
        group: (n,) int64, below ``groups``.
        groups: how many there may be.
        directions: add the mean of s^2.
    """
    count = sum_over_processes(segment_count(group, groups).to(z.dtype))
    scale = 1 / count.clamp(min=1)
    unit = unit_rows(z)
    values = (sum_over_processes(segment_sum(unit, group, groups)) * scale[:, None]).square().sum(1)
    if directions:
        own = torch.stack([unit.t() @ (unit * (group == each)[:, None]) for each in range(groups)])
        values = values + (sum_over_processes(own) * scale[:, None, None]).square().sum((1, 2))
    present = (count > 0).to(z.dtype)
    return (present * (values - 1)).sum() / present.sum().clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class CircuitGCL:
    """Representation scattering on netlist graphs, the first stage of CircuitGCL (Shen et al. 2025).

    It is :class:`diptych.graphs.recipes.SGRL` with other ways to scatter. The release has hops 0, scatter "together",
    update "epoch", an optimiser with rate 1e-6 and target_rate 2e-7. Adam moves a weight by at most about its rate in
    a step: of a data set with 50 batches, 800 such epochs move none by more than 0.04, and leave a random encoder.

    Args:
        hops: k of the topology constraint, by which the online rows are h + A^k h; 0 leaves it out.
        scatter: nodes from one centre ("together"), nets, devices and pins each from their own ("by_kind"), or these
            also over all directions ("directions"), which keeps the rows' effective rank.
        update: move the target after every "step" or "epoch".
        decay: how much of the target stays when it is moved.
        target_rate: learning rate of the scattering phase; None takes that of the optimiser.
        centre: with scatter "together", the mean of the batch or a "running" one.
        momentum: of the running mean.
        nodes: "all" nodes of a batch are trained on, or its "roots".
        hidden: units of the predictor's hidden layer; None takes the encoder's width.
    """

    hops: int = 1
    scatter: Literal["together", "by_kind", "directions"] = "directions"
    update: Literal["step", "epoch"] = "step"
    decay: float = 0.99
    target_rate: float | None = None
    centre: Literal["batch", "running"] = "batch"
    momentum: float = 0.9
    nodes: Nodes = "all"
    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.scatter not in ("together", "by_kind", "directions"):
            raise ConfigError(f"scatter must be together, by_kind or directions, got {self.scatter!r}")
        if self.scatter != "together" and self.centre == "running":
            raise ConfigError("a running centre is one of all nodes; set scatter: together, or centre: batch")

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        options = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "scatter"}
        method = recipes.SGRL(**options)(encoder, optimizer, schedule)
        if self.scatter == "together":
            return method
        alignment, scattering = method.phases
        (one,) = scattering.passes
        objective = ScatteringByKind(self.nodes, directions=self.scatter == "directions")
        by_kind = replace(one, terms=[replace(one.terms[0], objective=objective)])
        parts = {name: part for name, part in method.parts.items() if name != "scattering"}
        return Method(parts, [alignment, replace(scattering, passes=[by_kind])], method.encoder)


def _corruptions(edges: float, statistics: float) -> list[GraphAugmentation]:
    return [DropEdges(fraction=edges), MaskStatistics(fraction=statistics)]


@dataclass(frozen=True, kw_only=True)
class GRACE:
    """Two views of a node attract, all other nodes of both views repel (Zhu et al. 2020), on netlist graphs.

    Views drop edges and mask columns of statistics, but never what a node is.

    Args:
        edges: share of edges that each of the two views drops.
        statistics: share of columns that each masks.
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer; None takes the encoder's width.
        width: of the projection; None takes the encoder's width.
    """

    edges: tuple[float, float] = (0.2, 0.4)
    statistics: tuple[float, float] = (0.3, 0.4)
    temperature: float = 0.4
    hidden: int | None = None
    width: int | None = None

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        first, second = (_corruptions(*each) for each in zip(self.edges, self.statistics, strict=True))
        method = recipes.GRACE(
            first=first, second=second, temperature=self.temperature, hidden=self.hidden, width=self.width
        )
        return method(encoder, optimizer, schedule)


@dataclass(frozen=True, kw_only=True)
class BGRL:
    """One view of a node predicts what an average of the encoder makes of the other (Thakoor et al. 2022).

    Views drop edges and mask columns of statistics, but never what a node is.

    Args:
        edges: share of edges that each of the two views drops.
        statistics: share of columns that each masks.
        hidden: units of the predictor's hidden layer.
        decay: of the average that makes the targets, at first.
        steps: over which the decay goes to 1 by a cosine; None keeps it.
    """

    edges: tuple[float, float] = (0.4, 0.1)
    statistics: tuple[float, float] = (0.1, 0.2)
    hidden: int = 512
    decay: float = 0.99
    steps: int | None = None

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        first, second = (_corruptions(*each) for each in zip(self.edges, self.statistics, strict=True))
        method = recipes.BGRL(
            first=first, second=second, hidden=self.hidden, decay=self.decay, steps=self.steps
        )
        return method(encoder, optimizer, schedule)
