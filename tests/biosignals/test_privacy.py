"""Nothing from a header reaches what is written or said: a name planted in every format is found nowhere."""

from __future__ import annotations

import logging
from pathlib import Path

import edfio
import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file
from tests.biosignals.files import cut, patch, waves, write_edf, write_wfdb

from diptych.data.identity import Split
from diptych.errors import DataError
from diptych_biosignals import features
from diptych_biosignals.source import Label, Prepared, Signal, Source, prepare

NAMES = ("DOE", "JANE")


def plant(folder: Path) -> None:
    """Good and broken files of every format with a name in their headers."""
    for number, broken in enumerate((False, True)):
        stem = "b" if broken else "g"
        write_wfdb(
            folder, f"{stem}1", waves(leads=1, seed=number), leads=["II"], comments=["Patient: DOE^JANE"]
        )
        patient = edfio.Patient(name="DOE^JANE", code="DOE0815")
        edf = write_edf(
            folder / f"{stem}2.edf", [waves(leads=1, seed=number + 5)[:, 0]], [100], ["II"], patient=patient
        )
        data = pydicom.dcmread(str(get_testdata_file("waveform_ecg.dcm", download=False)))
        data.PatientName, data.PatientID = "DOE^JANE", "DOE0815"
        with disable_value_validation():
            data.PatientBirthDate = data.StudyDate = data.AccessionNumber = "JANE" * 20
        data.save_as(folder / f"{stem}3.dcm")
        if broken:
            cut(folder / "b1.dat", 0.5)
            patch(edf, 236, b"JANE    ")
            cut(folder / "b3.dcm", 0.1)
    (folder / "b4.hea").write_text("DOE^JANE 1 x 100\n")
    (folder / "people.csv").write_text("id,name,sex\nDOE0815,DOE^JANE,F\n")


def run(folder: Path, cache: Path, **settings: object) -> Prepared:
    source = Source(path=str(folder), patient="header", exclude=["g1*"], **settings)  # type: ignore[arg-type]
    signal = Signal(window=2, leads=["II"], rate=100, max_quarantined=1.0)
    labels = {"sex": Label(column="sex")}
    return prepare(source, signal, labels, Split(), cache=cache, workers=1)


def test_a_planted_name_is_found_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    plant(tmp_path / "data")
    assert b"DOE^JANE" in (tmp_path / "data" / "g2.edf").read_bytes()
    data = run(tmp_path / "data", tmp_path / "out" / "cache", table="people.csv", table_id="id", row="header")
    assert (set(data.samples.labels["sex"]), len(data)) == ({"F"}, 11)
    assert sorted(row.path for row in data.samples.quarantine.rows) == [
        "b1.hea",
        "b2.edf",
        "b3.dcm",
        "b4.hea",
    ]
    features.baseline(data, np.arange(len(data)), kind="ecg", workers=1)
    data.samples.manifest.write(tmp_path / "out" / "manifest.csv")
    data.samples.manifest.write_public(tmp_path / "out" / "data.json")
    data.samples.quarantine.write(tmp_path / "out" / "quarantine.jsonl", paths=True)
    (tmp_path / "out" / "rest.txt").write_text(
        f"{data!r}{data.report}{data.samples.ids.to_csv()}{data.samples.labels.to_csv()}{data.recordings.to_csv()}"
    )
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) > 8
    said = [caplog.text, *capfd.readouterr()]
    for name in NAMES:
        for path in written:
            assert name.encode() not in path.read_bytes(), path
            assert name not in path.name
        assert not any(name in text for text in said)


def test_errors_name_salted_keys_only(tmp_path: Path) -> None:
    plant(tmp_path / "data")
    rows = "id,name,sex\nDOE0815,DOE^JANE,F\nDOE0815,DOE^JANE,M\n"
    (tmp_path / "data" / "people.csv").write_text(rows)
    with pytest.raises(DataError) as caught:
        run(tmp_path / "data", tmp_path / "cache", table="people.csv", table_id="id", row="header")
    assert "contradict" in str(caught.value)
    assert not any(name in str(caught.value) for name in NAMES)
