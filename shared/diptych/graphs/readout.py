"""From rows of nodes to rows of graphs, or of the nodes that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_max, segment_mean, segment_sum
from diptych.types import Encoded

Readout = Literal["mean", "sum", "max"]
READOUTS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "mean": segment_mean,
    "sum": segment_sum,
    "max": segment_max,
}


def check_readout(readout: str) -> None:
    """Raises ConfigError when there is no such readout."""
    if readout not in READOUTS:
        raise ConfigError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}")


def read_out(batch: GraphBatch, parts: Tensor, readout: Readout) -> Encoded:
    """Rows of nodes (m, width) with the rows of their graphs, or of the roots where the batch has any."""
    if batch.roots is not None:
        return Encoded(parts[batch.roots], parts)
    return Encoded(READOUTS[readout](parts, batch.graph, batch.graphs), parts)
