"""``diptych circuits predict``: a netlist in, the same netlist with predicted parasitic capacitors out."""

from __future__ import annotations

import csv as tables
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from diptych.data.atomic import replacing, write_text
from diptych.data.readable import Unreadable
from diptych.discovery import find_domain
from diptych.errors import ConfigError, DataError, UserError
from diptych.settings.plans import build, plan_of_run, trained_encoder
from diptych.study import Indices
from diptych_circuits.annotation import Capacitor, element_lines, flat_netlist, with_elements
from diptych_circuits.circuits import Circuits, Couplings
from diptych_circuits.evaluated import KINDS, circuit_study, surroundings_of
from diptych_circuits.graph import Graph, build_graph
from diptych_circuits.netlist.definition import Library
from diptych_circuits.netlist.flatten import Flat, Hierarchy
from diptych_circuits.netlist.naming import TERMINALS
from diptych_circuits.netlist.parser import parse
from diptych_circuits.netlist.tops import top_of
from diptych_circuits.parasitics import (
    Parasitics,
    kind_of,
    load_heads,
    pairs_of_kinds,
    predict_parasitics,
    save_heads,
    train_heads,
)
from diptych_circuits.schema import EdgeKind, Kind
from diptych_circuits.settings import Netlist
from diptych_circuits.study import Graphs

HEADS = "heads.safetensors"
MOST_PAIRS = 2_000_000  # beyond which not all pairs of a netlist are asked for, but those few hops apart
HOPS = 4


def predict(
    netlist: str,
    *,
    run: str,
    out: str,
    csv: str | None = None,
    pairs: str | None = None,
    top: str | None = None,
    probability: float = 0.5,
    device: str = "auto",
) -> None:
    """Predicts the parasitic capacitances of a netlist and writes it with them as C elements, as ngspice takes it.

    The heads are trained on the labelled training designs of the run when they are first needed, and kept in the run
    folder. All pairs of pins and nets are asked for, in netlists of more than 2 million pairs those at most 4 hops
    apart. Parasitics that the netlist has already are left out of what is written: its devices are written anew then.

    Args:
        netlist: The netlist: SPICE, CDL or DSPF, schematic or extracted.
        run: The folder of a finished run.
        out: The netlist to write.
        csv: A table to write: both ends, kind, farad and probability of every pair that is predicted to couple, and
            every net's capacitance to ground.
        pairs: A CSV file with the columns first and second: names of nets, or pins as device:terminal. Only these
            pairs are asked for, and each has its capacitance in the table, whatever its probability.
        top: The subcircuit that is the circuit; by default the one that no other uses.
        probability: A pair is taken to couple from this probability on.
        device: Where to compute: auto, cpu, cuda.
    """
    if not 0.0 < probability < 1.0:
        raise ConfigError(f"probability lies between 0 and 1; got {probability:g}")
    plan = plan_of_run(find_domain("circuits"), Path(run), [])
    study = circuit_study(build(plan))
    source = read_source(Path(netlist), study.netlist, top)
    encoder = trained_encoder(study, Path(run))
    kept = Path(run) / HEADS
    if not kept.is_file():
        save_heads(train_heads(study, encoder), kept)
    heads = load_heads(kept)
    known = (
        [place for place, count in enumerate(heads["links"].facts["couplings"]) if count]
        if "links" in heads
        else []
    )
    asked = named_pairs(source, Path(pairs)) if pairs else candidate_pairs(source.circuits, known)
    graphs = Graphs(source.circuits, study.graphs.scale, study.graphs.scaling, study.graphs.sampling)
    found = predict_parasitics(heads, encoder, graphs, asked, device)
    chosen = np.ones(len(found.pairs), bool) if pairs else found.probability >= probability
    write_text(Path(out), annotated(source, found, chosen))
    if csv is not None:
        write_table(Path(csv), source, found, chosen)
    print(f"{int(chosen.sum())} couplings among {len(found.pairs)} pairs, {found.farad[chosen].sum():.4g} F")
    print(f"{len(found.nets)} nets to ground, {found.ground.sum():.4g} F")
    trained = "; ".join(f"{name}: {each.facts['designs']} designs" for name, each in sorted(heads.items()))
    print(f"heads of {kept} ({trained})")
    print(out)


@dataclass(frozen=True, kw_only=True)
class SourceNetlist:
    """A netlist that is asked about, as text, without hierarchy, and as a graph."""

    path: Path
    library: Library
    top: str  # "" where the circuit is outside of all subcircuits
    flat: Flat
    circuits: Circuits

    @property
    def extracted(self) -> bool:
        """Whether it holds parasitics."""
        return bool(self.library.networks) or len(self.flat.farad) > 0 or len(self.flat.ohm) > 0

    def net(self, node: int) -> str:
        """The net that a net or pin is electrically, supplies included."""
        first_pin = int(np.searchsorted(self.circuits.kind, Kind.PIN))
        if node >= first_pin:
            return self.flat.nets[int(self.flat.terminals[node - first_pin])]
        return self.circuits.name(node)


def read_source(path: Path, settings: Netlist, top: str | None) -> SourceNetlist:
    """Reads one netlist. Raises UserError where there is no file, DataError where it cannot be read or has no nets."""
    if not path.is_file():
        raise UserError(f"there is no netlist at {path}; give a file")
    dspf = path.suffix.lower() in (".dspf", ".spf")
    try:
        library = parse(path, settings.reading, settings.device_types, dspf=dspf)
        definition = top_of(library, top or settings.top)
        flat = Hierarchy(library, settings.naming, settings.unknown_subcircuits).flatten(definition)
        graph = build_graph(
            flat, list(library.models), library.model_types, settings.device_types, settings.nets
        )
    except Unreadable as error:
        raise DataError(f"{path.name} cannot be read: {error}") from error
    if not len(flat.terminals):
        raise DataError(f"{path.name} has no devices, so there is nothing to predict")
    if not np.any(graph.kind == Kind.NET):
        raise DataError(
            f"{path.name} has no nets but supplies and substrate, so there is nothing to predict; netlist.supply and "
            "netlist.substrate of the run's config say which nets these are"
        )
    return SourceNetlist(
        path=path, library=library, top=definition.name, flat=flat, circuits=one_circuit(graph, flat)
    )


def one_circuit(graph: Graph, flat: Flat) -> Circuits:
    """A single graph as a data set of its own."""
    edges = [graph.pin_edges, graph.pin_edges[::-1], graph.net_edges, graph.net_edges[::-1]]
    kinds = [EdgeKind.DEVICE_PIN, EdgeKind.DEVICE_PIN, EdgeKind.PIN_NET, EdgeKind.PIN_NET]
    count = len(graph.kind)
    text = graph.names.tobytes().decode()
    names = [*(text.split("\n") if text else []), *_pin_names(flat)]
    return Circuits(
        nodes=graph.nodes,
        kind=graph.kind,
        edges=np.concatenate(edges, axis=1),
        edge_kind=np.repeat(np.array(kinds, np.int8), [each.shape[1] for each in edges]),
        netlist=np.zeros(count, np.int32),
        starts=np.array([0, count]),
        ground=graph.ground,
        resistance=graph.resistance,
        couplings=Couplings(
            first=graph.coupling[0], second=graph.coupling[1], farad=graph.farad, kind=graph.coupling_kind
        ),
        netlists=["netlist"],
        designs=["netlist"],
        names_of=lambda _: names,
    )


def _pin_names(flat: Flat) -> list[str]:
    names = []
    for number, device in enumerate(flat.devices):
        letters = TERMINALS.get(chr(int(flat.kind[number])), "")
        count = int(flat.ends[number + 1] - flat.ends[number])
        names += [f"{device}:{letters[i] if i < len(letters) else i + 1}" for i in range(count)]
    return names


def candidate_pairs(circuits: Circuits, kinds: Sequence[int], most: int = MOST_PAIRS) -> Indices:
    """(p, 2) all pairs of pins and nets of the asked kinds; beyond ``most`` those at most HOPS apart. Pins first."""
    nodes = np.flatnonzero(circuits.kind != Kind.DEVICE)
    if int(pairs_of_kinds(circuits, np.array([0])).sum()) <= most:
        low, high = np.triu_indices(len(nodes), 1)
        pairs = np.column_stack(
            [nodes[high], nodes[low]]
        )  # nets have the lowest numbers, so they come second
    else:
        near = surroundings_of(circuits).neighbours + sparse.identity(
            len(circuits), dtype=np.float32, format="csr"
        )
        reached = near
        for _ in range(HOPS - 1):
            reached = reached @ near
            reached.data[:] = 1.0
        found = sparse.tril(reached[nodes][:, nodes], -1).tocoo()
        pairs = np.column_stack([nodes[found.row], nodes[found.col]])
    return np.asarray(pairs[np.isin(kind_of(circuits, pairs), kinds)], np.int64)


def named_pairs(source: SourceNetlist, path: Path) -> Indices:
    """(p, 2) the pairs that a CSV file names. Raises UserError for a missing file, column or node, with the line."""
    if not path.is_file():
        raise UserError(
            f"there is no table of pairs at {path}; give a CSV file with the columns first and second"
        )
    number = {name.lower(): node for node, name in enumerate(source.circuits.names_of(0))}
    found = []
    with path.open(encoding="utf-8", newline="") as file:
        rows = tables.DictReader(file)
        if not {"first", "second"} <= set(rows.fieldnames or ()):
            raise UserError(
                f"{path} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; expected first and second"
            )
        for row in rows:
            ends = [str(row[name] or "").lower() for name in ("first", "second")]
            for end in ends:
                if end not in number or source.circuits.kind[number[end]] == Kind.DEVICE:
                    raise UserError(
                        f"{path}, line {rows.line_num}: {source.path.name} has no net or pin {end!r} (supplies and "
                        "substrate are none); pins are named device:terminal"
                    )
            found.append(sorted((number[end] for end in ends), reverse=True))
    return np.array(found, np.int64).reshape(-1, 2)


def annotated(
    source: SourceNetlist, found: Parasitics, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> str:
    """The netlist with the chosen couplings and all capacitances to ground as C elements between nets."""
    capacitors = [
        Capacitor(source.net(a), source.net(b), farad)
        for (a, b), farad in zip(found.pairs[chosen].tolist(), found.farad[chosen].tolist(), strict=True)
    ]
    capacitors += [
        Capacitor(source.net(net), "0", farad)
        for net, farad in zip(found.nets.tolist(), found.ground.tolist(), strict=True)
    ]
    elements = element_lines(capacitors)
    if not source.extracted:
        text = with_elements(source.path.read_text(encoding="latin-1"), source.top, elements)
        if text is not None:
            return text
    return flat_netlist(source.flat, list(source.library.models), source.top or source.path.stem, elements)


def write_table(
    path: Path, source: SourceNetlist, found: Parasitics, chosen: np.ndarray[tuple[int], np.dtype[np.bool_]]
) -> None:
    """Writes first, second, kind, farad, probability; of capacitances to ground the second is 0."""
    names = source.circuits.names_of(0)
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = tables.writer(file, lineterminator="\n")
        writer.writerow(["first", "second", "kind", "farad", "probability"])
        for place in np.flatnonzero(chosen).tolist():
            a, b = found.pairs[place].tolist()
            kind = KINDS[int(found.kind[place])]
            writer.writerow(
                [names[a], names[b], kind, f"{found.farad[place]:.6g}", f"{found.probability[place]:.4f}"]
            )
        for net, farad in zip(found.nets.tolist(), found.ground.tolist(), strict=True):
            writer.writerow([names[net], "0", "ground", f"{farad:.6g}", ""])
