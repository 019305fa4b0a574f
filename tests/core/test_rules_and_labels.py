"""Ids and labels are found where the config says, and what is not there stays missing."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diptych.data.labels import Label, contradictions, read_values
from diptych.data.readable import Header, Item
from diptych.data.rules import Rule, comment, text_of
from diptych.errors import ConfigError

ITEM = Item(path=Path("/d/ward/p7/Subject07_2.edf"), name="ward/p7/Subject07_2")
ROW = Item(path=Path("/d/big.npy"), name="big", part=3)
HEADER = Header(
    patient=" 0815 ",
    comments=("<age>: 51  <sex>: F", "<diagnoses>:", "Reason for admission: Myocardial infarction ", "69 M"),
    fields={"PatientSex": "F ", "ViewPosition": ""},
)  # fmt: skip
NAMES = re.compile(r"(?P<patient>Subject\d+)_(?P<state>\d)")


@pytest.mark.parametrize(
    ("rule", "item", "text"),
    [
        ("record", ITEM, "Subject07_2"), ("record", ROW, "big[3]"), ("path", ITEM, "ward/p7/Subject07_2"),
        ("folder", ITEM, "p7"), ("folder:2", ITEM, "ward"), ("folder:3", ITEM, None),
        ("row", ROW, "3"), ("row", ITEM, None),
        ("name:patient", ITEM, "Subject07"), ("name:state", ITEM, "2"), ("name:state", ROW, None),
        ("header", ITEM, "0815"), ("header:PatientSex", ITEM, "F"), ("header:ViewPosition", ITEM, None),
        ("header:Laterality", ITEM, None),
        ("comment:age", ITEM, "51"), ("comment:sex", ITEM, "F"), ("comment:Diagnoses", ITEM, None),
        ("comment:reason for admission", ITEM, "Myocardial infarction"), ("comment:height", ITEM, None),
        ("table:Sex", ITEM, "F"), ("table:Empty", ITEM, None),
    ],
)  # fmt: skip
def test_rules(rule: str, item: Item, text: str | None) -> None:
    row = {"Sex": "F", "Empty": " "}
    assert text_of(Rule.parse(rule, "data.patient"), item, HEADER, row, NAMES) == text


def test_all_comments_together() -> None:
    assert "infarction \n69 M" in str(comment(HEADER.comments, ""))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("recrod", "labels.x.rule: there is no rule 'recrod'; did you mean 'record'?"),
        ("record:1", "the rule 'record' takes nothing after it"),
        ("name", "the rule 'name' needs a name after it, such as 'name:patient'"),
        ("folder:x", "'folder:N' counts folders from 1 to 9"),
    ],
)
def test_a_wrong_rule_is_named(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Rule.parse(text, "labels.x.rule")


def values(label: Label, *texts: str | None) -> list[object]:
    return list(read_values(label, texts).values)


def test_a_plain_text_is_its_class() -> None:
    assert values(Label(column="a"), " F\n", "M", "", None, "  ") == ["F", "M", None, None, None]


def test_contains_is_yes_or_no_and_missing_stays_missing() -> None:
    label = Label(column="a", contains="fibrillation")
    assert values(label, "Atrial\nFibrillation", "Sinus rhythm", "", None) == ["yes", "no", None, None]
    assert values(Label(column="a", contains="x", blank="none"), "", None, "X") == ["no", "no", "yes"]


def test_the_first_matching_class_wins_and_no_match_is_missing() -> None:
    label = Label(column="a", classes=["af=atrial fib", "sinus", "Any pace=pac(e|ing)"])
    found = read_values(label, ["Sinus; atrial fibrillation", "SINUS rhythm", "pacing", "flutter", ""])
    assert list(found.values) == ["af", "sinus", "Any pace", None, None]
    assert found.unusable == 1


def test_numbers_are_numbers_or_missing_and_counted() -> None:
    found = read_values(Label(column="a", number=True), ["51\n", ">89", "", None, "0"])
    np.testing.assert_array_equal(found.values, [51, np.nan, np.nan, np.nan, 0])
    assert found.unusable == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "needs either 'column'"),
        ({"column": "a", "rule": "folder"}, "give exactly one"),
        ({"column": "a", "number": True, "contains": "x"}, "takes only one of"),
        ({"column": "a", "classes": ["x=("]}, "label class 'x=(' is no regular expression"),
    ],
)
def test_a_wrong_label_is_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Label(**settings)  # type: ignore[arg-type]


def test_rows_that_contradict_each_other() -> None:
    table = pd.DataFrame(
        {"id": ["1", "1", "2", "2"], "sex": ["F", "F", "F", "M"], "note": ["x", "y", "", ""]}
    )
    assert contradictions(table, "id", ["sex"]) == ["2"]
    assert contradictions(table, "id", ["sex", "note"]) == ["1", "2"]
    assert contradictions(table, "id", []) == []
