"""Bad input: each kind has a clear error or a quarantine row, and nothing is lost or made up."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.biosignals.files import SIX, cut, patch, waves, write_edf, write_wfdb

from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.errors import ConfigError, DataError
from diptych_biosignals.source import Label, Prepared, Signal, Source, prepare

PLAIN = Signal(window=2, normalise_trial="none", max_quarantined=1.0)


def run(
    folder: Path, signal: Signal = PLAIN, labels: dict[str, Label] | None = None, **settings: object
) -> Prepared:
    given = Source(path=str(folder), **settings)  # type: ignore[arg-type]
    return prepare(given, signal, labels or {}, Split(), cache=folder.parent / "cache", workers=1)


def quarantined(data: Prepared) -> dict[str, str]:
    return {row.path: row.reason for row in data.samples.quarantine.rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good records."""
    for seed in range(3):
        write_wfdb(tmp_path / "data", f"good{seed}", waves(seed=seed))
    return tmp_path / "data"


def test_every_broken_file_is_a_row_and_the_rest_goes_on(folder: Path) -> None:
    for name in ("cut", "bare", "sum", "nan", "flat", "few", "tiny"):
        signal = waves(1.0 if name == "tiny" else 12.0, seed=len(name) + 10)
        if name == "nan":
            signal[:, 1] = np.nan
        if name == "flat":
            signal[:, 0] = 0.5
        leads = ("I",) if name == "few" else ("I", "II")
        write_wfdb(folder, name, signal[:, : len(leads)], leads=leads)
    cut(folder / "cut.dat", 0.25)
    (folder / "bare.dat").unlink()
    patch(folder / "sum.dat", 0, b"\x01\x02")
    edf = write_edf(folder / "gaps.edf", list(waves(seed=40).T), [100, 100], ["I", "II"], annotations=True)
    patch(edf, 192, b"EDF+D")
    np.save(folder / "norate.npy", waves(seed=41))
    (folder / "image.dcm").write_bytes(b"\x00" * 200)
    (folder / "notes.txt").write_text("not a recording")
    data = run(folder)
    assert len(data) == 18
    assert quarantined(data) == {
        "bare.hea": "header without data: the signal file (.dat) is missing",
        "cut.hea": "truncated signal file: 1200 of 4800 bytes, 3.0 of 12.0 s",
        "few.hea": "unequal leads: 1 leads, most recordings have 2; set signal.leads",
        "flat.hea": "flat lead: 1 of 2 leads are constant",
        "gaps.edf": "discontinuous recording (EDF+D): its records leave gaps in time; "
        "split it into continuous files",
        "image.dcm": "malformed DICOM file (InvalidDicomError)",
        "nan.hea": "missing lead: 1 of 2 leads have no values (NaN)",
        "norate.npy": "the sampling rate is missing: arrays carry none, so set data.rate (Hz)",
        "tiny.hea": "too short: 1.0 s, window needs 2.0 s",
        "sum.hea": "wrong checksum in lead 1 of 2",
    }
    assert {entry.path for entry in data.samples.manifest.entries} == {
        f"good{i}.{suffix}" for i in range(3) for suffix in ("hea", "dat")
    }
    assert data.report["files of no recording"] == ".txt (1)"
    with pytest.raises(
        DataError, match=re.escape("10 of 13 files (77%) cannot be used, more than 20% allowed")
    ):
        run(folder, replace(PLAIN, max_quarantined=0.2))


def test_a_few_missing_samples_are_named_with_the_way_out(folder: Path) -> None:
    signal = waves(seed=9)
    signal[600:612, 1] = np.nan
    write_wfdb(folder, "holes", signal)
    assert quarantined(run(folder))["holes.hea"] == (
        "missing samples: 1.00% of lead 2 are NaN (signal.gaps: split keeps the rest)"
    )


def test_a_flat_lead_may_be_kept_as_zero(folder: Path) -> None:
    signal = waves(seed=9)
    signal[:, 0] = 0.5
    write_wfdb(folder, "flat", signal)
    data = run(folder, replace(PLAIN, flat_leads="keep", normalise_trial="zscore"), include=["flat*"])
    batch = data.batch(np.arange(6))
    assert (batch[:, :, 0] == 0).all()
    np.testing.assert_allclose(batch[:, :, 1].std(), 1, atol=1e-4)
    plain = run(folder, replace(PLAIN, flat_leads="keep"), include=["flat*"]).batch(np.arange(6))
    assert (plain[:, :, 0] == 0).all()


def test_unequal_leads_are_fine_where_the_wanted_ones_are_named(folder: Path) -> None:
    write_wfdb(folder, "more", waves(leads=6, seed=9), leads=SIX)
    write_wfdb(folder, "less", waves(leads=1, seed=10), leads=["II"])
    assert len(run(folder, replace(PLAIN, leads=["II"]))) == 30
    assert quarantined(run(folder, replace(PLAIN, leads=["I", "II"]))) == {
        "less.hea": "missing leads: I (signal.missing_leads: zero keeps the recording)"
    }


def test_leads_that_no_recording_has(folder: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 1 wanted leads is among its 2 \(3\)"):
        run(folder, replace(PLAIN, leads=["Fp1"]))


def test_a_window_longer_than_every_record_is_a_setting_to_change(folder: Path) -> None:
    message = (
        "every recording (3) is shorter than the window of 15 s; the first: too short: 12.0 s, window needs"
    )
    with pytest.raises(ConfigError, match=re.escape(f"signal.window: {message} 15.0 s")):
        run(folder, replace(PLAIN, window=15))


def test_arrays_without_a_rate(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a.npy", waves())
    with pytest.raises(DataError, match=re.escape("set data.rate (Hz)")):
        run(tmp_path / "data")


def test_an_empty_folder_and_one_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"no recordings in .*: expected WFDB \(\.hea\), .*; found nothing"):
        run(tmp_path / "data")
    (tmp_path / "data" / "a.txt").write_text("x")
    with pytest.raises(DataError, match=re.escape("found .txt (1)")):
        run(tmp_path / "data")


def test_a_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"data\.path: there is no file or folder"):
        run(tmp_path / "nowhere")
    monkeypatch.delenv("NO_SUCH_PLACE", raising=False)
    with pytest.raises(ConfigError, match="the environment variable NO_SUCH_PLACE is not set"):
        prepare(Source(path="$NO_SUCH_PLACE/x"), PLAIN, {}, Split(), cache=tmp_path)


def test_patterns_that_leave_nothing(folder: Path) -> None:
    with pytest.raises(DataError, match="leave none of the 3 recordings"):
        run(folder, include=["*.edf"])


def test_one_recording_under_two_ids(folder: Path) -> None:
    write_wfdb(folder, "copy", waves(seed=1), comments=["another header"])
    patients = sorted(salted_key(pseudonym_salt(), name) for name in ("good1", "copy"))
    with pytest.raises(DataError, match="stand under several ids") as caught:
        run(folder)
    assert f"(patients {' and '.join(patients)}) hold the same signal" in str(caught.value)
    assert "good1" not in str(caught.value)


def test_one_recording_twice_in_a_big_array(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    big = np.stack([waves(seed=seed) for seed in (0, 1, 0)])
    np.save(tmp_path / "data" / "big.npy", big)
    with pytest.raises(DataError, match="1 recordings stand under several ids"):
        run(tmp_path / "data", rate=100.0)


def table(folder: Path, text: str) -> dict[str, str]:
    (folder / "t.csv").write_text(text)
    return {"table": "t.csv", "table_id": "id"}


def test_labels_of_unknown_patients_and_patients_without_labels_are_counted(folder: Path) -> None:
    settings = table(folder, "id,sex\ngood0,F\ngood1,M\nJANE DOE,F\n")
    data = run(folder, PLAIN, {"sex": Label(column="sex")}, **settings)
    assert data.samples.labels["sex"].iloc[::6].tolist() == ["F", "M", None]
    key = salted_key(pseudonym_salt(), "JANE DOE")
    assert data.report["table rows without a recording"] == f"1 of 3 ({key})"
    assert data.report["recordings without a table row"] == "1 of 3; their labels are missing"


def test_duplicate_rows_that_contradict_each_other(folder: Path) -> None:
    settings = table(folder, "id,sex,note\ngood0,F,a\ngood1,M,b\ngood1,F,b\n")
    with pytest.raises(DataError, match="1 ids have several rows that contradict each other") as caught:
        run(folder, PLAIN, {"sex": Label(column="sex")}, **settings)
    assert salted_key(pseudonym_salt(), "good1") in str(caught.value)
    assert run(folder, PLAIN, {"note": Label(column="note")}, **settings).samples.labels["note"][6] == "b"


def test_a_table_in_which_no_recording_is_found(folder: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape("data.row: no recording finds its row")):
        run(folder, PLAIN, {"sex": Label(column="sex")}, **table(folder, "id,sex\n1,F\n"))


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ({"sex": Label(column="Sexx")}, {}, "labels.sex: the table has no column 'Sexx'; did you mean 'Sex'?"),
        ({}, {"table_id": "ID"}, "data.table_id: the table has no column 'ID'; known: 'key', 'Sex'"),
        ({}, {"table": "u.csv"}, "data.table: there is no file 'u.csv'"),
        ({"state": Label(rule="name:stat")}, {"names": r"(?P<state>\d)"},
         "data.names has no group 'stat'; did you mean 'state'?"),
        ({}, {"patient": "header"}, "data.patient: the rule 'header' finds a patient id for no recording"),
    ],
)  # fmt: skip
def test_wrong_columns_and_rules_are_named(
    folder: Path, labels: dict[str, Label], settings: dict[str, str], message: str
) -> None:
    (folder / "t.csv").write_text("key,Sex\ngood0,F\n")
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(folder, PLAIN, labels, **({"table": "t.csv", "table_id": "key"} | settings))


def test_a_label_from_a_table_that_is_not_configured(folder: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"labels\.sex: the rule takes a column of a table; set data\.table"
    ):
        run(folder, PLAIN, {"sex": Label(column="sex")})


def test_a_record_without_a_patient_id_is_not_guessed(folder: Path) -> None:
    data = run(folder, names=r"(?P<patient>good[01])", patient="name:patient")
    assert quarantined(data) == {"good2.hea": "no patient id: the rule 'name:patient' finds none"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "signal.window is a length in seconds, above 0"),
        ({"overlap": 1}, "signal.overlap is a share from 0 to below 1"),
        ({"rate": -1}, "signal.rate is a sampling rate in Hz"),
        ({"leads": ["I", "I"]}, "signal.leads names each lead once"),
        ({"leads": []}, "signal.leads names each lead once, and at least one"),
        ({"trial": "fixed"}, "signal.trial_seconds goes with signal.trial: fixed"),
        ({"trial": "fixed", "trial_seconds": 1}, "signal.trial_seconds (1) is shorter than the window (2)"),
        ({"trial": "beats", "overlap": 0.5}, "signal.overlap must be 0 with signal.trial: beats"),
        ({"band": (30, 0.5)}, "signal.band is [lowest, highest] in Hz, above 0 and ascending"),
        ({"beats": 0}, "signal.beats is the number of beats in a trial"),
    ],
)
def test_wrong_signal_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Signal(**({"window": 2} | settings))  # type: ignore[arg-type]


def test_all_wrong_signal_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"signal\.window .*; signal\.overlap .*; signal\.rate"):
        Signal(window=-1, overlap=2, rate=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"notch": 60.0}, "signal.notch: 60 Hz is not below half of the rate (50 Hz)"),
        ({"band": (0.5, 50.0)}, "signal.band: 50 Hz is not below half of the rate (50 Hz)"),
        ({"window": 2.005}, "signal.window: 2.005 s at 100 Hz are 200.5 samples, not a whole number of at "
                            "least 2; take 2 or 2.01 s"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit_the_rate(folder: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        run(folder, replace(PLAIN, **settings))  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_written(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="prepared recordings cannot be written below"):
        prepare(Source(path=str(folder)), PLAIN, {}, Split(), cache=tmp_path / "file")
