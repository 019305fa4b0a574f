"""The steps of an epoch: random targets where rows of all nodes are kept, else targets with the graph they lie in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import Tensor, nn

from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.metrics import Floats
from diptych.graphs.batch import GraphBatch
from diptych.study import Indices
from diptych_circuits.circuits import Circuits
from diptych_circuits.fitting import Portions
from diptych_circuits.heads import Portion
from diptych_circuits.study import Graphs
from diptych_circuits.targets import Targets

# numbers of netlists to one batch of their whole graphs, nodes in the order of the circuits
WholeNetlists = Callable[[Indices], GraphBatch]


class Tables:
    """What a portion needs of its targets, as tensors.

    Args:
        targets: n targets.
        features: (n, features) of pairs.
    """

    def __init__(self, targets: Targets, features: Floats) -> None:
        self.targets = targets
        self.ends = torch.from_numpy(targets.ends)
        self.kind = torch.from_numpy(targets.kind)
        self.symmetric = torch.from_numpy(targets.symmetric)[self.kind]
        self.features = torch.from_numpy(np.asarray(features, np.float32))

    def portion(
        self,
        positions: Indices,
        ends: Tensor | None = None,
        graph: GraphBatch | None = None,
        nodes: Tensor | None = None,
    ) -> Portion:
        """The targets at ``positions``; ``ends`` where they are no numbers of nodes but rows of a graph."""
        chosen = torch.from_numpy(positions)
        return Portion(
            positions=chosen,
            ends=self.ends[chosen] if ends is None else ends,
            kind=self.kind[chosen],
            symmetric=self.symmetric[chosen],
            features=self.features[chosen],
            graph=graph,
            nodes=nodes,
        )


def random_portions(tables: Tables, batch: int) -> Portions:
    """Targets drawn from all netlists, for networks that keep the rows of all nodes."""

    def portions(positions: Indices, generator: np.random.Generator | None) -> Iterator[Portion]:
        order = positions if generator is None else generator.permutation(positions)
        for start in range(0, len(order), batch):
            yield tables.portion(order[start : start + batch])

    return portions


def netlist_portions(tables: Tables, circuits: Circuits, whole: WholeNetlists, nodes: int) -> Portions:
    """Whole netlists, as many as have ``nodes`` nodes in all, with all of their targets.

    Every node is computed once an epoch, however many targets it belongs to, so an epoch of small netlists costs a
    hundredth of what subgraphs around every target do.
    """
    starts = np.asarray(circuits.starts)
    netlist = np.asarray(circuits.netlist)[tables.targets.ends[:, 0]]

    def portions(positions: Indices, generator: np.random.Generator | None) -> Iterator[Portion]:
        chosen = np.unique(netlist[positions]).astype(np.int64)
        order = chosen if generator is None else generator.permutation(chosen)
        for group in grouped(order, np.diff(starts), nodes):
            members = positions[np.isin(netlist[positions], group)]
            ids = nodes_in(starts, group)
            place = np.full(starts[-1], -1, dtype=np.int64)
            place[ids] = np.arange(len(ids))
            yield tables.portion(
                members,
                torch.from_numpy(place[tables.targets.ends[members]]),
                whole(group),
                torch.from_numpy(ids),
            )

    return portions


def sampled_portions(tables: Tables, graphs: Graphs, batch: int, *, disjoint: bool) -> Portions:
    """Targets drawn from all netlists, with the sampled surroundings of their ends, as large designs need.

    A subgraph for every target, in which both ends are roots, or one that the targets of a step share.
    """

    def portions(positions: Indices, generator: np.random.Generator | None) -> Iterator[Portion]:
        order = positions if generator is None else generator.permutation(positions)
        key = 0 if generator is None else int(generator.integers(2**62))
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            ends = tables.targets.ends[chosen]
            owners = np.repeat(np.arange(len(chosen)), ends.shape[1]) if disjoint else None
            graph, nodes = graphs.surroundings(ends.ravel(), key + start, owners=owners, disjoint=disjoint)
            if graph.roots is None:
                raise ValueError("sampled surroundings have roots")
            yield tables.portion(chosen, graph.roots.view(ends.shape), graph, torch.from_numpy(nodes))

    return portions


def node_rows(
    encoder: nn.Module, circuits: Circuits, whole: WholeNetlists, *, nodes: int, device: str = "auto"
) -> Tensor:
    """(N, width) float32 rows of all nodes, of a frozen encoder over whole netlists; the encoder stays as it was."""
    home = next(encoder.parameters(), torch.empty(0)).device
    training, where = encoder.training, choose_device(device)
    encoder.eval().to(where)
    starts = np.asarray(circuits.starts)
    try:
        with torch.inference_mode():
            rows = [
                encoder(move_data_to_device(whole(group), where)).parts.float().cpu()
                for group in grouped(np.arange(len(starts) - 1), np.diff(starts), nodes)
            ]
    finally:
        encoder.train(training).to(home)
    return torch.cat(rows).clone()


def grouped(netlists: Indices, sizes: Indices, most: int) -> Sequence[Indices]:
    """Netlists in their order, in groups of at most ``most`` nodes; a larger netlist is a group of its own."""
    groups: list[list[int]] = []
    held = most + 1
    for netlist in netlists.tolist():
        if held + sizes[netlist] > most:
            groups.append([])
            held = 0
        groups[-1].append(netlist)
        held += int(sizes[netlist])
    return [np.array(group, dtype=np.int64) for group in groups]


def nodes_in(starts: Indices, netlists: Indices) -> Indices:
    """The nodes of netlists, one after the other."""
    return np.concatenate([np.arange(starts[each], starts[each + 1]) for each in netlists.tolist()])
