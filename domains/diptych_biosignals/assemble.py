"""From prepared pieces to one table of windows: rows, ids, manifest and report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import Annotated
from diptych.data.assemble import recordings_table
from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.quarantine import Quarantine
from diptych.data.scan import Scan, item_path
from diptych.errors import ConfigError, DataError
from diptych_biosignals.pieces import Job, Piece
from diptych_biosignals.recording import Header

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
    found: Scan[Header],
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


def identify(used: Used, annotated: Annotated[Header], split: Split) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(ids of all windows, table of recordings), salted.

    A trial's key is that of its recording with its number, or, where ``data.trial`` names one, of its
    patient with that name, so that recordings of one patient can share it.
    """
    salt = pseudonym_salt()
    table = recordings_table(annotated, used.numbers.tolist(), split).assign(
        file=used.file,
        first=used.rows[:, 0],
        last=used.rows[:, 1],
        seconds=[float(facts["seconds"]) for facts in used.facts],
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


def describe(used: Used, annotated: Annotated[Header], rows: Sequence[int]) -> dict[str, Any]:
    """The facts of a signal file that holds the recordings ``rows``."""
    first = annotated.scanned[used.numbers[rows[0]]]
    facts: dict[str, Any] = {
        "format": first.kind,
        "leads": len(first.header.leads),
        "rate": max(first.header.rates),
        "seconds": round(sum(float(used.facts[row]["seconds"]) for row in rows), 3),
    }
    if len(rows) == 1:
        facts["content"] = used.facts[rows[0]]["content"]
    if len(first.item.files) > 1:
        facts["sidecar"] = True  # a header beside its signal file: it may be alike for many patients
    return facts
