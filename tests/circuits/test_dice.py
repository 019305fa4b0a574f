"""Equivalent netlists do the same, checked as circuits of switches; broken ones do not; devices meet over nets."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import references_devices as reference
import torch
from random_circuits import graph_of, permuted, random_circuit, random_circuits
from torch import Tensor

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch, join
from diptych.types import Encoded, Views
from diptych_circuits.devices import device_edges, pins_of
from diptych_circuits.dice import DICE, DeviceEncoder, FunctionContrast
from diptych_circuits.encoder import CircuitEncoder, columns_of
from diptych_circuits.equivalent import (
    HALVED,
    FlipTypes,
    Rewire,
    SplitFingers,
    SwapSeries,
    series_pairs,
    without_net_statistics,
)
from diptych_circuits.schema import COLUMN, DeviceType, Kind

N, P = DeviceType.NMOS, DeviceType.PMOS
A, B, C, OUT, LOW, HIGH, X, Y = range(8)
SEEN = [A, B, C, OUT, LOW, HIGH]  # the others are inside a stack


def nand() -> GraphBatch:
    """A gate of three inputs: a stack of three n-channel transistors, and three p-channel ones in parallel."""
    stack = [(N, [OUT, A, X, -1]), (N, [X, B, Y, -1]), (N, [Y, C, LOW, -1])]
    parallel = [(P, [OUT, gate, HIGH, -1]) for gate in (A, B, C)]
    gate = graph_of(8, [*stack, *parallel])
    gate.nodes[:, COLUMN["is_port"]] = 0
    gate.nodes[SEEN, COLUMN["is_port"]] = 1
    return gate


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_first_graph(batch: GraphBatch) -> GraphBatch:
    """Rows of nets keep their numbers, for they come first."""
    inside = batch.graph[batch.edges[0]] == 0
    assert batch.edge_features is not None
    return batch._replace(
        nodes=batch.nodes[batch.graph == 0],
        edges=batch.edges[:, inside],
        edge_features=batch.edge_features[inside],
        graph=batch.graph[batch.graph == 0],
        graphs=1,
    )


@pytest.mark.parametrize("change", [SplitFingers(fraction=0.5), SwapSeries(fraction=1.0)])
def test_equivalent_netlists_do_the_same(change: SplitFingers | SwapSeries) -> None:
    batch = join([nand(), random_circuit(3)])
    expected, changes = reference.function(nand(), SEEN), 0
    for seed in range(12):
        drawn = change.draw(batch, seeded(seed))
        view = change.apply(batch, drawn)
        assert reference.function(of_first_graph(view), SEEN) == expected
        changes += len(drawn)
    assert changes > 5


@pytest.mark.parametrize("change", [Rewire(fraction=0.0), FlipTypes(fraction=0.5)])
def test_broken_netlists_do_something_else(change: Rewire | FlipTypes) -> None:
    """One moved pin is enough, but for one that moves within a stack or beside another that does the same."""
    expected, others = reference.function(nand(), SEEN), 0
    for seed in range(30):
        view = change.apply(nand(), change.draw(nand(), seeded(seed)))
        others += reference.function(view, SEEN) != expected
    assert others >= 26


def test_split_devices_are_two_halves_on_the_same_nets() -> None:
    batch = random_circuits()
    drawn = SplitFingers(fraction=0.5).draw(batch, seeded(0))
    view = SplitFingers(fraction=0.5).apply(batch, drawn)
    halved = [COLUMN[name] for name in HALVED]

    def described(
        batch: GraphBatch, device: int
    ) -> tuple[tuple[float, ...], tuple[tuple[float, tuple[float, ...]], ...]]:
        """A device by its row and by its pins' kinds and nets' rows."""
        on = [(pin, net) for pin, own, net in reference.pins(batch) if own == device]
        rows = [
            (batch.nodes[pin, COLUMN["pin_kind"]].item(), tuple(batch.nodes[net].tolist())) for pin, net in on
        ]
        return tuple(batch.nodes[device].tolist()), tuple(sorted(rows))

    def halves(batch: GraphBatch, device: int) -> tuple[Any, ...]:
        row, on = described(batch, device)
        return tuple(x / 2 if i in halved else x for i, x in enumerate(row)), on

    devices = (batch.nodes[:, 0] == Kind.DEVICE).nonzero()[:, 0].tolist()
    expected = [described(batch, device) for device in devices if device not in drawn.tolist()]
    expected += [halves(batch, device) for device in drawn.tolist() for _ in range(2)]
    found = [described(view, int(device)) for device in (view.nodes[:, 0] == Kind.DEVICE).nonzero()[:, 0]]
    assert sorted(found) == sorted(expected)
    assert len(drawn) > 2
    assert view.edge_features is not None
    assert len(view.edge_features) == view.edges.shape[1]
    assert torch.equal(view.graph, view.graph.sort().values)
    assert sorted(map(tuple, view.edges.t().tolist())) == sorted(map(tuple, view.edges.flip(0).t().tolist()))
    kinds = view.nodes[view.edges, 0]
    assert torch.equal((kinds == Kind.NET).any(0).long(), view.edge_features[:, 0])


def test_series_pairs_are_those_of_a_stack_and_a_port_between_ends_it() -> None:
    pairs = {frozenset(pair) for pair in series_pairs(nand()).tolist()}
    assert pairs == {frozenset({8, 9}), frozenset({9, 10})}
    tapped = nand()
    tapped.nodes[X, COLUMN["is_port"]] = 1
    assert {frozenset(pair) for pair in series_pairs(tapped).tolist()} == {frozenset({9, 10})}


def test_no_device_is_swapped_twice_at_once() -> None:
    batch = join([nand()] * 5)
    for seed in range(20):
        drawn = SwapSeries(fraction=1.0).draw(batch, seeded(seed)).flatten().tolist()
        assert len(drawn) == len(set(drawn)) == 10


def test_swapped_devices_have_changed_places() -> None:
    gate = nand()
    view = SwapSeries().apply(gate, torch.tensor([[8, 9]]))
    assert torch.equal(view.nodes[[8, 9]], gate.nodes[[9, 8]])
    on = {device: sorted(net for _, own, net in reference.pins(view) if own == device) for device in (8, 9)}
    assert on == {8: sorted([OUT, B, X]), 9: sorted([X, A, Y])}


def test_rewired_pins_are_on_other_nets_of_their_graph_and_at_least_one_is() -> None:
    batch = random_circuits()
    before = {pin: net for pin, _, net in reference.pins(batch)}
    for fraction in (0.0, 0.4):
        drawn = Rewire(fraction=fraction).draw(batch, seeded(0))
        after = {pin: net for pin, _, net in reference.pins(Rewire().apply(batch, drawn))}
        moved = {pin for pin in before if after[pin] != before[pin]}
        assert moved == set(drawn.pin.tolist())
        assert {int(batch.graph[pin]) for pin in moved} == set(range(batch.graphs))
        assert all(batch.graph[pin] == batch.graph[after[pin]] for pin in moved)
        assert len(moved) == batch.graphs if fraction == 0 else len(moved) > batch.graphs
    alone = graph_of(1, [(N, [0, 0, 0, -1])])
    assert len(Rewire().draw(alone, seeded(0)).pin) == 0


def test_flipped_types_change_and_nothing_else_does() -> None:
    batch = random_circuits()
    drawn = FlipTypes(fraction=0.5).draw(batch, seeded(0))
    view = FlipTypes().apply(batch, drawn)
    assert (view.nodes != batch.nodes).nonzero().tolist() == [
        [row, COLUMN["device_type"]] for row in drawn.tolist()
    ]
    assert torch.equal(FlipTypes().apply(view, drawn).nodes, batch.nodes)


def test_statistics_of_nets_are_hidden_and_others_kept() -> None:
    batch = random_circuits()
    hidden = without_net_statistics(batch)
    assert hidden.nodes[:, columns_of("net")].eq(0).all()
    kept = [column for column in range(batch.nodes.shape[1]) if column not in columns_of("net")]
    assert torch.equal(hidden.nodes[:, kept], batch.nodes[:, kept])


@pytest.mark.parametrize("largest", [2, 3, 64])
def test_devices_meet_over_nets_as_in_a_loop_over_pairs(largest: int) -> None:
    batch = random_circuits()
    pins = pins_of(batch)
    assert list(zip(*(each.tolist() for each in pins), strict=True)) == reference.pins(batch)
    found = device_edges(pins, len(batch.nodes), largest)
    pairs = list(zip(pins.pin[found.source].tolist(), pins.pin[found.target].tolist(), strict=True))
    assert sorted(pairs) == sorted(reference.device_edges(batch, largest))


def encoded(encoder: DeviceEncoder, batch: GraphBatch) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        whole, parts, _ = encoder.eval()(batch)
    return whole, parts


def test_the_encoder_of_devices_knows_no_order_and_keeps_graphs_apart() -> None:
    torch.manual_seed(0)
    encoder = DeviceEncoder(width=8, layers=2)
    each = [random_circuit(seed) for seed in range(3)]
    batch = join(each)
    whole, parts = encoded(encoder, batch)
    order = torch.argsort(batch.graph + torch.rand(len(batch.graph), generator=seeded(1)) * 0.9)
    again = encoded(encoder, permuted(batch, order))
    torch.testing.assert_close(again[1], parts[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again[0], whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        torch.cat([encoded(encoder, one)[1] for one in each]), parts, atol=1e-5, rtol=1e-5
    )
    roots = torch.tensor([4, 0])
    assert torch.equal(encoded(encoder, batch._replace(roots=roots))[0], parts[roots])


def test_rows_of_pins_and_nets_come_from_their_devices() -> None:
    torch.manual_seed(0)
    encoder, batch = DeviceEncoder(width=8, layers=2), random_circuits()
    whole, parts = encoded(encoder, batch)
    found = reference.pins(batch)
    for pin, device, _ in found:
        terminal = encoder.terminal.weight[int(batch.nodes[pin, COLUMN["pin_kind"]])]
        torch.testing.assert_close(parts[pin], parts[device] + terminal)
    for net in (batch.nodes[:, 0] == Kind.NET).nonzero()[:, 0].tolist():
        rows = [parts[pin] for pin, _, own in found if own == net]
        expected = torch.stack(rows).mean(0) if rows else torch.zeros(8)
        torch.testing.assert_close(parts[net], expected)
    devices = [parts[(batch.graph == g) & (batch.nodes[:, 0] == Kind.DEVICE)].mean(0) for g in range(3)]
    torch.testing.assert_close(whole, torch.stack(devices))


def test_the_contrast_equals_a_loop_over_rows() -> None:
    z = torch.randn(3, 4, 5, generator=seeded(0), dtype=torch.float64)
    batch = join([random_circuit(seed) for seed in range(4)])
    views = Views((batch,), {"part": torch.arange(len(batch.nodes)) + 100})
    ours = FunctionContrast(0.3)(tuple(Encoded(rows) for rows in z), (), views)
    unit = [row / row.norm() for row in z.flatten(0, 1)]
    total = 0.0
    for anchor in range(8):  # broken rows, the last four, are no anchors
        s = {other: (unit[anchor] @ unit[other]).item() / 0.3 for other in range(12) if other != anchor}
        total += math.log(sum(math.exp(each) for each in s.values())) - s[(anchor + 4) % 8]
    assert ours.item() == pytest.approx(total / 8, rel=1e-9)


@pytest.mark.parametrize("kind", [DeviceEncoder, CircuitEncoder])
def test_pretraining_tells_equivalent_circuits_from_broken_ones(
    kind: type[DeviceEncoder | CircuitEncoder],
) -> None:
    torch.manual_seed(0)
    batch = join([random_circuit(seed, devices=6 + seed) for seed in range(8)])
    views = Views((batch._replace(roots=torch.arange(3)),), {"part": torch.arange(len(batch.nodes))})
    method = DICE(hidden=16, width=8)(
        kind(width=16, layers=4, dropout=0.0), partial(torch.optim.Adam, lr=5e-3)
    )
    (phase,) = method.phases
    (each,) = phase.passes
    (term,) = each.terms
    optimizer = phase.optimizer(list(phase.parameters()))
    for _ in range(100):
        optimizer.zero_grad()
        term.objective(each.online(views), (), views).backward()
        optimizer.step()
    nearer = []
    with torch.no_grad():
        for _ in range(20):
            one, other, broken = (torch.nn.functional.normalize(each.whole) for each in each.online(views))
            nearer.append(((one * other).sum(1) > (one * broken).sum(1)).float().mean().item())
    assert sum(nearer) / len(nearer) > 0.65  # by chance 0.5


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match="nets of at least 2 pins; got 8, 1 and 1"):
        DeviceEncoder(width=8, layers=1, largest=1)
    with pytest.raises(ConfigError, match="the temperature must be above 0, got 0"):
        FunctionContrast(0.0)
    for change, what in (
        (SplitFingers, "split"),
        (SwapSeries, "swapped"),
        (Rewire, "rewired"),
        (FlipTypes, "flipped"),
    ):
        with pytest.raises(ConfigError, match=what):
            change(fraction=1.5)
