from __future__ import annotations

import getpass
import json
import os
import socket
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import study

from diptych.errors import ConfigError, UserError
from diptych.runs import FOLLOW, Run, environment
from diptych.training import TrainerOptions, pretrain

OPTIONS: dict[str, Any] = {"accelerator": "cpu", "progress": "off", "max_steps": 3, "log_every": 1}


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that belongs to no distributed run."""
    for name in (FOLLOW, "RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(FOLLOW, "")  # so that what a run sets is taken back afterwards


def test_a_run_has_everything_that_made_it(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "toy", "first")
    run.write_config("seed: 3\n")
    of = study()
    pretrain(of, run, trainer=TrainerOptions(**OPTIONS), seed=3)
    assert run.path.parent == tmp_path
    assert run.path.name.startswith("toy-first-20")
    names = {path.name for path in run.path.iterdir()}
    assert names == {
        *("config.yaml", "environment.json", "data.json", "manifest.json", "splits.csv", "quarantine.jsonl"),
        *("metrics.csv", "checkpoints", "encoder.safetensors", "model_card.md"),
    }
    assert run.config.read_text() == "seed: 3\n"
    data = json.loads((run.path / "data.json").read_text())
    assert data["digest"] == of.samples.manifest.digest
    assert data["splits"]["train"] == {"patients": 16, "recordings": 64, "samples": 64}
    splits = pd.read_csv(run.path / "splits.csv")
    assert len(splits) == 24
    assert dict(splits["split"].value_counts()) == {"train": 16, "validation": 4, "test": 4}
    card = (run.path / "model_card.md").read_text()
    for fact in (
        of.samples.manifest.digest,
        "patients: 16",
        "steps: 3",
        "seed: 3",
        "loss/total",
        "344 weights",
    ):
        assert fact in card
    assert "nan" not in card.lower()
    assert Run.open(run.path) == run


def test_the_environment_names_versions_and_nobody(tmp_path: Path) -> None:
    facts = environment()
    assert {"torch", "lightning", "numpy"} <= set(facts["libraries"])
    text = json.dumps(facts)
    assert socket.gethostname() not in text
    assert getpass.getuser() not in text.replace("root", "") or getpass.getuser() == "root"
    assert str(Path.home()) not in text


def test_runs_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path / "deep" / "runs", "toy", "same") for _ in range(3)]
    assert len({run.path for run in runs}) == 3


def test_a_config_is_written_once(tmp_path: Path) -> None:
    run = Run.create(tmp_path, "toy", "a")
    run.write_config("a: 1\n")
    with pytest.raises(UserError, match=r"config\.yaml is there already; a run is never overwritten"):
        run.write_config("a: 2\n")
    assert run.config.read_text() == "a: 1\n"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "a b", "a\n"])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="becomes part of a folder's name"):
        Run.create(tmp_path, "toy", name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_root_that_is_a_file_is_said(tmp_path: Path, below: str) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(
        UserError, match=r"the folder for runs .* is a file|cannot be written \(Not a directory\)"
    ):
        Run.create(tmp_path / "runs" / below, "toy", "a")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_root_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(
        UserError, match=r"cannot be written \(Permission denied\); give another folder for runs"
    ):
        Run.create(tmp_path, "toy", "a")


def test_a_root_that_no_one_may_write_is_said() -> None:
    with pytest.raises(
        UserError, match=r"the run folder /proc/.* cannot be written \(.*\); give another folder"
    ):
        Run.create("/proc/nothing", "toy", "a")


def test_a_folder_that_is_no_run_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is not a run: it has no config\.yaml"):
        Run.open(tmp_path)


def test_only_the_first_process_makes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Run.create(tmp_path, "toy", "a")
    monkeypatch.setenv("LOCAL_RANK", "1")
    follower = Run.create(tmp_path, "toy", "a")
    follower.write_config("b: 1\n")
    assert follower == first
    assert not first.config.exists()
    assert len(list(tmp_path.iterdir())) == 1
