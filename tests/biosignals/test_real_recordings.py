"""Real recordings of PhysioNet are read whole (with DIPTYCH_DATA), and the ECG that pydicom ships always."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import wfdb
from pydicom.data import get_testdata_file

from diptych.data.identity import Split
from diptych_biosignals import features
from diptych_biosignals.source import Label, Prepared, Signal, Source, prepare

DATA = os.environ.get("DIPTYCH_DATA")
real = pytest.mark.skipif(
    not DATA, reason="DIPTYCH_DATA is not set: real recordings are not part of the project"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def ludb(cache: Path) -> Prepared:
    labels = {
        "rhythm": Label(column="Rhythms", classes=["sinus=^sinus rhythm$", "fibrillation"]),
        "ischemia": Label(column="Ischemia", contains="STEMI", blank="none"),
        "age": Label(column="Age", number=True), "sex": Label(column="Sex"), "same sex": Label(rule="comment:sex"),
    }  # fmt: skip
    source = Source(path="$DIPTYCH_DATA/ecg/ludb", table="ludb.csv", table_id="ID")
    signal = Signal(window=2.5, overlap=0.5, rate=100, band=(0.5, 40))
    return prepare(source, signal, labels, Split(), cache=cache)


@real
def test_ludb_is_two_hundred_patients_with_twelve_leads(ludb: Prepared) -> None:
    assert (len(ludb), len(ludb.leads), len(ludb.recordings), len(ludb.samples.quarantine)) == (
        1400,
        12,
        200,
        0,
    )
    first = ludb.samples.labels.iloc[::7]
    assert first["rhythm"].value_counts().to_dict() == {"sinus": 142, "fibrillation": 15}
    assert first["sex"].tolist() == first["same sex"].tolist()
    assert first["age"].notna().sum() == 199  # one cell says ">89"
    assert set(first["ischemia"]) == {"yes", "no"}
    original = wfdb.rdrecord(f"{DATA}/ecg/ludb/data/1").p_signal
    whole = ludb.physical.signal(int(np.flatnonzero(ludb.recordings["file"] == 0)[0]))
    assert whole.shape == (1000, 12)
    assert np.corrcoef(whole[100:-100, 1], original[500:-500:5, 1])[0, 1] > 0.97


@real
def test_features_of_ludb_tell_fibrillation_by_its_rhythm(ludb: Prepared) -> None:
    values = features.baseline(ludb, np.arange(0, 1400, 7), kind="ecg").values
    rhythm = ludb.samples.labels["rhythm"].to_numpy()[::7]
    assert np.isfinite(values).mean() > 0.99
    variation = values[:, features.RHYTHM.index("RR step variation")]
    assert np.median(variation[rhythm == "fibrillation"]) > 3 * np.median(variation[rhythm == "sinus"])


@real
def test_mitdb_100_is_one_recording_of_thirty_minutes(cache: Path) -> None:
    source = Source(path="$DIPTYCH_DATA/ecg/mitdb_100")
    data = prepare(
        source, Signal(window=10, leads=["II", "V5"], normalise_trial="none"), {}, Split(), cache=cache
    )
    assert (len(data), data.rate, len(data.recordings)) == (180, 360, 1)
    assert data.recordings["seconds"][0] == pytest.approx(1805.556, abs=1e-3)
    expected = wfdb.rdrecord(f"{DATA}/ecg/mitdb_100/100").p_signal
    np.testing.assert_allclose(data.signal(0), expected, atol=1e-5)
    beats = wfdb.rdann(f"{DATA}/ecg/mitdb_100/100", "atr")
    found = features.r_peaks(data.physical.signal(0), 360)
    true = np.array([s for s, kind in zip(beats.sample, beats.symbol, strict=True) if kind in "NAV"])
    near = np.abs(found[:, None] - true).min(axis=0) <= 18  # within 50 ms
    assert (near.mean(), abs(len(found) / len(true) - 1)) == (
        pytest.approx(1, abs=0.005),
        pytest.approx(0, abs=0.005),
    )


@real
def test_eegmat_has_two_states_of_every_person(cache: Path) -> None:
    source = Source(
        path="$DIPTYCH_DATA/eeg/eegmat/edf_200hz_60s", names=r"(?P<patient>Subject\d+)_(?P<state>\d)",
        patient="name:patient", table=f"{DATA}/eeg/eegmat/subject-info.csv", table_id="Subject", row="name:patient",
    )  # fmt: skip
    labels = {
        "state": Label(rule="name:state", classes=["rest=1", "arithmetic=2"]),
        "age": Label(column="Age", number=True),
    }
    data = prepare(source, Signal(window=2, leads=["Fp1", "T7", "Cz"]), labels, Split(), cache=cache)
    assert (len(data), data.rate, len(data.recordings)) == (1440, 200, 48)
    assert data.samples.ids["patient"].nunique() == 24
    assert data.samples.labels["state"].value_counts().to_dict() == {"rest": 720, "arithmetic": 720}
    assert data.samples.labels["age"].notna().all()


@real
def test_originals_and_resampled_copies_join_at_one_rate(cache: Path) -> None:
    source = Source(
        path="$DIPTYCH_DATA/eeg/eegmat", include=["*Subject00_1.edf"],
        names=r"(?P<kind>\w+)/(?P<patient>Subject\d+)", patient="name:patient",
    )  # fmt: skip
    signal = Signal(window=2, leads=["Fp1", "Cz", "ECG"], rate=200, normalise_trial="none")
    data = prepare(source, signal, {}, Split(), cache=cache)
    assert data.recordings["seconds"].tolist() == [60, 182]
    copy, original = data.signal(0), data.signal(1)[: 200 * 60]
    assert np.corrcoef(copy[400:-400, 1], original[400:-400, 1])[0, 1] > 0.99


def test_the_dicom_ecg_of_pydicom(tmp_path: Path) -> None:
    path = str(get_testdata_file("waveform_ecg.dcm", download=False))
    signal = Signal(window=2, leads=["II", "aVR", "V6"], rate=250, normalise_trial="none")
    data = prepare(Source(path=path), signal, {}, Split(), cache=tmp_path)
    assert (data.batch(np.arange(5)).shape, data.rate) == ((5, 500, 3), 250)
    assert 100 < np.ptp(data.signal(0)[:, 0]) < 5000  # microvolts
