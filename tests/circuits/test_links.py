"""Links are true edges and structured false ones, and the encoder never sees the edge it is asked about."""

from __future__ import annotations

from functools import partial

import pytest
import references_links as reference
import torch
from random_circuits import graph_of, random_circuits
from torch import nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.types import Encoded, Views
from diptych_circuits.encoder import CircuitEncoder
from diptych_circuits.links import (
    LinkBranch,
    LinkExistence,
    LinkPrediction,
    draw_links,
    enclosing,
    without_links,
)
from diptych_circuits.schema import COLUMN, DeviceType, EdgeKind, Kind

BATCH = random_circuits()
EVERYTHING = 10_000


def edges_of(batch: GraphBatch) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in batch.edges.t()]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_true_links_are_edges_each_once_and_false_ones_are_none() -> None:
    links = draw_links(BATCH, EVERYTHING, seeded())
    edges = set(edges_of(BATCH))
    pairs = list(zip(links.pins.tolist(), links.others.tolist(), strict=True))
    true = [pair for pair, label in zip(pairs, links.label.tolist(), strict=True) if label == 1]
    false = [pair for pair, label in zip(pairs, links.label.tolist(), strict=True) if label == 0]
    assert sorted(true) == sorted(pair for pair in edges if BATCH.nodes[pair[0], 0] == Kind.PIN)
    assert not edges & set(false)
    assert len(false) == len(true)


def test_false_links_corrupt_one_end_by_a_node_of_its_kind_and_graph() -> None:
    links = draw_links(BATCH, EVERYTHING, seeded())
    kind = BATCH.nodes[:, COLUMN["kind"]]
    assert torch.equal(BATCH.graph[links.pins], BATCH.graph[links.others])
    assert (kind[links.pins] == Kind.PIN).all()
    wanted = torch.where(links.kind == EdgeKind.PIN_NET, int(Kind.NET), int(Kind.DEVICE))
    assert torch.equal(kind[links.others].long(), wanted)
    for edge_kind in EdgeKind:
        chosen = links.kind == edge_kind
        true, false = (links.pins[chosen & (links.label == label)] for label in (1, 0))
        assert torch.equal(true, false)


def test_every_other_node_of_the_kind_is_as_likely_a_false_end() -> None:
    batch = graph_of(5, [(DeviceType.NMOS, [2, -1, -1, -1])])
    drawn = torch.cat([draw_links(batch, 9, seeded(seed)).others[1:] for seed in range(4000)])
    counts = torch.bincount(drawn, minlength=5)
    assert counts[2] == 0
    assert ((counts[[0, 1, 3, 4]] / 4000 - 0.25).abs() < 0.03).all()


def test_a_graph_without_another_node_of_the_kind_gives_no_link() -> None:
    alone = graph_of(1, [(DeviceType.NMOS, [0, 0, 0, -1])])
    assert len(draw_links(alone, 9, seeded()).pins) == 0
    several = graph_of(3, [(DeviceType.NMOS, [0, 1, 2, -1])])
    assert set(draw_links(several, 9, seeded()).kind.tolist()) == {int(EdgeKind.PIN_NET)}


def test_no_more_than_the_wanted_number_of_each_kind_is_drawn() -> None:
    links = draw_links(BATCH, 3, seeded())
    assert [int((links.kind == kind).sum()) for kind in EdgeKind] == [6, 6]
    others = draw_links(BATCH, 3, seeded(1))
    assert not torch.equal(links.pins, others.pins)


def test_hidden_links_are_gone_in_both_directions_and_nothing_else_is() -> None:
    links = draw_links(BATCH, 4, seeded())
    hidden = without_links(BATCH, links)
    true = [
        (pin, other)
        for pin, other, label in zip(links.pins.tolist(), links.others.tolist(), links.label, strict=True)
        if label == 1
    ]
    gone = {*true, *((b, a) for a, b in true)}
    assert edges_of(hidden) == [edge for edge in edges_of(BATCH) if edge not in gone]


@pytest.mark.parametrize("hops", [1, 2, 3])
def test_enclosing_subgraphs_equal_searches_link_by_link(hops: int) -> None:
    links = draw_links(BATCH, 5, seeded())
    found = enclosing(BATCH, links, hops)
    count = len(links.pins)
    assert found.graphs == count
    assert found.roots is not None
    assert found.edge_features is not None
    # A column of statistics that is different for all nodes tells which node a row is.
    name = torch.arange(len(BATCH.nodes))
    marked = enclosing(BATCH._replace(nodes=name[:, None].float()), links, hops).nodes[:, 0].long()
    assert torch.equal(BATCH.nodes[marked], found.nodes)
    kind_of = dict(zip(edges_of(BATCH), BATCH.edge_features[:, 0].tolist(), strict=True))  # type: ignore[index]
    for link in range(count):
        pin, other = int(links.pins[link]), int(links.others[link])
        nodes, edges = reference.enclosing(edges_of(BATCH), pin, other, hops)
        rows = (found.graph == link).nonzero()[:, 0]
        assert set(marked[rows].tolist()) == nodes
        assert len(rows) == len(nodes)
        own = (found.graph[found.edges[0]] == link).nonzero()[:, 0]
        assert torch.equal(found.graph[found.edges[1, own]], found.graph[found.edges[0, own]])
        pairs = [(int(a), int(b)) for a, b in marked[found.edges[:, own]].t()]
        assert sorted(pairs) == sorted(edges)
        assert found.edge_features[own, 0].tolist() == [kind_of[pair] for pair in pairs]
        assert marked[found.roots[link]] == pin
        assert marked[found.roots[count + link]] == other


class Spy(nn.Module):
    """Keeps the batches it is given; its rows are numbers of nodes."""

    width = 1

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[GraphBatch] = []

    def forward(self, batch: GraphBatch) -> Encoded:
        self.seen.append(batch)
        rows = torch.arange(len(batch.nodes))[:, None].float()
        return Encoded(rows if batch.roots is None else rows[batch.roots], rows)


@pytest.mark.parametrize("hops", [None, 2])
def test_the_encoder_does_not_see_the_links_that_it_is_asked_about(hops: int | None) -> None:
    torch.manual_seed(0)
    spy, inputs = Spy(), []

    def head(rows: torch.Tensor) -> torch.Tensor:
        inputs.append(rows)
        return rows[:, :2]

    logits, labels = LinkBranch(spy, head, 4, hops)(Views((BATCH,), {}))  # type: ignore[arg-type]
    (seen,), (rows,) = spy.seen, inputs
    edges = set(edges_of(seen))
    pairs = [(int(a), int(b)) for a, b in rows[:, 1:]]
    assert not any(pair in edges or pair[::-1] in edges for pair in pairs)
    assert labels.whole[:, 0].tolist() == [1.0] * 4 + [0.0] * 4 + [1.0] * 4 + [0.0] * 4
    assert logits.whole[:, 0].tolist() == [float(a * b) for a, b in pairs[:8]] + [
        float(a) for a, _ in pairs[8:]
    ]


def test_the_loss_is_the_mean_cross_entropy_and_0_without_links() -> None:
    logits, labels = torch.randn(6, 1, generator=seeded()), torch.tensor([1.0, 0, 1, 1, 0, 0])[:, None]
    loss = LinkExistence()((Encoded(logits), Encoded(labels)), (), Views((), {}))
    expected = F.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(loss, expected)
    none = torch.zeros(0, 1, requires_grad=True)
    empty = LinkExistence()((Encoded(none), Encoded(none)), (), Views((), {}))
    empty.backward()
    assert empty.item() == 0


@pytest.mark.parametrize(("position", "hops"), [("none", None), ("none", 2), ("dspd", 2), ("drnl", 2)])
def test_pretraining_learns_to_tell_links_from_false_ones(position: str, hops: int | None) -> None:
    torch.manual_seed(0)
    encoder = CircuitEncoder(width=16, layers=2, dropout=0.0, position=position)  # type: ignore[arg-type]
    method = LinkPrediction(links=8, hops=hops)(encoder, partial(torch.optim.Adam, lr=1e-2))
    assert method.encoder is encoder
    (phase,) = method.phases
    (each,) = phase.passes
    (term,) = each.terms
    optimizer = phase.optimizer(list(phase.parameters()))
    right = []
    for _ in range(150):
        optimizer.zero_grad()
        online = each.online(Views((BATCH,), {}))
        term.objective(online, (), Views((BATCH,), {})).backward()
        optimizer.step()
        right.append(((online[0].whole > 0) == (online[1].whole > 0)).float().mean().item())
    assert sum(right[-30:]) / 30 > max(0.65, sum(right[:10]) / 10)


def test_numbers_that_cannot_be_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"links and hops are at least 1 \(hops may be null\), got 0 and None"
    ):
        LinkPrediction(links=0)
    with pytest.raises(ConfigError, match="got 128 and 0"):
        LinkPrediction(hops=0)
