"""Tables print what was measured and nothing else."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from diptych.errors import ConfigError
from diptych.evaluation.table import Column, Row, Score, Table
from diptych.words import Words

AUROC, F1 = Column("patient", "AUROC"), Column("patient", "macro F1")


def table() -> Table:
    """Two fractions; the F1 of one row was not measured."""
    full = {AUROC: Score(0.8123, 0.7, 0.9, 0.021), F1: Score(0.5)}
    return Table(
        title="rhythm <b>: probe",
        metrics=["AUROC", "macro F1"],
        levels=["patient", "sample"],
        rows=[
            Row(name="pretrained", scores=full, fraction=1.0, patients=20, samples=200, repeats=5),
            Row(name="a | b", scores={AUROC: Score(0.5, 0.5, 0.5)}, fraction=1.0, patients=20, samples=200),
            Row(
                name="pretrained - a | b",
                scores={AUROC: Score(0.3123, 0.2, 0.4, p=0.0004)},
                fraction=1.0,
                difference=True,
            ),
            Row(name="pretrained", scores={F1: Score(123.456)}, fraction=0.1, patients=2, samples=19),
        ],
        test_patients=7,
        test_samples=70,
        notes=["12 samples have no label"],
    )


@pytest.mark.parametrize("name", ["value", "low", "high", "sd", "p"])
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_what_was_not_measured_is_no_score(name: str, number: float) -> None:
    with pytest.raises(ValueError, match=f"the {name} of a score is .*: it was not measured"):
        Score(**({"value": 0.5} | {name: number}))


def test_text_is_aligned_and_whole() -> None:
    lines = str(table()).splitlines()
    assert lines[:2] == ["rhythm <b>: probe", "test: 7 patients, 70 samples"]
    assert lines[3] == "per patient, 100 % of the labelled training patients (20 patients, 200 samples)"
    assert lines[5].split() == ["pretrained", "5", "0.812", "[0.700,", "0.900]", "±0.021", "0.500"]
    assert lines[6].endswith("–")
    assert lines[7].split() == [
        "pretrained",
        "-",
        "a",
        "|",
        "b",
        "1",
        "+0.312",
        "[0.200,",
        "0.400]",
        "p<0.001",
        "–",
    ]
    assert lines[4].index("AUROC") == lines[5].index("0.812") == lines[6].index("0.500")
    assert "per patient, 10 % of the labelled training patients (2 patients, 19 samples)" in lines
    assert "123.5" in str(table())
    assert "* 12 samples have no label" in lines


def test_scores_are_found_by_name() -> None:
    assert table().score("pretrained", "AUROC").value == 0.8123
    assert table().score("pretrained", "macro F1", fraction=0.1).value == 123.456
    with pytest.raises(KeyError):
        table().score("a | b", "macro F1")
    with pytest.raises(KeyError):
        table().score("nobody", "AUROC")


def test_markdown_keeps_its_columns() -> None:
    rows = [line for line in table().markdown().splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)
    assert "a \\| b" in table().markdown()


def test_html_is_escaped() -> None:
    text = table().html()
    assert "rhythm &lt;b&gt;: probe" in text
    assert "<b>" not in text
    assert text.count("<table>") == text.count("</table>") == 4


def test_files_hold_every_score(tmp_path: Path) -> None:
    table().write(tmp_path / "scores.csv")
    frame = pd.read_csv(tmp_path / "scores.csv")
    assert len(frame) == 5
    first = frame.iloc[0]
    assert (first["row"], first["level"], first["metric"], first["value"]) == (
        "pretrained",
        "patient",
        "AUROC",
        0.8123,
    )
    assert frame["kind"].tolist() == ["score", "score", "score", "difference", "score"]
    assert frame["low"].isna().tolist() == [False, True, False, False, True]
    table().write(tmp_path / "scores.json")
    content = json.loads((tmp_path / "scores.json").read_text())
    assert content["scores"][1]["low"] is None
    assert content["scores"][0]["value"] == 0.8123
    assert content["notes"] == ["12 samples have no label"]


def test_every_suffix_is_written_and_others_are_refused(tmp_path: Path) -> None:
    for suffix in (".csv", ".json", ".md", ".html", ".txt"):
        table().write(tmp_path / f"t{suffix}")
        assert (tmp_path / f"t{suffix}").stat().st_size > 100
    with pytest.raises(ConfigError, match=r"written as \.csv, \.json, \.md, \.html, \.txt; got 't\.xlsx'"):
        table().write(tmp_path / "t.xlsx")


def test_texts_and_columns_speak_of_the_domains_units() -> None:
    words = Words(unit="scaffold", recording="molecule", sample="molecule")
    text = replace(table(), words=words).text()
    assert "test: 7 scaffolds, 70 molecules" in text
    assert "per scaffold, 100 % of the labelled training scaffolds (20 scaffolds, 200 molecules)" in text
    assert "95 % interval over test scaffolds" in text
    assert "patient" not in text.replace("pretrained", "")
    frame = replace(table(), words=words).frame()
    assert {"train_scaffolds", "test_scaffolds", "train_molecules"} < set(frame.columns)
    assert set(frame["level"]) == {"scaffold"}
