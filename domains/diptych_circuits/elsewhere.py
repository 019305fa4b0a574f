"""Testing on other netlists than those that heads are trained on: another process, extractor or kind of circuit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from diptych.errors import DataError
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
    netlist = np.asarray(other.circuits.netlist)
    ids = study.samples.ids
    known = set(ids.loc[ids["split"] != "test", "patient"].astype(str))
    split = np.where(other.table["patient"].isin(known), "", "test")
    if not np.any(split == "test"):
        raise DataError(
            f"all {len(split)} netlists at {path!r} are of designs that the study trains on or validates with; "
            "expected others to test on"
        )
    added = {name: other.table[name].to_numpy()[netlist] for name in ("patient", "recording")}
    added |= {"trial": added["recording"], "split": split[netlist]}
    columns = {
        name: np.concatenate([ids[name].astype(str).to_numpy(), added[name].astype(str)]) for name in added
    }
    columns["split"][: len(ids)][columns["split"][: len(ids)] == "test"] = ""
    circuits = both(study.circuits, other.circuits)
    samples = replace(
        study.samples,
        ids=pd.DataFrame({name: pd.Categorical(values) for name, values in columns.items()}),
        labels=pd.DataFrame(index=range(len(circuits))),
    )
    old = study.graphs
    left = len(np.unique(other.table["patient"][split != "test"]))
    notes = [f"tested on {int(np.sum(split == 'test'))} other netlists, which are of no training design"]
    if left:
        notes.append(
            f"{left} designs of the other netlists are left out: heads are trained or chosen on designs of these names"
        )
    graphs = Graphs(circuits, old.scale, old.scaling, old.sampling)
    return replace(study, circuits=circuits, graphs=graphs, samples=samples), notes


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
