"""The quarantine lists every rejected file, keeps names out, and stops a run above a share."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from diptych.data.identity import file_key
from diptych.data.quarantine import Quarantine
from diptych.errors import ConfigError, DataError


def filled() -> Quarantine:
    """Six files with four kinds of reason."""
    quarantine = Quarantine()
    for path, reason in [
        ("a.edf", "too short: 3.2 s of 10 s"),
        ("b.edf", "too short: 1 s of 10 s"),
        ("c.edf", "too short: 9 s of 10 s"),
        ("d.edf", "flat lead: V1"),
        ("e.edf", "flat lead: V2"),
        ("f.edf", "not a number in lead II"),
    ]:
        quarantine.add(path, reason)
    return quarantine


def test_rows_stay_in_order_with_their_kind() -> None:
    quarantine = filled()
    assert len(quarantine) == 6
    assert quarantine.rows[0].kind == "too short"
    assert quarantine.kinds() == {"too short": 3, "flat lead": 2, "not a number in lead II": 1}


def test_nothing_is_lost_between_threads() -> None:
    quarantine = Quarantine()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: quarantine.add(f"{number}.dat", "flat"), range(2000)))
    assert len(quarantine) == 2000


def test_a_share_within_the_limit_passes() -> None:
    quarantine = filled()  # 6 of 30 are the share of 0.2 exactly
    quarantine.check(30, 0.2)
    with pytest.raises(DataError, match="6 of 30 files"):
        quarantine.check(30, 0.19)
    Quarantine().check(0)


def test_above_the_limit_the_run_stops_and_says_why() -> None:
    quarantine = filled()
    quarantine.add("g.edf", "bad header")
    quarantine.add("h.edf", "bad header")
    message = (
        "8 of 30 files (27%) cannot be used, more than 20% allowed. "
        "Most frequent: too short (3); flat lead (2); bad header (2). "
    )
    with pytest.raises(DataError, match=re.escape(message)):
        quarantine.check(30)


def test_a_file_with_two_faults_counts_once() -> None:
    quarantine = Quarantine()
    quarantine.add("a.edf", "flat lead: I")
    quarantine.add("a.edf", "flat lead: II")
    quarantine.check(5, 0.2)  # one file of five
    with pytest.raises(DataError, match=re.escape("1 of 5 files (20%) cannot be used")):
        quarantine.check(5, 0.1)


def test_a_limit_that_is_no_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 0 and 1; got 20"):
        Quarantine().check(10, 20)


def test_more_files_in_quarantine_than_looked_at_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="6 files in quarantine of a total of 5"):
        filled().check(5)


def test_paths_and_names_do_not_reach_reasons() -> None:
    quarantine = Quarantine()
    quarantine.add("ward/DOE_JANE.edf", "cannot open /data/ward/DOE_JANE.edf:\n  header of DOE_JANE is cut")
    reason = quarantine.rows[0].reason
    assert "DOE" not in reason
    assert reason == "cannot open /data/<file>: header of <file> is cut"


def test_a_short_record_number_does_not_garble_a_reason() -> None:
    quarantine = Quarantine()
    quarantine.add("1.hea", "lead missing: 1 of 12")
    assert quarantine.rows[0].reason == "lead missing: 1 of 12"


def test_reasons_are_one_line_of_bounded_length() -> None:
    quarantine = Quarantine()
    quarantine.add("a", "long " * 100)
    assert len(quarantine.rows[0].reason) == 200
    with pytest.raises(ValueError, match="got an empty one"):
        quarantine.add("a", " \n ")


def test_the_file_of_a_run_has_keys_and_the_private_one_paths(tmp_path: Path) -> None:
    quarantine = filled()
    quarantine.write(tmp_path / "runs" / "quarantine.jsonl")
    public = [json.loads(line) for line in (tmp_path / "runs" / "quarantine.jsonl").read_text().splitlines()]
    assert public[0] == {"file": file_key("a.edf"), "reason": "too short: 3.2 s of 10 s"}
    assert len(public) == 6
    quarantine.write(tmp_path / "private.jsonl", paths=True)
    private = [json.loads(line) for line in (tmp_path / "private.jsonl").read_text().splitlines()]
    assert [row["path"] for row in private] == [row.path for row in quarantine.rows]


def test_an_empty_quarantine_is_an_empty_file(tmp_path: Path) -> None:
    Quarantine().write(tmp_path / "quarantine.jsonl")
    assert (tmp_path / "quarantine.jsonl").read_bytes() == b""
