"""Ids, manifest and report of a data set of molecules."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diptych.data.identity import pseudonym_salt, salted_key
from diptych.data.manifest import Entry, Manifest
from diptych.data.quarantine import Quarantine
from diptych.errors import DataError
from diptych.words import Words
from diptych_molecules import splits
from diptych_molecules.gather import Gathered
from diptych_molecules.labels import contradictory
from diptych_molecules.settings import Source, Splitting
from diptych_molecules.store import Store

Integers = NDArray[np.int64]


def places_of(gathered: Gathered, rows: Integers) -> pd.DataFrame:
    """The "file" of each of the rows, below the data folder, and the number of its "row" there, counted from 0."""
    numbers = np.concatenate([part.numbers for part in gathered.parts])
    names = pd.Index([part.path for part in gathered.parts])
    files = pd.Categorical.from_codes(
        cast("Any", gathered.part_of(rows)), names
    )  # its stubs know lists alone
    return pd.DataFrame({"file": files, "row": numbers[rows]})


def ids_of(
    units: Integers,
    texts: list[str],
    identity: Integers,
    identities: list[str],
    dealt: NDArray[np.object_],
    words: Words,
) -> pd.DataFrame:
    """Salted keys of units and molecules, as compact texts: data sets may have millions of rows."""
    patient = _keys(units, texts, words.unit)
    recording = patient if words.unit == "molecule" else _keys(identity, identities, "molecule")
    columns = {
        "patient": patient,
        "recording": recording,
        "trial": recording,
        "split": pa.array(dealt, pa.string()),
    }
    dtype = pd.StringDtype("pyarrow")
    return pd.DataFrame({name: pd.Series(column, dtype=dtype) for name, column in columns.items()})


def _keys(codes: Integers, texts: list[str], kind: str) -> pa.Array:
    """The salted key of each row's text."""
    salt = pseudonym_salt()
    used, inverse = np.unique(codes, return_inverse=True)
    keys = pa.array([salted_key(salt, f"{kind}:{texts[code]}") for code in used.tolist()], pa.string())
    return keys.take(pa.array(inverse))


def check_one_split(identity: Integers, dealt: NDArray[np.object_], source: Source) -> None:
    """Raise DataError where a column puts one molecule into several splits."""
    pairs = pd.DataFrame({"molecule": identity, "split": dealt}).drop_duplicates()
    several = int((pairs["molecule"].value_counts() > 1).sum())
    if several:
        raise DataError(
            f"{several} molecules are in more than one split of the column (the same {source.identity}); "
            "remove them, or let data.duplicates: merge keep the first row of each"
        )


def duplicates(table: pd.DataFrame, identity: Integers, source: Source) -> dict[str, str]:
    """A line on rows that repeat a molecule, and on labels in which they contradict each other."""
    repeated = len(identity) - len(np.unique(identity))
    text = f"{repeated} rows repeat a molecule (same {source.identity})"
    if not repeated:
        return {"duplicates": "none"}
    differing = {name: count for name, count in contradictory(table, identity).items() if count}
    if differing:
        listed = ", ".join(f"{name} ({count})" for name, count in differing.items())
        text += f"; molecules whose rows differ in a label: {listed}"
    fate = (
        "all rows are kept" if source.duplicates == "keep" else "the first row of each is kept, labels merged"
    )
    return {"duplicates": f"{text}; {fate}"}


def manifest_of(gathered: Gathered, store: Store) -> Manifest:
    """The files, with how many of their rows are used."""
    used = np.bincount(gathered.part_of(store.rows), minlength=len(gathered.parts))
    return Manifest(
        gathered.root,
        [
            Entry(
                path=part.path,
                size=part.checksum.size,
                sha256=part.checksum.sha256,
                patient="",
                recording="",
                facts={"format": part.form, "molecules": int(used[number])},
            )
            for number, part in enumerate(gathered.parts)
        ],
    )


def lines(
    gathered: Gathered,
    store: Store,
    fate: str,
    rows: Integers,
    ids: pd.DataFrame,
    quarantine: Quarantine,
    split: Splitting,
    words: Words,
) -> dict[str, str]:
    """What was found, in lines."""
    forms = Counter(part.form for part in gathered.parts)
    lines = {
        "molecules": f"{len(rows)} of {gathered.total} rows in {len(gathered.parts)} files "
        f"({', '.join(f'{count} {form}' for form, count in forms.items())})",
        "split": f"by {split.by}, {splits.resolved(split).replace('_', ' ')}"
        if split.column is None
        else f"by column {split.column!r}",
        "store": f"{store.bytes / len(store):.0f} bytes a molecule, {fate}",
        "quarantine": "; ".join(f"{kind} ({count})" for kind, count in quarantine.kinds().items()) or "none",
    }
    if words.unit != "molecule":
        lines[words.units] = str(ids["patient"].nunique())
    notes = [f"{part.path}: {note}" for part in gathered.parts for note in part.notes]
    if notes:
        lines["encoding"] = "; ".join(notes[:5]) + ("; ..." if len(notes) > 5 else "")
    if gathered.other:
        listed = ", ".join(f"{suffix} ({count})" for suffix, count in gathered.other.most_common(6))
        lines["files without molecules"] = listed
    return lines


def reasons(quarantine: Quarantine) -> str:
    """The most frequent reasons, for the message when nothing is left."""
    common = Counter(row.reason for row in quarantine.rows).most_common(3)
    return "; ".join(f"{reason} ({count})" for reason, count in common) or "the files have no rows"
