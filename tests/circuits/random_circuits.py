"""Random netlist graphs: nets first, then devices, then the pins of each device, as the domain's graphs are."""

from __future__ import annotations

import torch

from diptych.graphs.batch import GraphBatch, join
from diptych_circuits.schema import COLUMN, COLUMNS, WIDTH, DeviceType, EdgeKind, Kind, PinKind

TERMINALS = (PinKind.SOURCE_DRAIN, PinKind.GATE, PinKind.SOURCE_DRAIN, PinKind.BULK)


def graph_of(nets: int, devices: list[tuple[DeviceType, list[int]]], seed: int = 0) -> GraphBatch:
    """The graph of devices given by their type and the nets of their drain, gate, source and bulk (-1: none).

    Statistics are random numbers in the columns of their kind.
    """
    generator = torch.Generator().manual_seed(seed)
    pins = [
        (number, net, kind)
        for number, (_, on) in enumerate(devices)
        for net, kind in zip(on, TERMINALS, strict=False)
    ]
    m = nets + len(devices) + len(pins)
    nodes = torch.zeros(m, WIDTH)
    starts = {"net": (0, nets), "device": (nets, nets + len(devices))}
    for name, meaning in COLUMNS.items():
        kind = meaning.split(":")[0]
        if kind in starts:
            at = slice(*starts[kind])
            nodes[at, COLUMN[name]] = torch.rand(at.stop - at.start, generator=generator)
    nodes[nets:, COLUMN["kind"]] = Kind.DEVICE
    nodes[nets + len(devices) :, COLUMN["kind"]] = Kind.PIN
    edges, kinds = [], []
    for number, (device, _) in enumerate(devices):
        nodes[nets + number, COLUMN["device_type"]] = device
    for number, (device, net, kind) in enumerate(pins):
        pin = nets + len(devices) + number
        nodes[pin, COLUMN["pin_kind"]] = kind
        for other, edge_kind in ((nets + device, EdgeKind.DEVICE_PIN), (net, EdgeKind.PIN_NET)):
            if other >= 0:
                edges += [(other, pin), (pin, other)]
                kinds += [edge_kind, edge_kind]
    return GraphBatch(
        nodes=nodes,
        edges=torch.tensor(edges, dtype=torch.int64).view(-1, 2).t(),
        edge_features=torch.tensor(kinds, dtype=torch.int64)[:, None],
        graph=torch.zeros(m, dtype=torch.int64),
        graphs=1,
    )


def random_circuit(seed: int, nets: int = 7, devices: int = 6) -> GraphBatch:
    """A graph of random transistors; a net may be without pins, and a bulk is on none (a supply was removed)."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(nets, (devices, 3), generator=generator).tolist()
    kinds = torch.randint(2, (devices,), generator=generator).tolist()
    return graph_of(
        nets, [(DeviceType(1 + kind), [*on, -1]) for kind, on in zip(kinds, drawn, strict=True)], seed
    )


def random_circuits(count: int = 3) -> GraphBatch:
    """Several of different size side by side."""
    return join([random_circuit(seed, nets=5 + seed, devices=4 + 2 * seed) for seed in range(count)])


def permuted(batch: GraphBatch, order: torch.Tensor) -> GraphBatch:
    """The same graphs with their nodes in another order, which keeps each graph's together; edges too."""
    place = order.argsort()
    edge_order = torch.randperm(batch.edges.shape[1], generator=torch.Generator().manual_seed(5))
    assert batch.edge_features is not None
    return batch._replace(
        nodes=batch.nodes[order],
        edges=place[batch.edges][:, edge_order],
        edge_features=batch.edge_features[edge_order],
        graph=batch.graph[order],
        roots=None if batch.roots is None else place[batch.roots],
    )
