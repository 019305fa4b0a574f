"""Two processes train the same weights as one, through Lightning and gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from synthetic import OPTIONS, shared_method, study, two_views

from diptych.errors import ConfigError
from diptych.metrics_file import read_metrics
from diptych.runs import Run
from diptych.training import TrainerOptions, choose_strategy, pretrain
from diptych.weights import read_weights

SCRIPT = Path(__file__).with_name("synthetic.py")


def train(run: Path, options: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    run.mkdir(exist_ok=True)
    command = [sys.executable, str(SCRIPT), str(run), json.dumps(options), "--shared", *more]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=400)


@pytest.mark.parametrize("options", [{}, {"accumulate": 2, "gradient_clip": 0.3}])
def test_two_processes_equal_one(tmp_path: Path, options: dict[str, Any]) -> None:
    """Three backward passes and two steps a batch; weights, and the logged means, are those of one process."""
    options = OPTIONS | {"max_steps": 12} | options
    done = train(tmp_path / "two", {**options, "devices": 2})
    assert done.returncode == 0, done.stderr
    of = study(method=shared_method, dropout=0.0, transform=two_views)
    pretrain(of, Run(tmp_path / "one"), trainer=TrainerOptions(**options), seed=5)
    one, two = (read_weights(tmp_path / name / "encoder.safetensors") for name in ("one", "two"))
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=1e-6)
    rows, others = (read_metrics(tmp_path / name / "metrics.csv") for name in ("one", "two"))
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    for row, other in zip(rows, others, strict=True):
        assert other == pytest.approx(row, rel=1e-4, abs=1e-6)


def test_two_processes_stop_together_and_resume_the_same(tmp_path: Path) -> None:
    """Only the second process is asked to stop."""
    options = {"max_steps": 12, "devices": 2, "checkpoint_every": 4}
    calm = train(tmp_path / "calm", options)
    assert calm.returncode == 0, calm.stderr
    done = train(tmp_path / "run", options, "--kill-at", "6", "--signal", "15", "--kill-rank", "1")
    assert done.returncode == 143, done.stderr
    assert "after step 6 of 12; resume the run to go on" in done.stderr
    kept = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert len(kept["random"]) == 2
    assert not torch.equal(kept["random"][0]["torch"], kept["random"][1]["torch"])
    resumed = train(tmp_path / "run", options, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("metrics.csv", "encoder.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "calm" / name).read_bytes()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"accelerator": "cpu"}, "auto"),
        ({"accelerator": "cpu", "devices": 1}, "auto"),
        ({"accelerator": "cpu", "devices": "1"}, "auto"),
        ({"accelerator": "cpu", "devices": 2}, "ddp_find_unused_parameters_true"),
        ({"accelerator": "gpu", "devices": [0, 1]}, "ddp_find_unused_parameters_true"),
        ({"accelerator": "cpu", "num_nodes": 2}, "ddp_find_unused_parameters_true"),
        ({"accelerator": "cpu", "devices": 2, "strategy": "ddp"}, "ddp"),
    ],
)
def test_several_devices_get_a_strategy_that_allows_unused_weights(
    options: dict[str, Any], expected: str
) -> None:
    assert choose_strategy(TrainerOptions(**options)) == expected


def test_impossible_options_are_named_together() -> None:
    with pytest.raises(ConfigError) as caught:
        TrainerOptions(max_epochs=0, accumulate=-1, gradient_clip=0.0)
    assert str(caught.value) == (
        "max_epochs must be at least 1, got 0; accumulate must be at least 1, got -1; "
        "gradient_clip must be above 0, got 0.0"
    )


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({}, 700),
        ({"max_epochs": 3}, 21),
        ({"max_epochs": 3, "accumulate": 3}, 9),
        ({"max_steps": 1000}, 1000),
        ({"max_steps": 10, "max_epochs": 3}, 10),
        ({"max_steps": 30, "max_epochs": 3}, 21),
    ],
)
def test_how_many_steps_a_training_has(options: dict[str, Any], steps: int) -> None:
    assert TrainerOptions(**options).total_steps(batches_per_epoch=7) == steps
