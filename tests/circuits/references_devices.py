"""What a circuit of switches does, and which devices share a net, by loops over a graph's edges."""

from __future__ import annotations

import itertools

from diptych.graphs.batch import GraphBatch
from diptych_circuits.schema import COLUMN, DeviceType, Kind, PinKind

Pin = tuple[int, int, int]  # pin, device, net


def pins(batch: GraphBatch) -> list[Pin]:
    """Pins that have a device and a net."""
    kind = batch.nodes[:, COLUMN["kind"]].tolist()
    device, net = {}, {}
    for source, target in batch.edges.t().tolist():
        if kind[source] == Kind.PIN:
            (device if kind[target] == Kind.DEVICE else net)[source] = target
    return [(pin, device[pin], net[pin]) for pin in sorted(device) if pin in net]


def device_edges(batch: GraphBatch, largest: int) -> list[tuple[int, int]]:
    """Ordered pairs of pins of different devices on one net of at most ``largest`` pins."""
    found = pins(batch)
    on_net = {net: [pin for pin in found if pin[2] == net] for _, _, net in found}
    return [
        (one[0], other[0])
        for group in on_net.values()
        if len(group) <= largest
        for one, other in itertools.permutations(group, 2)
        if one[1] != other[1]
    ]


def function(batch: GraphBatch, seen: list[int]) -> list[frozenset[frozenset[int]]]:
    """For every assignment of 0 and 1 to the nets at gates, which of the nets ``seen`` are joined by transistors.

    An n-channel transistor joins its source and drain when its gate is 1, a p-channel one when it is 0.
    """
    types = batch.nodes[:, COLUMN["device_type"]].tolist()
    kinds = batch.nodes[:, COLUMN["pin_kind"]].tolist()
    devices: dict[int, dict[str, list[int]]] = {}
    for pin, device, net in pins(batch):
        entry = devices.setdefault(device, {"gate": [], "ends": []})
        if kinds[pin] == PinKind.GATE:
            entry["gate"].append(net)
        elif kinds[pin] == PinKind.SOURCE_DRAIN:
            entry["ends"].append(net)
    inputs = sorted(seen)
    results = []
    for values in itertools.product([0, 1], repeat=len(inputs)):
        level = dict(zip(inputs, values, strict=True))
        group = {net: net for entry in devices.values() for net in entry["ends"] + entry["gate"]}
        group |= {net: net for net in seen}
        for device, entry in devices.items():
            conducting = 1 if types[device] == DeviceType.NMOS else 0
            if len(entry["ends"]) == 2 and all(level.get(net) == conducting for net in entry["gate"]):
                first, second = (group[net] for net in entry["ends"])
                group = {net: first if own == second else own for net, own in group.items()}
        parts: dict[int, set[int]] = {}
        for net in seen:
            parts.setdefault(group[net], set()).add(net)
        results.append(frozenset(frozenset(part) for part in parts.values()))
    return results
