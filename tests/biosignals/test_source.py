"""From a folder of recordings to windows with ids and labels; prepared once, resumed where it was stopped."""

from __future__ import annotations

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.biosignals.files import SIX, waves, write_edf, write_wfdb

from diptych.data import pool
from diptych.data.identity import Split, pseudonym_salt, salted_key
from diptych.errors import ConfigError, DataError
from diptych_biosignals import pieces
from diptych_biosignals.filters import normalise
from diptych_biosignals.source import Label, Prepared, Signal, Source, prepare

PLAIN = Signal(window=2, normalise_trial="none")
NAMES = r"(?P<patient>p\d+)_(?P<visit>\d)"


def folder_of_six(folder: Path) -> dict[str, np.ndarray]:
    """Three patients with two records of 12 s, and a table of the patients."""
    signals = {}
    for number in range(6):
        name = f"p{number // 2}_{number % 2}"
        signals[name] = waves(12, leads=2, seed=number)
        write_wfdb(folder, name, signals[name], comments=[f"age: {50 + number}"])
    (folder / "people.csv").write_text(
        'Patient ,Sex,Finding\np0,"F\n",sinus\np1,M,atrial fibrillation\np2,F,\n'
    )
    return signals


def source(folder: Path, **settings: object) -> Source:
    given = {
        "names": NAMES,
        "patient": "name:patient",
        "table": "people.csv",
        "table_id": "Patient",
        "row": "name:patient",
    }
    return Source(path=str(folder), **(given | settings))  # type: ignore[arg-type]


def prepared(
    folder: Path, labels: dict[str, Label] | None = None, signal: Signal = PLAIN, **settings: object
) -> Prepared:
    return prepare(
        source(folder, **settings), signal, labels or {}, Split(), cache=folder.parent / "cache", workers=1
    )


def test_windows_are_slices_of_the_recordings_in_order(tmp_path: Path) -> None:
    signals = folder_of_six(tmp_path / "data")
    data = prepared(tmp_path / "data", signal=replace(PLAIN, overlap=0.5))
    expected = [x[start : start + 200] for x in signals.values() for start in range(0, 1001, 100)]
    assert (len(data), data.rate, data.leads, data.window) == (66, 100, ("I", "II"), 200)
    np.testing.assert_allclose(data.batch(np.arange(66)), expected, atol=6e-4)
    order = np.random.default_rng(0).permutation(66)
    np.testing.assert_array_equal(data.batch(order), data.batch(np.arange(66))[order])
    np.testing.assert_allclose(data.times[10:13], [[10, 12], [0, 2], [1, 3]])
    np.testing.assert_allclose(data.signal(3), signals["p1_1"], atol=6e-4)


def test_ids_are_salted_and_tell_patients_recordings_and_trials_apart(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    data = prepared(tmp_path / "data", signal=replace(PLAIN, trial="fixed", trial_seconds=4))
    ids = data.samples.ids
    assert [salted_key(pseudonym_salt(), f"p{i}") for i in range(3)] == list(dict.fromkeys(ids["patient"]))
    assert (len(ids), ids["recording"].nunique(), ids["trial"].nunique()) == (36, 6, 18)
    for column, numbers in (("patient", data.patient_ids), ("trial", data.trial_ids)):
        assert numbers.dtype == np.int64
        assert (numbers >= 0).all()
        same_text = ids[column].to_numpy()[:, None] == ids[column].to_numpy()
        np.testing.assert_array_equal(numbers[:, None] == numbers, same_text)
    split = Split()
    for i in range(3):
        rows = ids["patient"] == salted_key(pseudonym_salt(), f"p{i}")
        assert set(ids["split"][rows]) == {split.of(f"p{i}")}


def test_ids_do_not_depend_on_what_else_is_there(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    every = prepared(tmp_path / "data")
    some = prepared(tmp_path / "data", include=["p1_*"])
    place = dict(zip(every.samples.ids["trial"], every.trial_ids, strict=True))
    assert [place[key] for key in some.samples.ids["trial"]] == some.trial_ids.tolist()


def test_a_trial_rule_joins_recordings_of_one_patient_only(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    ids = prepared(tmp_path / "data", trial="name:visit").samples.ids
    assert ids.groupby("trial")["recording"].nunique().tolist() == [1] * 6
    ids = prepared(tmp_path / "data", trial="table:Sex").samples.ids
    assert ids.groupby("trial")["recording"].nunique().tolist() == [2] * 3


def test_labels_from_the_table_names_and_comments(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    labels = {
        "sex": Label(column="Sex"), "finding": Label(column="Finding", classes=["af=fibrillation", "sinus"]),
        "visit": Label(rule="name:visit"), "age": Label(rule="comment:age", number=True),
    }  # fmt: skip
    data = prepared(tmp_path / "data", labels)
    first = data.samples.labels.iloc[::6]
    assert first["sex"].tolist() == ["F", "F", "M", "M", "F", "F"]
    assert first["finding"].tolist() == ["sinus", "sinus", "af", "af", None, None]
    assert first["visit"].tolist() == ["0", "1"] * 3
    assert first["age"].tolist() == [50, 51, 52, 53, 54, 55]
    assert data.report["label finding"] == "4 known, 2 missing"


def test_labels_of_windows_from_intervals(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    (tmp_path / "data" / "stages.csv").write_text(
        "recording,start,end,stage\np0_0,0,5,N\np0_0,5,12,R\np2_1,0,2,W\n"
    )
    data = prepared(tmp_path / "data", {"stage": Label(intervals="stages.csv", column="stage")})
    stages = data.samples.labels["stage"].tolist()
    assert stages[:6] == ["N", "N", None, "R", "R", "R"]
    assert stages[6:30] == [None] * 24
    assert stages[30:] == ["W", *[None] * 5]


def test_normalisation_of_recording_and_trial(tmp_path: Path) -> None:
    signals = folder_of_six(tmp_path / "data")
    whole = prepared(tmp_path / "data", signal=Signal(window=2, normalise_trial="zscore"))
    np.testing.assert_allclose(
        whole.batch(np.arange(6)).reshape(-1, 2),
        normalise(signals["p0_0"].astype(np.float32), "zscore"),
        atol=0.01,
    )
    trials = prepared(tmp_path / "data", signal=Signal(window=2, trial="fixed", trial_seconds=4))
    np.testing.assert_allclose(trials.batch(np.arange(2)).mean(axis=(0, 1)), 0, atol=1e-5)
    np.testing.assert_allclose(trials.batch(np.arange(2)).std(axis=(0, 1)), 1, atol=1e-5)


def test_signals_in_physical_units_beside_the_normalised_ones(tmp_path: Path) -> None:
    signals = folder_of_six(tmp_path / "data")
    data = prepared(tmp_path / "data", signal=Signal(window=2, trial="fixed", trial_seconds=4))
    np.testing.assert_allclose(data.physical.signal(2), signals["p1_0"], atol=6e-4)
    np.testing.assert_allclose(data.unscaled.batch(np.array([1])), [signals["p0_0"][200:400]], atol=6e-4)


def test_a_second_preparation_reads_no_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_six(tmp_path / "data")
    first = prepared(tmp_path / "data")

    def never(*_: object) -> None:
        raise AssertionError("a recording was read again")

    monkeypatch.setattr(pieces.readers, "read", never)
    again = prepared(tmp_path / "data")
    np.testing.assert_array_equal(again.batch(np.arange(36)), first.batch(np.arange(36)))
    assert again.samples.manifest.digest == first.samples.manifest.digest
    with pytest.raises(AssertionError, match="read again"):
        prepared(tmp_path / "data", signal=replace(PLAIN, window=3))


def test_a_stopped_preparation_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_six(tmp_path / "data")
    done: list[str] = []
    real = pieces.readers.read

    def stops_after_three(kind: object, item: object, *rest: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(item.name)  # type: ignore[attr-defined]
        return real(kind, item, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pieces.readers, "read", stops_after_three)
    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "data")
    assert not list((tmp_path / "cache").rglob("*.partial"))
    rest: list[str] = []

    def counts(kind: object, item: object, *others: object) -> object:
        rest.append(item.name)  # type: ignore[attr-defined]
        return real(kind, item, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(pieces.readers, "read", counts)
    assert len(prepared(tmp_path / "data")) == 36
    assert sorted(done + rest) == [f"p{i}_{j}" for i in range(3) for j in range(2)]


def test_a_half_written_piece_is_made_again(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    first = prepared(tmp_path / "data").batch(np.arange(36))
    stored = sorted((tmp_path / "cache").rglob("*.npz"))
    stored[0].write_bytes(stored[0].read_bytes()[:100])
    stored[1].unlink()
    np.testing.assert_array_equal(prepared(tmp_path / "data").batch(np.arange(36)), first)


def test_processes_give_what_one_process_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of_six(tmp_path / "data")
    one = prepared(tmp_path / "data")
    monkeypatch.setattr(pool, "_LONG", 0.0)
    monkeypatch.setattr(pool, "_ENOUGH", 2)
    two = prepare(source(tmp_path / "data"), PLAIN, {}, Split(), cache=tmp_path / "other", workers=2)
    np.testing.assert_array_equal(two.batch(np.arange(36)), one.batch(np.arange(36)))
    assert two.samples.ids.equals(one.samples.ids)


def test_the_store_travels_to_other_processes_without_its_samples(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    data = prepared(tmp_path / "data")
    expected = data.batch(np.arange(36))
    sent = pickle.dumps(data.store)
    assert len(sent) < 10_000 < expected.nbytes
    np.testing.assert_array_equal(pickle.loads(sent).batch(np.arange(36)), expected)


def test_a_manifest_stands_for_its_files_and_finds_changes(tmp_path: Path) -> None:
    folder_of_six(tmp_path / "data")
    first = prepared(tmp_path / "data")
    first.samples.manifest.write(tmp_path / "manifest.csv")
    write_wfdb(tmp_path / "data", "p9_0", waves(seed=9))
    again = prepare(
        source(tmp_path / "manifest.csv"), PLAIN, {}, Split(), cache=tmp_path / "cache", workers=1
    )
    assert again.samples.manifest.digest == first.samples.manifest.digest
    assert again.samples.ids.equals(first.samples.ids)
    write_wfdb(tmp_path / "data", "p0_0", waves(seed=77))
    with pytest.raises(DataError, match="of 12 files are not what the manifest says"):
        prepare(source(tmp_path / "manifest.csv"), PLAIN, {}, Split(), cache=tmp_path / "cache", workers=1)
    (tmp_path / "data" / "p0_0.dat").unlink()
    with pytest.raises(DataError, match="1 of 12 files of the manifest are missing"):
        prepare(source(tmp_path / "manifest.csv"), PLAIN, {}, Split(), cache=tmp_path / "cache", workers=1)


def test_one_big_array_with_a_table_of_ids(tmp_path: Path) -> None:
    big = np.stack([waves(4, leads=3, seed=seed) for seed in range(5)]).astype(np.float32)
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "big.npy", big)
    (tmp_path / "data" / "ids.csv").write_text("patient,trial,label\nA,1,x\nA,1,y\nB,1,x\nB,2,\nC,7,y\n")
    data = prepared(
        tmp_path / "data", {"label": Label(column="label")}, names=None, rate=100.0, patient="table:patient",
        trial="table:trial", table="ids.csv", table_id=None, row="row",
    )  # fmt: skip
    np.testing.assert_array_equal(data.batch(np.arange(10)), big.reshape(10, 200, 3))
    assert data.samples.labels["label"].tolist() == ["x", "x", "y", "y", "x", "x", None, None, "y", "y"]
    assert data.samples.ids["trial"].nunique() == 4
    assert len(data.samples.manifest) == 1


def test_leads_by_name_in_order_from_recordings_that_spell_them_differently(tmp_path: Path) -> None:
    one, two = waves(leads=3, seed=1), waves(leads=2, seed=2)
    write_wfdb(tmp_path / "data", "a", one, leads=["V1", "MLII", "Resp"])
    write_edf(tmp_path / "data" / "b.edf", list(two.T * 500), [100, 100], ["ECG II", "ECG V1"])
    data = prepare(
        Source(path=str(tmp_path / "data")),
        replace(PLAIN, leads=["II", "V1"]),
        {},
        Split(),
        cache=tmp_path / "c",
    )
    np.testing.assert_allclose(data.batch(np.arange(6)).reshape(-1, 2), one[:, [1, 0]], atol=6e-4)
    np.testing.assert_allclose(data.batch(np.arange(6, 12)).reshape(-1, 2), two * 500, atol=0.05)


def test_missing_leads_may_be_zero(tmp_path: Path) -> None:
    signal = waves(leads=2)
    write_wfdb(tmp_path / "data", "a", signal)
    wanted = replace(PLAIN, leads=["V1", "II"], missing_leads="zero")
    data = prepare(Source(path=str(tmp_path / "data")), wanted, {}, Split(), cache=tmp_path / "c")
    batch = data.batch(np.arange(6)).reshape(-1, 2)
    assert (batch[:, 0] == 0).all()
    np.testing.assert_allclose(batch[:, 1], signal[:, 1], atol=6e-4)


def test_gaps_split_a_recording_where_asked(tmp_path: Path) -> None:
    signal = waves(12)
    signal[450:520, 1] = signal[1] = np.nan
    write_wfdb(tmp_path / "data", "a", signal)
    data = prepare(
        Source(path=str(tmp_path / "data")), replace(PLAIN, gaps="split"), {}, Split(), cache=tmp_path / "c"
    )
    np.testing.assert_allclose(data.times[:, 0], [0.02, 2.02, 5.2, 7.2, 9.2])
    np.testing.assert_allclose(data.batch(np.array([2])), [signal[520:720]], atol=6e-4)
    assert data.samples.ids["recording"].nunique() == 1


def test_different_rates_are_brought_to_one(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "data", "a", waves(12, 100, seed=1), rate=100)
    write_wfdb(tmp_path / "data", "b", waves(12, 250, seed=2), rate=250)
    here = Source(path=str(tmp_path / "data"))
    with pytest.raises(ConfigError, match=re.escape("100 Hz (1), 250 Hz (1); set signal.rate")):
        prepare(here, PLAIN, {}, Split(), cache=tmp_path / "c")
    data = prepare(here, replace(PLAIN, rate=100), {}, Split(), cache=tmp_path / "c")
    assert (data.rate, len(data)) == (100, 12)
    np.testing.assert_allclose(data.signal(1)[100:-100], waves(12, 100, seed=2)[100:-100], atol=0.01)


def test_a_single_record_can_be_named_without_its_suffix(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "data", "100", waves(seed=1))
    write_wfdb(tmp_path / "data", "101", waves(seed=2))
    data = prepare(Source(path=str(tmp_path / "data" / "100")), PLAIN, {}, Split(), cache=tmp_path / "c")
    np.testing.assert_allclose(data.signal(0), waves(seed=1), atol=6e-4)


def test_segments_are_prepared_as_their_record_and_listed_in_the_manifest(tmp_path: Path) -> None:
    write_wfdb(tmp_path / "data", "s1", waves(4, seed=1))
    write_wfdb(tmp_path / "data", "s2", waves(4, seed=2))
    (tmp_path / "data" / "whole.hea").write_text("whole/2 2 100 800\ns1 400\ns2 400\n")
    data = prepare(Source(path=str(tmp_path / "data")), PLAIN, {}, Split(), cache=tmp_path / "c")
    assert (len(data), len(data.samples.manifest)) == (4, 5)


def test_beats_of_simulated_leads(tmp_path: Path) -> None:
    import neurokit2 as nk

    lead = np.asarray(
        nk.ecg_simulate(duration=30, sampling_rate=200, heart_rate=72, random_state=4, noise=0.02)
    )
    write_wfdb(tmp_path / "data", "a", np.stack([lead, -0.5 * lead], axis=1), rate=200)
    signal = Signal(window=1.2, trial="beats", beats=5, normalise_trial="none")
    here = Source(path=str(tmp_path / "data"))
    data = prepare(here, signal, {}, Split(), cache=tmp_path / "c")
    assert len(data) == 35
    assert data.samples.ids["trial"].nunique() == 7
    batch = data.batch(np.arange(35))
    assert (np.abs(batch[:, :, 0].argmax(axis=1) - 120) <= 5).all()  # R peaks stand in the middle
    assert (batch[:, [0, -1]] == 0).all()
    with pytest.raises(DataError, match=r"beats too long: median RR interval 0\.8\d s, window 0\.60 s"):
        prepare(here, replace(signal, window=0.6), {}, Split(), cache=tmp_path / "c")


def test_six_leads_of_which_two_are_wanted_are_hashed_as_two(tmp_path: Path) -> None:
    six = waves(leads=6)
    write_wfdb(tmp_path / "data", "a", six, leads=SIX)
    data = prepare(
        Source(path=str(tmp_path / "data")),
        replace(PLAIN, leads=["V3", "I"]),
        {},
        Split(),
        cache=tmp_path / "c",
    )
    np.testing.assert_allclose(data.signal(0), six[:, [5, 0]], atol=6e-4)


def test_a_big_array_is_stored_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    big = np.stack([waves(4, seed=seed) for seed in range(5)]).astype(np.float32)
    big[1, 0, 0] = np.nan
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "big.npy", big)
    monkeypatch.setattr("diptych_biosignals.source._ROWS_PER_JOB", 2)
    data = prepare(Source(path=str(tmp_path / "data"), rate=100), PLAIN, {}, Split(), cache=tmp_path / "c")
    np.testing.assert_array_equal(data.batch(np.arange(8)), big[[0, 2, 3, 4]].reshape(8, 200, 2))
    assert [row.path for row in data.samples.quarantine.rows] == ["big.npy[1]"]
    assert len(list((tmp_path / "c").rglob("*.npz"))) == 3
