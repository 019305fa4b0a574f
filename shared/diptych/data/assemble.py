"""From prepared recordings to salted keys, a manifest and a report: what every domain that reads files needs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import Annotated
from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.data.manifest import Entry, Manifest
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Header
from diptych.data.scan import AnyHeader, Scan
from diptych.errors import DataError

Integers = NDArray[np.int64]


def recording_key(annotated: Annotated[AnyHeader], number: int) -> str:
    """The salted key of a recording: of its patient and its path below the root."""
    item = annotated.scanned[number].item
    part = "" if item.part is None else f"[{item.part}]"
    return salted_key(pseudonym_salt(), f"recording:{annotated.patients[number]}:{item.name}{part}")


def recordings_table(annotated: Annotated[AnyHeader], numbers: Sequence[int], split: Split) -> pd.DataFrame:
    """One row for each of the recordings ``numbers``: the salted keys "patient" and "recording", and "split"."""
    salt = pseudonym_salt()
    return pd.DataFrame(
        {
            "patient": [salted_key(salt, annotated.patients[n]) for n in numbers],
            "recording": [recording_key(annotated, n) for n in numbers],
            "split": [split.of(annotated.patients[n]) for n in numbers],
        }
    )


def numbers_of(keys: pd.Series[str]) -> Integers:
    """Salted keys (16 hex digits) as non-negative int64: the same in every run, data set and process."""
    codes, unique = pd.factorize(keys)
    numbers = np.array([int(key, 16) >> 1 for key in unique], np.int64)
    if len(np.unique(numbers)) != len(numbers):
        raise DataError("two salted keys are equal by chance; set another DIPTYCH_SALT")
    return np.asarray(numbers[codes], np.int64)


def list_files(
    annotated: Annotated[AnyHeader],
    numbers: Sequence[int],
    found: Scan[AnyHeader],
    table: pd.DataFrame,
    describe: Callable[[Sequence[int]], Mapping[str, Any]],
    sidecars: Mapping[int, Sequence[Path]] = {},
) -> Manifest:
    """Every file of the recordings in use, each once.

    Args:
        annotated: All recordings.
        numbers: Which of them are used.
        found: Their checksums.
        table: One row for each that is used, with the columns "patient" and "recording".
        describe: The facts of a main file, from the rows of the table whose recordings it holds.
        sidecars: By row, further files that may be alike for many patients (masks, annotations); their
            checksums are among those of ``found``.
    """
    owners: dict[Path, list[int]] = defaultdict(list)
    for row, number in enumerate(numbers):
        item = annotated.scanned[number].item
        for file in item.files or (item.path,):
            owners[file].append(row)
        for file in sidecars.get(row, ()):
            owners[file].append(row)
    patient, recording = table["patient"].tolist(), table["recording"].tolist()
    entries = []
    for file, rows in owners.items():
        item = annotated.scanned[numbers[rows[0]]].item
        patients = {patient[row] for row in rows}
        facts: dict[str, Any] = {"sidecar": True} if file in sidecars.get(rows[0], ()) else {}
        if item.path == file:
            facts = {**describe(rows)}
            if len(rows) > 1:
                facts["recordings"] = len(rows)
        path = found.relative(file)
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


def check_copies(contents: Sequence[str], table: pd.DataFrame, unit: str, what: str) -> None:
    """Raise DataError where one decoded content stands under two recording ids, rows of arrays included.

    Args:
        contents: One hash for each row of the table.
        table: With the columns "patient" and "recording".
        unit: What a recording is called: "image".
        what: What is the same in two of them: "signal", "voxels".
    """
    same: dict[str, list[int]] = defaultdict(list)
    for row, content in enumerate(contents):
        same[content].append(row)
    copies = [rows for rows in same.values() if len(rows) > 1]
    if copies:
        patient, recording = table["patient"].tolist(), table["recording"].tolist()
        named = "; ".join(
            f"the {unit}s {' and '.join(recording[row] for row in rows)} "
            f"(patients {' and '.join(sorted({patient[row] for row in rows}))}) hold the same {what}"
            for rows in copies[:5]
        )
        raise DataError(f"{len(copies)} {unit}s stand under several ids: {named}. Remove the copies")


def report_found(
    table: pd.DataFrame,
    annotated: Annotated[Header] | Annotated[Any],
    found: Scan[Any],
    quarantine: Quarantine,
    rule: str,
    counts: Mapping[str, str],
) -> dict[str, str]:
    """What was found, in lines without ids of patients; ``counts`` are the domain's own, after the patients."""
    kinds = Counter(each.kind for each in annotated.scanned)
    per_split = table.groupby("split")["patient"].nunique().to_dict()
    lines = {
        f"{found.unit}s": f"{len(table)} ({', '.join(f'{count} {kind}' for kind, count in kinds.items())})",
        "patients": f"{table['patient'].nunique()} (id from {rule!r}): "
        + ", ".join(f"{per_split.get(name, 0)} {name}" for name in ("train", "validation", "test")),
        **counts,
        "quarantine": "; ".join(f"{kind} ({count})" for kind, count in quarantine.kinds().items()) or "none",
    }
    if found.other:
        lines[f"files of no {found.unit}"] = ", ".join(
            f"{suffix} ({count})" for suffix, count in found.other.most_common(6)
        )
    return {**lines, **annotated.report}
