"""Small real files of every format, for the tests of the readers."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import edfio
import numpy as np
import wfdb
from numpy.typing import NDArray

SIX = ("I", "II", "III", "V1", "V2", "V3")


def waves(seconds: float = 12.0, rate: float = 100.0, leads: int = 2, seed: int = 0) -> NDArray[np.float64]:
    """Smooth signals of about 1 mV, other ones for every lead and seed, (time, leads)."""
    draw = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate))[:, None, None] / rate
    frequency, phase = draw.uniform(0.8, 12, (leads, 5)), draw.uniform(0, 6.3, (leads, 5))
    return np.sin(2 * np.pi * frequency * time + phase).mean(axis=2) + draw.uniform(-0.2, 0.2, leads)


def write_wfdb(
    folder: Path,
    name: str,
    signal: NDArray[np.float64],
    rate: float = 100.0,
    leads: Sequence[str] = ("I", "II"),
    fmt: str = "16",
    comments: Sequence[str] = (),
) -> Path:
    """One record with a gain of 100 (1000 for 16 bits and more) per mV; returns the header's path."""
    folder.mkdir(parents=True, exist_ok=True)
    gain = {"80": 50.0, "212": 400.0}.get(fmt, 1000.0)
    count = signal.shape[1]
    wfdb.wrsamp(
        name,
        fs=rate,
        units=["mV"] * count,
        sig_name=list(leads),
        p_signal=signal,
        fmt=[fmt] * count,
        adc_gain=[gain] * count,
        baseline=[3] * count,
        comments=list(comments),
        write_dir=str(folder),
    )
    return folder / f"{name}.hea"


def write_edf(
    path: Path,
    signals: Sequence[NDArray[np.float64]],
    rates: Sequence[float],
    labels: Sequence[str],
    *,
    unit: str = "uV",
    annotations: bool = False,
    patient: edfio.Patient | None = None,
) -> Path:
    """One EDF file; with annotations it is EDF+C."""
    path.parent.mkdir(parents=True, exist_ok=True)
    edf = edfio.Edf(
        [
            edfio.EdfSignal(
                signal, rate, label=label, physical_dimension=unit, physical_range=(-2000.0, 2000.0)
            )
            for signal, rate, label in zip(signals, rates, labels, strict=True)
        ],
        annotations=[edfio.EdfAnnotation(1.0, None, "eyes closed")] if annotations else None,
        patient=patient,
        recording=edfio.Recording(startdate=datetime.date(2011, 1, 1)) if patient else None,
        data_record_duration=1,
    )
    edf.write(path)
    return path


def patch(path: Path, offset: int, content: bytes) -> None:
    """Overwrite bytes of a file in place."""
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(bytes(data))


def cut(path: Path, share: float) -> None:
    """Keep the first share of a file's bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
