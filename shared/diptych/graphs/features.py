"""Features of nodes and edges, numbers or integer codes, as rows of one width."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, DataError

Features = int | Sequence[int]


def columns_of(features: Features | None) -> int:
    """How many columns of features there are."""
    if features is None:
        return 0
    return features if isinstance(features, int) else len(features)


class Inputs(nn.Module):
    """Features of nodes or edges to rows of one width.

    Args:
        features: how many columns of numbers, which a linear layer takes; or for integer codes the number of codes
            of each column, which are looked up in a table each and added.
        width: of the rows.

    Raises:
        ConfigError: no columns, or a table of no codes.
    """

    def __init__(self, features: Features, width: int) -> None:
        super().__init__()
        sizes = [features] if isinstance(features, int) else list(features)
        if not sizes or min(sizes) < 1:
            raise ConfigError(
                f"features are a number of columns, or how many codes each column has; got {features}"
            )
        self.numbers = nn.Linear(features, width) if isinstance(features, int) else None
        self.tables = nn.ModuleList(
            [] if isinstance(features, int) else [nn.Embedding(size, width) for size in sizes]
        )
        self.columns = features if isinstance(features, int) else len(sizes)
        self.width = width

    def forward(self, features: Tensor) -> Tensor:
        """(rows, columns) to (rows, width)."""
        if features.ndim != 2 or features.shape[1] != self.columns:
            raise DataError(
                f"the encoder was made for {self.columns} columns of features, got {tuple(features.shape)}"
            )
        if self.numbers is not None:
            rows: Tensor = self.numbers(features.to(self.numbers.weight.dtype))
            return rows
        looked_up = [table(column) for table, column in zip(self.tables, features.long().T, strict=True)]
        return torch.stack(looked_up).sum(0)
