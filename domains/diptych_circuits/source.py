"""Find netlists, read them in parallel, join them to one graph and put ids to its nodes."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from diptych.data.annotate import Annotated, annotate
from diptych.data.assemble import list_files, recording_key, report_found
from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.labels import Label
from diptych.data.leaks import check_leaks
from diptych.data.manifest import Manifest
from diptych.data.pieces import cache_folder, make_pieces
from diptych.data.quarantine import Quarantine
from diptych.data.scan import Scan, item_path, scan
from diptych.errors import DataError
from diptych_circuits import readers
from diptych_circuits.circuits import Circuits
from diptych_circuits.graph import TOTALS
from diptych_circuits.pieces import Job, Piece, load, store
from diptych_circuits.readers import EXPECTED, Header
from diptych_circuits.settings import Netlist, Source
from diptych_circuits.store import join


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """Netlists as one graph, with the keys and labels of each."""

    circuits: Circuits
    table: pd.DataFrame  # one row a netlist: the salted keys "patient" (design) and "recording", "split"
    labels: pd.DataFrame  # one row a netlist, one column a configured label
    manifest: Manifest
    quarantine: Quarantine
    totals: Mapping[str, int]  # see diptych_circuits.graph.TOTALS
    cache: Path
    report: Mapping[str, str]


def prepare(
    source: Source,
    netlist: Netlist,
    labels: Mapping[str, Label],
    split: Split,
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
) -> Prepared:
    """Read every netlist once and join their graphs.

    Args:
        source: Where the netlists are and of which designs.
        netlist: What is made of them.
        labels: Labels of netlists by name.
        split: Decides the split of every design from its raw name.
        cache: Folder of graphs; by default ``DIPTYCH_CACHE`` or the user's cache folder. Pieces are found by the
            checksum of files and the settings.
        workers: Processes; by default one per CPU this process may use.

    Raises:
        ConfigError: a setting that does not fit the data.
        DataError: no netlists, too many in quarantine.
    """
    folder = cache_folder(cache, "circuits")
    found = scan(
        source,
        partial(readers.find, only=source.format, top=netlist.top),
        readers.read_header,
        expected=EXPECTED,
        unit="netlist",
        workers=workers,
    )
    quarantine = Quarantine()
    for path, reason in found.rejected:
        quarantine.add(path, reason)
    annotated = annotate(found, source, labels, quarantine)
    grouped = make_jobs(annotated, found)
    pieces = make_pieces(
        [job for job, _ in grouped],
        [job.key(netlist) for job, _ in grouped],
        folder,
        load=load,
        store=partial(store, netlist=netlist),
        unit="netlist",
        workers=workers,
    )
    kept, chosen, numbers, facts = _use(grouped, pieces, found, quarantine)
    if not numbers:
        reasons = Counter(row.reason for row in quarantine.rows).most_common(3)
        raise DataError(
            f"no netlist can be used: {'; '.join(f'{reason} ({count})' for reason, count in reasons)}"
        )
    quarantine.check(len(found.scanned) + len(found.rejected), netlist.max_quarantined)
    designs, same = one_design(
        [annotated.patients[number] for number in numbers], [str(fact["content"]) for fact in facts]
    )
    circuits = join(kept, chosen, [_name(annotated, number, found) for number in numbers], designs, folder)
    table = _table(annotated, numbers, designs, split)
    manifest = list_files(annotated, numbers, found, table, partial(_describe, annotated, numbers, facts))
    check_leaks(table, manifest)
    totals = {name: sum(int(fact["totals"][name]) for fact in facts) for name in TOTALS}
    return Prepared(
        circuits=circuits,
        table=table,
        labels=pd.DataFrame(
            {name: values.values[numbers] for name, values in annotated.labels.items()}, index=table.index
        ),
        manifest=manifest,
        quarantine=quarantine,
        totals=totals,
        cache=folder,
        report={
            "designs" if name == "patients" else name: line
            for name, line in report_found(
                table, annotated, found, quarantine, source.patient, _counts(circuits, totals, facts, same)
            ).items()
        },
    )


def _name(annotated: Annotated[Header], number: int, found: Scan[Header]) -> str:
    """The path of a netlist below the data folder, with the subcircuit where the file has several."""
    each = annotated.scanned[number]
    path = item_path(each.item, found.root)
    return path if each.header.top is None else f"{path}:{each.header.top}"


def _table(
    annotated: Annotated[Header], numbers: Sequence[int], designs: Sequence[str], split: Split
) -> pd.DataFrame:
    """One row a netlist with its keys and split, which are those of its design after equal ones were joined."""
    salt = pseudonym_salt()
    return pd.DataFrame(
        {
            "patient": [salted_key(salt, design) for design in designs],
            "recording": [recording_key(annotated, number) for number in numbers],
            "split": [split.of(design) for design in designs],
        }
    )


def make_jobs(annotated: Annotated[Header], found: Scan[Header]) -> list[tuple[Job, list[int]]]:
    """One job per file, with the numbers of its netlists."""
    files: dict[Path, list[int]] = defaultdict(list)
    for number, each in enumerate(annotated.scanned):
        files[each.item.path].append(number)
    grouped = []
    for members in files.values():
        first = annotated.scanned[members[0]]
        digests = [found.checksums[found.relative(file)].sha256 for file in first.item.files]
        job = Job(
            kind=first.kind,
            items=tuple(annotated.scanned[number].item for number in members),
            tops=tuple(annotated.scanned[number].header.top for number in members),
            digests=(*digests, *first.header.outside),
        )
        grouped.append((job, members))
    return grouped


def one_design(designs: Sequence[str], contents: Sequence[str]) -> tuple[list[str], int]:
    """(the design of each netlist, how many designs were joined to others).

    Designs that hold the same graph under two names are one, called by the first of their names in alphabetical
    order: in two splits the one would give the other away.
    """
    parent = {design: design for design in designs}

    def root(design: str) -> str:
        while parent[design] != design:
            parent[design] = parent[parent[design]]
            design = parent[design]
        return design

    first: dict[str, str] = {}
    for design, content in zip(designs, contents, strict=True):
        one, other = sorted((root(design), root(first.setdefault(content, design))))
        parent[other] = one
    joined = [root(design) for design in designs]
    return joined, len(set(designs)) - len(set(joined))


def _use(
    grouped: Sequence[tuple[Job, list[int]]],
    pieces: Sequence[tuple[Path, Piece | list[str]]],
    found: Scan[Header],
    quarantine: Quarantine,
) -> tuple[list[Piece], list[list[int]], list[int], list[dict[str, Any]]]:
    """(pieces with a graph, the places of their graphs, the numbers of the netlists, their facts)."""
    kept: list[Piece] = []
    chosen: list[list[int]] = []
    numbers: list[int] = []
    facts: list[dict[str, Any]] = []
    for (job, members), (_, piece) in zip(grouped, pieces, strict=True):
        fates = [{"reason": reason} for reason in piece] if isinstance(piece, list) else piece.facts
        good = []
        for place, (item, number, fate) in enumerate(zip(job.items, members, fates, strict=True)):
            if "reason" in fate:
                quarantine.add(item_path(item, found.root), str(fate["reason"]))
                continue
            good.append(place)
            numbers.append(number)
            facts.append(fate)
        if good and not isinstance(piece, list):
            kept.append(piece)
            chosen.append(good)
    return kept, chosen, numbers, facts


def _describe(
    annotated: Annotated[Header],
    numbers: Sequence[int],
    facts: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
) -> dict[str, Any]:
    """The facts of a file that holds the netlists ``rows``."""
    counts = {name: sum(int(facts[row]["totals"][name]) for row in rows) for name in TOTALS}
    return {"format": annotated.scanned[numbers[rows[0]]].kind, **counts}


def _counts(
    circuits: Circuits, totals: Mapping[str, int], facts: Sequence[Mapping[str, Any]], same: int
) -> dict[str, str]:
    ignored: Counter[str] = Counter()
    for fact in facts:
        ignored.update(fact["ignored"])
    lines = {
        "devices": f"{totals['devices']} ({totals['mos']} MOS with {totals['mos_pins']} pins)",
        "nets": f"{totals['nets']}, of these {totals['grounded']} with capacitance to ground; "
        f"{totals['other_nets']} more only couple or only meet diodes",
        "couplings": f"{totals['couplings']}, merged to {totals['pin_pin']} pin-pin, {totals['pin_net']} pin-net, "
        f"{totals['net_net']} net-net",
        "graph": f"{len(circuits)} nodes, {circuits.edges.shape[1] // 2} edges, {len(circuits.couplings)} couplings "
        "between nodes that are kept",
    }
    if not totals["couplings"] and not totals["grounded"]:
        lines["parasitics"] = "none: heads cannot be trained or tested on these netlists, encoders can"
    if same:
        lines["designs joined"] = f"{same}: they hold the same netlist under another name"
    if ignored:
        lines["left out"] = ", ".join(f"{name} ({count})" for name, count in sorted(ignored.items()))
    return lines
