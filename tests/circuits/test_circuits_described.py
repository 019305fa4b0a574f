"""What embed says of a node: its netlist, its kind and its name there."""

from pathlib import Path

import numpy as np
from studies import make_study


def test_nodes_are_described_by_netlist_kind_and_name(tmp_path: Path) -> None:
    study = make_study(tmp_path / "cache")
    nodes = np.array([5, 700, 0], np.int64)
    frame = study.described(nodes)
    assert frame["name"].tolist() == [study.circuits.name(int(node)) for node in nodes]
    assert frame["netlist"].tolist() == [
        study.circuits.netlists[study.circuits.netlist[node]] for node in nodes
    ]
    assert set(frame["kind"]) <= {"net", "device", "pin"}
    assert frame["name"].map(lambda name: ":" in name).tolist() == (frame["kind"] == "pin").tolist()
