"""Pretraining by link prediction: was this pin on that net, and a pin of that device? (after CircuitGPS, 2025).

Topology edges are taken out and told from structured negatives: the pin stays and its other end becomes another node
of the same kind and netlist. A pin is on one net and belongs to one device, so that these are never edges.

Letters: m nodes, e edges, l links (a quarter of them true edges of a net, a quarter of a device, as many false ones).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.distributed import mean_over_processes
from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_count
from diptych.graphs.views import keep_edges
from diptych.heads import Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import width_of
from diptych.types import Encoded, Views
from diptych_circuits.encodings import hop_distances
from diptych_circuits.schema import COLUMN, EdgeKind, Kind


class Links(NamedTuple):
    """Pairs of a pin and a net or device, true edges and false ones."""

    pins: Tensor  # (l,) rows of pins
    others: Tensor  # (l,) rows of nets or devices
    label: Tensor  # (l,) float32: 1 where the pair is an edge
    kind: Tensor  # (l,) int64: EdgeKind


def draw_links(batch: GraphBatch, count: int, generator: torch.Generator | None = None) -> Links:
    """At most ``count`` edges of each kind, drawn without replacement, and one false pair for each.

    A graph with a single net (or device) has no false pair; then its edges of that kind are not drawn.
    """
    drawn = [
        _of_kind(batch, edge_kind, kind, count, generator)
        for edge_kind, kind in ((EdgeKind.DEVICE_PIN, Kind.DEVICE), (EdgeKind.PIN_NET, Kind.NET))
    ]
    return Links(*(torch.cat(each) for each in zip(*drawn, strict=True)))


def _of_kind(
    batch: GraphBatch, edge_kind: EdgeKind, kind: Kind, count: int, generator: torch.Generator | None
) -> Links:
    node_kind = batch.nodes[:, COLUMN["kind"]]
    candidates = (node_kind == kind).nonzero()[:, 0]  # ascending, so those of a graph stand together
    available = segment_count(batch.graph[candidates], batch.graphs)
    first = available.cumsum(0) - available
    pins, others = batch.edges
    usable = (node_kind[pins] == Kind.PIN) & (node_kind[others] == kind) & (available[batch.graph[pins]] > 1)
    edges = usable.nonzero()[:, 0]
    edges = edges[torch.rand(len(edges), device=edges.device, generator=generator).argsort()[:count]]
    pins, others, graph = pins[edges], others[edges], batch.graph[pins[edges]]
    place = torch.zeros_like(batch.graph).index_copy(
        0, candidates, torch.arange(len(candidates), device=edges.device)
    )
    # One of the others at an offset of 1 .. available - 1 from the true one, round the graph's candidates.
    random = torch.rand(len(edges), device=edges.device, dtype=torch.float64, generator=generator)
    offset = 1 + (random * (available[graph] - 1)).long()
    false = candidates[first[graph] + (place[others] - first[graph] + offset) % available[graph]]
    label = torch.cat([torch.ones(len(edges)), torch.zeros(len(edges))]).to(batch.nodes.device)
    kinds = torch.full((2 * len(edges),), int(edge_kind), device=edges.device)
    return Links(pins.repeat(2), torch.cat([others, false]), label, kinds)


def without_links(batch: GraphBatch, links: Links) -> GraphBatch:
    """The batch without the true edges among the links, in both directions."""
    m = len(batch.nodes)
    gone = torch.cat([links.pins * m + links.others, links.others * m + links.pins])
    return keep_edges(batch, (~torch.isin(batch.edges[0] * m + batch.edges[1], gone)).nonzero()[:, 0])


def enclosing(batch: GraphBatch, links: Links, hops: int) -> GraphBatch:
    """For every link the nodes within some hops of either end, without the edge itself: a batch of l subgraphs.

    Edges are those between the nodes of a subgraph (Zhang & Chen 2018, SEAL). Its roots (2 l,) are all pins and then
    all other ends. Takes memory for m x l numbers.
    """
    count = len(links.pins)
    ends = torch.stack([links.pins, links.others])  # (2, l): a set of starts for each link
    near = hop_distances(batch.edges, ends, len(batch.nodes), farthest=hops + 1) <= hops
    owner, node = near.t().nonzero(as_tuple=True)
    place = torch.full(near.t().shape, -1, device=near.device)
    place[owner, node] = torch.arange(len(node), device=near.device)
    source, target = batch.edges
    inside = (near[source] & near[target]).t()  # (l, e)
    pin, other = (each[:, None] for each in ends)
    own = ((source == pin) & (target == other)) | ((source == other) & (target == pin))
    which, edge = (inside & ~own).nonzero(as_tuple=True)
    at = torch.arange(count, device=near.device)
    return GraphBatch(
        nodes=batch.nodes[node],
        edges=torch.stack([place[which, source[edge]], place[which, target[edge]]]),
        edge_features=None if batch.edge_features is None else batch.edge_features[edge],
        graph=owner,
        graphs=count,
        roots=torch.cat([place[at, links.pins], place[at, links.others]]),
    )


class LinkBranch(nn.Module):
    """Draws links from a batch, hides them, and scores each: the logits (l, 1) and the labels (l, 1).

    A link's score is made of the product of both rows and of both side by side, by one of two heads for its kind.

    Args:
        encoder: gives rows of nodes.
        head: from 3 widths to one logit for each kind of edge.
        count: edges of each kind.
        hops: of enclosing subgraphs; None hides all links at once from the graphs as they are.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module, count: int, hops: int | None) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head
        self.count, self.hops = count, hops

    def forward(self, batch: Views) -> tuple[Encoded, Encoded]:
        """Of the first view."""
        graphs: GraphBatch = batch.views[0]
        links = draw_links(graphs, self.count)
        if self.hops is None:
            parts = self.encoder(without_links(graphs, links)._replace(roots=None)).parts
            pin, other = parts[links.pins], parts[links.others]
        else:
            pin, other = self.encoder(enclosing(graphs, links, self.hops)).whole.chunk(2)
        scores = self.head(torch.cat([pin * other, pin, other], dim=1))
        return Encoded(scores.gather(1, links.kind[:, None])), Encoded(links.label[:, None])


class LinkExistence(nn.Module):
    """The binary cross-entropy of the logits and labels of a :class:`LinkBranch`, over the links of all processes."""

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """Mean over links; 0 with zero gradient where a batch has none."""
        logits, labels = online[0].whole, online[1].whole
        losses = F.binary_cross_entropy_with_logits(logits.float(), labels.float(), reduction="sum")
        return mean_over_processes(losses, torch.tensor(len(logits), device=logits.device))


@dataclass(frozen=True, kw_only=True)
class LinkPrediction:
    """Edges that were taken out are told from structured negatives (pretraining of CircuitGPS, Shen et al. 2025).

    Args:
        links: edges of each kind, of pins with devices and with nets, that are drawn from a batch.
        hops: of the enclosing subgraph that a link is seen in, alone; the released models take 1, and an encoder with
            position "dspd" or "drnl" needs it. None encodes the batch once, without any of its links.
        hidden: units of the head's hidden layer; None takes the encoder's width.
    """

    links: int = 128
    hops: int | None = None
    hidden: int | None = None

    def __post_init__(self) -> None:
        if self.links < 1 or (self.hops is not None and self.hops < 1):
            raise ConfigError(
                f"links and hops are at least 1 (hops may be null), got {self.links} and {self.hops}"
            )

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its rows of nodes."""
        width = width_of(encoder)
        head = Projector(3 * width, self.hidden or width, len(EdgeKind), normalize=False)
        branch = LinkBranch(encoder, head, self.links, self.hops)
        phase = Phase(
            name="links",
            passes=[Pass(online=branch, terms=[Term(name="existence", objective=LinkExistence())])],
            trains=[encoder, head],
            optimizer=optimizer,
            schedule=schedule,
        )
        return Method({"encoder": encoder, "head": head}, [phase], encoder)
