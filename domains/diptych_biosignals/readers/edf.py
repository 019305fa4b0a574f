"""EDF, EDF+ and BDF files (Kemp et al. 1992; Kemp and Olivan 2003), decoded by MNE.

MNE joins the records of a discontinuous file without saying so and up-samples mixed rates in one go, so the
fixed fields of the header are read here first: the continuity mark, the channels' rates and the file's size.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_biosignals.recording import Header, Recording, at_one_rate

_BROKEN: tuple[type[Exception], ...] = (*MALFORMED, RuntimeError)

_NO_SIGNAL = ("EDF Annotations", "BDF Annotations", "Status")  # texts, and the trigger channel of BDF
_MICRO = ("uV", "µV", "μV", "\x83\xcaV")

# What MNE warns of that does not touch the samples: dates, persons and filter settings noted in the header,
# and annotations that lie outside of the recording.
_HARMLESS = (
    r"Invalid measurement date encountered in the header",
    r"Invalid patient information",
    r"Highpass cutoff frequency .* is greater than lowpass cutoff frequency",
    r"Channels contain different (highpass|lowpass) filters",
    r"Limited \d+ annotation\(s\)",
    r"Omitted \d+ annotation\(s\)",
)


@dataclass(frozen=True)
class _Fields:
    """The header's fixed fields, one entry per channel, annotation channels included."""

    labels: tuple[str, ...]
    units: tuple[str, ...]
    calibrated: tuple[bool, ...]  # whether the physical and the digital range are given
    samples: tuple[int, ...]  # per data record
    records: int
    record_seconds: float
    header_bytes: int
    sample_bytes: int
    kind: str  # reserved field: "EDF+C", "EDF+D", "BDF+C", ... or ""
    patient: str


def find(files: Sequence[Path], root: Path) -> list[Item]:
    """One item per file."""
    return [
        Item(path=path, name=path.relative_to(root).with_suffix("").as_posix(), files=(path,))
        for path in files
    ]


def read_header(item: Item) -> Header:
    """Leads with their own rates; annotation channels are left out."""
    fields = _read_fields(item.path)
    chosen = _signals(fields)
    return Header(
        leads=tuple(fields.labels[i] for i in chosen),
        rates=tuple(fields.samples[i] / fields.record_seconds for i in chosen),
        units=tuple(fields.units[i] for i in chosen),
        seconds=fields.records * fields.record_seconds if fields.records >= 0 else None,
        patient=_patient(fields),
    )


def read(item: Item, leads: Sequence[str]) -> Recording:
    """The given leads in the file's physical units, at the highest of their rates.

    Raises Unreadable on a discontinuous file (EDF+D, BDF+D), a truncated one and ambiguous channel names.
    """
    fields = _read_fields(item.path)
    _check_whole(item.path, fields)
    header = read_header(item)
    twice = {lead for lead in leads if header.leads.count(lead) > 1}
    if twice:
        raise Unreadable(f"{len(twice)} channel names occur more than once; choose others with signal.leads")
    if any(
        label in leads and not known for label, known in zip(fields.labels, fields.calibrated, strict=True)
    ):
        raise Unreadable("no calibration: a channel's physical or digital range is empty")
    rates = [header.rates[header.leads.index(lead)] for lead in leads]
    units = [header.units[header.leads.index(lead)] for lead in leads]
    columns: dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]] = {}
    for rate in dict.fromkeys(rates):
        names = [lead for lead, own in zip(leads, rates, strict=True) if own == rate]
        columns |= _decode(item.path, names, {lead: units[leads.index(lead)] for lead in names})
    return at_one_rate([columns[lead] for lead in leads], rates, tuple(leads), tuple(units))


def _decode(
    path: Path, names: Sequence[str], units: dict[str, str]
) -> dict[str, np.ndarray[tuple[int], np.dtype[np.float32]]]:
    """Channels of one rate through MNE, brought back from its volts to the file's own units."""
    import mne

    reader = mne.io.read_raw_bdf if path.suffix.lower() == ".bdf" else mne.io.read_raw_edf
    with warnings.catch_warnings():
        for message in _HARMLESS:
            warnings.filterwarnings("ignore", message=message, category=RuntimeWarning)
        try:
            raw = reader(
                path, include=list(names), stim_channel=None, preload=True, encoding="latin1", verbose="ERROR"
            )
            values = raw.get_data(picks=list(names))
        except _BROKEN as error:
            raise malformed("EDF/BDF file", error) from None
    volts = {"mV": 1e-3} | dict.fromkeys(_MICRO, 1e-6)
    return {
        name: (row / volts.get(units[name], 1.0)).astype(np.float32)
        for name, row in zip(names, values, strict=True)
    }


def _read_fields(path: Path) -> _Fields:
    """The first 256 bytes and the 256 bytes per channel of the header."""
    try:
        with path.open("rb") as file:
            head = file.read(256)
            if len(head) < 256:
                raise Unreadable("truncated EDF/BDF header")
            count = int(head[252:256])
            body = file.read(256 * count)
            if len(body) < 256 * count:
                raise Unreadable("truncated EDF/BDF header")
        labels, units = _texts(body, count, 0, 16), _texts(body, count, 96, 8)
        fields = _Fields(
            labels=labels,
            units=units,
            calibrated=_calibrated(body, count),
            samples=tuple(int(text) for text in _texts(body, count, 216, 8)),
            records=int(head[236:244]),
            record_seconds=float(head[244:252]),
            header_bytes=int(head[184:192]),
            sample_bytes=3 if head[:1] == b"\xff" else 2,
            kind=head[192:236].decode("latin-1").strip(),
            patient=head[8:88].decode("latin-1"),
        )
    except (ValueError, OSError) as error:
        raise malformed("EDF/BDF header", error) from None
    if not _signals(fields):
        raise Unreadable("the file has annotations but no signals")
    if not fields.record_seconds > 0:
        raise Unreadable("the header has no usable sampling rate: its records last 0 s")
    return fields


def _texts(body: bytes, count: int, start: int, width: int) -> tuple[str, ...]:
    """One text field per channel; ``start`` is the sum of the widths of the fields before it."""
    field = body[count * start : count * (start + width)]
    return tuple(field[i * width : (i + 1) * width].decode("latin-1").strip() for i in range(count))


def _patient(fields: _Fields) -> str | None:
    """The code of EDF+ ("code sex birthdate name"), or all of the free text of EDF; X means unknown."""
    parts = fields.patient.split()
    if fields.kind[3:4] == "+" or re.match(r"\S+ [MFX] (\d\d-[A-Z]{3}-\d{4}|X) \S", fields.patient):
        parts = parts[:1]
    return " ".join(parts) if any(part != "X" for part in parts) else None


def _calibrated(body: bytes, count: int) -> tuple[bool, ...]:
    limits = [_texts(body, count, start, 8) for start in (104, 112, 120, 128)]
    ranges = zip(*[[float(text.replace(",", ".")) for text in each] for each in limits], strict=True)
    return tuple(p_min != p_max and d_min < d_max for p_min, p_max, d_min, d_max in ranges)


def _signals(fields: _Fields) -> list[int]:
    return [i for i, label in enumerate(fields.labels) if label not in _NO_SIGNAL and fields.samples[i] > 0]


def _check_whole(path: Path, fields: _Fields) -> None:
    """Refuse files whose samples are not one stretch of time."""
    if fields.kind[3:5] == "+D":
        raise Unreadable(
            f"discontinuous recording ({fields.kind[:5]}): its records leave gaps in time; "
            "split it into continuous files"
        )
    per_record = sum(fields.samples) * fields.sample_bytes
    held = (path.stat().st_size - fields.header_bytes) / per_record
    if fields.records >= 0 and held < fields.records:
        raise Unreadable(
            f"truncated file: {max(0.0, held) * fields.record_seconds:.1f} of "
            f"{fields.records * fields.record_seconds:.1f} s"
        )
    if fields.records < 0 or held != fields.records:
        raise Unreadable("the number of data records in the header does not match the file's size")
