"""Ways to pretrain on the nodes of graphs: GRACE, BGRL, SGRL and gCooL.

They work on whole graphs (all nodes) and on sampled neighbourhoods (their roots); memory grows with the number of
nodes, not its square.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from diptych.errors import ConfigError
from diptych.graphs.branches import AcrossViews, Communities, NodeBranch, Nodes, OverNodes
from diptych.graphs.centrality import Centrality
from diptych.graphs.follow import at_rate, follow, fresh_copy
from diptych.graphs.one_phase import Augmentations, Fill, one_phase
from diptych.graphs.propagation import Smoothed
from diptych.graphs.views import DropEdges, GraphViews, MaskFeatures
from diptych.heads import Predictor, Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.objectives import Alignment, InfoNCE, Scattering
from diptych.recipes import Augmented, SharedViews, parts_width_of
from diptych.teacher import Teacher


def _node_views(method: str, first: Augmentations, second: Augmentations | None) -> GraphViews:
    views = GraphViews(first, second)
    if not views.keeps_nodes:
        raise ConfigError(
            f"{method} compares nodes, so both views must have the same; take views that mask features or drop edges"
        )
    return views


@dataclass(frozen=True, kw_only=True)
class _Corrupted:
    """Views of two rates each: those of GRACE and what followed it.

    Args:
        edges: share of edges that each of the two views drops.
        features: share of feature columns that each masks.
        paired: the two directions of an edge are dropped together.
        fill: what is written over masked features.
        spare: by what centrality edges and columns are spared (Zhu et al. 2021, GCA); None drops all alike.
        first: what the first view goes through instead.
        second: the same of the second view; None takes those of the first.
    """

    edges: tuple[float, float] = (0.2, 0.4)
    features: tuple[float, float] = (0.3, 0.4)
    paired: bool = True
    fill: Fill = 0.0
    spare: Centrality | None = None
    first: Augmentations | None = None
    second: Augmentations | None = None

    def _views(self) -> GraphViews:
        if self.first is not None:
            return _node_views(type(self).__name__, self.first, self.second)
        usual: list[Augmentations] = [
            [
                DropEdges(fraction=edges, paired=self.paired, spare=self.spare),
                MaskFeatures(fraction=features, fill=self.fill, spare=self.spare),
            ]
            for edges, features in zip(self.edges, self.features, strict=True)
        ]
        return _node_views(type(self).__name__, usual[0], usual[1] if self.second is None else self.second)


@dataclass(frozen=True, kw_only=True)
class GRACE(_Corrupted):
    """Two views of a node attract, all other nodes of both views repel (Zhu et al. 2020).

    It is NT-Xent over nodes. The defaults are those for Cora; CiteSeer has temperature 0.9, edges 0.2 and 0, features
    0.3 and 0.2; PubMed 0.7, 0.4 and 0.1, 0 and 0.2; DBLP 0.7, 0.1 and 0.4, 0.1 and 0.

    Args:
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer; None takes the encoder's width.
        width: of the projection; None takes the encoder's width.
        block: rows and columns of nodes compared at once; chosen from a memory budget when None.
    """

    temperature: float = 0.4
    hidden: int | None = None
    width: int | None = None
    block: int | None = None

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        own = parts_width_of(encoder)
        projector = Projector(own, self.hidden or own, self.width or own, normalize=False, activation="elu")
        objective = OverNodes(InfoNCE(temperature=self.temperature, block=self.block))
        branch = NodeBranch(encoder, projector)
        return one_phase("grace", encoder, branch, projector, self._views(), objective, optimizer, schedule)


@dataclass(frozen=True, kw_only=True)
class BGRL(_Corrupted):
    """One view of a node predicts what an average of the encoder makes of the other (Thakoor et al. 2022).

    The defaults of the views are those for Amazon Photo.

    Args:
        hidden: units of the predictor's hidden layer.
        decay: of the average that makes the targets, at first.
        steps: over which the decay goes to 1 by a cosine; None keeps it.
        fresh_target: the average begins with weights of its own, as in the released code, not with the encoder's.
    """

    edges: tuple[float, float] = (0.4, 0.1)
    features: tuple[float, float] = (0.1, 0.2)
    hidden: int = 512
    decay: float = 0.99
    steps: int | None = None
    fresh_target: bool = True

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        views = SharedViews(self._views())
        predictor = Predictor(parts_width_of(encoder), self.hidden, normalize=False, activation="prelu")
        average: Literal["constant", "cosine"] = "constant" if self.steps is None else "cosine"
        teacher = Teacher(NodeBranch(encoder), average=average, decay=self.decay, steps=self.steps)
        if self.fresh_target:
            teacher.copy.load_state_dict(NodeBranch(fresh_copy(encoder)).state_dict())
        term = Term(name="alignment", objective=OverNodes(Alignment()))
        phase = Phase(
            name="bgrl",
            passes=[
                Pass(
                    online=Augmented(views, NodeBranch(encoder, predictor=predictor)),
                    target=Augmented(views, teacher),
                    terms=[term],
                )
            ],
            trains=[encoder, predictor],
            optimizer=optimizer,
            schedule=schedule,
            after=[teacher.update],
        )
        return Method({"encoder": encoder, "predictor": predictor, "teacher": teacher}, [phase], encoder)


@dataclass(frozen=True, kw_only=True)
class SGRL:
    """Nodes are scattered over the sphere by a target encoder, which the online one predicts (He et al. 2024).

    Two phases a step, without augmentation and without negatives. Alignment: the online encoder and a predictor q
    minimise -mean cos(q(h + A^k h), target's row), k = ``hops``; then target <- decay target + (1 - decay) online.
    Scattering: the target minimises -mean |n - mean n|^2 over its unit rows n. The target begins with weights of its
    own. SGRL embeds h + A^k h: to keep that, give the method an encoder that is
    :class:`diptych.graphs.propagation.Smoothed`, whose hops then take the place of ``hops``.

    CircuitGCL's first stage is this with hops 0, nodes "all", update "epoch", hidden 256, and rates
    1e-6 and 2e-7.

    Args:
        hops: k of the topology constraint; 0 leaves it out.
        update: move the target after every "step" or "epoch".
        decay: how much of the target stays when it is moved; of parameters only, not of statistics of batch norm.
        target_rate: learning rate of the scattering phase; None takes that of the optimiser.
        centre: "batch" scatters from the mean of the batch, "running" from a moving mean over batches.
        momentum: of the moving mean.
        nodes: "roots" trains on the roots where a batch has any; "all" on their neighbours too.
        hidden: units of the predictor's hidden layer; None takes the encoder's width.
    """

    hops: int = 1
    update: Literal["step", "epoch"] = "step"
    decay: float = 0.99
    target_rate: float | None = None
    centre: Literal["batch", "running"] = "batch"
    momentum: float = 0.9
    nodes: Nodes = "roots"
    hidden: int | None = None

    def __post_init__(self) -> None:
        for name, value, known in (
            ("update", self.update, ("step", "epoch")),
            ("centre", self.centre, ("batch", "running")),
            ("nodes", self.nodes, ("roots", "all")),
        ):
            if value not in known:
                raise ConfigError(f"{name} must be {' or '.join(known)}, got {value!r}")
        if self.hops < 0 or not 0 <= self.decay <= 1:
            raise ConfigError(
                f"hops must be at least 0 and decay in 0..1, got hops {self.hops}, decay {self.decay}"
            )

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        inner, hops = (
            (encoder.encoder, encoder.hops) if isinstance(encoder, Smoothed) else (encoder, self.hops)
        )
        width = parts_width_of(inner)
        target = fresh_copy(inner)
        predictor = Predictor(width, self.hidden or width, normalize=False, activation="prelu")
        scatter = Scattering(momentum=self.momentum if self.centre == "running" else 0.0, width=width)
        moves: list[Callable[[], None]] = [follow(target, inner, self.decay)]
        alignment = Term(
            name="alignment", objective=OverNodes(Alignment(form="cosine", pairs="same"), self.nodes)
        )
        online = NodeBranch(inner, predictor=predictor, nodes=self.nodes, hops=hops)
        of_target = NodeBranch(target, nodes=self.nodes)
        phases = [
            Phase(
                name="alignment",
                passes=[Pass(online=online, target=of_target, terms=[alignment])],
                trains=[encoder, predictor],
                optimizer=optimizer,
                schedule=schedule,
                after=moves if self.update == "step" else (),
                after_epoch=moves if self.update == "epoch" else (),
            ),
            Phase(
                name="scattering",
                passes=[
                    Pass(
                        online=of_target,
                        terms=[Term(name="scattering", objective=OverNodes(scatter, self.nodes))],
                    )
                ],
                trains=[target],
                optimizer=optimizer if self.target_rate is None else at_rate(optimizer, self.target_rate),
                schedule=schedule,
            ),
        ]
        parts = {"encoder": encoder, "predictor": predictor, "target": target, "scattering": scatter}
        return Method(parts, phases, encoder)


@dataclass(frozen=True, kw_only=True)
class GCooL(_Corrupted):
    """Nodes of two views attract, and gather in communities that the views agree on (Li et al. 2022, gCooL).

    The node term compares each view with the other, in both directions. See
    :class:`diptych.graphs.branches.Communities` for the other term and its schedule. Unlike in the released code the
    second direction is the transposed one, and distant communities repel less also with cosines.

    Args:
        temperature: divides the cosines.
        communities: how many are looked for.
        between: weight of the edges between communities.
        nearness: how much less distant communities repel.
        span: steps in which the contrast of communities takes over from their density.
        fade: after this share of the span the community term is gone; None keeps it.
        weight: of the community term.
        hidden: units of the projector's hidden layer; None takes the encoder's width.
        width: of the projection; None takes the encoder's width.
    """

    spare: Centrality | None = "degree"
    temperature: float = 0.4
    communities: int = 10
    between: float = 1.0
    nearness: float = 8e-5
    span: int = 500
    fade: float | None = 0.2
    weight: float = 1.0
    hidden: int | None = None
    width: int | None = None

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        own = parts_width_of(encoder)
        width = self.width or own
        projector = Projector(own, self.hidden or own, width, normalize=False, activation="elu")
        groups = Communities(
            width,
            communities=self.communities,
            temperature=self.temperature,
            between=self.between,
            nearness=self.nearness,
            span=self.span,
            fade=self.fade,
        )
        nodes = OverNodes(AcrossViews(temperature=self.temperature))
        phase = Phase(
            name="gcool",
            passes=[
                Pass(
                    online=Augmented(self._views(), NodeBranch(encoder, projector, nodes="all")),
                    terms=[
                        Term(name="nodes", objective=nodes),
                        Term(name="communities", objective=groups, weight=self.weight),
                    ],
                )
            ],
            trains=[encoder, projector, groups],
            optimizer=optimizer,
            schedule=schedule,
        )
        return Method({"encoder": encoder, "projector": projector, "communities": groups}, [phase], encoder)
