"""Neighbourhoods of nets, 4 hops and 64 neighbours each: vectorised against a literal breadth-first search.

    python tests/benchmarks/circuit_sampling.py [--rounds 3] [--steps 5] [--batch 128]

A batch is 128 random nets of a synthetic netlist, each with a subgraph of its own. Netlists of ten thousand, a
hundred thousand and a million nodes show how the cost depends on the size of the whole graph. Every measurement
runs in a process of its own, the contenders in turn within a round. Printed are medians over all batches but each
process's first two, with their range; the peak is the highest resident memory during the batches minus that
before the first.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections import deque
from collections.abc import Callable
from random import Random

import numpy as np
from measuring import Found, in_turn, measure

from diptych.graphs.neighbours import Adjacency, Neighbourhood, sample_neighbours

HOPS, LIMIT = 4, 64
SIZES = (10_000, 100_000, 1_000_000)
CONTENDERS = {"literal": "breadth-first search in Python", "own": "sample_neighbours"}
TARGETS = {"own": ">= 5x"}
WARM_UP = 2


def netlist(nodes: int) -> tuple[Adjacency, np.ndarray]:
    """A synthetic netlist of about so many nodes, and its nets.

    As in the digital timing generator of CircuitGCL's data there are 4 devices to a net and 3 pins to a device. Nets
    differ in fan-out as a Pareto distribution does; a pin is on one of the hundred nets near its device.
    """
    generator = np.random.default_rng(0)
    nets = nodes // 17
    devices, pins = 4 * nets, 12 * nets
    device = np.arange(pins) // 3
    near = generator.pareto(1.2, nets).cumsum()  # a net's share of a line, on which pins fall
    place = (device / devices + generator.normal(0, 50 / nets, pins)) % 1
    net = np.searchsorted(near / near[-1], place).clip(0, nets - 1)
    pin = nets + devices + np.arange(pins)
    one_way = np.concatenate([np.stack([nets + device, pin]), np.stack([pin, net])], axis=1)
    edges = np.concatenate([one_way, one_way[::-1]], axis=1)
    return Adjacency.of(edges, nets + devices + pins), np.unique(net)


def breadth_first(adjacency: Adjacency, roots: list[int], limit: int | None, random: Random) -> Neighbourhood:
    """The same result in plain loops: root by root, node by node, edge by edge."""
    nodes: list[int] = []
    owner: list[int] = []
    edges: list[tuple[int, int]] = []
    edge_ids: list[int] = []
    places: list[int] = []
    for number, root in enumerate(roots):
        reached, found = {root}, []
        waiting = deque([(root, 0)])
        while waiting:
            node, hops = waiting.popleft()
            if hops == HOPS:
                continue
            into = range(int(adjacency.pointers[node]), int(adjacency.pointers[node + 1]))
            for edge in into if limit is None or len(into) <= limit else random.sample(into, limit):
                other = int(adjacency.sources[edge])
                found.append((other, node, int(adjacency.edge_ids[edge])))
                if other not in reached:
                    reached.add(other)
                    waiting.append((other, hops + 1))
        place = {node: len(nodes) + position for position, node in enumerate(sorted(reached))}
        nodes += place
        owner += [number] * len(place)
        edges += [(place[source], place[target]) for source, target, _ in found]
        edge_ids += [edge for _, _, edge in found]
        places.append(place[root])
    return Neighbourhood(*(np.array(each) for each in (nodes, np.array(edges).T, edge_ids, owner, places)))


def check_equal(adjacency: Adjacency, roots: np.ndarray) -> None:
    """Without a limit nothing is random, so both must find the same."""
    ours = sample_neighbours(adjacency, roots, hops=HOPS, limit=None, disjoint=True, key=0)
    theirs = breadth_first(adjacency, roots.tolist(), None, Random(0))
    for own, other in zip(ours, theirs, strict=True):
        assert np.array_equal(np.sort(own, axis=-1), np.sort(other, axis=-1))


def step_of(contender: str, size: int, batch: int) -> Callable[[], object]:
    """What samples the next batch, as arrays."""
    adjacency, nets = netlist(size)
    generator = np.random.default_rng(1)
    keys = itertools.count()
    if contender == "own":
        check_equal(adjacency, generator.choice(nets, 16))

    def literal() -> object:
        return breadth_first(adjacency, generator.choice(nets, batch).tolist(), LIMIT, Random(next(keys)))

    def own() -> object:
        roots = generator.choice(nets, batch)
        return sample_neighbours(adjacency, roots, hops=HOPS, limit=LIMIT, disjoint=True, key=next(keys))

    return literal if contender == "literal" else own


def show(found: Found, size: int) -> None:
    """Medians with their range for one size of netlist."""
    adjacency, _ = netlist(size)
    print(f"\n{adjacency.nodes} nodes, {len(adjacency.sources)} directed edges")
    print(f"{'contender':34} {'CPU ms a batch (range)':26} {'times less':>10} {'peak MB':>8}  target")
    base = statistics.median(milliseconds(found, "literal", size))
    for name, text in CONTENDERS.items():
        times = milliseconds(found, name, size)
        spread = f"{statistics.median(times):6.1f} ({min(times):.1f} to {max(times):.1f})"
        peak = statistics.median(run["peak"] for run in found[f"{name}-{size}"]) / 1e6
        ratio = base / statistics.median(times)
        print(f"{text:34} {spread:26} {ratio:10.2f} {peak:8.1f}  {TARGETS.get(name, '')}")


def milliseconds(found: Found, contender: str, size: int) -> list[float]:
    """The times of all batches of a contender."""
    return [1e3 * each for run in found[f"{contender}-{size}"] for each in run["seconds"]]


def main() -> None:
    """Run all contenders and print a table for each size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        contender, size = options.only.split("-")
        measure(step_of(contender, int(size), options.batch), warm_up=WARM_UP, steps=options.steps)
        return
    names = [f"{contender}-{size}" for size in SIZES for contender in CONTENDERS]
    extra = ["--batch", str(options.batch), "--steps", str(options.steps)]
    found = in_turn(__file__, names, options.rounds, extra)
    for size in SIZES:
        show(found, size)


if __name__ == "__main__":
    main()
