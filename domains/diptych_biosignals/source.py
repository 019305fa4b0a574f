"""Find recordings and their labels, prepare them in parallel and serve their windows from a cache."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.annotate import Annotated, annotate
from diptych.data.assemble import check_copies, list_files, numbers_of, report_found
from diptych.data.identity import Split
from diptych.data.leaks import check_leaks
from diptych.data.pieces import cache_folder, make_pieces
from diptych.data.quarantine import Quarantine
from diptych.data.readable import Unreadable
from diptych.data.scan import Scan, Scanned, item_path, scan
from diptych.errors import ConfigError
from diptych.study import Samples
from diptych_biosignals import readers
from diptych_biosignals.assemble import describe, identify, nothing_left, use
from diptych_biosignals.labels import Label, window_labels
from diptych_biosignals.leads import find_leads, most_frequent
from diptych_biosignals.pieces import Job, Plan, load, store
from diptych_biosignals.recording import Header
from diptych_biosignals.settings import Signal, Source
from diptych_biosignals.store import Store

__all__ = ["Label", "Prepared", "Signal", "Source", "prepare"]

_ROWS_PER_JOB = 256  # recordings of one file that are prepared and stored together


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A data set ready to be sliced: row i of ``samples`` is window i, in order of recordings and time."""

    samples: Samples
    rate: float  # Hz
    leads: tuple[str, ...]
    trial_ids: NDArray[np.int64]  # (n,) equal within a trial, different between trials of the whole data set
    patient_ids: NDArray[np.int64]  # (n,)
    recordings: pd.DataFrame  # one row a recording: keys, file (index into the store), first and last row
    recording_of: NDArray[np.int64]  # (n,) row of ``recordings``
    times: NDArray[np.float64]  # (n, 2) start and end in seconds from the beginning of the recording
    store: Store
    cache: Path  # folder of the prepared signals
    report: Mapping[str, str]  # what was found, in lines for inspect and the report
    again: _Again = field(repr=False)  # prepares the same data with another Signal

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def window(self) -> int:
        """Samples in a window."""
        return self.store.window

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """The windows at ``indices`` as (n, time, leads)."""
        return self.store.batch(indices)

    def signal(self, recording: int) -> NDArray[np.float32]:
        """All stored samples of one recording (row of ``recordings``), (time, leads)."""
        row = self.recordings.iloc[recording]
        return self.store.rows(int(row["file"]), int(row["first"]), int(row["last"]))

    @cached_property
    def physical(self) -> Prepared:
        """The same recordings, whole, filtered alike, in physical units: for hand-made features."""
        return self.again(
            replace(
                self.again.signal,
                normalise="none",
                normalise_trial="none",
                trial="recording",
                trial_seconds=None,
            )
        )

    @cached_property
    def unscaled(self) -> Prepared:
        """The same windows in physical units."""
        return self.again(replace(self.again.signal, normalise="none", normalise_trial="none"))


def prepare(
    source: Source,
    signal: Signal,
    labels: Mapping[str, Label],
    split: Split,
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
) -> Prepared:
    """Read every recording once, prepare it, store its windows and put ids and labels to them.

    Args:
        source: Where the recordings are and whose.
        signal: What is made of them.
        labels: Labels by name.
        split: Decides the split of every patient from the raw id.
        cache: Folder of prepared signals; by default ``DIPTYCH_CACHE`` or the user's cache folder. A run that
            was stopped goes on where it was; pieces are found by the checksum of files and the settings.
        workers: Processes; by default one per CPU this process may use.

    Raises:
        ConfigError: a setting that does not fit the data (unknown column, rates that differ, a window longer
            than every recording).
        DataError: no recordings, too many in quarantine, contradictory table rows, a recording under two ids.
    """
    folder = cache_folder(cache, "biosignals")
    found = find_recordings(source, workers)
    quarantine = Quarantine()
    for path, reason in found.rejected:
        quarantine.add(path, reason)
    whole = {name: label for name, label in labels.items() if label.intervals is None}
    annotated = annotate(found, source, whole, quarantine)
    wanted, plan = resolve(annotated.scanned, source, signal)
    grouped = make_jobs(annotated, wanted, signal, found, quarantine)
    jobs = [job for job, _ in grouped]
    pieces = make_pieces(
        jobs,
        [job.key(plan) for job in jobs],
        folder,
        load=load,
        store=partial(store, plan=plan),
        workers=workers,
    )
    total = len(found.scanned) + len(found.rejected)
    used = use(grouped, pieces, found, quarantine)
    if not len(used.starts):
        raise nothing_left(quarantine, signal.window)
    quarantine.check(total, signal.max_quarantined)
    ids, table = identify(used, annotated, split)
    manifest = list_files(annotated, used.numbers.tolist(), found, table, partial(describe, used, annotated))
    check_copies([str(facts["content"]) for facts in used.facts], table, found.unit, "signal")
    check_leaks(ids, manifest)
    of = used.numbers[used.recording_of]
    values = window_labels(labels, annotated, source, found.root, of, used.times)
    window = signal.samples(plan.rate, signal.window, "window")
    return Prepared(
        samples=Samples(ids=ids, labels=values, manifest=manifest, quarantine=quarantine),
        rate=plan.rate,
        leads=wanted,
        trial_ids=numbers_of(ids["trial"]),
        patient_ids=numbers_of(ids["patient"]),
        recordings=table,
        recording_of=used.recording_of,
        times=used.times,
        store=Store(used.files, used.file[used.recording_of], used.starts, window, len(wanted)),
        cache=folder,
        report=report_found(
            table,
            annotated,
            found,
            quarantine,
            source.patient,
            {"trials": str(ids["trial"].nunique()), "windows": str(len(ids))},
        ),
        again=_Again(source, signal, labels, split, cache, workers),
    )


def find_recordings(source: Source, workers: int | None = None) -> Scan[Header]:
    """All recordings of a source, with their headers."""
    return scan(
        source,
        partial(readers.find, only=source.format),
        partial(readers.read_header, arrays=source.arrays),
        expected="WFDB (.hea), EDF/BDF (.edf, .bdf), NumPy (.npy, .npz), DICOM (.dcm)",
        suffixes=(".hea",),
        workers=workers,
    )


def resolve(scanned: list[Scanned[Header]], source: Source, signal: Signal) -> tuple[tuple[str, ...], Plan]:
    """The leads and the rate of the data set, where the config leaves them to the files."""
    wanted = tuple(signal.leads) if signal.leads else most_frequent([each.header.leads for each in scanned])
    rate = signal.rate
    if rate is None:
        rates: Counter[float] = Counter()
        for each in scanned:
            try:
                own = find_leads(each.header.leads, wanted, signal.aliases)
            except Unreadable:
                continue
            names = [name for name in own if name is not None]
            if names:
                rates[max(each.header.rates[each.header.leads.index(name)] for name in names)] += 1
        if len(rates) > 1:
            counts = ", ".join(f"{rate:g} Hz ({count})" for rate, count in rates.most_common())
            raise ConfigError(f"the recordings have different sampling rates: {counts}; set signal.rate")
        rate = next(iter(rates), scanned[0].header.rates[0])
    for setting, value in (("band", (signal.band or (None, None))[1]), ("notch", signal.notch)):
        if value is not None and value >= rate / 2:
            raise ConfigError(
                f"signal.{setting}: {value:g} Hz is not below half of the rate ({rate / 2:g} Hz)"
            )
    signal.samples(rate, signal.window, "window")
    if signal.trial_seconds is not None:
        signal.samples(rate, signal.trial_seconds, "trial_seconds")
    return wanted, Plan(signal=signal, rate=rate, arrays=source.arrays)


def make_jobs(
    annotated: Annotated[Header],
    wanted: tuple[str, ...],
    signal: Signal,
    found: Scan[Header],
    quarantine: Quarantine,
) -> list[tuple[Job, list[int]]]:
    """One job per file, or per some rows of a big array, with its recordings' numbers; others go to quarantine."""
    files: dict[Path, list[tuple[int, tuple[str | None, ...]]]] = defaultdict(list)
    for number, each in enumerate(annotated.scanned):
        try:
            leads = find_leads(each.header.leads, wanted, signal.aliases)
            _check_leads(leads, wanted, signal, len(each.header.leads))
        except Unreadable as error:
            quarantine.add(item_path(each.item, found.root), str(error))
        else:
            files[each.item.path].append((number, tuple(leads)))
    grouped = []
    chunks = [
        each[i : i + _ROWS_PER_JOB] for each in files.values() for i in range(0, len(each), _ROWS_PER_JOB)
    ]
    for members in chunks:
        first = annotated.scanned[members[0][0]]
        digests = [found.checksums[found.relative(file)].sha256 for file in first.item.files]
        items = tuple(annotated.scanned[number].item for number, _ in members)
        job = Job(
            kind=first.kind, items=items, leads=tuple(leads for _, leads in members), digests=tuple(digests)
        )
        grouped.append((job, [number for number, _ in members]))
    return grouped


def _check_leads(leads: list[str | None], wanted: tuple[str, ...], signal: Signal, count: int) -> None:
    missing = [name for name, lead in zip(wanted, leads, strict=True) if lead is None]
    if len(missing) == len(wanted):
        raise Unreadable(f"missing leads: none of the {len(wanted)} wanted leads is among its {count}")
    if signal.leads is None and (missing or count != len(wanted)):
        raise Unreadable(
            f"unequal leads: {count} leads, most recordings have {len(wanted)}; set signal.leads"
        )
    if missing and signal.missing_leads == "reject":
        raise Unreadable(
            f"missing leads: {', '.join(missing)} (signal.missing_leads: zero keeps the recording)"
        )


@dataclass(frozen=True)
class _Again:
    source: Source
    signal: Signal
    labels: Mapping[str, Label]
    split: Split
    cache: str | Path | None
    workers: int | None

    def __call__(self, signal: Signal) -> Prepared:
        return prepare(self.source, signal, self.labels, self.split, cache=self.cache, workers=self.workers)
