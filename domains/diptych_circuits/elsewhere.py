"""Testing on other netlists than those that heads are trained on: another process, extractor or kind of circuit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from diptych.errors import DataError
from diptych.study import Indices
from diptych_circuits.circuits import Circuits, Couplings
from diptych_circuits.study import CircuitStudy, Graphs


def tested_elsewhere(study: CircuitStudy, path: str | None) -> tuple[CircuitStudy, list[str]]:
    """The study with the netlists at another path as its test designs, and notes; the study itself without a path.

    They are read and normalised as the study's own are. Designs that the study trains on or validates with are left
    out, for their netlists would give the answers away; the study's own test designs are not tested.

    Raises:
        DataError: no design is left to test.
    """
    if path is None:
        return study, []
    other = study.read(path)
    ids = study.samples.ids
    known = set(ids.loc[ids["split"] != "test", "patient"].astype(str))
    tested = np.flatnonzero(~other.table["patient"].isin(known).to_numpy())
    if not len(tested):
        raise DataError(
            f"all {len(other.table)} netlists at {path!r} are of designs that the study trains on or validates with; "
            "expected others to test on"
        )
    split = ids["split"].astype(str).to_numpy()
    kept = np.flatnonzero(split[study.circuits.starts[:-1]] != "test")
    circuits = both(chosen_netlists(study.circuits, kept), chosen_netlists(other.circuits, tested))
    new = other.table.iloc[tested]
    sizes = np.diff(other.circuits.starts)[tested]
    columns = {
        name: np.concatenate(
            [ids[name].astype(str).to_numpy()[split != "test"], np.repeat(new[name].to_numpy(), sizes)]
        )
        for name in ("patient", "recording")
    }
    columns["trial"] = columns["recording"]
    columns["split"] = np.concatenate([split[split != "test"], np.full(int(sizes.sum()), "test")])
    samples = replace(
        study.samples,
        ids=pd.DataFrame({name: pd.Categorical(values.astype(str)) for name, values in columns.items()}),
        labels=pd.DataFrame(index=range(len(circuits))),
    )
    notes = [
        f"tested on {len(tested)} other netlists, of {new['patient'].nunique()} designs, none of them a training design"
    ]
    if left := other.table["patient"].nunique() - new["patient"].nunique():
        notes.append(
            f"{left} designs of the other netlists are left out: the study trains on or validates with them"
        )
    old = study.graphs
    graphs = Graphs(circuits, old.scale, old.scaling, old.sampling)
    return replace(study, circuits=circuits, graphs=graphs, samples=samples), notes


def chosen_netlists(circuits: Circuits, netlists: Indices) -> Circuits:
    """Some netlists of a data set, as one of its own; in memory."""
    mask = circuits.in_netlists(netlists)
    number = np.where(mask, np.cumsum(mask) - 1, -1)
    edges = mask[circuits.edges[0]]
    found = circuits.couplings
    couplings = mask[found.first]
    sizes = np.diff(circuits.starts)[netlists]
    return Circuits(
        nodes=circuits.nodes[mask],
        kind=circuits.kind[mask],
        edges=number[circuits.edges[:, edges]],
        edge_kind=circuits.edge_kind[edges],
        netlist=np.repeat(np.arange(len(netlists)), sizes).astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(sizes)]),
        ground=circuits.ground[mask],
        resistance=circuits.resistance[mask],
        couplings=Couplings(
            first=number[found.first[couplings]],
            second=number[found.second[couplings]],
            farad=found.farad[couplings],
            kind=found.kind[couplings],
        ),
        netlists=[circuits.netlists[i] for i in netlists.tolist()],
        designs=[circuits.designs[i] for i in netlists.tolist()],
        names_of=lambda place: circuits.names_of(int(netlists[place])),
    )


def both(one: Circuits, other: Circuits) -> Circuits:
    """Two data sets as one, the other's netlists after those of the one; in memory."""
    nodes, netlists = len(one), len(one.netlists)
    return Circuits(
        nodes=np.concatenate([one.nodes, other.nodes]),
        kind=np.concatenate([one.kind, other.kind]),
        edges=np.concatenate([one.edges, other.edges + nodes], axis=1),
        edge_kind=np.concatenate([one.edge_kind, other.edge_kind]),
        netlist=np.concatenate([one.netlist, other.netlist + netlists]).astype(np.int32),
        starts=np.concatenate([one.starts, other.starts[1:] + nodes]),
        ground=np.concatenate([one.ground, other.ground]),
        resistance=np.concatenate([one.resistance, other.resistance]),
        couplings=Couplings(
            first=np.concatenate([one.couplings.first, other.couplings.first + nodes]),
            second=np.concatenate([one.couplings.second, other.couplings.second + nodes]),
            farad=np.concatenate([one.couplings.farad, other.couplings.farad]),
            kind=np.concatenate([one.couplings.kind, other.couplings.kind]),
        ),
        netlists=[*one.netlists, *other.netlists],
        designs=[*one.designs, *other.designs],
        names_of=lambda number: (
            one.names_of(number) if number < netlists else other.names_of(number - netlists)
        ),
    )
