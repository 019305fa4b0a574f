"""The heads that predict parasitics of new netlists: trained on a run's designs, kept beside its encoder, applied.

Three heads on frozen embeddings and statistics: whether a pair couples, by how much, and a net's capacitance to
ground. A pair that couples is rare among all pairs and not among those that a head is trained on; the head's odds are
therefore multiplied, by kind, with the share of pairs without coupling that it saw (King & Zeng 2001, "Logistic
regression in rare events data", equation 7).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diptych.errors import DataError, UserError
from diptych.evaluation.metrics import Floats
from diptych.study import Indices
from diptych.weights import read_metadata, read_weights, save_encoder
from diptych_circuits.circuits import Circuits
from diptych_circuits.evaluated import (
    KINDS,
    SYMMETRIC,
    coupling_targets,
    features_of_pairs,
    ground_targets,
    node_statistics,
    surroundings_of,
)
from diptych_circuits.fitting import predict
from diptych_circuits.heads import Head, Kept, Network
from diptych_circuits.links_evaluated import with_negatives
from diptych_circuits.options import Options
from diptych_circuits.portions import Tables, node_rows, random_portions
from diptych_circuits.ranges import Range, range_of
from diptych_circuits.schema import Kind
from diptych_circuits.study import CircuitStudy, Graphs
from diptych_circuits.targets import Targets
from diptych_circuits.trial import NODES_AT_ONCE, Trial

NEGATIVES = 4.0  # pairs without coupling for each coupling
BATCH = 16_384  # pairs that are predicted at once
OPTIONS = Options(fractions=(1.0,), seeds=1)


@dataclass(frozen=True, kw_only=True)
class TrainedHead:
    """One head with what it was trained on."""

    head: Head
    columns: Indices  # of the node statistics that it is given
    facts: Mapping[
        str, Any
    ]  # its range in farad, or its log odds by kind; designs and targets of its training


@dataclass(frozen=True, kw_only=True)
class Parasitics:
    """What is predicted of a netlist: pairs of nodes with the probability that they couple, and nets to ground."""

    pairs: Indices  # (p, 2) nodes
    kind: Indices  # (p,) which of KINDS
    probability: Floats  # (p,)
    farad: Floats  # (p,) of the pair, if it couples
    nets: Indices  # (g,) nodes
    ground: Floats  # (g,) farad


def train_heads(study: CircuitStudy, encoder: nn.Module) -> dict[str, TrainedHead]:
    """The heads "links" and "coupling", where netlists have couplings, and "ground", where they have any.

    Raises DataError where no training design has either.
    """
    heads: dict[str, TrainedHead] = {}
    couplings = coupling_targets(study)
    if len(np.unique(couplings.farad[couplings.train])) > 1:
        heads["coupling"] = _numbers(study, encoder, couplings)
        heads["links"] = _links(study, encoder, couplings)
    ground = ground_targets(study)
    if len(np.unique(ground.farad[ground.train])) > 1:
        heads["ground"] = _numbers(study, encoder, ground)
    if not heads:
        raise DataError(
            "no training design of this run has parasitic capacitances, so no head can be trained; give a run that was "
            "pretrained on post-layout netlists"
        )
    return heads


def _numbers(study: CircuitStudy, encoder: nn.Module, targets: Targets) -> TrainedHead:
    limits = range_of(targets.farad[targets.train])
    trial = Trial(study, targets, limits.label(targets.farad), 0, OPTIONS, loss="mse", distances=True)
    return _trained(trial, encoder, {"low": limits.low, "high": limits.high})


def _links(study: CircuitStudy, encoder: nn.Module, couplings: Targets) -> TrainedHead:
    targets, labels = with_negatives(study.circuits, couplings, NEGATIVES, seed=0)
    trial = Trial(study, targets, labels, 2, OPTIONS, loss="ce", distances=True)
    kind, train = targets.kind[targets.train], labels[targets.train]
    coupled = np.bincount(kind[train == 1], minlength=len(KINDS))
    seen = np.bincount(kind[train == 0], minlength=len(KINDS))
    netlists = np.unique(np.asarray(study.circuits.netlist)[targets.ends[targets.train, 0]])
    there = pairs_of_kinds(study.circuits, netlists) - coupled
    odds = [float(np.log(max(s, 1) / max(t, 1))) for s, t in zip(seen, there, strict=True)]
    return _trained(trial, encoder, {"log_odds": odds, "couplings": coupled.tolist()})


def _trained(trial: Trial, encoder: nn.Module, facts: Mapping[str, Any]) -> TrainedHead:
    targets = trial.targets
    network = trial.trained(trial.rows_of(trial.embedded(encoder)), targets.train, 0)
    designs = len(np.unique(targets.design[targets.train]))
    return TrainedHead(
        head=network.head.eval(),  # type: ignore[arg-type]
        columns=trial.columns,
        facts={**facts, "kinds": len(targets.kinds), "designs": designs, "targets": len(targets.train)},
    )


def save_heads(heads: Mapping[str, TrainedHead], path: Path) -> None:
    """Writes all heads to one safetensors file."""
    module = nn.ModuleDict({name: each.head for name, each in heads.items()})
    facts = {name: {**each.facts, "columns": each.columns.tolist()} for name, each in heads.items()}
    save_encoder(module, path, {"heads": json.dumps(facts, sort_keys=True)})


def load_heads(path: Path) -> dict[str, TrainedHead]:
    """What :func:`save_heads` wrote. Raises UserError where it is no such file."""
    weights = read_weights(path)
    try:
        known = json.loads(read_metadata(path)["heads"])
        return {name: _loaded(name, facts, weights) for name, facts in known.items()}
    except (KeyError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path} holds no heads of this version ({error}); delete it, and they are trained anew"
        ) from error


def _loaded(name: str, facts: dict[str, Any], weights: Mapping[str, Tensor]) -> TrainedHead:
    state = {
        key.removeprefix(f"{name}."): value for key, value in weights.items() if key.startswith(f"{name}.")
    }
    hidden, inputs = state["layers.2.weight"].shape
    kinds = int(facts["kinds"])
    head = Head(inputs - kinds, kinds, len(state["layers.5.bias"]), hidden=hidden)
    head.load_state_dict(state)
    columns = np.array(facts.pop("columns"), dtype=np.int64)
    return TrainedHead(head=head.eval(), columns=columns, facts=facts)


def predict_parasitics(
    heads: Mapping[str, TrainedHead],
    encoder: nn.Module,
    graphs: Graphs,
    pairs: Indices,
    device: str = "auto",
) -> Parasitics:
    """Probabilities and capacitances of pairs, and the capacitance of all nets to ground.

    Args:
        heads: Of :func:`train_heads`; what there is no head for is left out.
        encoder: That the heads were trained on.
        graphs: The netlist, normalised as those of the training were.
        pairs: (p, 2) nodes, pins before nets.
        device: Where to embed.
    """
    circuits = graphs.circuits
    embedding = node_rows(encoder, circuits, graphs.whole, nodes=NODES_AT_ONCE, device=device)
    around = surroundings_of(circuits)
    statistics = node_statistics(circuits, around)
    kind = kind_of(circuits, pairs)
    if "links" not in heads:
        pairs, kind = pairs[:0], kind[:0]
    couplings = _asked(pairs, kind, KINDS, SYMMETRIC)
    features = features_of_pairs(around, couplings)

    def applied(name: str, targets: Targets, given: Floats) -> Floats:
        if not len(targets.ends) or name not in heads:
            return np.zeros((len(targets.ends), 2))
        trained = heads[name]
        rows = torch.cat(
            [embedding, torch.from_numpy(statistics[:, trained.columns].astype(np.float32))], dim=1
        )
        portions = random_portions(Tables(targets, given), BATCH)
        return predict(Network(Kept(rows), trained.head), portions, np.arange(len(targets.ends)))

    nets = circuits.where(Kind.NET) if "ground" in heads else np.zeros(0, np.int64)
    ground = _asked(nets[:, None], np.zeros(len(nets), np.int64), ("net",), np.array([True]))
    return Parasitics(
        pairs=pairs,
        kind=kind,
        probability=_natural(applied("links", couplings, features)[:, 1], kind, heads),
        farad=_farad(applied("coupling", couplings, features), heads, "coupling"),
        nets=nets,
        ground=_farad(applied("ground", ground, np.zeros((len(nets), 0))), heads, "ground"),
    )


def _asked(ends: Indices, kind: Indices, kinds: tuple[str, ...], symmetric: Any) -> Targets:
    """Targets whose capacitance is asked for."""
    none = np.zeros(0, np.int64)
    return Targets(
        ends=ends,
        kind=kind,
        kinds=kinds,
        symmetric=symmetric,
        farad=np.ones(len(ends)),
        design=np.full(len(ends), "", dtype=np.str_),
        train=none,
        validation=none,
        test=np.arange(len(ends)),
    )


def _natural(probability: Floats, kind: Indices, heads: Mapping[str, TrainedHead]) -> Floats:
    """Probabilities among all pairs of a netlist, from those among the pairs of training."""
    if not len(probability):
        return probability
    with np.errstate(divide="ignore"):
        logit = np.log(probability) - np.log1p(-probability)
    shifted = logit + np.array(heads["links"].facts["log_odds"])[kind]
    return np.asarray(1.0 / (1.0 + np.exp(-shifted)))


def _farad(label: Floats, heads: Mapping[str, TrainedHead], name: str) -> Floats:
    if not len(label):
        return np.zeros(0)
    facts = heads[name].facts
    return Range(float(facts["low"]), float(facts["high"])).farad(np.clip(label, 0.0, 1.0))


def kind_of(circuits: Circuits, pairs: Indices) -> Indices:
    """(p,) which of KINDS each pair is."""
    nets = (np.asarray(circuits.kind)[pairs] == Kind.NET).sum(axis=1)
    return np.asarray(nets, np.int64)


def pairs_of_kinds(circuits: Circuits, netlists: Indices) -> Indices:
    """(kinds,) how many pairs of nodes of each kind the netlists have."""
    total = np.zeros(len(KINDS), np.int64)
    for number in netlists.tolist():
        kinds = np.asarray(circuits.kind[circuits.starts[number] : circuits.starts[number + 1]])
        pins, nets = int((kinds == Kind.PIN).sum()), int((kinds == Kind.NET).sum())
        total += [pins * (pins - 1) // 2, pins * nets, nets * (nets - 1) // 2]
    return total
