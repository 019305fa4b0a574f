"""A label is checked before anything is fitted, and what is left out or absent is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic_evaluation as synthetic

from diptych.data.identity import salt_fingerprint
from diptych.data.manifest import Manifest
from diptych.errors import ConfigError, DataError
from diptych.evaluation.target import prepare
from diptych.study import Samples
from diptych.words import Words

SAMPLES = synthetic.study().samples


def with_label(values: Callable[[pd.DataFrame], object], of: Samples = SAMPLES) -> Samples:
    """The samples with one more label, "made", computed from ids and labels."""
    both = pd.concat([of.ids, of.labels], axis=1)
    return replace(of, labels=of.labels.assign(made=values(both)))


def test_text_is_classes_and_numbers_are_regression() -> None:
    target = prepare(SAMPLES, "group")
    assert target.classes == ("a", "b", "c")
    assert [target.classes[code] for code in target.codes] == SAMPLES.labels["group"].tolist()
    assert target.unit == "patient"
    target = prepare(SAMPLES, "age")
    assert target.classes == ()
    assert target.values == pytest.approx(SAMPLES.labels["age"].to_numpy())


def test_splits_are_those_of_the_study() -> None:
    target = prepare(SAMPLES, "group")
    for name in ("train", "validation", "test"):
        assert (target.rows[getattr(target, name)] == SAMPLES.where(name)).all()


def test_truth_values_and_two_whole_numbers_are_classes() -> None:
    truth = with_label(lambda table: table["sign"] == "plus")
    assert prepare(truth, "made").classes == ("False", "True")
    numbers = with_label(lambda table: (table["sign"] == "plus").astype(int) * 2 - 1)
    target = prepare(numbers, "made")
    assert target.classes == ("-1", "1")
    assert "classification of 'made': the numbers -1, 1 are classes" in target.notes
    assert prepare(numbers, "made", "regression").classes == ()


def test_few_whole_numbers_are_classes_when_asked() -> None:
    grades = with_label(lambda table: table["group"].map({"a": 10.0, "b": 2.0, "c": 3.0}))
    assert prepare(grades, "made").classes == ()
    target = prepare(grades, "made", "classification")
    assert target.classes == ("2", "3", "10")
    assert {target.classes[code] for code in target.codes[grades.labels["made"] == 10.0]} == {"10"}


def test_a_wrong_name_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no label 'sgin'; did you mean 'sign'\? labels: sign, group, age"):
        prepare(SAMPLES, "sgin")
    bare = replace(SAMPLES, labels=SAMPLES.labels[[]])
    with pytest.raises(ConfigError, match="no label 'sign'; labels: none; name them in the data settings"):
        prepare(bare, "sign")


def test_values_that_do_not_fit_the_task_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'age' holds 60 different numbers.*use the task regression"):
        prepare(SAMPLES, "age", "classification")
    with pytest.raises(ConfigError, match="'sign' holds text such as 'minus'; regression needs numbers"):
        prepare(SAMPLES, "sign", "regression")
    mixed = with_label(lambda table: [1.5 if k % 2 else "text" for k in range(len(table))])
    with pytest.raises(ConfigError, match="'made' mixes text and numbers"):
        prepare(mixed, "made")
    infinite = with_label(lambda table: table["age"].where(table["age"] > 30, np.inf))
    with pytest.raises(DataError, match="'made' holds infinite numbers"):
        prepare(infinite, "made")


def test_missing_labels_are_left_out_and_counted() -> None:
    gone = SAMPLES.ids["patient"].isin(["p001", "p002"])
    holes = with_label(lambda table: table["sign"].mask(gone))
    target = prepare(holes, "made")
    assert len(target.rows) == len(SAMPLES) - 12
    assert "12 samples of 2 patients have no label 'made' and are left out" in target.notes
    assert not {"p001", "p002"} & set(target.patients.tolist())
    blank = with_label(lambda table: table["sign"].mask(gone, "  "))
    assert prepare(blank, "made").classes == ("minus", "plus")
    numbers = with_label(lambda table: table["age"].mask(gone))
    assert len(prepare(numbers, "made").rows) == len(SAMPLES) - 12


def test_a_label_that_nobody_has_is_refused() -> None:
    with pytest.raises(DataError, match="no sample of the three splits has the label 'made'"):
        prepare(with_label(lambda table: pd.Series([None] * len(table), dtype=object)), "made")


@pytest.mark.parametrize("task", ["auto", "classification"])
def test_one_class_is_refused(task: str) -> None:
    with pytest.raises(DataError, match="every labelled sample is of the class 'x'; expected at least 2"):
        prepare(with_label(lambda table: "x"), "made", task)  # type: ignore[arg-type]
    if task == "classification":
        with pytest.raises(DataError, match="every labelled sample is of the class '3'"):
            prepare(with_label(lambda table: 3.0), "made", "classification")
    else:
        with pytest.raises(DataError, match="'made' is 3 for every sample"):
            prepare(with_label(lambda table: 3.0), "made")


@pytest.mark.parametrize("split", ["train", "test"])
def test_one_class_in_a_split_is_refused(split: str) -> None:
    only = with_label(lambda table: table["sign"].mask(table["split"] == split, "plus"))
    with pytest.raises(DataError, match=f"all {split} samples .* are of the class 'plus'"):
        prepare(only, "made")


def test_absent_classes_are_said() -> None:
    train = with_label(
        lambda table: table["group"].mask((table["split"] == "test") & (table["group"] == "a"), "b")
    )
    assert (
        "absent from the test patients, so not part of the macro averages: 'a'"
        in prepare(train, "made").notes
    )
    test = with_label(
        lambda table: table["group"].mask((table["split"] == "train") & (table["group"] == "a"), "b")
    )
    assert "absent from the train patients, so never predicted: 'a'" in prepare(test, "made").notes


def test_a_class_of_one_test_patient_is_said() -> None:
    first = SAMPLES.ids.loc[SAMPLES.ids["split"] == "test", "patient"].iloc[0]
    lone = with_label(lambda table: table["sign"].mask(table["patient"] == first, "lone"))
    notes = prepare(lone, "made").notes
    assert "only one test patient, whose chance the intervals cannot show: 'lone'" in notes


def test_too_few_patients_are_refused() -> None:
    test = SAMPLES.ids.loc[SAMPLES.ids["split"] == "test", "patient"].unique()
    one = with_label(lambda table: table["state"].mask(table["patient"].isin(test[1:])))
    with pytest.raises(DataError, match="'made' is known for 1 test patients; expected at least 2"):
        prepare(one, "made")


def test_a_label_that_differs_within_patients_is_scored_per_recording() -> None:
    target = prepare(SAMPLES, "state")
    assert target.unit == "recording"
    assert any("so scores are given per recording" in note for note in target.notes)
    assert set(target.strata.values()) == {(0.0, 1.0)}


def test_a_label_that_differs_within_recordings_has_no_average() -> None:
    target = prepare(with_label(lambda table: [["x", "y"][k % 2] for k in range(len(table))]), "made")
    assert target.unit is None
    assert any("no average over samples is scored" in note for note in target.notes)


def test_the_rarer_of_two_classes_is_positive() -> None:
    rare = with_label(lambda table: np.where(table["patient"] < "p020", "few", "many"))
    few = prepare(rare, "made")
    assert few.classes[few.positive or 0] == "few"
    many = prepare(with_label(lambda table: np.where(table["patient"] < "p045", "few", "many")), "made")
    assert many.classes[many.positive or 0] == "many"
    assert prepare(SAMPLES, "group").positive is None


def test_fractions_take_whole_patients_of_every_class() -> None:
    target = prepare(SAMPLES, "group")
    small, large = target.few(target.train, 0.1, seed=0), target.few(target.train, 0.5, seed=0)
    assert set(small) < set(large) < set(target.train)
    for patient in np.unique(target.patients[small]):
        assert np.count_nonzero(target.patients[small] == patient) == 6
    assert set(target.codes[small]) == {0, 1, 2}


def test_leaks_stop_every_evaluation(tmp_path: Path) -> None:
    ids = SAMPLES.ids.copy()
    ids.loc[0, "split"] = {"train": "test", "test": "train", "validation": "test"}[ids.loc[0, "split"]]
    with pytest.raises(DataError, match="patient p000 is in"):
        prepare(replace(SAMPLES, ids=ids), "sign")


def test_training_patients_of_the_run_are_not_tested(tmp_path: Path) -> None:
    Manifest(tmp_path, []).write_public(tmp_path / "manifest.json")
    table = SAMPLES.ids[["patient", "split"]].drop_duplicates()
    table.to_csv(tmp_path / "splits.csv", index=False)
    prepare(SAMPLES, "sign", run_splits=tmp_path / "splits.csv")
    table.assign(split="train").to_csv(tmp_path / "splits.csv", index=False)
    number = table["split"].eq("test").sum()
    with pytest.raises(DataError, match=f"{number} test patients were among the training patients"):
        prepare(SAMPLES, "sign", run_splits=tmp_path / "splits.csv")


def test_units_that_may_overlap_are_counted_in_a_note(tmp_path: Path) -> None:
    molecules = Words(unit="scaffold", recording="molecule", sample="molecule", overlap="report")
    samples = replace(SAMPLES, words=molecules)
    path = tmp_path / "splits.csv"
    tested = samples.ids.loc[samples.ids["split"] == "test", "patient"].unique()
    pd.DataFrame({"patient": [*tested[:2], "never seen"], "split": "train"}).to_csv(path, index=False)
    salt = {"salt": {"fingerprint": salt_fingerprint()}}
    path.with_name("manifest.json").write_text(json.dumps(salt))
    target = prepare(samples, "group", run_splits=path)
    assert (
        f"2 of {len(tested)} test scaffolds were among those that the encoder was pretrained on, without labels"
        in target.notes
    )
    with pytest.raises(DataError, match="2 test patients were among the training patients of this encoder"):
        prepare(SAMPLES, "group", run_splits=path)


def test_the_order_of_samples_does_not_matter_for_the_splits() -> None:
    order = np.random.default_rng(0).permutation(len(SAMPLES))
    mixed = replace(
        SAMPLES,
        ids=SAMPLES.ids.iloc[order].reset_index(drop=True),
        labels=SAMPLES.labels.iloc[order].reset_index(drop=True),
    )
    one, other = prepare(SAMPLES, "group"), prepare(mixed, "group")
    for split in ("train", "validation", "test"):
        before, after = getattr(one, split), getattr(other, split)
        assert set(one.patients[before]) == set(other.patients[after])
        drawn, again = one.few(before, 0.3, 1), other.few(after, 0.3, 1)
        assert set(one.patients[drawn]) == set(other.patients[again])
