"""Heads: from the rows of a coupling's two ends, or of one net, to a capacitance, its class, or whether it is there."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diptych.graphs.batch import GraphBatch

FARTHEST = 5.0  # standard deviations


class Portion(NamedTuple):
    """b targets of a training step or a prediction, with the graph that their ends lie in, where one is needed."""

    positions: Tensor  # (b,) int64: which targets
    ends: Tensor  # (b, 1 or 2) int64: rows of what the network makes of the nodes
    kind: Tensor  # (b,) int64: which kind of target
    symmetric: Tensor  # (b,) bool: whether the order of both ends means nothing
    features: Tensor  # (b, features) of the pair itself, possibly none
    graph: GraphBatch | None = None  # None where rows of all nodes are kept
    nodes: Tensor | None = None  # (m,) int64: which nodes the rows of the graph are


def join_ends(rows: Tensor, ends: Tensor, symmetric: Tensor) -> Tensor:
    """Rows of both ends side by side, (b, 2 w); of a single end its row, (b, w).

    Where the order of the ends means nothing they become their elementwise minimum and maximum, so that both
    orders give the same.

    Args:
        rows: (m, w).
        ends: (b, 1 or 2).
        symmetric: (b,) bool.
    """
    first = rows[ends[:, 0]]
    if ends.shape[1] == 1:
        return first
    second, either = rows[ends[:, 1]], symmetric[:, None]
    return torch.cat(
        [
            torch.where(either, torch.minimum(first, second), first),
            torch.where(either, torch.maximum(first, second), second),
        ],
        dim=1,
    )


class Head(nn.Module):
    """Two linear layers on joined ends, the kind of the target and the features of the pair.

    Inputs are standardised by the batch while training and by running means afterwards, since embeddings come at
    any scale; what lies more than FARTHEST deviations out counts as that far, so that a node unlike all training
    nodes does not throw a prediction off. Outputs are ``centre + scale * layers(...)``.

    Args:
        inputs: Width of the joined ends and the features of a pair together.
        kinds: How many kinds of targets there are.
        outputs: 1 for a number, else the number of classes.
        hidden: Width of the hidden layer.
        dropout: Share of hidden units left out while training.
        centre: Mean of the training labels.
        scale: Their standard deviation.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self,
        inputs: int,
        kinds: int,
        outputs: int,
        *,
        hidden: int = 144,
        dropout: float = 0.1,
        centre: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.kinds = kinds
        self.layers = nn.Sequential(
            nn.BatchNorm1d(inputs + kinds, affine=False),
            nn.Hardtanh(-FARTHEST, FARTHEST),
            nn.Linear(inputs + kinds, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, outputs),
        )
        self.register_buffer("centre", torch.tensor(float(centre)))
        self.register_buffer("scale", torch.tensor(float(scale)))

    def forward(self, rows: Tensor, portion: Portion) -> Tensor:
        """(m, width) rows to (b, outputs)."""
        kind = nn.functional.one_hot(portion.kind, self.kinds).to(rows.dtype)
        joined = join_ends(rows, portion.ends, portion.symmetric)
        inputs = torch.cat([joined, portion.features.to(rows.dtype), kind], dim=1)
        outputs: Tensor = self.centre + self.scale * self.layers(inputs)
        return outputs


class Kept(nn.Module):
    """Rows of all nodes, computed once: frozen embeddings, statistics, or both side by side."""

    table: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("table", table, persistent=False)
        self.width = table.shape[1]

    def forward(self, portion: Portion) -> Tensor:
        """All rows (nodes, width); a portion's ends are numbers of nodes."""
        return self.table


class Encoding(nn.Module):
    """An encoder's rows of a portion's nodes, trained with the head; statistics beside them where wanted.

    Args:
        encoder: Gives ``parts`` (m, width) for a GraphBatch of m nodes.
        statistics: (nodes, columns) of all nodes, possibly without columns.
    """

    statistics: Tensor

    def __init__(self, encoder: nn.Module, statistics: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("statistics", statistics, persistent=False)
        self.width = parts_width(encoder) + statistics.shape[1]

    def forward(self, portion: Portion) -> Tensor:
        """(m, width)."""
        return torch.cat([self.encoder(portion.graph).parts, self.statistics[portion.nodes]], dim=1)


class Network(nn.Module):
    """What makes rows of nodes, and the head that predicts from them."""

    def __init__(self, rows: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.rows = rows
        self.head = head

    def forward(self, portion: Portion) -> Tensor:
        """(b, outputs)."""
        outputs: Tensor = self.head(self.rows(portion), portion)
        return outputs


def parts_width(encoder: nn.Module) -> int:
    """Width of an encoder's rows of nodes."""
    width = getattr(encoder, "parts_width", getattr(encoder, "width", None))
    if not isinstance(width, int):
        raise TypeError(f"{type(encoder).__name__} has no width; an encoder says how wide its rows are")
    return width
