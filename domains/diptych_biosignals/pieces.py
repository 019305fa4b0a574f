"""One file prepared and stored: the part of preparation that runs in worker processes and is cached.

A piece is two files named by a key: ``KEY.npy``, the samples of all windows of one file's recordings as a
float32 array (rows, leads) to be memory-mapped, and ``KEY.npz``, where windows start and which trial they
belong to. The second is written last, so a piece with both is whole. Neither holds text from a header.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.data.atomic import replacing
from diptych.data.readable import Item, Unreadable
from diptych_biosignals import filters, readers, windows
from diptych_biosignals.peaks import r_peaks
from diptych_biosignals.readers import ArrayFacts
from diptych_biosignals.recording import Recording, Signal32
from diptych_biosignals.settings import Signal
from diptych_biosignals.windows import Cut

_VERSION = 1  # raise when the same settings give other samples: older pieces are then made anew


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How every recording is prepared, with all defaults resolved over the data set."""

    signal: Signal
    rate: float  # Hz
    arrays: ArrayFacts


@dataclass(frozen=True, kw_only=True)
class Job:
    """One file's recordings, with each one's own names of the wanted leads (None: missing, to be zero)."""

    kind: str
    items: tuple[Item, ...]
    leads: tuple[tuple[str | None, ...], ...]
    digests: tuple[str, ...]  # SHA-256 of all the bytes that the recordings depend on

    def key(self, plan: Plan) -> str:
        """Names the piece: a hash of bytes and settings, without any path."""
        settings = asdict(plan.signal)
        for only_names in ("leads", "aliases", "missing_leads", "max_quarantined"):
            del settings[only_names]  # they act through self.leads
        parts = [(item.part, leads) for item, leads in zip(self.items, self.leads, strict=True)]
        text = json.dumps(
            [_VERSION, self.kind, self.digests, parts, settings, plan.rate, asdict(plan.arrays)]
        )
        return hashlib.sha256(text.encode()).hexdigest()[:40]


class Piece(NamedTuple):
    """What is stored beside the samples."""

    part: NDArray[np.int64]  # (windows,) index into the job's items
    starts: NDArray[np.int64]  # (windows,) first row
    trials: NDArray[np.int64]  # (windows,) number of the trial within the recording
    times: NDArray[np.float64]  # (windows, 2) seconds
    rows: NDArray[np.int64]  # (items + 1,) the rows of each item's samples
    facts: list[dict[str, Any]]  # per item: "reason" of a rejected one, else "content" and "seconds"


def store(job: Job, target: Path, *, plan: Plan) -> list[str] | None:
    """Prepare one file's recordings and write the piece ``target``.npy/.npz.

    Returns None when it is written, or the reason of each recording when all were rejected: those are not
    stored, so that a mended reader meets them again.
    """
    cuts, facts = [], []
    width = len(job.leads[0])
    for item, leads in zip(job.items, job.leads, strict=True):
        try:
            cut, fact = prepare(job.kind, item, leads, plan)
        except Unreadable as error:
            cut, fact = windows.join([], width), {"reason": str(error)}
        cuts.append(cut)
        facts.append(fact)
    if all("reason" in fact for fact in facts):
        return [str(fact["reason"]) for fact in facts]
    rows = np.cumsum([0] + [len(cut.data) for cut in cuts])
    with replacing(target.with_suffix(".npy")) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate([cut.data for cut in cuts]), allow_pickle=False)
    with replacing(target.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez(
            file,
            part=np.repeat(np.arange(len(cuts)), [len(cut.starts) for cut in cuts]),
            starts=np.concatenate([cut.starts + row for cut, row in zip(cuts, rows, strict=False)]),
            trials=np.concatenate([cut.trials for cut in cuts]),
            times=np.concatenate([cut.times for cut in cuts]),
            rows=rows,
            facts=np.array(json.dumps(facts)),
        )
    return None


def load(target: Path) -> Piece | None:
    """The stored tables of a piece, or None where it is not there or not whole."""
    if not target.with_suffix(".npy").is_file() or not target.with_suffix(".npz").is_file():
        return None
    try:
        with target.with_suffix(".npz").open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            facts = json.loads(str(file["facts"]))
            part, starts, trials, times, rows = (file[name] for name in Piece._fields[:-1])
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile):
        return None  # written again
    return Piece(part, starts, trials, times, rows, facts)


def prepare(kind: str, item: Item, leads: Sequence[str | None], plan: Plan) -> tuple[Cut, dict[str, Any]]:
    """Read one recording and cut it into windows. Raises Unreadable with the reason why not."""
    present = [lead for lead in leads if lead is not None]
    recording = readers.read(kind, item, present, plan.arrays)
    content = content_hash(recording.signal)
    signal = plan.signal
    window = signal.samples(plan.rate, signal.window, "window")
    _check_long_enough(recording, signal.window)
    flat = check_values(recording, signal)
    whole = np.zeros((len(recording.signal), len(leads)), np.float32)
    whole[:, [i for i, lead in enumerate(leads) if lead is not None]] = np.where(flat, 0.0, recording.signal)
    cuts = []
    for start, stop in windows.finite_runs(whole):
        if filters.resampled_length(stop - start, recording.rate, plan.rate) < window:
            continue
        run = filtered(whole[start:stop], recording.rate, plan)
        run = filters.normalise(run, signal.normalise)
        offset = round(start * plan.rate / recording.rate)
        cuts.append(_cut(run, offset, plan, window))
    cut = windows.join([each for each in cuts if len(each.starts)], len(leads))
    if not len(cut.starts):
        raise Unreadable(_no_window(signal))
    return cut, {"content": content, "seconds": recording.seconds, "rate": recording.rate}


def filtered(signal: Signal32, rate: float, plan: Plan) -> Signal32:
    """A gapless run brought to the plan's rate, then band-pass and notch."""
    out = filters.resample(signal, rate, plan.rate)
    low, high = plan.signal.band or (None, None)
    out = filters.band_pass(out, plan.rate, low, high)
    return out if plan.signal.notch is None else filters.notch(out, plan.rate, plan.signal.notch)


def check_values(recording: Recording, signal: Signal) -> NDArray[np.bool_]:
    """Which leads are constant. Raises Unreadable on gaps and flat leads where the settings say so."""
    values = recording.signal
    count = values.shape[1]
    if np.isinf(values).any():
        raise Unreadable("infinite values")
    missing = np.isnan(values).mean(axis=0)
    if (missing == 1).any():
        raise Unreadable(f"missing lead: {int((missing == 1).sum())} of {count} leads have no values (NaN)")
    if signal.gaps == "reject" and missing.any():
        raise Unreadable(
            f"missing samples: {missing.max():.2%} of lead {int(missing.argmax()) + 1} are NaN "
            "(signal.gaps: split keeps the rest)"
        )
    flat: NDArray[np.bool_] = np.nanmax(values, axis=0) == np.nanmin(values, axis=0)
    if flat.all() or (flat.any() and signal.flat_leads == "reject"):
        raise Unreadable(f"flat lead: {int(flat.sum())} of {count} leads are constant")
    return flat


def content_hash(signal: Signal32) -> str:
    """SHA-256 of the decoded samples: equal for one recording stored twice, in whatever files."""
    values = np.where(np.isnan(signal), np.float32(np.nan), signal + np.float32(0))  # one NaN, no -0.0
    digest = hashlib.sha256(repr(values.shape).encode())
    digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    return digest.hexdigest()


def _check_long_enough(recording: Recording, window: float) -> None:
    if recording.seconds < window * (1 - 1e-9):
        raise Unreadable(f"too short: {recording.seconds:.1f} s, window needs {window:.1f} s")


def _cut(run: Signal32, offset: int, plan: Plan, window: int) -> Cut:
    signal = plan.signal
    if signal.trial == "beats":
        peaks = r_peaks(run, plan.rate)
        if len(peaks) > 1 and 2 * (int(np.median(np.diff(peaks))) // 2) > window:
            seconds = float(np.median(np.diff(peaks))) / plan.rate
            raise Unreadable(
                f"beats too long: median RR interval {seconds:.2f} s, window {signal.window:.2f} s"
            )
        return windows.cut_beats(
            run, plan.rate, offset=offset, peaks=peaks, beats=signal.beats, window=window,
            scale=signal.normalise_trial,
        )  # fmt: skip
    trial = None
    if signal.trial_seconds is not None:
        trial = signal.samples(plan.rate, signal.trial_seconds, "trial_seconds")
    step = max(1, round(window * (1 - signal.overlap)))
    return windows.cut_trials(
        run, plan.rate, offset=offset, trial=trial, window=window, step=step, scale=signal.normalise_trial
    )


def _no_window(signal: Signal) -> str:
    if signal.trial == "beats":
        return f"too few beats: fewer than {signal.beats} R peaks were found"
    if signal.trial_seconds is not None:
        return f"too short: no gapless stretch of {signal.trial_seconds:.1f} s, the length of a trial"
    return f"too short: no gapless stretch of {signal.window:.1f} s, the length of a window"
