"""The encoder of KCL's original view (Fang et al. 2022): a small graph convolution that sums over neighbours.

Letters: m atoms, e directed bonds, n molecules.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.features import Inputs
from diptych.graphs.segments import segment_sum
from diptych.types import Encoded
from diptych_molecules.columns import ATOM_SIZES, ATOMIC_NUMBER, BOND_SIZES
from diptych_molecules.readouts import Set2Set, WeightedSumAndMax

Features = Literal["element", "all"]


class GCN(nn.Module):
    """x_v <- GELU( sum_{u -> v} x_u W + b ) + GELU( x_v R + c ), without degree normalisation or self loops.

    Args:
        features: "element" sees atomic numbers and which atoms are bonded, as KCL does. "all" adds up the tables of
            all columns of atoms, and a neighbour's message is GELU(x_u + row of the bond) W with a row from all
            columns of bonds in every layer.
        embedding: width of an atom before the first layer.
        hidden: width of a layer.
        depth: layers.
        readout: "weighted" is the gated sum and the maximum, "set2set" an LSTM that reads the atoms.
        layers: "last" reads the last layer's atoms, as KCL does; "all" those of the input and of every layer, each
            with a readout of its own, side by side: what atoms there are stays in view beside their surroundings.
        dropout: after every layer.

    ``width`` is twice ``hidden``, with layers "all" twice ``embedding`` + ``depth`` times ``hidden``; ``parts`` are the
    atoms, ``hidden`` wide.
    """

    def __init__(
        self,
        *,
        features: Features = "element",
        embedding: int = 128,
        hidden: int = 64,
        depth: int = 2,
        readout: Literal["weighted", "set2set"] = "weighted",
        layers: Literal["last", "all"] = "last",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if min(embedding, hidden, depth) < 1:
            raise ConfigError(
                "the graph convolution needs an embedding, hidden and depth of at least 1, got "
                f"{embedding}, {hidden} and {depth}"
            )
        if features not in ("element", "all"):
            raise ConfigError(f"features are element or all, got {features!r}")
        if readout not in ("weighted", "set2set"):
            raise ConfigError(f"the readout is weighted or set2set, got {readout!r}")
        if layers not in ("last", "all"):
            raise ConfigError(f"layers are last or all, got {layers!r}")
        self.features, self.layers = features, layers
        self.atoms = Inputs(ATOM_SIZES[:1] if features == "element" else ATOM_SIZES, embedding)
        widths = [embedding, *[hidden] * (depth - 1)]
        self.neighbours = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.own = nn.ModuleList(nn.Linear(width, hidden) for width in widths)
        self.bonds = nn.ModuleList(Inputs(BOND_SIZES, width) for width in widths if features == "all")
        kind = Set2Set if readout == "set2set" else WeightedSumAndMax
        read = [embedding, *[hidden] * depth] if layers == "all" else [hidden]
        self.readouts = nn.ModuleList(kind(width) for width in read)
        self.dropout = dropout
        self.width, self.parts_width = 2 * sum(read), hidden

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of molecules."""
        columns = batch.nodes[:, ATOMIC_NUMBER : ATOMIC_NUMBER + 1]
        x = self.atoms(columns if self.features == "element" else batch.nodes)
        rows = [x]
        for layer, (neighbours, own) in enumerate(zip(self.neighbours, self.own, strict=True)):
            gathered = segment_sum(self._messages(x, batch, layer), batch.edges[1], len(x))
            x = F.gelu(neighbours(gathered)) + F.gelu(own(x))
            x = F.dropout(x, self.dropout, self.training)
            rows.append(x)
        read = rows if self.layers == "all" else rows[-1:]
        wholes = [
            readout(each, batch.graph, batch.graphs)
            for readout, each in zip(self.readouts, read, strict=True)
        ]
        return Encoded(torch.cat(wholes, dim=1), x)

    def _messages(self, x: Tensor, batch: GraphBatch, layer: int) -> Tensor:
        """What goes along each bond, (e, width); the layer's matrix follows the sum, being linear."""
        sent = x[batch.edges[0]]
        if not self.bonds:
            return sent
        if batch.edge_features is None:
            raise DataError("the encoder sees bonds (features: all), but the batch has no edge features")
        return F.gelu(sent + self.bonds[layer](batch.edge_features))
