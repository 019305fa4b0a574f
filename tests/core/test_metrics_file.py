from __future__ import annotations

import math
from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.metrics_file import MetricsFile, read_metrics


def test_rows_read_back_exactly(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    file.log_metrics({"epoch": 0, "loss": 1 / 3}, 1)
    file.log_metrics({"epoch": 0, "loss": 1e-300, "rank": math.pi}, 2)
    file.log_metrics({"epoch": 1, "rank": float("inf")}, 3)
    assert (tmp_path / "m.csv").read_text().splitlines()[0] == "step,epoch,loss,rank"
    assert read_metrics(tmp_path / "m.csv") == [
        {"step": 1, "epoch": 0, "loss": 1 / 3},
        {"step": 2, "epoch": 0, "loss": 1e-300, "rank": math.pi},
        {"step": 3, "epoch": 1, "rank": float("inf")},
    ]
    assert file.rows == 3


@pytest.mark.parametrize("torn", ["", "3,", "3,1,0.5", "3,1,0.5,7\n4,1"])
def test_rewinding_and_logging_again_gives_the_same_file(tmp_path: Path, torn: str) -> None:
    """Also when the last row was torn, and when a later row had brought a column."""
    path = tmp_path / "m.csv"
    rows = [{"epoch": 0, "loss": 0.5}, {"epoch": 0, "loss": 0.25}, {"epoch": 1, "loss": 0.5, "rank": 7.0}]
    file = MetricsFile(path)
    for step, row in enumerate(rows):
        file.log_metrics(row, step)
    whole = path.read_text()
    path.write_text(whole + torn)
    again = MetricsFile(path)
    again.rewind(2)
    assert again.rows == 2
    again.log_metrics(rows[2], 2)
    assert path.read_text() == whole


def test_a_file_that_lost_rows_is_said(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "m.csv")
    with pytest.raises(UserError, match=r"m\.csv is gone, and the checkpoint says it had 1 rows"):
        file.rewind(1)
    file.rewind(0)
    file.log_metrics({"epoch": 0}, 1)
    with pytest.raises(UserError, match="has 1 rows and had 2 at the checkpoint; it was changed since"):
        file.rewind(2)


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    file = MetricsFile(path)
    file.log_metrics({"epoch": 0}, 1)
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(UserError, match=r"could not be written \(No space left on device\); make room"):
        file.log_metrics({"epoch": 0}, 2)
