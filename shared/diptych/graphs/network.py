"""Any network of torch-geometric, or of one's own, as an encoder: named by its class path."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.features import Features, Inputs, columns_of
from diptych.graphs.readout import Readout, check_readout, read_out
from diptych.types import Encoded


class Network(nn.Module):
    """A network whose ``forward`` takes some of ``x``, ``edge_index``, ``edge_attr``, ``edge_weight`` and ``batch``.

    It returns one row per node, (m, width), as all of ``torch_geometric.nn.models`` do; what it is given goes by the
    names of its parameters. Integer codes are looked up first; numbers go in as they are.

    Args:
        network: the class path, such as "torch_geometric.nn.GAT".
        features: of nodes: how many columns of numbers, or how many codes each column has.
        options: of the class; ``in_channels`` is added where it has such a parameter and none is given.
        embed: the width at which codes are looked up; given for numbers too, a linear layer precedes the network.
        edge_features: of edges, as ``features``; None to leave them out.
        edge_embed: the width of ``edge_attr`` that codes are looked up at.
        edge_weight: the column of the edge features that is the weight of an edge.
        readout: of a graph's row from its nodes'.

    Raises:
        ConfigError: no such class, options it does not take, or what it returns is not one row per node.
    """

    def __init__(
        self,
        network: str,
        features: Features,
        *,
        options: Mapping[str, Any] | None = None,
        embed: int | None = None,
        edge_features: Features | None = None,
        edge_embed: int = 32,
        edge_weight: int | None = None,
        readout: Readout = "mean",
    ) -> None:
        super().__init__()
        check_readout(readout)
        codes = not isinstance(features, int)
        width_in = embed if embed is not None else (64 if codes else features)
        assert isinstance(width_in, int)
        self.features = features
        self.inputs = Inputs(features, width_in) if codes or embed is not None else None
        self.edge_columns = columns_of(edge_features)
        edge_codes = edge_features is not None and not isinstance(edge_features, int)
        self.edge_inputs = Inputs(edge_features, edge_embed) if edge_codes else None  # type: ignore[arg-type]
        self.edge_weight, self.readout = edge_weight, readout
        self.network = _made(network, dict(options or {}), width_in)
        self.takes = _parameters(self.network.forward)
        self._check_use_of_edges(network, edge_features)
        self.width = self._width(network)

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of graphs."""
        return read_out(batch, self._rows(batch), self.readout)

    def _rows(self, batch: GraphBatch) -> Tensor:
        x = batch.nodes.float() if self.inputs is None else self.inputs(batch.nodes)
        if batch.nodes.shape[1] != columns_of(self.features):
            raise DataError(
                f"the encoder was made for {columns_of(self.features)} columns of features, got {batch.nodes.shape[1]}"
            )
        given: dict[str, Any] = {"x": x, "edge_index": batch.edges, "batch": batch.graph}
        if self.edge_columns:
            if batch.edge_features is None:
                raise DataError("the encoder was made for edge features, but the batch has none")
            features = batch.edge_features
            given["edge_attr"] = features.float() if self.edge_inputs is None else self.edge_inputs(features)
            if self.edge_weight is not None:
                given["edge_weight"] = features[:, self.edge_weight].float()
                if self.edge_columns == 1:
                    del given["edge_attr"]  # the weight is all there is
        rows: Tensor = self.network(**{name: value for name, value in given.items() if name in self.takes})
        return rows

    def _check_use_of_edges(self, network: str, edge_features: Features | None) -> None:
        """A network that would not look at the edge features is refused: they were asked for."""
        if edge_features is None:
            return
        weighs = self.edge_weight is not None and "edge_weight" in self.takes
        weighs = weighs and getattr(self.network, "supports_edge_weight", True)
        attributes = "edge_attr" in self.takes and getattr(self.network, "supports_edge_attr", True)
        if not weighs and not attributes:
            raise ConfigError(
                f"{network} takes no edge_attr{' or edge_weight' if self.edge_weight is not None else ''}; leave the "
                "edge features out, say which column is edge_weight, or take a network that uses them"
            )

    def _width(self, network: str) -> int:
        """The width of the rows, from two nodes and two edges; layers of lazy width take theirs here."""
        nodes = torch.zeros(
            2,
            columns_of(self.features),
            dtype=torch.float32 if isinstance(self.features, int) else torch.int64,
        )
        kind = torch.float32 if self.edge_inputs is None else torch.int64
        features = torch.zeros(2, self.edge_columns, dtype=kind) if self.edge_columns else None
        tiny = GraphBatch(
            nodes, torch.tensor([[0, 1], [1, 0]]), features, torch.zeros(2, dtype=torch.int64), 1
        )
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                rows = self._rows(tiny)
        except (TypeError, RuntimeError, ValueError, AssertionError) as error:
            raise ConfigError(f"{network} cannot encode two nodes of this data: {error}") from error
        self.train(training)
        if not isinstance(rows, Tensor) or rows.ndim != 2 or len(rows) != 2:
            got = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise ConfigError(
                f"{network} must return one row per node, (2, width) for 2 nodes, got {got}; its readout is done here"
            )
        return int(rows.shape[1])


def _made(path: str, options: dict[str, Any], width_in: int) -> nn.Module:
    """The network of a class path."""
    module, _, name = path.rpartition(".")
    try:
        made: Any = getattr(import_module(module), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"there is no network {path!r}: {error}; give a class path such as torch_geometric.nn.GAT"
        ) from error
    if not (isinstance(made, type) and issubclass(made, nn.Module)):
        raise ConfigError(f"{path!r} is not a class of torch networks (torch.nn.Module)")
    if "in_channels" in _parameters(made.__init__) and "in_channels" not in options:
        options["in_channels"] = width_in
    try:
        return made(**options)
    except (TypeError, ValueError, AssertionError) as error:
        raise ConfigError(f"{path} does not take the options {options}: {error}") from error


def _parameters(call: Any) -> frozenset[str]:
    return frozenset(inspect.signature(call).parameters)
