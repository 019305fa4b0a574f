"""The simulated data set is named so, the same for one seed, and has the classes that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import wfdb

from diptych.data.identity import Split
from diptych.errors import DataError
from diptych_biosignals import features
from diptych_biosignals.simulate import MARK, simulate
from diptych_biosignals.source import Label, Signal, Source, prepare

SMALL = {"patients": 4, "recordings": 1, "seconds": 15.0, "workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated"), **SMALL)  # type: ignore[arg-type]


def test_files_say_that_they_are_simulated(folder: Path) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(
        ["simulated.csv", *(f"simulated_0{i}_0.{suffix}" for i in range(4) for suffix in ("dat", "hea"))]
    )
    header = wfdb.rdheader(str(folder / "simulated_00_0"))
    assert (header.comments, header.sig_name, header.fs) == ([MARK], ["I", "II", "III"], 100)


def test_one_seed_gives_the_same_bytes_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    same = simulate(tmp_path / "same", **SMALL)  # type: ignore[arg-type]
    other = simulate(tmp_path / "other", seed=1, **SMALL)  # type: ignore[arg-type]
    for path in folder.iterdir():
        assert (same / path.name).read_bytes() == path.read_bytes()
    assert (other / "simulated_00_0.dat").read_bytes() != (folder / "simulated_00_0.dat").read_bytes()


def test_it_is_not_written_twice_and_never_over_other_files(folder: Path, tmp_path: Path) -> None:
    before = (folder / "simulated_00_0.dat").stat().st_mtime_ns
    simulate(folder, **SMALL)  # type: ignore[arg-type]
    assert (folder / "simulated_00_0.dat").stat().st_mtime_ns == before
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="holds other files than this simulation"):
        simulate(tmp_path, **SMALL)  # type: ignore[arg-type]


def test_labels_are_balanced_and_show_in_the_signals(folder: Path, tmp_path: Path) -> None:
    table = pd.read_csv(folder / "simulated.csv")
    assert table.groupby(["rhythm", "qrs"]).size().tolist() == [1, 1, 1, 1]
    data = prepare(
        Source(path=str(folder), names=r"(?P<patient>simulated_\d+)_", patient="name:patient",
               table="simulated.csv", table_id="patient", row="name:patient"),
        Signal(window=3), {name: Label(column=name) for name in ("rhythm", "qrs")}, Split(), cache=tmp_path,
    )  # fmt: skip
    assert len(data) == 20
    values = pd.DataFrame(
        features.baseline(data, np.arange(20), kind="ecg").values, columns=features.names("ecg", data.leads)
    )
    irregular, wide = (
        data.samples.labels[name] == text for name, text in (("rhythm", "irregular"), ("qrs", "wide"))
    )
    assert values["RR variation"][irregular].min() > values["RR variation"][~irregular].max()
    # within a rhythm: at irregular beats the measured borders of a QRS complex lie farther apart
    for rhythm in (irregular, ~irregular):
        assert values["QRS width II"][wide & rhythm].min() > values["QRS width II"][~wide & rhythm].max()


def test_lead_three_is_two_less_one(folder: Path) -> None:
    signal = wfdb.rdrecord(str(folder / "simulated_01_0")).p_signal
    np.testing.assert_allclose(signal[:, 2], signal[:, 1] - signal[:, 0], atol=1e-3)
    assert np.ptp(signal[:, 1]) > 0.8
