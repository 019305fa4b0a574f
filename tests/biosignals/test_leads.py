"""Leads are found by any usual spelling of their names."""

from __future__ import annotations

import pytest

from diptych.data.readable import Unreadable
from diptych_biosignals.leads import canonical, find_leads, most_frequent


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MLII", "ii"), ("II", "ii"), ("ii", "ii"), ("Lead II", "ii"), ("ECG II", "ii"), ("lead_II", "ii"),
        ("Lead I (Einthoven)", "i"), ("aVR", "avr"), ("AVR", "avr"), ("V1", "v1"), ("vx", "x"),
        ("EEG Fp1-REF", "fp1"), ("EEG FP1-LE", "fp1"), ("Fp1", "fp1"), ("FP1.", "fp1"), ("EEG T3", "t7"),
        ("T7", "t7"), ("EEG A2-A1", "a2-a1"), ("ECG ECG", "ecg"), ("ECG", "ecg"),
        ("EKG1", "ekg1"), ("Fp1-F7", "fp1-f7"),
    ],
)  # fmt: skip
def test_spellings_of_one_lead_are_one(name: str, text: str) -> None:
    assert canonical(name) == text


def test_leads_are_found_in_the_order_wanted_and_missing_ones_are_none() -> None:
    assert find_leads(["MLII", "V5", "Resp"], ["V5", "II", "V1"]) == ["V5", "MLII", None]


def test_the_exact_name_wins_over_a_similar_one() -> None:
    assert find_leads(["MLII", "II"], ["II"]) == ["II"]


def test_two_similar_leads_are_ambiguous() -> None:
    with pytest.raises(Unreadable, match="ambiguous leads: 2 leads of the file are the wanted lead 'II'"):
        find_leads(["MLII", "ii"], ["II"])


def test_own_aliases_go_first() -> None:
    assert find_leads(["CH1", "CH2"], ["II", "I"], {"ch1": "I", "CH2": "II"}) == ["CH2", "CH1"]
    assert find_leads(["MLII", "B"], ["II"], {"B": "II", "MLII": "other"}) == ["B"]


def test_the_most_frequent_set_of_leads_in_its_most_frequent_order() -> None:
    assert most_frequent([["V1", "II"], ["MLII", "V1"], ["II", "V1"], ["II", "V1"], ["I"]]) == ("II", "V1")
    assert most_frequent([["I"], ["I", "II"]]) == ("I", "II")
