"""A run killed at any moment and resumed equals one that was not, bit by bit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from synthetic import OPTIONS, monitors, study

from diptych.metrics_file import read_metrics
from diptych.runs import Run
from diptych.training import TrainerOptions, pretrain

SCRIPT = Path(__file__).with_name("synthetic.py")
STEPS = 25  # of 7 an epoch
ALL = {"max_steps": STEPS, "max_epochs": 4, "checkpoint_every": 4, "accumulate": 1}


def train(run: Path, *more: str, options: dict[str, Any] = ALL) -> subprocess.CompletedProcess[str]:
    """Trains with all monitors in a process of its own."""
    command = [sys.executable, "-W", "error", str(SCRIPT), str(run), json.dumps(options), "--monitors", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)


def end_of(run: Path) -> tuple[str, bytes, str]:
    card = (run / "model_card.md").read_text()
    return (run / "metrics.csv").read_text(), (run / "encoder.safetensors").read_bytes(), card


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes, str]:
    """How the run ends when nothing happens."""
    run = tmp_path_factory.mktemp("calm")
    done = train(run)
    assert done.returncode == 0, done.stderr
    return end_of(run)


@pytest.mark.parametrize(
    ("number", "step", "workers"),
    [
        (signal.SIGKILL, 17, 2),
        (signal.SIGKILL, 21, 0),  # at an epoch's last step, before its end
        (signal.SIGTERM, 10, 2),
        (signal.SIGUSR1, 14, 0),
    ],
)
def test_killed_and_resumed_ends_the_same(
    tmp_path: Path, calm: tuple[str, bytes, str], number: signal.Signals, step: int, workers: int
) -> None:
    more = ("--workers", str(workers))
    done = train(tmp_path, *more, "--kill-at", str(step), "--signal", str(int(number)))
    if number == signal.SIGKILL:
        assert done.returncode == -signal.SIGKILL
    else:
        assert done.returncode == 143, done.stderr
        assert f"after step {step} of {STEPS}; resume the run to go on" in done.stderr
        assert "Traceback" not in done.stderr
        kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
        assert kept["pretrainer"]["step"] == step
    resumed = train(tmp_path, *more, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert end_of(tmp_path) == calm
    rows = [(row["step"], *sorted(row)) for row in read_metrics(tmp_path / "metrics.csv")]
    assert len(set(rows)) == len(rows)


class Stop(Exception):
    """Stands for the moment a process dies."""


class DieAt(Callback):
    """Raises in one hook, from a number of steps on."""

    def __init__(self, hook: str, step: int) -> None:
        setattr(self, hook, self._die)
        self.step = step

    def _die(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
        if pl_module.step >= self.step:
            raise Stop


@pytest.mark.parametrize("hook", ["on_train_batch_start", "on_train_batch_end", "on_train_epoch_end"])
@pytest.mark.parametrize(("every", "accumulate"), [(1, 1), (2, 3), (None, 1)])
def test_resumes_from_every_step(tmp_path: Path, hook: str, every: int | None, accumulate: int) -> None:
    """In this process: one run dies at every step in turn, and ends like one that did not."""
    of: Callable[[], Any] = lambda: study(patients=12, batch_size=8)  # noqa: E731
    options = TrainerOptions(**OPTIONS, max_epochs=3, accumulate=accumulate, checkpoint_every=every)

    def attempt(run: Run, *extra: Callback) -> None:
        watched = monitors(of(), run, keep="best_rank")
        pretrain(
            of(),
            run,
            trainer=options,
            seed=9,
            resume=run.last_checkpoint.exists(),
            callbacks=[*watched.callbacks, *extra],
            choose=watched.choose,
        )

    calm, run = Run(tmp_path / "calm"), Run(tmp_path / "run")
    attempt(calm)
    total = int(read_metrics(calm.metrics)[-1]["step"])
    assert total == (12 if accumulate == 1 else 6)
    resumed = 0
    for step in range(1, total):
        with pytest.raises(Stop):
            attempt(run, DieAt(hook, step))
        if run.last_checkpoint.exists():
            resumed += 1
        else:
            run.metrics.unlink()  # nothing to resume: the run begins anew
    assert resumed >= total // 2
    attempt(run)
    assert end_of(run.path) == end_of(calm.path)


def test_leftovers_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    options = TrainerOptions(**OPTIONS, max_steps=4, checkpoint_every=2)
    run = Run(tmp_path)
    pretrain(study(), run, trainer=options, seed=0)
    for folder in (run.path, run.checkpoints):
        (folder / ".last.ckpt.123.partial").write_bytes(b"half")
    pretrain(study(), run, trainer=options, seed=0, resume=True)
    assert not list(tmp_path.rglob("*.partial"))


def test_a_run_is_not_begun_twice(tmp_path: Path) -> None:
    from diptych.errors import UserError

    options = TrainerOptions(**OPTIONS, max_steps=2)
    pretrain(study(), Run(tmp_path), trainer=options, seed=0)
    with pytest.raises(UserError, match="holds a run already; resume it, or create another"):
        pretrain(study(), Run(tmp_path), trainer=options, seed=0)
