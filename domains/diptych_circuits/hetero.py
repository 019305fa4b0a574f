"""Circuits as torch-geometric's heterogeneous graphs, for models and samplers that take those."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import HeteroData

from diptych.study import Indices
from diptych_circuits.circuits import Circuits
from diptych_circuits.schema import COLUMNS, CouplingKind, EdgeKind, Kind

TYPES = {Kind.NET: "net", Kind.DEVICE: "device", Kind.PIN: "pin"}
RELATIONS = {EdgeKind.DEVICE_PIN: ("device", "has"), EdgeKind.PIN_NET: ("net", "joins")}
COUPLINGS = {
    CouplingKind.PIN_PIN: ("pin", "couples", "pin"),
    CouplingKind.PIN_NET: ("pin", "couples", "net"),
    CouplingKind.NET_NET: ("net", "couples", "net"),
}


def columns_of(kind: Kind) -> list[str]:
    """The columns of the node matrix that describe nodes of a kind, codes first."""
    name = TYPES[kind]
    return [each for each, meaning in COLUMNS.items() if meaning.startswith((f"{name}:", f"{name}, "))]


def hetero(circuits: Circuits, netlists: Indices) -> HeteroData:
    """Some netlists as one heterogeneous graph.

    Node types are "net", "device" and "pin", with ``x`` (n, columns_of(kind)) float32 in physical units, ``node`` the
    numbers in the circuits, and for nets and pins ``ground`` in farad (NaN unknown). Edge types are (device, has, pin)
    and (net, joins, pin) with their reverses (pin, rev_has, device) and (pin, rev_joins, net). Couplings are edge types
    of their own, (pin, couples, pin), (pin, couples, net) and (net, couples, net), one direction each, with
    ``farad``: targets, over which no messages should pass.
    """
    nodes = np.flatnonzero(circuits.in_netlists(netlists))
    kind = np.asarray(circuits.kind)[nodes]
    place = np.full(len(circuits), -1, np.int64)
    data = HeteroData()
    for each, name in TYPES.items():
        own = nodes[kind == each]
        place[own] = np.arange(len(own))
        columns = [list(COLUMNS).index(column) for column in columns_of(each)]
        data[name].x = torch.from_numpy(np.asarray(circuits.nodes[own], np.float32)[:, columns])
        data[name].node = torch.from_numpy(own.astype(np.int64))
        if each != Kind.DEVICE:
            data[name].ground = torch.from_numpy(np.asarray(circuits.ground[own], np.float64))
    source, target = np.asarray(circuits.edges)
    for edge_kind, (owner, relation) in RELATIONS.items():
        chosen = (
            (place[source] >= 0) & (circuits.edge_kind == edge_kind) & (circuits.kind[target] == Kind.PIN)
        )
        pair = torch.from_numpy(np.stack([place[source[chosen]], place[target[chosen]]]))
        data[owner, relation, "pin"].edge_index = pair
        data["pin", f"rev_{relation}", owner].edge_index = pair.flip(0)
    couplings = circuits.couplings
    for coupling_kind, types in COUPLINGS.items():
        chosen = (place[couplings.first] >= 0) & (couplings.kind == coupling_kind)
        ends = np.stack([place[couplings.first[chosen]], place[couplings.second[chosen]]])
        data[types].edge_index = torch.from_numpy(ends)
        data[types].farad = torch.from_numpy(np.asarray(couplings.farad[chosen], np.float64))
    return data
