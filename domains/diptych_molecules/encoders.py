"""The core's graph encoders, given the columns of atoms and bonds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from diptych.graphs import encoders, network
from diptych.graphs.readout import Readout
from diptych_molecules.columns import ATOM_SIZES, BOND_SIZES


class GIN(encoders.GIN):
    """A graph isomorphism network over all columns of atoms and bonds (Hu et al. 2020); see the core's.

    Args:
        hidden: width of a layer.
        depth: layers.
        readout: of a molecule's row from its atoms'.
        layers: "last" gives the last layer's rows, "all" those of all layers side by side.
        dropout: after every layer.
    """

    def __init__(
        self,
        *,
        hidden: int = 300,
        depth: int = 5,
        readout: Readout = "mean",
        layers: Literal["last", "all"] = "last",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            ATOM_SIZES,
            hidden=hidden,
            depth=depth,
            readout=readout,
            layers=layers,
            edge_features=BOND_SIZES,
            dropout=dropout,
        )


class Network(network.Network):
    """A network of torch-geometric, or of one's own, over all columns of atoms and bonds; see the core's.

    Args:
        network: the class path, such as "torch_geometric.nn.GAT".
        options: of the class.
        embed: the width at which the codes of atoms are looked up and added.
        edge_embed: the same of bonds, where the network takes them.
        readout: of a molecule's row from its atoms'.
    """

    def __init__(
        self,
        network: str,
        *,
        options: Mapping[str, Any] | None = None,
        embed: int = 64,
        edge_embed: int = 32,
        readout: Readout = "mean",
    ) -> None:
        super().__init__(
            network,
            ATOM_SIZES,
            options=options,
            embed=embed,
            edge_features=BOND_SIZES,
            edge_embed=edge_embed,
            readout=readout,
        )
