"""DICE: contrast of circuits with equivalent ones and against broken ones, and an encoder of devices alone.

After "DICE: Device-level Integrated Circuits Encoder with Graph Contrastive Pretraining" (2025). Letters: m nodes,
d devices, n graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from diptych.distributed import gather_rows
from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_mean
from diptych.heads import Projector
from diptych.losses.contrast import contrast, mean_over_anchors
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import width_of
from diptych.types import Encoded, Rows, Views
from diptych_circuits.devices import device_edges, pins_of
from diptych_circuits.encoder import columns_of
from diptych_circuits.equivalent import FlipTypes, Rewire, SplitFingers, SwapSeries, without_net_statistics
from diptych_circuits.schema import COLUMN, DeviceType, Kind, PinKind


class DeviceEncoder(nn.Module):
    """Message passing between devices that share a net, with both terminals on the edge: a GraphBatch to Encoded.

    ``parts`` (m, width) are rows of all nodes: a device's own; a pin's is that of its device and its terminal; a
    net's the mean of its pins'. ``whole`` are the roots' rows, or the means of the devices of each graph.

    Args:
        width: of every layer.
        layers: how many, each a GINE layer with batch norm and ReLU.
        largest: a net with more pins joins no devices, since their pairs grow with the square.
        dropout: after every layer.
    """

    def __init__(self, *, width: int = 256, layers: int = 3, largest: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        if layers < 1 or width < 1 or largest < 2:
            raise ConfigError(
                "an encoder of devices needs a width and layers of at least 1 and nets of at least 2 pins; got "
                f"{width}, {layers} and {largest}"
            )
        self.register_buffer("columns", torch.tensor(columns_of("device")), persistent=False)
        self.statistics = nn.Linear(len(columns_of("device")), width)
        self.device_type = nn.Embedding(len(DeviceType), width)
        self.terminals = nn.Embedding(len(PinKind) ** 2, width)  # of the source and of the target
        self.terminal = nn.Embedding(len(PinKind), width)
        self.convolutions = nn.ModuleList(
            GINEConv(nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)))
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.width, self.largest = width, largest

    columns: Tensor

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch: whole (n, width), parts (m, width)."""
        nodes, pins = batch.nodes, pins_of(batch)
        kind = nodes[:, COLUMN["kind"]]
        device = (kind == Kind.DEVICE).nonzero()[:, 0]
        place = torch.zeros_like(batch.graph).index_copy(
            0, device, torch.arange(len(device), device=kind.device)
        )
        found = device_edges(pins, len(nodes), self.largest)
        edges = torch.stack([place[pins.device[found.source]], place[pins.device[found.target]]])
        pin_kind = nodes[pins.pin, COLUMN["pin_kind"]].long()
        terminals = self.terminals(pin_kind[found.source] * len(PinKind) + pin_kind[found.target])
        types = nodes[device, COLUMN["device_type"]].long()
        h = self.statistics(nodes[device][:, self.columns]) + self.device_type(types)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            h = self.dropout(torch.relu(norm(convolution(h, edges, terminals)))) + h
        parts = self._of_all(batch, device, h)
        if batch.roots is not None:
            return Encoded(parts[batch.roots], parts)
        return Encoded(segment_mean(h, batch.graph[device], batch.graphs), parts)

    def _of_all(self, batch: GraphBatch, device: Tensor, h: Tensor) -> Tensor:
        """Rows of all nodes (m, width) from those of devices (d, width), along the edges of pins."""
        m, kind = len(batch.nodes), batch.nodes[:, COLUMN["kind"]]
        rows = h.new_zeros((m, self.width)).index_copy(0, device, h)
        source, target = batch.edges
        to_pin = ((kind[source] == Kind.DEVICE) & (kind[target] == Kind.PIN)).nonzero()[:, 0]
        of_pin = self.terminal(batch.nodes[target[to_pin], COLUMN["pin_kind"]].long()) + rows[source[to_pin]]
        rows = rows.index_copy(0, target[to_pin], of_pin.to(rows.dtype))
        to_net = ((kind[source] == Kind.PIN) & (kind[target] == Kind.NET)).nonzero()[:, 0]
        return rows + segment_mean(rows[source[to_net]], target[to_net], m)


class Change(Protocol):
    """A change of netlists: ``apply(batch, draw(batch, generator))``."""

    def draw(self, batch: GraphBatch, generator: torch.Generator | None = None) -> Any: ...

    def apply(self, batch: GraphBatch, parameters: Any) -> GraphBatch: ...


class EquivalentAndBroken(nn.Module):
    """Three views of the circuits of a batch, encoded and projected: two equivalent ones and a broken one.

    Args:
        encoder: of graphs, on its ``whole`` rows of graphs.
        projector: follows it.
        keeping: changes that keep the function, in this order.
        breaking: changes that break it, in this order.
    """

    def __init__(
        self, encoder: nn.Module, projector: nn.Module, keeping: Sequence[Change], breaking: Sequence[Change]
    ) -> None:
        super().__init__()
        self.encoder, self.projector = encoder, projector
        self.keeping, self.breaking = tuple(keeping), tuple(breaking)

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """Of the first view, whose roots are left aside."""
        plain = without_net_statistics(batch.views[0]._replace(roots=None))
        views = [
            changed(plain, each) for each in (self.keeping, self.keeping, (*self.keeping, *self.breaking))
        ]
        return tuple(Encoded(self.projector(self.encoder(view).whole)) for view in views)


def changed(batch: GraphBatch, changes: Sequence[Change]) -> GraphBatch:
    """The batch after changes drawn at random, one after the other."""
    with torch.no_grad():
        for change in changes:
            batch = change.apply(batch, change.draw(batch))
    return batch


class FunctionContrast(nn.Module):
    """Equivalent views of a circuit attract each other; other circuits and all broken ones repel (NT-Xent).

    Broken rows are nobody's positives. Circuits are told by the id "part" of their first node.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        if not temperature > 0:
            raise ConfigError(f"the temperature must be above 0, got {temperature}")
        self.temperature = temperature

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        """The loss of three views' ``whole`` (n, width): equivalent, equivalent, broken."""
        graphs: GraphBatch = batch.views[0]
        first = torch.searchsorted(graphs.graph, torch.arange(graphs.graphs, device=graphs.graph.device))
        ids = batch.groups["part"][first]
        broken = torch.full_like(ids, -1)
        rows = Rows(
            torch.cat([each.whole for each in online]),
            torch.cat([ids, ids, broken]),
            torch.cat([3 * ids + view for view in range(3)]),
        )
        gathered = gather_rows(rows)
        keys = None if gathered is rows else gathered
        return mean_over_anchors(contrast(rows, keys, temperature=self.temperature))


@dataclass(frozen=True, kw_only=True)
class DICE:
    """Functionally equivalent circuits attract, others and broken ones repel.

    A batch should hold several whole netlists: with ``loader.order: netlist``, as many nodes as they have together.

    Args:
        split: share of transistors that are split into two in parallel.
        swap: share of series pairs that are swapped.
        rewire: share of pins that a broken view moves to other nets; at least one.
        flip: share of transistors whose type a broken view flips.
        temperature: divides the cosines.
        hidden: units of the projector's hidden layer.
        width: of the projection.
    """

    split: float = 0.3
    swap: float = 0.5
    rewire: float = 0.2
    flip: float = 0.2
    temperature: float = 0.1
    hidden: int = 256
    width: int = 128

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``, on its ``whole`` rows of graphs."""
        projector = Projector(width_of(encoder), self.hidden, self.width, normalize=False)
        branch = EquivalentAndBroken(
            encoder,
            projector,
            (SwapSeries(fraction=self.swap), SplitFingers(fraction=self.split)),
            (Rewire(fraction=self.rewire), FlipTypes(fraction=self.flip)),
        )
        phase = Phase(
            name="dice",
            passes=[
                Pass(
                    online=branch, terms=[Term(name="function", objective=FunctionContrast(self.temperature))]
                )
            ],
            trains=[encoder, projector],
            optimizer=optimizer,
            schedule=schedule,
        )
        return Method({"encoder": encoder, "projector": projector}, [phase], encoder)
