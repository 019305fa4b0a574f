"""Branches and objectives over the nodes of graphs: the roots of sampled neighbourhoods, or all nodes."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from diptych.distributed import gather, mean_over_processes
from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.propagation import propagate
from diptych.losses.across import across_views
from diptych.losses.communities import against_communities, assignments, density
from diptych.losses.similarity import unit_rows
from diptych.method import Objective
from diptych.types import Encoded, Views

Nodes = Literal["roots", "all"]


class NodeBranch(nn.Module):
    """Encodes every view of a batch of graphs and applies heads to rows of nodes.

    Args:
        encoder: of graphs.
        projector: takes (rows, width).
        predictor: follows it.
        nodes: "roots" gives the rows of the roots where a view has any; "all" those of all nodes too.
        hops: above 0, h + A^hops h takes the place of the encoder's rows h, with A the normalised adjacency.
    """

    def __init__(
        self,
        encoder: nn.Module,
        projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
        *,
        nodes: Nodes = "roots",
        hops: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.projector, self.predictor = encoder, projector, predictor
        self.nodes, self.hops = nodes, hops

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """One :class:`Encoded` per view: whole is the roots' rows, or all nodes' where a view has no roots."""
        return tuple(self._of(view) for view in batch.views)

    def _of(self, view: GraphBatch) -> Encoded:
        encoded = self.encoder(view)
        parts = encoded.parts
        if parts is None:
            raise ConfigError(
                f"{type(self.encoder).__name__} returns no rows of nodes; a method over nodes needs them"
            )
        if self.hops:
            parts = parts + propagate(parts, view.edges, hops=self.hops)
        if view.roots is None or self.nodes == "all":
            rows = self._headed(parts)
            return Encoded(rows if view.roots is None else rows[view.roots], rows)
        return Encoded(self._headed(parts[view.roots] if self.hops else encoded.whole))

    def _headed(self, rows: Tensor) -> Tensor:
        for head in (self.projector, self.predictor):
            rows = rows if head is None else head(rows)
        return rows


class OverNodes(nn.Module):
    """An objective of whole rows, asked about nodes: roots under their ids "sample", all nodes under "part".

    Args:
        objective: reads ``whole`` and the ids "sample".
        nodes: "roots" takes the roots where the batch has any; "all" all nodes in any case.
    """

    def __init__(self, objective: Objective, nodes: Nodes = "roots") -> None:
        super().__init__()
        self.objective, self.nodes = objective, nodes

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """What the objective makes of the rows of nodes. Raises ConfigError without ids of nodes."""
        if self.nodes == "roots" and batch.views[0].roots is not None:
            return self.objective(online, target, batch)
        if "part" not in batch.groups:
            raise ConfigError(
                f"a method over all nodes needs their ids 'part'; the batch has {', '.join(sorted(batch.groups))}"
            )
        ids = {**batch.groups, "sample": batch.groups["part"]}
        return self.objective(_all_nodes(online), _all_nodes(target), batch._replace(groups=ids))


def _all_nodes(encoded: tuple[Encoded, ...]) -> tuple[Encoded, ...]:
    return tuple(Encoded(each.whole if each.parts is None else each.parts) for each in encoded)


class AcrossViews(nn.Module):
    """Each whole row of one view against all of the other (:func:`diptych.losses.across.across_views`).

    Args:
        temperature: divides the cosines.
        positive_among: whether the positive is among what it is compared with.
        both: also the second view against the first; the mean of the two.
    """

    def __init__(self, *, temperature: float = 0.1, positive_among: bool = True, both: bool = True) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"the temperature must be above 0, got {temperature}")
        self.temperature, self.positive_among, self.both = temperature, positive_among, both

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """Mean over the rows of all processes, of two views. Raises ConfigError with another number."""
        if len(online) != 2:
            raise ConfigError(f"views are set against each other in pairs, got {len(online)}")
        first, second = online[0].whole, online[1].whole
        ids = batch.groups["sample"]
        key_ids = gather(ids)
        sides = [(first, second), (second, first)] if self.both else [(first, second)]
        losses = [
            across_views(
                anchors,
                positives,
                ids,
                gather(positives),
                key_ids,
                temperature=self.temperature,
                positive_among=self.positive_among,
            )
            for anchors, positives in sides
        ]
        stacked = torch.stack(losses)
        return mean_over_processes(stacked.sum(), torch.tensor(stacked.numel(), device=stacked.device))


class Communities(nn.Module):
    """Dense communities, and nodes against those of the other view, in turn (Li et al. 2022, gCooL).

    At the t-th step a(t) [exp(-t / span) density + (1 - exp(-t / span)) contrast], each the mean over two views, with
    a(t) = max(0, 1 - t / (fade span)) as released, or 1 without ``fade``. The centres are the objective's own, and
    only the density trains them. Each process looks at its own graph.

    Args:
        width: of the rows.
        communities: how many.
        temperature: divides cosines, of assignments and of the contrast.
        between: weight of edges between communities in the density.
        nearness: how much less distant communities repel.
        span: steps in which the contrast takes over from the density.
        fade: after this share of the span both are gone; None keeps them.
    """

    steps: Tensor

    def __init__(
        self,
        width: int,
        *,
        communities: int = 10,
        temperature: float = 0.4,
        between: float = 1.0,
        nearness: float = 8e-5,
        span: int = 500,
        fade: float | None = 0.2,
    ) -> None:
        super().__init__()
        if communities < 2 or span < 1 or (fade is not None and not fade > 0):
            raise ConfigError(
                "communities must be at least 2, their span at least 1 step and fade above 0 or null, got "
                f"{communities}, {span} and {fade}"
            )
        self.centres = nn.Parameter(torch.randn(communities, width))
        self.temperature, self.between, self.nearness = temperature, between, nearness
        self.span, self.fade = span, fade
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def weights(self) -> tuple[Tensor, Tensor]:
        """The weights of density and contrast at the present step."""
        t = self.steps.double()
        late = 1 - torch.exp(-t / self.span)
        share = torch.ones_like(t) if self.fade is None else (1 - t / (self.fade * self.span)).clamp(min=0)
        return (share * (1 - late)).float(), (share * late).float()

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The weighed sum of both, from the rows of all nodes in two views."""
        rows = [each.parts for each in online]
        if len(rows) != 2 or rows[0] is None or rows[1] is None:
            raise ConfigError("communities need the rows of all nodes in two views")
        both = [unit_rows(rows[0]), unit_rows(rows[1])]
        belongs = [assignments(each, self.centres, temperature=self.temperature) for each in both]
        dense = [density(each, batch.views[0].edges, between=self.between) for each in belongs]
        found = [
            against_communities(
                both[one],
                both[1 - one],
                belongs[1 - one].argmax(1),
                len(self.centres),
                temperature=self.temperature,
                nearness=self.nearness,
            ).mean()
            for one in (0, 1)
        ]
        early, late = self.weights()
        if self.training:
            self.steps += 1
        return early * torch.stack(dense).mean() + late * torch.stack(found).mean()
