"""The encoder of netlist graphs: what a net, device or pin is, then layers of message passing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch_geometric import nn as geometric

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.encodings import random_walk_returns
from diptych.graphs.segments import segment_mean
from diptych.types import Encoded
from diptych_circuits.encodings import DRNL, DSPD
from diptych_circuits.schema import COLUMN, COLUMNS, DeviceType, EdgeKind, Kind, PinKind

Convolution = Literal["clustergcn", "sage", "gcn", "gine", "gat", "resgatedgcn"]
Jumping = Literal["none", "concatenated", "mean"]
Position = Literal["none", "dspd", "drnl"]
HEADS = 4  # of a layer of attention


def _gine(width: int) -> nn.Module:
    layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
    layer: nn.Module = geometric.GINEConv(layers)
    return layer


def _gat(width: int) -> nn.Module:
    if width % HEADS:
        raise ConfigError(f"attention has {HEADS} heads that share the width; {width} is not a multiple")
    layer: nn.Module = geometric.GATConv(width, width // HEADS, heads=HEADS, edge_dim=width)
    return layer


# By name: the layer, and whether it takes what the edges are
CONVOLUTIONS: dict[str, tuple[Callable[[int], nn.Module], bool]] = {
    "clustergcn": (lambda width: geometric.ClusterGCNConv(width, width), False),
    "sage": (lambda width: geometric.SAGEConv(width, width), False),
    "gcn": (lambda width: geometric.GCNConv(width, width), False),
    "gine": (_gine, True),
    "gat": (_gat, True),
    "resgatedgcn": (lambda width: geometric.ResGatedGraphConv(width, width, edge_dim=width), True),
}


class CircuitEncoder(nn.Module):
    """Kinds and statistics of nodes as equal shares of the width, then message passing: a GraphBatch to Encoded.

    ``parts`` (m, width) are the rows of all nodes, ``whole`` those of the roots, or the mean of each graph where the
    batch has no roots. By default the network of CircuitGCL's scattering (4 layers of ClusterGCN and tanh, 2025)
    with the statistics that its release leaves out.

    Args:
        width: of every layer.
        layers: how many.
        convolution: a layer by name, or a layer class that is called with two widths and takes rows and edges.
            "gine", "gat" and "resgatedgcn" also take whether an edge joins a device and its pin or a pin and its net.
        activation: after every layer; a PReLU has a slope of its own in each.
        dropout: after every layer.
        normalize: batch norm before every activation.
        residual: adds a layer's input to its output.
        statistics: whether nodes are described by their statistics besides their kind: nets and devices through a
            linear layer each, pins by an embedding of their terminal.
        position: distances to the roots of a sampled subgraph (:mod:`diptych_circuits.encodings`).
        farthest: distance from which on nodes are alike there.
        walks: steps of random walks whose returns describe a node (RWSE); 0 for none.
        jumping: rows are those of the last layer ("none"), of all layers and the input side by side, or their mean.

    Raises:
        ConfigError: a width too small for its shares, no layers, an unknown name.
    """

    def __init__(
        self,
        *,
        width: int = 256,
        layers: int = 4,
        convolution: Convolution | Callable[[int, int], nn.Module] = "clustergcn",
        activation: Literal["tanh", "prelu"] = "tanh",
        dropout: float = 0.3,
        normalize: bool = False,
        residual: bool = False,
        statistics: bool = True,
        position: Position = "none",
        farthest: int = 10,
        walks: int = 0,
        jumping: Jumping = "none",
    ) -> None:
        super().__init__()
        if layers < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                f"a circuit encoder needs at least 1 layer and dropout in 0..1, got {layers} and {dropout:g}"
            )
        self.inputs = Inputs(width, statistics=statistics, position=position, farthest=farthest, walks=walks)
        build, self.takes_edges = _convolution(convolution)
        self.convolutions = nn.ModuleList(build(width) for _ in range(layers))
        self.edge_kind = nn.Embedding(len(EdgeKind), width) if self.takes_edges else None
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width) if normalize else nn.Identity() for _ in range(layers)
        )
        self.activations = nn.ModuleList(
            nn.Tanh() if activation == "tanh" else nn.PReLU() for _ in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.residual, self.jumping = residual, jumping
        self.width = width * (layers + 1) if jumping == "concatenated" else width

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch: whole (n, width), parts (m, width)."""
        h = self.inputs(batch)
        edges = (batch.edges,) if self.edge_kind is None else (batch.edges, self._edges(batch))
        reached = [h]
        for convolution, norm, activation in zip(
            self.convolutions, self.norms, self.activations, strict=True
        ):
            new = self.dropout(activation(norm(convolution(h, *edges))))
            h = h + new if self.residual else new
            reached.append(h)
        parts = self._joined(reached)
        whole = segment_mean(parts, batch.graph, batch.graphs) if batch.roots is None else parts[batch.roots]
        return Encoded(whole, parts)

    def _edges(self, batch: GraphBatch) -> Tensor:
        if batch.edge_features is None:
            raise DataError("this convolution takes the kinds of edges, but the batch has no edge features")
        assert self.edge_kind is not None
        embedded: Tensor = self.edge_kind(batch.edge_features[:, 0].long())
        return embedded

    def _joined(self, reached: list[Tensor]) -> Tensor:
        if self.jumping == "concatenated":
            return torch.cat(reached, dim=1)
        return torch.stack(reached).mean(0) if self.jumping == "mean" else reached[-1]


class Inputs(nn.Module):
    """What a node is, (m, width): equal shares for its kind, its statistics, its position and its walks.

    Arguments are those of :class:`CircuitEncoder`. What is left over from equal shares goes to the kind.
    """

    def __init__(
        self, width: int, *, statistics: bool, position: Position, farthest: int, walks: int
    ) -> None:
        super().__init__()
        parts = 1 + statistics + (position != "none") + (walks > 0)
        share = width // parts // 2 * 2 if position == "dspd" else width // parts
        if share < 1:
            raise ConfigError(f"a width of {width} is too small for {parts} inputs")
        self.width = width
        self.kind = nn.Embedding(len(Kind), width - (parts - 1) * share)
        self.statistics = Statistics(share) if statistics else None
        self.position: nn.Module | None = None
        if position != "none":
            self.position = (DSPD if position == "dspd" else DRNL)(share, farthest)
        self.steps = walks
        self.walks = nn.Linear(walks, share) if walks else None

    def forward(self, batch: GraphBatch) -> Tensor:
        """(m, width)."""
        shares = [self.kind(batch.nodes[:, COLUMN["kind"]].long())]
        if self.statistics is not None:
            shares.append(self.statistics(batch.nodes))
        if self.position is not None:
            shares.append(self.position(batch))
        if self.walks is not None:
            shares.append(self.walks(random_walk_returns(batch, self.steps)))
        return torch.cat(shares, dim=1)


class Statistics(nn.Module):
    """Statistics of nodes (m, width): those of nets and of devices through a linear layer each, types by embedding."""

    nets: Tensor
    devices: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        for name, kind in (("nets", "net"), ("devices", "device")):
            self.register_buffer(name, torch.tensor(columns_of(kind)), persistent=False)
        self.of_net = nn.Linear(len(self.nets), width)
        self.of_device = nn.Linear(len(self.devices), width)
        self.device_type = nn.Embedding(len(DeviceType), width)
        self.pin_kind = nn.Embedding(len(PinKind), width)

    def forward(self, nodes: Tensor) -> Tensor:
        """From the node matrix (m, schema.WIDTH)."""
        kind = nodes[:, COLUMN["kind"], None]
        of_device = self.of_device(nodes[:, self.devices]) + self.device_type(_codes(nodes, "device_type"))
        others = torch.where(kind == Kind.DEVICE, of_device, self.pin_kind(_codes(nodes, "pin_kind")))
        return torch.where(kind == Kind.NET, self.of_net(nodes[:, self.nets]), others)


def columns_of(kind: str) -> list[int]:
    """The places of the columns of numbers that describe a "net" or a "device"."""
    return [COLUMN[name] for name, meaning in COLUMNS.items() if meaning.startswith(f"{kind}:")]


def _codes(nodes: Tensor, name: str) -> Tensor:
    return nodes[:, COLUMN[name]].long()


def _convolution(
    convolution: Convolution | Callable[[int, int], nn.Module],
) -> tuple[Callable[[int], nn.Module], bool]:
    """What builds a layer of a width, and whether it takes what the edges are. Raises ConfigError for a wrong name."""
    if not isinstance(convolution, str):
        return lambda width: convolution(width, width), False
    if convolution not in CONVOLUTIONS:
        raise ConfigError(
            f"there is no convolution {convolution!r}; expected {', '.join(CONVOLUTIONS)}, or a class such as "
            "torch_geometric.nn.TransformerConv"
        )
    return CONVOLUTIONS[convolution]
