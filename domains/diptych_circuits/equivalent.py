"""Changes of netlists that keep their function, and changes that break it, for all graphs of a batch at once.

After DICE ("Device-level Integrated Circuits Encoder", 2025), whose positive and negative augmentations are of these
two sorts. Each is a draw of what changes and a function that changes it, as in :mod:`diptych.graphs.views`. Statistics
of nets tell what was changed and are set to 0 by :func:`without_net_statistics`.

Letters: m nodes, n graphs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.augment import check_range
from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_count, segment_max
from diptych_circuits.devices import Pins, pins_of
from diptych_circuits.encoder import columns_of
from diptych_circuits.schema import COLUMN, DeviceType, Kind, PinKind

Generator = torch.Generator | None
HALVED = ("W", "AD", "AS", "PD", "PS")  # what two fingers share


def without_net_statistics(batch: GraphBatch) -> GraphBatch:
    """The batch with 0 in the columns that describe nets."""
    nodes = batch.nodes.clone()
    nodes[:, columns_of("net")] = 0
    return batch._replace(nodes=nodes)


@dataclass(frozen=True, kw_only=True)
class SplitFingers:
    """Splits transistors into two in parallel, each half as wide: the same function.

    Args:
        fraction: of the MOS devices, each with that probability.
    """

    fraction: float = 0.3

    def __post_init__(self) -> None:
        check_range("the fraction of devices that are split", self.fraction)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """The rows (k,) of devices that are split."""
        chance = torch.rand(len(batch.nodes), device=batch.nodes.device, generator=generator) < self.fraction
        return (is_mos(batch) & chance).nonzero()[:, 0]

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view in which these devices are two. Both have all pins of the one, on the same nets."""
        nodes = batch.nodes.clone()
        rows = parameters[:, None]
        nodes[rows, torch.tensor([COLUMN[name] for name in HALVED], device=rows.device)] /= 2
        m = len(nodes)
        copied = torch.zeros(m, dtype=torch.bool, device=nodes.device).index_fill(0, parameters, True)
        source, target = batch.edges
        kind = nodes[:, COLUMN["kind"]]
        own = copied[source] & (kind[target] == Kind.PIN)
        copied = copied.index_fill(0, target[own], True)
        originals = copied.nonzero()[:, 0]
        copy = torch.arange(m, device=nodes.device).index_copy(
            0, originals, m + torch.arange(len(originals), device=nodes.device)
        )
        twice = copied[batch.edges].any(0).nonzero()[:, 0]
        features = batch.edge_features
        return _in_order(
            batch._replace(
                nodes=torch.cat([nodes, nodes[originals]]),
                edges=torch.cat([batch.edges, copy[batch.edges[:, twice]]], dim=1),
                edge_features=None if features is None else torch.cat([features, features[twice]]),
                graph=torch.cat([batch.graph, batch.graph[originals]]),
            )
        )


@dataclass(frozen=True, kw_only=True)
class SwapSeries:
    """Exchanges two transistors in series: the same function, since the net between them meets nothing else.

    Args:
        fraction: of such pairs, each with that probability; of pairs that share a device the one drawn higher.
    """

    fraction: float = 0.5

    def __post_init__(self) -> None:
        check_range("the fraction of series pairs that are swapped", self.fraction)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """Pairs of devices (k, 2), no device in two of them."""
        pairs = series_pairs(batch)
        priority = torch.rand(len(pairs), device=pairs.device, dtype=torch.float64, generator=generator)
        highest = segment_max(priority.repeat(2), pairs.t().flatten(), len(batch.nodes))
        first = (highest[pairs] == priority[:, None]).all(1)
        chance = torch.rand(len(pairs), device=pairs.device, generator=generator) < self.fraction
        return pairs[first & chance]

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view in which each pair has changed places: sizes and the nets of gates."""
        pins, kind = pins_of(batch), batch.nodes[:, COLUMN["pin_kind"]]
        gates = (kind[pins.pin] == PinKind.GATE).nonzero()[:, 0]
        m = len(batch.nodes)
        gate_of = torch.arange(m, device=kind.device).index_copy(0, pins.device[gates], pins.pin[gates])
        first, second = parameters.unbind(1)
        exchanged = torch.arange(m, device=kind.device)
        for one, other in ((first, second), (gate_of[first], gate_of[second])):
            exchanged = exchanged.index_copy(0, one, other).index_copy(0, other, one)
        # A device takes the other's row, its gate pin the other's net; its edges to its own pins stay.
        source, target = batch.edges
        between = batch.nodes[:, COLUMN["kind"]]
        on_net = (between[source] == Kind.NET) | (between[target] == Kind.NET)
        return batch._replace(
            nodes=batch.nodes[exchanged], edges=torch.where(on_net, exchanged[batch.edges], batch.edges)
        )


def series_pairs(batch: GraphBatch) -> Tensor:
    """Pairs (k, 2) of different MOS devices of one type, each with a gate, whose sources or drains are all of a net.

    A net that is a port is none between them.
    """
    pins, kind = pins_of(batch), batch.nodes[:, COLUMN["pin_kind"]]
    m = len(batch.nodes)
    count = segment_count(pins.net, m)
    ends = segment_count(pins.net[kind[pins.pin] == PinKind.SOURCE_DRAIN], m)
    inner = (count == 2) & (ends == 2) & (batch.nodes[:, COLUMN["is_port"]] == 0)
    order = pins.net.argsort(stable=True)
    of_inner = order[inner[pins.net[order]]]
    pairs = pins.device[of_inner].view(-1, 2)
    gates = segment_count(pins.device[kind[pins.pin] == PinKind.GATE], m)
    types = batch.nodes[:, COLUMN["device_type"]]
    fits = (types[pairs[:, 0]] == types[pairs[:, 1]]) & (pairs[:, 0] != pairs[:, 1])
    return pairs[fits & is_mos(batch)[pairs].all(1) & (gates[pairs] == 1).all(1)]


@dataclass(frozen=True, kw_only=True)
class Rewire:
    """Moves pins to other nets of their graph: another function.

    Args:
        fraction: of the pins, each with that probability, and at least one in each graph that has two nets.
    """

    fraction: float = 0.2

    def __post_init__(self) -> None:
        check_range("the fraction of pins that are rewired", self.fraction)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Pins:
        """The pins that are moved, with their devices and their new nets."""
        pins = pins_of(batch)
        device = batch.nodes.device
        nets = (batch.nodes[:, COLUMN["kind"]] == Kind.NET).nonzero()[:, 0]
        available = segment_count(batch.graph[nets], batch.graphs)
        first = available.cumsum(0) - available
        graph = batch.graph[pins.pin]
        chance = torch.rand(len(graph), device=device, dtype=torch.float64, generator=generator)
        least = -segment_max(-chance, graph, batch.graphs)
        moved = ((chance < self.fraction) | (chance == least[graph])) & (available[graph] > 1)
        chosen = moved.nonzero()[:, 0]
        graph = graph[chosen]
        place = torch.zeros(len(batch.nodes), dtype=torch.int64, device=device)
        place = place.index_copy(0, nets, torch.arange(len(nets), device=device))
        random = torch.rand(len(chosen), device=device, dtype=torch.float64, generator=generator)
        offset = 1 + (random * (available[graph] - 1)).long()
        new = nets[first[graph] + (place[pins.net[chosen]] - first[graph] + offset) % available[graph]]
        return Pins(pins.pin[chosen], pins.device[chosen], new)

    def apply(self, batch: GraphBatch, parameters: Pins) -> GraphBatch:
        """The view in which these pins are on their new nets."""
        m = len(batch.nodes)
        new = torch.full((m,), -1, device=batch.edges.device).index_copy(0, parameters.pin, parameters.net)
        is_net = batch.nodes[:, COLUMN["kind"]] == Kind.NET
        source, target = batch.edges
        return batch._replace(
            edges=torch.stack(
                [
                    torch.where(is_net[source] & (new[target] >= 0), new[target], source),
                    torch.where(is_net[target] & (new[source] >= 0), new[source], target),
                ]
            )
        )


@dataclass(frozen=True, kw_only=True)
class FlipTypes:
    """Makes n-channel transistors p-channel ones and the other way round: another function.

    Args:
        fraction: of the MOS devices, each with that probability.
    """

    fraction: float = 0.2

    def __post_init__(self) -> None:
        check_range("the fraction of devices whose type is flipped", self.fraction)

    def draw(self, batch: GraphBatch, generator: Generator = None) -> Tensor:
        """The rows (k,) of devices that are flipped."""
        chance = torch.rand(len(batch.nodes), device=batch.nodes.device, generator=generator) < self.fraction
        return (is_mos(batch) & chance).nonzero()[:, 0]

    def apply(self, batch: GraphBatch, parameters: Tensor) -> GraphBatch:
        """The view with the other types."""
        nodes, column = batch.nodes.clone(), COLUMN["device_type"]
        nodes[parameters, column] = DeviceType.NMOS + DeviceType.PMOS - nodes[parameters, column]
        return batch._replace(nodes=nodes)


def is_mos(batch: GraphBatch) -> Tensor:
    """Which nodes are MOS devices, (m,) bool."""
    device = batch.nodes[:, COLUMN["kind"]] == Kind.DEVICE
    types = batch.nodes[:, COLUMN["device_type"]]
    return device & ((types == DeviceType.NMOS) | (types == DeviceType.PMOS))


def _in_order(batch: GraphBatch) -> GraphBatch:
    """The same graphs, the nodes of each side by side."""
    order = batch.graph.argsort(stable=True)
    return batch._replace(
        nodes=batch.nodes[order], edges=order.argsort()[batch.edges], graph=batch.graph[order]
    )
