"""Simulated ECG recordings for the demo and the tests. They are simulated: no result on them is a finding."""

from __future__ import annotations

import csv
import io
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb
from numpy.typing import NDArray

from diptych.data.atomic import write_text
from diptych.data.pool import in_pool
from diptych.errors import DataError

TABLE = "simulated.csv"
LEADS = ("I", "II", "III")
MARK = "SIMULATED with the McSharry model (neurokit2); not a recording of a person"

_SPARE_SECONDS = 6.0  # simulated beyond the end, which is cut where the rhythm is slower than its mean


class Patient(NamedTuple):
    """What a simulated patient's recordings have in common."""

    name: str
    irregular: bool  # RR intervals vary widely and there is no P wave
    wide: bool  # the QRS complex is wide
    heart_rate: float  # 1/min
    waves: NDArray[np.float64]  # (2 leads, 5) amplitudes of P, Q, R, S, T
    widths: NDArray[np.float64]  # (5,)
    gains: NDArray[np.float64]  # (2,) mV
    noise: float  # mV


def simulate(
    folder: str | Path,
    *,
    patients: int = 24,
    recordings: int = 2,
    seconds: float = 20.0,
    rate: int = 100,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Write simulated ECG as WFDB records with a table of labels, and return the folder.

    Records are ``simulated_PP_R.hea/.dat`` with the leads I, II and III; the table ``simulated.csv`` has the
    columns patient, rhythm (regular, irregular), qrs (narrow, wide) and heart_rate (1/min), one row each.
    Both classes of both labels are equally frequent and independent where ``patients`` is a multiple of 4.
    Wave amplitudes, their places and noise differ between patients, so that each has a shape of their own.
    A folder that already holds this simulation is left as it is; equal arguments give the same bytes.

    Model: P. E. McSharry et al., A dynamical model for generating synthetic electrocardiogram signals, IEEE
    Trans. Biomed. Eng. 50(3), 2003; lead III is II - I (Einthoven).

    Raises:
        DataError: the folder holds other files.
    """
    folder = Path(folder)
    people = [_draw(number, np.random.default_rng([seed, number])) for number in range(patients)]
    table = _table(people, recordings, seconds, rate, seed)
    if (folder / TABLE).is_file() and (folder / TABLE).read_text(encoding="utf-8") == table:
        return folder
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"{str(folder)!r} holds other files than this simulation; take an empty folder or remove them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    tasks = [(person, number) for person in people for number in range(recordings)]
    work = partial(_write, folder=folder, seconds=seconds, rate=rate, seed=seed)
    in_pool(work, tasks, workers=workers, what="Simulating")
    write_text(folder / TABLE, table)  # last: its presence says that all records are there
    return folder


def _draw(number: int, draw: np.random.Generator) -> Patient:
    """The traits of one patient; classes go round so that they are balanced."""
    irregular, wide = bool(number % 2), bool(number // 2 % 2)
    waves = np.array([[1.2, -5.0, 30.0, -7.5, 0.75], [1.6, -3.0, 34.0, -5.0, 1.0]])
    waves = waves * draw.uniform(0.6, 1.4, waves.shape)
    if irregular:
        waves[:, 0] = 0.0
    widths = np.array([0.25, 0.1, 0.1, 0.1, 0.4]) * draw.uniform(0.9, 1.1, 5)
    widths[1:4] *= 1.8 if wide else 1.0
    return Patient(
        name=f"simulated_{number:02d}",
        irregular=irregular,
        wide=wide,
        heart_rate=float(draw.uniform(60, 90)),
        waves=waves,
        widths=widths,
        gains=draw.uniform(0.7, 1.3, 2),
        noise=float(draw.uniform(0.01, 0.04)),
    )


def _write(task: tuple[Patient, int], *, folder: Path, seconds: float, rate: int, seed: int) -> None:
    """One record of one patient."""
    person, number = task
    draw = np.random.default_rng([seed, 7, number, *person.name.encode()])
    rhythm = int(draw.integers(2**31))  # the same for both leads, so that their beats coincide
    limbs = np.stack(
        [_lead(person, lead, rhythm, seconds + _SPARE_SECONDS, rate) for lead in range(2)], axis=1
    )
    limbs = limbs[: round(seconds * rate)] * person.gains
    limbs = limbs + _wander(len(limbs), rate, draw) + draw.normal(0, person.noise, limbs.shape)
    signal = np.stack([limbs[:, 0], limbs[:, 1], limbs[:, 1] - limbs[:, 0]], axis=1)
    wfdb.wrsamp(
        f"{person.name}_{number}",
        fs=rate,
        units=["mV"] * 3,
        sig_name=list(LEADS),
        p_signal=signal,
        fmt=["16"] * 3,
        adc_gain=[2000.0] * 3,
        baseline=[0] * 3,
        comments=[MARK],
        write_dir=str(folder),
    )


def _lead(person: Patient, lead: int, rhythm: int, seconds: float, rate: int) -> NDArray[np.float64]:
    import neurokit2 as nk

    return np.asarray(
        nk.ecg_simulate(
            duration=seconds,
            sampling_rate=rate,
            heart_rate=person.heart_rate,
            heart_rate_std=18 if person.irregular else 1.5,
            lfhfratio=0.1 if person.irregular else 0.5,
            noise=0,
            method="ecgsyn",
            random_state=rhythm,
            ai=person.waves[lead],
            bi=person.widths,
        )
    )


def _wander(length: int, rate: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """Baseline wander of breathing, (time, 2) mV."""
    time = np.arange(length)[:, None] / rate
    return draw.uniform(0.02, 0.08, 2) * np.sin(
        2 * np.pi * (draw.uniform(0.15, 0.35) * time + draw.uniform(0, 1, 2))
    )


def _table(people: list[Patient], recordings: int, seconds: float, rate: int, seed: int) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["patient", "rhythm", "qrs", "heart_rate", "simulation"])
    for person in people:
        rhythm = "irregular" if person.irregular else "regular"
        qrs = "wide" if person.wide else "narrow"
        settings = f"seed {seed}, {recordings} x {seconds:g} s at {rate} Hz"
        rows.writerow([person.name, rhythm, qrs, f"{person.heart_rate:.1f}", settings])
    return text.getvalue()
