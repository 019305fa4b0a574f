"""Two processes are never within one folder's block together, and a killed one does not keep the others out."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from diptych.data.exclusive import exclusive
from diptych.errors import DataError

_COUNTS = """
import sys, time
from pathlib import Path
from diptych.data.exclusive import exclusive

file = Path(sys.argv[1]) / "count"
for _ in range(25):
    with exclusive(file.parent, "counts"):
        count = int(file.read_text())
        time.sleep(0.002)
        file.write_text(str(count + 1))
"""
_HOLDS = """
import sys, time
from pathlib import Path
from diptych.data.exclusive import exclusive

with exclusive(Path(sys.argv[1]), "sleeps"):
    print("in", flush=True)
    time.sleep(600)
"""


def test_no_count_is_lost_between_processes(tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", _COUNTS, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "75"


def test_the_lock_of_a_killed_process_is_free_and_the_wait_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "in\n"
    entered = threading.Event()

    def enter() -> None:
        with exclusive(tmp_path, "sleeps"):
            entered.set()

    waiting = threading.Thread(target=enter)
    with caplog.at_level(logging.WARNING, logger="diptych"):
        waiting.start()
        assert not entered.wait(0.5)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
        waiting.join(timeout=60)
    assert entered.is_set()
    assert caplog.messages == [f"another process sleeps below {tmp_path}; waiting for it to end"]


def test_an_error_within_frees_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path, "fails"):
        _ = 1 / 0
    with exclusive(tmp_path, "enters again"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DataError, match=r"file/cache' cannot be locked: Not a directory"),
        exclusive(tmp_path / "file" / "cache", "writes"),
    ):
        pass
