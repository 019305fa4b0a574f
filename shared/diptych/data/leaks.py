"""Checks that stop a run before a patient, a file or a recording is on both sides of a split.

Pure functions on tables; a message names salted keys only.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from diptych.data.identity import SPLITS, file_key, salt_fingerprint
from diptych.data.manifest import Entry, Manifest
from diptych.errors import DataError
from diptych.words import PATIENTS, Words

MOST_NAMED = 5  # how many findings a message spells out


def check_leaks(ids: pd.DataFrame, manifest: Manifest | None = None, words: Words = PATIENTS) -> None:
    """Raise DataError, naming all findings, unless every split is clean.

    Args:
        ids: One row a sample with the text columns "patient", "recording" and "split".
        manifest: The files. Two files of the same SHA-256 in different splits are a leak (sidecar files and
            empty ones excepted). Two recordings whose fact ``content`` (hash of the decoded signal) is equal
            are a fault even within a split: one recording under two ids.
        words: What patients and recordings are called.
    """
    findings = [*patients_in_two_splits(ids, words), *recordings_of_two_patients(ids, words)]
    if manifest is not None:
        findings += [*files_on_both_sides(ids, manifest, words), *recordings_under_two_ids(manifest, words)]
    if findings:
        more = f"; and {len(findings) - MOST_NAMED} more" if len(findings) > MOST_NAMED else ""
        raise DataError(
            f"the splits are not clean ({len(findings)} findings): {'; '.join(findings[:MOST_NAMED])}{more}. "
            f"Give the {words.recordings} of one {words.unit} one {words.unit} id, and remove copies"
        )


def patients_in_two_splits(ids: pd.DataFrame, words: Words = PATIENTS) -> list[str]:
    """One line for each patient whose samples are in more than one split."""
    return [
        f"{words.unit} {patient} is in {_list(splits)}"
        for patient, splits in _several(_pairs(ids, "patient", "split"))
    ]


def recordings_of_two_patients(ids: pd.DataFrame, words: Words = PATIENTS) -> list[str]:
    """One line for each recording whose samples are said to be of more than one patient."""
    return [
        f"{words.recording} {recording} belongs to the {words.units} {_list(patients)}"
        for recording, patients in _several(_pairs(ids, "recording", "patient"))
    ]


def files_on_both_sides(ids: pd.DataFrame, manifest: Manifest, words: Words = PATIENTS) -> list[str]:
    """One line for each group of files with the same SHA-256 that are used in more than one split."""
    split_of = dict(zip(ids["recording"], ids["split"], strict=True))
    used = [entry for entry in manifest.entries if entry.recording in split_of and _carries_signal(entry)]
    found = []
    for entries in _groups(used, lambda entry: entry.sha256):
        splits = {split_of[entry.recording] for entry in entries}
        if len(splits) > 1:
            files = _list(file_key(entry.path) for entry in entries)
            patients = _list({entry.patient for entry in entries})
            found.append(
                f"the files {files} ({words.units} {patients}) are the same and lie in {_list(splits)}"
            )
    return found


def recordings_under_two_ids(manifest: Manifest, words: Words = PATIENTS) -> list[str]:
    """One line for each decoded signal (fact ``content``) that occurs under more than one recording id."""
    decoded = [entry for entry in manifest.entries if entry.facts.get("content")]
    found = []
    for entries in _groups(decoded, lambda entry: str(entry.facts["content"])):
        recordings = {entry.recording for entry in entries}
        if len(recordings) > 1:
            patients = _list({entry.patient for entry in entries})
            what = "signal" if words == PATIENTS else "content"
            found.append(
                f"the {words.recordings} {_list(recordings)} ({words.units} {patients}) hold the same {what}"
            )
    return found


def check_overlap(
    trained: Collection[str],
    tested: Collection[str],
    *,
    what: str = "this encoder",
    words: Words = PATIENTS,
) -> None:
    """Raise DataError when a patient that an encoder was trained on is among those it is tested on."""
    both = sorted(set(trained) & set(tested))
    if both:
        more = f" and {len(both) - MOST_NAMED} more" if len(both) > MOST_NAMED else ""
        raise DataError(
            f"{len(both)} test {words.units} were among the training {words.units} of {what}: "
            f"{', '.join(both[:MOST_NAMED])}{more}. Use the split salt and shares that it was trained with, "
            f"or leave these {words.units} out of the test data"
        )


def trained_patients(path: str | Path, words: Words = PATIENTS) -> frozenset[str]:
    """The keys of the training patients in the ``splits.csv`` of a run folder.

    Raises:
        DataError: it is no such table, or its keys were made with another pseudonym salt (``manifest.json``
            beside it tells), so that an overlap could not be seen.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        salt = json.loads(path.with_name("manifest.json").read_text(encoding="utf-8"))["salt"]["fingerprint"]
    except KeyError as error:
        raise DataError(
            f"manifest.json beside {path.name!r} does not say which salt made the keys"
        ) from error
    except (OSError, ValueError) as error:  # the parsers' errors are ValueErrors
        raise DataError(f"the {words.units} of a run cannot be read from {path.name!r}: {error}") from error
    missing = {"patient", "split"} - set(table.columns)
    unknown = set() if missing else set(table["split"]) - set(SPLITS)
    if missing or unknown:
        wrong = f"no column {_list(missing)}" if missing else f"the split {_list(unknown)}"
        raise DataError(
            f"{path.name!r} does not list the {words.units} of a run: it has {wrong}; "
            "expected the columns patient and split"
        )
    if salt != salt_fingerprint():
        raise DataError(
            f"the {words.unit} keys in {path.name!r} were made with another pseudonym salt, so a {words.unit} in both "
            "could not be recognised; set DIPTYCH_SALT to the value used for that run"
        )
    return frozenset(table.loc[table["split"] == "train", "patient"])


def _carries_signal(entry: Entry) -> bool:
    return entry.size > 0 and not entry.facts.get("sidecar", False)


def _pairs(ids: pd.DataFrame, key: str, value: str) -> Iterable[tuple[str, str]]:
    """Every pair of two columns once: there may be millions of rows, and few pairs that a leak makes."""
    once = ids[[key, value]].drop_duplicates()
    return zip(once[key], once[value], strict=True)


def _several(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, set[str]]]:
    """Keys that occur with more than one value, sorted."""
    values: Mapping[str, set[str]] = defaultdict(set)
    for key, value in pairs:
        values[key].add(value)
    return sorted((key, found) for key, found in values.items() if len(found) > 1)


def _groups(entries: Iterable[Entry], key: Callable[[Entry], Hashable]) -> list[list[Entry]]:
    groups: dict[Hashable, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[key(entry)].append(entry)
    return [group for group in groups.values() if len(group) > 1]


def _list(items: Iterable[str]) -> str:
    return " and ".join(sorted(items))
