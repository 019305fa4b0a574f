"""The release's downstream network: frozen embeddings and statistics go through four layers over the graph."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import SAGEConv

from diptych_circuits.heads import Portion


class Downstream(nn.Module):
    """Equal shares of the width for the kind of node, its frozen embedding and its statistics, then SAGE layers.

    Statistics have linear layers of their own for each kind of node, since their columns mean different things.
    As in the release there is one PReLU for all layers and no normalisation between them.

    Args:
        kind: (nodes,) kinds of all nodes.
        embedding: (nodes, w) frozen embeddings, w possibly 0.
        statistics: (nodes, columns), columns possibly 0.
        kinds: Number of kinds of nodes.
        width: Of every layer; a share is width // (number of inputs that there are).
        layers: Number of layers.
        dropout: After every layer but the last.
    """

    kind: Tensor
    embedding: Tensor
    statistics: Tensor

    def __init__(
        self,
        kind: Tensor,
        embedding: Tensor,
        statistics: Tensor,
        *,
        kinds: int = 3,
        width: int = 144,
        layers: int = 4,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        for name, table in {"kind": kind, "embedding": embedding, "statistics": statistics}.items():
            self.register_buffer(name, table, persistent=False)
        inputs = 1 + (embedding.shape[1] > 0) + (statistics.shape[1] > 0)
        share = width // inputs
        self.of_kind = nn.Embedding(kinds, share)
        self.of_embedding = nn.Linear(embedding.shape[1], share) if embedding.shape[1] else None
        self.of_statistics = nn.ModuleList(
            [nn.Linear(statistics.shape[1], share) for _ in range(kinds)] if statistics.shape[1] else []
        )
        self.width = share * inputs
        self.convolutions = nn.ModuleList(SAGEConv(self.width, self.width) for _ in range(layers))
        self.activation = nn.PReLU()
        self.dropout = nn.Dropout(dropout)

    def forward(self, portion: Portion) -> Tensor:
        """(m, width) rows of the portion's nodes."""
        graph, nodes = portion.graph, portion.nodes
        if graph is None:
            raise ValueError("this network needs the graph of a portion")
        kind = self.kind[nodes]
        parts = [self.of_kind(kind)]
        if self.of_embedding is not None:
            parts.append(self.of_embedding(self.embedding[nodes]))
        if len(self.of_statistics):
            by_kind = torch.stack([layer(self.statistics[nodes]) for layer in self.of_statistics], dim=1)
            parts.append(by_kind.take_along_dim(kind[:, None, None], dim=1).squeeze(1))
        x: Tensor = torch.cat(parts, dim=1)
        for number, convolution in enumerate(self.convolutions):
            x = self.activation(convolution(x, graph.edges))
            if number + 1 < len(self.convolutions):
                x = self.dropout(x)
        return x
