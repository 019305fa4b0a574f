"""What evaluations take from a study of circuits: targets with their splits, features of nodes and pairs, portions."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError
from diptych.evaluation.metrics import Floats
from diptych.study import Indices, Study
from diptych_circuits.circuits import Circuits
from diptych_circuits.neighbourly import Surroundings, pair_features, with_context
from diptych_circuits.schema import CODES, COLUMNS, DeviceType, Kind, PinKind
from diptych_circuits.study import CircuitStudy
from diptych_circuits.targets import Targets, split_positions

Between = Literal["terminals", "nets"]

KINDS = ("pin-pin", "pin-net", "net-net")
SYMMETRIC = np.array([True, False, True])
STATISTICS = "of a node, its devices and its nets"
_SIZES = {"kind": len(Kind), "device_type": len(DeviceType), "pin_kind": len(PinKind)}


def circuit_study(study: Study) -> CircuitStudy:
    """The study itself. Raises ConfigError where it is none of circuits."""
    if not isinstance(study, CircuitStudy):
        raise ConfigError(f"this evaluation needs a study of netlists; got a {type(study).__name__}")
    return study


def coupling_targets(study: CircuitStudy, between: Between = "terminals") -> Targets:
    """The couplings of all netlists.

    Args:
        study: The netlists and their splits.
        between: "terminals" takes couplings between pins and nets as they are; "nets" adds those of pins to those
            of the nets that the pins are on, as extractors at the level of nets give them. Couplings within a net,
            and of pins whose net is no node (supplies), are left out then.
    """
    circuits = study.circuits
    if between not in get_args(Between):
        raise ConfigError(f"between is {' or '.join(map(repr, get_args(Between)))}; got {between!r}")
    found = circuits.couplings
    ends = np.column_stack([found.first, found.second]).astype(np.int64)
    kind, farad = found.kind.astype(np.int64), np.asarray(found.farad, np.float64)
    if between == "nets":
        ends, farad = _by_net(circuits, ends, farad)
        kind = np.full(len(farad), KINDS.index("net-net"))
    return _targets(study, ends, kind, KINDS, SYMMETRIC, farad)


def ground_targets(study: CircuitStudy) -> Targets:
    """The capacitance to ground of all nets that have one."""
    circuits = study.circuits
    farad = np.asarray(circuits.ground, np.float64)
    nets = np.flatnonzero((circuits.kind == Kind.NET) & np.isfinite(farad) & (np.nan_to_num(farad) > 0))
    return _targets(
        study, nets[:, None], np.zeros(len(nets), np.int64), ("net",), np.array([True]), farad[nets]
    )


def node_statistics(circuits: Circuits, around: Surroundings) -> Floats:
    """(N, columns) what is known of nodes without an encoder: logarithms of numbers, one column a code, and context."""
    numbers = [place for place, name in enumerate(COLUMNS) if name not in CODES]
    parts = [np.log1p(np.asarray(circuits.nodes[:, numbers], np.float64))]
    parts += [np.eye(_SIZES[name])[circuits.column(name).astype(np.int64)] for name in CODES]
    return with_context(np.concatenate(parts, axis=1), around)


def surroundings_of(circuits: Circuits) -> Surroundings:
    """The sparse matrices that features are made of."""
    return Surroundings(
        np.asarray(circuits.edges), np.asarray(circuits.kind), net=Kind.NET, device=Kind.DEVICE
    )


def features_of_pairs(around: Surroundings, targets: Targets) -> Floats:
    """(n, features) of pairs; none where a target is a single node."""
    if targets.ends.shape[1] == 1:
        return np.zeros((len(targets.farad), 0))
    return pair_features(around, targets.ends[:, 0], targets.ends[:, 1])


def _targets(
    study: CircuitStudy,
    ends: Indices,
    kind: Indices,
    kinds: tuple[str, ...],
    symmetric: NDArray[np.bool_],
    farad: Floats,
) -> Targets:
    rows = study.samples.ids.iloc[ends[:, 0]]
    return Targets(
        ends=ends,
        kind=kind,
        kinds=kinds,
        symmetric=symmetric,
        farad=farad,
        design=rows["patient"].to_numpy(dtype=np.str_),
        **split_positions(rows["split"].to_numpy(dtype=np.str_)),
    )


def net_of(circuits: Circuits) -> Indices:
    """(N,) the net of each node: a net's is itself, a pin's the one it is on; -1 for devices and unconnected pins."""
    found = np.full(len(circuits), -1, dtype=np.int64)
    nets = circuits.where(Kind.NET)
    found[nets] = nets
    source, target = np.asarray(circuits.edges)
    on = (circuits.kind[source] == Kind.NET) & (circuits.kind[target] == Kind.PIN)
    found[target[on]] = source[on]
    return found


def _by_net(circuits: Circuits, ends: Indices, farad: Floats) -> tuple[Indices, Floats]:
    """Couplings between two nets, each pair once, with the sum of what lies between them."""
    nets = np.sort(net_of(circuits)[ends], axis=1)
    known = (nets[:, 0] >= 0) & (nets[:, 0] != nets[:, 1])
    pairs, place = np.unique(nets[known], axis=0, return_inverse=True)
    total = np.bincount(place.ravel(), weights=farad[known], minlength=len(pairs))
    return pairs.astype(np.int64), total.astype(np.float64)
