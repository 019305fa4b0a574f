"""All netlists of a data set as one graph: arrays that may be memory maps, so that big designs need no memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych_circuits.schema import COLUMN, Kind

Integers = NDArray[np.int64]
Codes = NDArray[np.int8]


@dataclass(frozen=True, kw_only=True)
class Couplings:
    """Coupling capacitances between two nodes, each pair once, merged over the segments of a net."""

    first: Integers  # (c,) node
    second: Integers  # (c,) node; of a pin-net coupling the net
    farad: NDArray[np.float64]  # (c,) above 0
    kind: Codes  # (c,) CouplingKind

    def __len__(self) -> int:
        return len(self.first)


@dataclass(frozen=True, kw_only=True)
class Circuits:
    """The graph of all netlists, one after the other: nodes of a netlist are contiguous (``starts``).

    Inside a netlist nets come first, then devices, then pins in the order of their devices.
    """

    nodes: NDArray[np.float32]  # (N, schema.WIDTH), physical units: see diptych_circuits.schema.COLUMNS
    kind: Codes  # (N,) Kind
    edges: Integers  # (2, E) both directions
    edge_kind: Codes  # (E,) EdgeKind
    netlist: NDArray[np.int32]  # (N,) which netlist
    starts: Integers  # (netlists + 1,) first node of each netlist
    ground: NDArray[np.float64]  # (N,) farad to ground, of nets and of pins where it is given; NaN unknown
    resistance: NDArray[
        np.float64
    ]  # (N,) ohm: sum of the resistors of a net's network; NaN where none is given
    couplings: Couplings
    netlists: Sequence[str]  # path of each netlist below the data folder
    designs: Sequence[str]  # design (cell family, block) of each netlist: the unit of splits
    names_of: Callable[[int], Sequence[str]] = field(
        repr=False
    )  # netlist -> names of its nodes, read when asked

    def __len__(self) -> int:
        return len(self.kind)

    def column(self, name: str) -> NDArray[np.float32]:
        """One named column of the node matrix, (N,)."""
        return self.nodes[:, COLUMN[name]]

    def where(self, kind: Kind) -> Integers:
        """The nodes of one kind, in order."""
        return np.flatnonzero(self.kind == kind).astype(np.int64)

    def name(self, node: int) -> str:
        """The name of a node: a net's, a device's, or "device:terminal" of a pin."""
        netlist = int(self.netlist[node])
        return self.names_of(netlist)[node - int(self.starts[netlist])]

    def described(self, nodes: Integers) -> pd.DataFrame:
        """The netlist that each of the nodes is of, its kind and its name there."""
        names: dict[int, Sequence[str]] = {
            int(each): self.names_of(int(each)) for each in np.unique(self.netlist[nodes])
        }
        within = nodes - self.starts[self.netlist[nodes]]
        owners = self.netlist[nodes].tolist()
        return pd.DataFrame(
            {
                "netlist": [self.netlists[each] for each in owners],
                "kind": [Kind(each).name.lower() for each in self.kind[nodes].tolist()],
                "name": [names[owner][place] for owner, place in zip(owners, within.tolist(), strict=True)],
            }
        )

    def in_netlists(self, netlists: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which nodes belong to these netlists, (N,)."""
        chosen = np.zeros(len(self.netlists), bool)
        chosen[netlists] = True
        return np.asarray(chosen[self.netlist])
