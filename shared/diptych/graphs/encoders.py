"""Encoders of graphs: nodes with integer codes or numbers in, one row per node and one per graph or root out.

Letters: m nodes, e edges, n graphs or roots.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.features import Features, Inputs
from diptych.graphs.network import Network
from diptych.graphs.propagation import normalised_adjacency, propagate
from diptych.graphs.readout import Readout, check_readout, read_out
from diptych.graphs.segments import segment_sum
from diptych.types import Encoded

__all__ = ["GCN", "GIN", "Network"]


class GIN(nn.Module):
    """A graph isomorphism network (Xu et al. 2019); with edge features GINE (Hu et al. 2020).

    In each layer h_v becomes MLP((1 + eps) h_v + sum over edges u -> v of h_u), with edge features of
    ReLU(h_u + their row), then batch norm and, but after the last layer, ReLU. eps is learned, from 0.

    Args:
        features: of nodes, see :class:`Inputs`.
        hidden: width of a layer.
        depth: layers.
        readout: of a graph's row from its nodes'.
        layers: "last" gives the last layer's rows, "all" those of all layers side by side (GraphCL's on small
            graphs, with readout sum); ``width`` is then hidden times depth.
        edge_features: of edges, see :class:`Inputs`; None to leave them out.
        dropout: after every layer.
    """

    def __init__(
        self,
        features: Features,
        *,
        hidden: int = 300,
        depth: int = 5,
        readout: Readout = "mean",
        layers: Literal["last", "all"] = "last",
        edge_features: Features | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check(hidden, depth, readout, layers)
        self.inputs = Inputs(features, hidden)
        self.edge_inputs = nn.ModuleList(
            [] if edge_features is None else [Inputs(edge_features, hidden) for _ in range(depth)]
        )
        self.epsilon = nn.Parameter(torch.zeros(depth))
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden))
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(depth))
        self.dropout, self.readout, self.layers = dropout, readout, layers
        self.width = hidden * depth if layers == "all" else hidden

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of graphs."""
        h = self.inputs(batch.nodes)
        depth, rows = len(self.perceptrons), []
        for layer in range(depth):
            gathered = segment_sum(self._messages(h, batch, layer), batch.edges[1], len(h))
            h = self.norms[layer](self.perceptrons[layer]((1 + self.epsilon[layer]) * h + gathered))
            h = h if layer == depth - 1 else F.relu(h)
            h = F.dropout(h, self.dropout, self.training)
            rows.append(h)
        return read_out(batch, torch.cat(rows, 1) if self.layers == "all" else h, self.readout)

    def _messages(self, h: Tensor, batch: GraphBatch, layer: int) -> Tensor:
        if not self.edge_inputs:
            return h[batch.edges[0]]
        if batch.edge_features is None:
            raise DataError("the encoder was made for edge features, but the batch has none")
        return F.relu(h[batch.edges[0]] + self.edge_inputs[layer](batch.edge_features))


class GCN(nn.Module):
    """A graph convolutional network (Kipf & Welling 2017): h <- activation(A h W), A = D^-1/2 (A + I) D^-1/2.

    Args:
        features: of nodes, see :class:`Inputs`; codes are looked up at the width of the first layer.
        widths: of the layers; GRACE has twice the last before it, SGRL a single one.
        activation: after every layer: "relu", "prelu" with one slope (BGRL, SGRL), or "none".
        norm: batch norm before the activation, with momentum 0.01 as in BGRL.
        readout: of a graph's row from its nodes'.
        dropout: before every layer.
    """

    def __init__(
        self,
        features: Features,
        *,
        widths: Sequence[int] = (512, 256),
        activation: Literal["relu", "prelu", "none"] = "relu",
        norm: bool = False,
        readout: Readout = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not widths:
            raise ConfigError("a graph convolutional network needs at least one layer, got widths []")
        _check(min(widths), len(widths), readout, "last")
        makers = {"relu": nn.ReLU, "prelu": nn.PReLU, "none": nn.Identity}
        if activation not in makers:
            raise ConfigError(f"activation must be one of {', '.join(makers)}, got {activation!r}")
        numbers = isinstance(features, int)
        self.inputs = None if numbers else Inputs(features, widths[0])
        first = features if isinstance(features, int) else widths[0]
        before = [first, *widths[:-1]]
        self.linears = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(before, widths, strict=True))
        self.biases = nn.ParameterList([torch.empty(width) for width in widths])
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(width, momentum=0.01) if norm else nn.Identity() for width in widths
        )
        self.activations = nn.ModuleList(makers[activation]() for _ in widths)
        self.dropout, self.readout, self.features = dropout, readout, first
        self.width = widths[-1]
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fresh weights of Glorot's spread, and biases of 0, as is usual for these layers."""
        for linear, bias in zip(self.linears, self.biases, strict=True):
            nn.init.xavier_uniform_(linear.get_parameter("weight"))
            nn.init.zeros_(bias)

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of graphs."""
        h = batch.nodes if self.inputs is None else self.inputs(batch.nodes)
        if h.shape[1] != self.features:
            raise DataError(f"the encoder was made for {self.features} columns of features, got {h.shape[1]}")
        adjacency = normalised_adjacency(batch.edges, len(h))
        for linear, bias, norm, activation in zip(
            self.linears, self.biases, self.norms, self.activations, strict=True
        ):
            weight = linear.get_parameter("weight")
            h = F.dropout(h.to(weight.dtype), self.dropout, self.training)
            along = partial(propagate, edges=batch.edges, adjacency=adjacency)
            # A (h W) = (A h) W: what is narrower goes along the edges
            h = linear(along(h)) if weight.shape[1] < weight.shape[0] else along(linear(h))
            h = activation(norm(h + bias))
        return read_out(batch, h, self.readout)


def _check(hidden: int, depth: int, readout: str, layers: str) -> None:
    if hidden < 1 or depth < 1:
        raise ConfigError(
            f"an encoder needs widths and a depth of at least 1, got width {hidden}, depth {depth}"
        )
    check_readout(readout)
    if layers not in ("last", "all"):
        raise ConfigError(f"layers must be last or all, got {layers!r}")
