"""Every planted leak stops the run and is named; clean data pass."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from diptych.data.identity import file_key
from diptych.data.leaks import check_leaks, check_overlap, trained_patients
from diptych.data.manifest import Entry, Manifest
from diptych.errors import DataError


def ids(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["patient", "recording", "split"])


CLEAN = ids(("p1", "r1", "train"), ("p1", "r1", "train"), ("p2", "r2", "validation"), ("p3", "r3", "test"))


def entry(number: int, **changes: object) -> Entry:
    plain = Entry(
        path=f"f{number}.dat",
        size=10,
        sha256=f"{number:064d}",
        patient=f"p{number}",
        recording=f"r{number}",
        facts={"content": f"signal {number}"},
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def manifest(*entries: Entry) -> Manifest:
    return Manifest(Path("data"), entries)


def test_clean_data_pass() -> None:
    check_leaks(CLEAN, manifest(entry(1), entry(2), entry(3)))


def test_a_patient_in_two_splits() -> None:
    with pytest.raises(
        DataError, match=r"\(1 findings\): patient p1 is in test and train\. Give the recordings"
    ):
        check_leaks(pd.concat([CLEAN, ids(("p1", "r9", "test"))]))


def test_a_recording_of_two_patients() -> None:
    with pytest.raises(DataError, match="recording r1 belongs to the patients p1 and p7"):
        check_leaks(pd.concat([CLEAN, ids(("p7", "r1", "train"))]))


def test_the_same_file_on_both_sides() -> None:
    copies = manifest(entry(1), entry(2), entry(3, sha256=entry(1).sha256))
    files = " and ".join(sorted([file_key("f1.dat"), file_key("f3.dat")]))
    message = f"the files {files} (patients p1 and p3) are the same and lie in test and train"
    with pytest.raises(DataError, match=re.escape(message)):
        check_leaks(CLEAN, copies)


def test_the_same_file_twice_within_a_split_is_no_leak() -> None:
    table = ids(("p1", "r1", "train"), ("p3", "r3", "train"))
    check_leaks(table, manifest(entry(1), entry(3, sha256=entry(1).sha256)))


@pytest.mark.parametrize("harmless", [{"facts": {"sidecar": True}}, {"facts": {}, "size": 0}])
def test_equal_files_without_a_signal_are_no_leak(harmless: dict[str, object]) -> None:
    sidecars = [entry(number, sha256="a" * 64, **harmless) for number in (1, 3)]
    check_leaks(CLEAN, manifest(*sidecars))


def test_files_that_no_sample_uses_are_no_leak() -> None:
    check_leaks(CLEAN, manifest(entry(1), entry(9, sha256=entry(1).sha256)))


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_recording_under_two_ids(split: str) -> None:
    """Re-exported: other bytes, the same decoded signal, within a split or across."""
    table = ids(("p1", "r1", "train"), ("p3", "r3", split))
    with pytest.raises(
        DataError, match=r"the recordings r1 and r3 \(patients p1 and p3\) hold the same signal"
    ):
        check_leaks(table, manifest(entry(1), entry(3, facts={"content": "signal 1"})))


def test_several_files_of_one_recording_may_hold_the_same_signal() -> None:
    check_leaks(
        CLEAN, manifest(entry(1), entry(2, recording="r1", patient="p1", facts={"content": "signal 1"}))
    )


def test_all_findings_are_counted_and_five_are_named() -> None:
    table = pd.concat([ids((f"p{k}", f"r{k}", "train"), (f"p{k}", f"s{k}", "test")) for k in range(8)])
    with pytest.raises(DataError, match=r"\(8 findings\): patient p0 .*patient p4 [^;]*; and 3 more"):
        check_leaks(table)


def test_the_result_does_not_depend_on_the_order_of_rows() -> None:
    table = pd.concat([CLEAN, ids(("p1", "r9", "test"))])
    messages = set()
    for seed in range(5):
        with pytest.raises(DataError) as caught:
            check_leaks(table.sample(frac=1.0, random_state=seed))
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_training_patients_in_the_test_data() -> None:
    check_overlap({"p1", "p2"}, {"p3"})
    with pytest.raises(
        DataError, match="1 test patients were among the training patients of this encoder: p2"
    ):
        check_overlap({"p1", "p2"}, ["p3", "p2", "p2"])


def run_folder(folder: Path, table: pd.DataFrame) -> Path:
    manifest(entry(1)).write_public(folder / "manifest.json")
    table.to_csv(folder / "splits.csv", index=False)
    return folder / "splits.csv"


def test_the_training_patients_of_a_run_are_read(tmp_path: Path) -> None:
    path = run_folder(tmp_path, CLEAN[["patient", "split"]])
    assert trained_patients(path) == {"p1"}


def test_keys_made_with_another_salt_cannot_be_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = run_folder(tmp_path, CLEAN[["patient", "split"]])
    monkeypatch.setenv("DIPTYCH_SALT", "another")
    with pytest.raises(
        DataError, match=r"'splits\.csv' were made with another pseudonym salt.*set DIPTYCH_SALT"
    ):
        trained_patients(path)


def test_tables_that_are_no_splits_are_refused(tmp_path: Path) -> None:
    path = run_folder(tmp_path, pd.DataFrame({"patient": ["p1"]}))
    with pytest.raises(DataError, match="it has no column split; expected the columns patient and split"):
        trained_patients(path)
    path = run_folder(tmp_path, pd.DataFrame({"patient": ["p1"], "split": ["training"]}))
    with pytest.raises(DataError, match="it has the split training"):
        trained_patients(path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DataError, match=r"manifest\.json beside 'splits\.csv' does not say which salt"):
        trained_patients(path)
    with pytest.raises(DataError, match=r"cannot be read from 'gone\.csv'"):
        trained_patients(tmp_path / "gone.csv")
