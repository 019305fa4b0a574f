"""Small circuits as arrays, made at random: what evaluations see, without files. Synthetic."""

import numpy as np

from diptych_circuits.circuits import Circuits, Couplings
from diptych_circuits.schema import COLUMN, WIDTH, CouplingKind, EdgeKind, Kind, PinKind


def random_circuits(netlists=8, nets=5, devices=4, couplings=12, seed=0, designs=None):
    """Netlists of four-terminal devices on random nets, with couplings whose farad follows from widths and kinds."""
    generator = np.random.default_rng(seed)
    size = nets + 5 * devices
    nodes = np.zeros((netlists * size, WIDTH), np.float32)
    edges, kinds, first, second, kind_of, ground = [], [], [], [], [], np.full(netlists * size, np.nan)
    for number in range(netlists):
        base = number * size
        of = np.repeat(np.arange(devices), 4)
        pins = base + nets + devices + np.arange(4 * devices)
        on = base + generator.integers(0, nets, 4 * devices)
        edges += [np.stack([base + nets + of, pins]), np.stack([pins, on])]
        kinds += [np.full(4 * devices, EdgeKind.DEVICE_PIN), np.full(4 * devices, EdgeKind.PIN_NET)]
        here = nodes[base : base + size]
        here[nets : nets + devices, COLUMN["W"]] = generator.uniform(0.4, 2.0, devices)
        here[nets : nets + devices, COLUMN["L"]] = 0.15
        here[nets : nets + devices, COLUMN["device_type"]] = generator.integers(1, 3, devices)
        here[:, COLUMN["kind"]] = np.repeat([Kind.NET, Kind.DEVICE, Kind.PIN], [nets, devices, 4 * devices])
        here[nets + devices :, COLUMN["pin_kind"]] = np.tile(
            [PinKind.SOURCE_DRAIN, PinKind.GATE, PinKind.SOURCE_DRAIN, PinKind.BULK], devices
        )
        here[:nets, COLUMN["terminals"]] = np.bincount(on - base, minlength=nets)
        ground[base : base + nets] = 1e-17 * (1 + here[:nets, COLUMN["terminals"]]) ** 2
        chosen = set()
        while len(chosen) < couplings:
            drawn = generator.choice([*range(nets), *range(nets + devices, size)], 2, replace=False)
            chosen.add(
                (int(drawn.max()), int(drawn.min()))
            )  # nets have the lowest numbers, so they come second
        pairs = np.array(sorted(chosen))
        pin = pairs >= nets
        first.append(base + pairs[:, 0])
        second.append(base + pairs[:, 1])
        kind_of.append(
            np.where(
                pin.all(1),
                CouplingKind.PIN_PIN,
                np.where(pin.any(1), CouplingKind.PIN_NET, CouplingKind.NET_NET),
            )
        )
    edges = np.concatenate(edges, axis=1)
    kinds = np.concatenate(kinds)
    first, second, kind_of = (np.concatenate(each) for each in (first, second, kind_of))
    fan = nodes[first, COLUMN["terminals"]] + nodes[second, COLUMN["terminals"]]
    farad = 10.0 ** (-18.5 + kind_of + 0.1 * np.minimum(fan, 10))
    return Circuits(
        nodes=nodes,
        kind=nodes[:, COLUMN["kind"]].astype(np.int8),
        edges=np.concatenate([edges, edges[::-1]], axis=1),
        edge_kind=np.concatenate([kinds, kinds]).astype(np.int8),
        netlist=np.repeat(np.arange(netlists), size).astype(np.int32),
        starts=np.arange(netlists + 1) * size,
        ground=ground,
        resistance=np.full(netlists * size, np.nan),
        couplings=Couplings(first=first, second=second, farad=farad, kind=kind_of.astype(np.int8)),
        netlists=[f"n{number}.spice" for number in range(netlists)],
        designs=[f"d{number}" for number in range(netlists)] if designs is None else designs,
        names_of=lambda number: [f"n{number}_{node}" for node in range(size)],
    )
