"""Readouts of molecules that are trained with their encoder: from rows of atoms to one row per molecule.

Letters: m atoms, n molecules, a kinds of shared parts (attribute values that several atoms of a molecule share).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.graphs.segments import segment_max, segment_sum


class WeightedSumAndMax(nn.Module):
    """[ sum_v sigmoid(w . x_v + b) x_v  ||  max_v x_v ], the readout of KCL's original view; no atoms give 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 1)
        self.width = 2 * width

    def forward(self, x: Tensor, graph: Tensor, graphs: int) -> Tensor:
        """Rows of atoms (m, width) to rows of molecules (n, 2 width)."""
        weighted = segment_sum(self.gate(x).sigmoid() * x, graph, graphs)
        return torch.cat([weighted, segment_max(x, graph, graphs)], dim=1)


class Set2Set(nn.Module):
    """An LSTM that reads a set by attention (Vinyals et al. 2016, "Order Matters", equations 3 to 7).

    In each iteration q = LSTM(q*), alpha = softmax_v(x_v . q), r = sum_v alpha_v x_v and q* = [q || r]; the row is
    the last q*. A molecule without parts has r = 0.

    Args:
        width: of the parts; a molecule's row is twice as wide.
        iterations: of reading.
        layers: of the LSTM.

    Raises:
        ConfigError: less than one iteration or layer.
    """

    def __init__(self, width: int, *, iterations: int = 6, layers: int = 3) -> None:
        super().__init__()
        if min(width, iterations, layers) < 1:
            raise ConfigError(
                f"Set2Set needs a width, iterations and layers of at least 1, got {width}, {iterations}, {layers}"
            )
        self.lstm = nn.LSTM(2 * width, width, layers)
        self.iterations, self.layers = iterations, layers
        self.width = 2 * width

    def forward(
        self,
        x: Tensor,
        graph: Tensor,
        graphs: int,
        shared: Tensor | None = None,
        present: Tensor | None = None,
    ) -> Tensor:
        """Rows of atoms (m, width), and of what molecules share, to rows of molecules (n, 2 width).

        ``shared`` (a, width) are rows that belong to every molecule for which ``present`` (n, a) is true: members
        of its set like its own atoms, held once for the whole batch.
        """
        n, width = graphs, self.width // 2
        read = x.new_zeros(n, 2 * width)
        state = [(x.new_zeros(n, width), x.new_zeros(n, width))] * self.layers
        for _ in range(self.iterations):
            query = read
            for layer, weights in enumerate(self.lstm.all_weights):
                # one step at a time: the cell has a fraction of the overhead of a whole LSTM's call
                state[layer] = torch.lstm_cell(query, state[layer], *weights)
                query = state[layer][0]
            read = torch.cat([query, self._attend(query, x, graph, shared, present)], dim=1)
        return read

    @staticmethod
    def _attend(
        query: Tensor, x: Tensor, graph: Tensor, shared: Tensor | None, present: Tensor | None
    ) -> Tensor:
        """What the queries (n, width) read: the softmax runs over atoms and shared parts together."""
        n = len(query)
        scores = (x * query.index_select(0, graph)).sum(
            1
        )  # its gradient is quicker than that of query[graph]
        most = x.new_full((n,), -torch.inf).scatter_reduce(0, graph, scores.detach(), "amax")
        if shared is None or present is None or not len(shared):
            weights = (scores - most[graph]).exp()
            total, read = segment_sum(weights, graph, n), segment_sum(weights[:, None] * x, graph, n)
            return read / total.clamp(min=torch.finfo(x.dtype).tiny)[:, None]
        wide = (query @ shared.T).masked_fill(~present, -torch.inf)
        most = torch.maximum(most, wide.detach().amax(1)).clamp(min=torch.finfo(x.dtype).min)
        weights, shares = (scores - most[graph]).exp(), (wide - most[:, None]).exp()
        total = segment_sum(weights, graph, n) + shares.sum(1)
        read = segment_sum(weights[:, None] * x, graph, n) + shares @ shared
        return read / total.clamp(min=torch.finfo(x.dtype).tiny)[:, None]
