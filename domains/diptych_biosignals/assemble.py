"""From prepared pieces to one table of windows: rows, ids, manifest and report."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.manifest import Entry, Manifest
from diptych.data.quarantine import Quarantine
from diptych.errors import ConfigError, DataError
from diptych_biosignals.annotate import Annotated
from diptych_biosignals.pieces import Job, Piece
from diptych_biosignals.scan import Scan, item_path

Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Used:
    """The recordings that are used, in the order of the scan, and the windows of all of them, flat."""

    numbers: Integers  # (recordings,) index into the annotated recordings
    files: list[Path]  # pieces
    file: Integers  # (recordings,) index into ``files``
    rows: Integers  # (recordings, 2) first and last row (exclusive) in the file
    facts: list[Mapping[str, Any]]  # (recordings,) content, seconds, rate
    recording_of: Integers  # (windows,) index into the recordings
    starts: Integers  # (windows,) first row in the file
    trials: Integers  # (windows,) number within the recording
    times: NDArray[np.float64]  # (windows, 2) seconds


def use(
    grouped: Sequence[tuple[Job, list[int]]],
    pieces: Sequence[tuple[Path, Piece | list[str]]],
    found: Scan,
    quarantine: Quarantine,
) -> Used:
    """Put the windows of all pieces in a row; rejected recordings go to quarantine."""
    numbers: list[int] = []
    files: list[Path] = []
    file: list[int] = []
    rows: list[tuple[int, int]] = []
    facts: list[Mapping[str, Any]] = []
    of: list[Integers] = []
    starts: list[Integers] = []
    trials: list[Integers] = []
    times: list[NDArray[np.float64]] = []
    for (job, members), (target, piece) in zip(grouped, pieces, strict=True):
        fates = [{"reason": reason} for reason in piece] if isinstance(piece, list) else piece.facts
        for item, fate in zip(job.items, fates, strict=True):
            if "reason" in fate:
                quarantine.add(item_path(item, found.root), str(fate["reason"]))
        if isinstance(piece, list):
            continue
        good = np.array(["reason" not in fate for fate in fates])
        place = np.cumsum(good) - 1 + len(numbers)  # recording of each item; only that of good ones is used
        of.append(place[piece.part])
        starts.append(piece.starts)
        trials.append(piece.trials)
        times.append(piece.times)
        for i in np.flatnonzero(good):
            numbers.append(members[i])
            file.append(len(files))
            rows.append((piece.rows[i], piece.rows[i + 1]))
            facts.append(fates[i])
        files.append(target)
    return Used(
        numbers=np.array(numbers, np.int64),
        files=files,
        file=np.array(file, np.int64),
        rows=np.array(rows, np.int64).reshape(-1, 2),
        facts=facts,
        recording_of=np.concatenate([np.zeros(0, np.int64), *of]),
        starts=np.concatenate([np.zeros(0, np.int64), *starts]),
        trials=np.concatenate([np.zeros(0, np.int64), *trials]),
        times=np.concatenate([np.zeros((0, 2)), *times]),
    )


def nothing_left(quarantine: Quarantine, window: float) -> ConfigError | DataError:
    """The error where every recording was rejected."""
    kinds = quarantine.kinds()
    if set(kinds) == {"too short"}:
        return ConfigError(
            f"signal.window: every recording ({len(quarantine)}) is shorter than the window of {window:g} s; "
            f"the first: {quarantine.rows[0].reason}"
        )
    listed = "; ".join(f"{reason} ({count})" for reason, count in _reasons(quarantine))
    return DataError(f"no recording can be used: {listed}")


def _reasons(quarantine: Quarantine) -> list[tuple[str, int]]:
    return Counter(row.reason for row in quarantine.rows).most_common(3)


def identify(used: Used, annotated: Annotated, split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(ids of all windows, table of recordings), salted.

    A trial's key is that of its recording with its number, or, where ``data.trial`` names one, of its
    patient with that name, so that recordings of one patient can share it.
    """
    salt = pseudonym_salt()
    table = pd.DataFrame(
        {
            "patient": [salted_key(salt, annotated.patients[n]) for n in used.numbers],
            "recording": [recording_key(annotated, n) for n in used.numbers],
            "split": [split.of(annotated.patients[n]) for n in used.numbers],
            "file": used.file,
            "first": used.rows[:, 0],
            "last": used.rows[:, 1],
            "seconds": [float(facts["seconds"]) for facts in used.facts],
        }
    )
    named = [annotated.trials[n] for n in used.numbers]
    patients, recordings = table["patient"].tolist(), table["recording"].tolist()
    pairs, inverse = np.unique(
        np.stack([used.recording_of, used.trials], axis=1), axis=0, return_inverse=True
    )
    keys = np.array(
        [
            salted_key(salt, f"trial:{patients[r]}:{named[r]}" if named[r] else f"trial:{recordings[r]}:{t}")
            for r, t in pairs.tolist()
        ],
        dtype=object,
    )
    ids = {
        name: table[name].to_numpy(object)[used.recording_of] for name in ("patient", "recording", "split")
    }
    return pd.DataFrame({**ids, "trial": keys[inverse.ravel()]}), table


def recording_key(annotated: Annotated, number: int) -> str:
    """The salted key of a recording: of its patient and its path below the root."""
    item = annotated.scanned[number].item
    part = "" if item.part is None else f"[{item.part}]"
    return salted_key(pseudonym_salt(), f"recording:{annotated.patients[number]}:{item.name}{part}")


def numbers_of(keys: pd.Series[str]) -> Integers:
    """Salted keys (16 hex digits) as non-negative int64: the same in every run, data set and process."""
    codes, unique = pd.factorize(keys)
    numbers = np.array([int(key, 16) >> 1 for key in unique], np.int64)
    if len(np.unique(numbers)) != len(numbers):
        raise DataError("two salted keys are equal by chance; set another DIPTYCH_SALT")
    return np.asarray(numbers[codes], np.int64)


def list_files(used: Used, annotated: Annotated, found: Scan, table: pd.DataFrame) -> Manifest:
    """Every file of the recordings in use. Headers beside a signal file are sidecars: they may be alike."""
    owners: dict[str, list[int]] = defaultdict(list)
    for row, number in enumerate(used.numbers):
        for file in annotated.scanned[number].item.files:
            owners[found.relative(file)].append(row)
    patient, recording = table["patient"].tolist(), table["recording"].tolist()
    entries = []
    for path, rows in owners.items():
        first = annotated.scanned[used.numbers[rows[0]]]
        patients = {patient[row] for row in rows}
        facts: dict[str, Any] = {}
        if found.relative(first.item.path) == path:
            facts = {
                "format": first.kind,
                "leads": len(first.header.leads),
                "rate": max(first.header.rates),
                "seconds": round(sum(float(used.facts[row]["seconds"]) for row in rows), 3),
            }
            if len(rows) == 1:
                facts["content"] = used.facts[rows[0]]["content"]
            else:
                facts["recordings"] = len(rows)
            if len(first.item.files) > 1:
                facts["sidecar"] = True
        entries.append(
            Entry(
                path=path,
                size=found.checksums[path].size,
                sha256=found.checksums[path].sha256,
                patient=patients.pop() if len(patients) == 1 else "",
                recording=recording[rows[0]] if len(rows) == 1 else "",
                facts=facts,
            )
        )
    return Manifest(found.root, entries)


def check_copies(used: Used, table: pd.DataFrame) -> None:
    """Raise DataError where one decoded signal stands under two recording ids, rows of arrays included."""
    same: dict[str, list[int]] = defaultdict(list)
    for row, facts in enumerate(used.facts):
        same[str(facts["content"])].append(row)
    copies = [rows for rows in same.values() if len(rows) > 1]
    if copies:
        patient, recording = table["patient"].tolist(), table["recording"].tolist()
        named = "; ".join(
            f"the recordings {' and '.join(recording[row] for row in rows)} "
            f"(patients {' and '.join(sorted({patient[row] for row in rows}))}) hold the same signal"
            for rows in copies[:5]
        )
        raise DataError(f"{len(copies)} recordings stand under several ids: {named}. Remove the copies")


def report(
    ids: pd.DataFrame,
    table: pd.DataFrame,
    annotated: Annotated,
    found: Scan,
    quarantine: Quarantine,
    rule: str,
) -> dict[str, str]:
    """What was found, in lines without ids of patients."""
    kinds = Counter(annotated.scanned[i].kind for i in range(len(annotated.scanned)))
    per_split = table.groupby("split")["patient"].nunique().to_dict()
    lines = {
        "recordings": f"{len(table)} ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})",
        "patients": f"{table['patient'].nunique()} (id from {rule!r}): "
        + ", ".join(f"{per_split.get(name, 0)} {name}" for name in ("train", "validation", "test")),
        "trials": str(ids["trial"].nunique()),
        "windows": str(len(ids)),
        "quarantine": "; ".join(f"{kind} ({count})" for kind, count in quarantine.kinds().items()) or "none",
    }
    if found.other:
        lines["files of no recording"] = ", ".join(
            f"{suffix} ({count})" for suffix, count in found.other.most_common(6)
        )
    return {**lines, **annotated.report}
