"""What columns the nodes and edges of a data set have, and the core's encoders that are given them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diptych.graphs import encoders
from diptych.graphs.features import Features
from diptych.graphs.readout import Readout


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Of nodes and edges: how many columns of numbers, or how many codes each column of codes has."""

    nodes: Features
    edges: Features | None = None


class GIN(encoders.GIN):
    """A graph isomorphism network (Xu et al. 2019), with the edges' features where there are any (Hu et al. 2020).

    Args:
        columns: of nodes and edges.
        hidden: width of a layer.
        depth: layers.
        readout: of a graph's row from its nodes'.
        layers: "last" gives the last layer's rows, "all" those of all layers side by side.
        dropout: after every layer.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        hidden: int = 64,
        depth: int = 4,
        readout: Readout = "mean",
        layers: Literal["last", "all"] = "last",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            columns.nodes,
            hidden=hidden,
            depth=depth,
            readout=readout,
            layers=layers,
            edge_features=columns.edges,
            dropout=dropout,
        )


class GCN(encoders.GCN):
    """A graph convolutional network (Kipf & Welling 2017); the edges' features are left alone.

    Args:
        columns: of nodes.
        widths: of the layers.
        activation: after every layer.
        norm: batch norm before the activation.
        readout: of a graph's row from its nodes'.
        dropout: before every layer.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        widths: Sequence[int] = (256, 128),
        activation: Literal["relu", "prelu", "none"] = "relu",
        norm: bool = False,
        readout: Readout = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            columns.nodes, widths=widths, activation=activation, norm=norm, readout=readout, dropout=dropout
        )


class Network(encoders.Network):
    """A network of torch-geometric, or of one's own, by class path; see the core's.

    Args:
        columns: of nodes and edges.
        network: the class path, such as "torch_geometric.nn.GAT".
        options: of the class.
        embed: the width at which codes are looked up.
        edge_embed: the same of edges.
        edge_weight: the column of the edges' features that is the weight of an edge.
        readout: of a graph's row from its nodes'.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        network: str,
        options: Mapping[str, Any] | None = None,
        embed: int | None = None,
        edge_embed: int = 32,
        edge_weight: int | None = None,
        readout: Readout = "mean",
    ) -> None:
        super().__init__(
            network,
            columns.nodes,
            options=options,
            embed=embed,
            edge_features=columns.edges,
            edge_embed=edge_embed,
            edge_weight=edge_weight,
            readout=readout,
        )
