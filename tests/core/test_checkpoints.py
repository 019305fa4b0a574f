from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from synthetic import collapsing_method, study

from diptych.checkpoints import AtomicCheckpoints, load_method, random_states, restore_random_states
from diptych.errors import DataError, UserError
from diptych.runs import Run
from diptych.training import TrainerOptions, pretrain

OPTIONS: dict[str, Any] = {"accelerator": "cpu", "progress": "off", "log_every": 1}
SMALL = {"weights": torch.arange(10.0)}
LARGE = {"weights": torch.zeros(200_000)}  # 800 kB


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 256 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this machine does not let us mount a file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow above 256 kB: what a full disk does, on any machine."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def assert_large_one_fails_and_small_one_stays(folder: Path, reason: str) -> None:
    files = AtomicCheckpoints()
    with pytest.raises(
        UserError, match=f"could not be written \\({reason}\\); there is none before it.*start again"
    ):
        files.save_checkpoint(LARGE, folder / "last.ckpt")
    assert list(folder.iterdir()) == []
    files.save_checkpoint(SMALL, folder / "last.ckpt")
    with pytest.raises(UserError, match=f"{reason}.*the checkpoint before it is kept.*then resume this run"):
        files.save_checkpoint(LARGE, folder / "last.ckpt")
    assert [path.name for path in folder.iterdir()] == ["last.ckpt"]
    assert torch.equal(files.load_checkpoint(folder / "last.ckpt")["weights"], SMALL["weights"])


def test_a_full_disk_keeps_the_checkpoint_before(tiny_disk: Path) -> None:
    assert_large_one_fails_and_small_one_stays(tiny_disk, "No space left on device")


@pytest.mark.usefixtures("small_files")
def test_a_file_that_may_not_grow_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    assert_large_one_fails_and_small_one_stays(tmp_path, "File too large")


def test_a_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"could not be written \(.*\); there is none before it"):
        AtomicCheckpoints().save_checkpoint(SMALL, tmp_path / "file" / "last.ckpt")


def test_a_run_whose_disk_fills_goes_on_after_room_is_made(tiny_disk: Path, tmp_path: Path) -> None:
    """The disk is full for the second checkpoint; the run resumes from the first and ends as if nothing was."""
    options = TrainerOptions(max_steps=8, checkpoint_every=3, **OPTIONS)
    pretrain(study(), Run(tmp_path / "calm"), trainer=options, seed=1)
    run = Run(tiny_disk)

    from lightning.pytorch import Callback

    class Fill(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *rest: Any) -> None:
            if pl_module.step == 5:
                free = os.statvfs(tiny_disk)
                (tiny_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize - 8192))

    with pytest.raises(UserError, match=r"No space left on device\); .* is kept"):
        pretrain(study(), run, trainer=options, seed=1, callbacks=[Fill()])
    assert torch.load(run.last_checkpoint, weights_only=True)["pretrainer"]["step"] == 3
    (tiny_disk / "filler").unlink()
    pretrain(study(), run, trainer=options, seed=1, resume=True)
    assert run.metrics.read_text() == (tmp_path / "calm" / "metrics.csv").read_text()
    assert run.encoder.read_bytes() == (tmp_path / "calm" / "encoder.safetensors").read_bytes()


def test_random_states_come_back_through_a_file(tmp_path: Path) -> None:
    def draw() -> tuple[float, ...]:
        return (
            torch.rand(()).item(),
            np.random.rand(),  # noqa: NPY002
            random.random(),
            random.gauss(0, 1),
            np.random.randn(),  # noqa: NPY002
        )

    draw()  # leaves half a pair of Gaussian numbers in NumPy's and Python's generators
    files = AtomicCheckpoints()
    files.save_checkpoint({"random": random_states()}, tmp_path / "r.ckpt")
    expected = [draw() for _ in range(3)]
    restore_random_states(files.load_checkpoint(tmp_path / "r.ckpt")["random"])
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize("damage", ["torn", "text", "code"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"f": sys.exit} if damage == "code" else SMALL, path)
    if damage == "torn":
        path.write_bytes(path.read_bytes()[:300])
    if damage == "text":
        path.write_text("hello")
    with pytest.raises(
        UserError, match=r"cannot be read: .*; resume from another one of the same run, or start anew"
    ):
        AtomicCheckpoints().load_checkpoint(path)


def test_resuming_without_a_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint at .*last\.ckpt; .*start anew"):
        pretrain(study(), Run(tmp_path), trainer=TrainerOptions(max_steps=2, **OPTIONS), seed=0, resume=True)


def test_other_data_are_refused_and_both_digests_named(tmp_path: Path) -> None:
    options = TrainerOptions(max_steps=2, **OPTIONS)
    pretrain(study(), Run(tmp_path), trainer=options, seed=0)
    one, other = (study(digest_of=each).samples.manifest.digest for each in "ab")
    with pytest.raises(DataError) as caught:
        pretrain(study(digest_of="b"), Run(tmp_path), trainer=options, seed=0, resume=True)
    assert one in str(caught.value)
    assert other in str(caught.value)
    assert "resume with the same files, or start a new run" in str(caught.value)


def test_another_method_is_refused(tmp_path: Path) -> None:
    options = TrainerOptions(max_steps=2, **OPTIONS)
    pretrain(study(), Run(tmp_path), trainer=options, seed=0)
    with pytest.raises(UserError, match=r"another configuration.*1 unexpected: method\.parts\.apart\.point"):
        pretrain(study(method=collapsing_method), Run(tmp_path), trainer=options, seed=0, resume=True)


def test_epochs_are_kept_under_their_own_names(tmp_path: Path) -> None:
    options = TrainerOptions(max_epochs=5, keep_every=2, **OPTIONS)
    pretrain(study(), Run(tmp_path), trainer=options, seed=0)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["epoch-0002.ckpt", "epoch-0004.ckpt", "last.ckpt"]
    kept = torch.load(tmp_path / "checkpoints" / "epoch-0002.ckpt", weights_only=True)
    assert kept["pretrainer"]["epoch"] == 2
    assert kept["pretrainer"]["batch"] == 0


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    options = TrainerOptions(max_epochs=2, **OPTIONS)
    first = pretrain(study(), run, trainer=options, seed=0)
    text, weights = run.metrics.read_text(), run.encoder.read_bytes()
    again = pretrain(study(), run, trainer=options, seed=0, resume=True)
    assert (again.steps, again.epochs, again.metrics) == (first.steps, first.epochs, first.metrics)
    assert run.metrics.read_text() == text
    assert run.encoder.read_bytes() == weights


@pytest.mark.parametrize(
    "length", [{"max_epochs": 2}, {"max_steps": 10}]
)  # at an epoch's end, and within one
def test_a_finished_run_is_made_longer(tmp_path: Path, length: dict[str, int]) -> None:
    """With a rate that does not depend on the length it ends as one that was as long from the start."""
    of = study(method=collapsing_method)
    run, once = Run(tmp_path / "run"), Run(tmp_path / "once")
    pretrain(of, run, trainer=TrainerOptions(**length, **OPTIONS), seed=0)
    result = pretrain(of, run, trainer=TrainerOptions(max_epochs=3, **OPTIONS), seed=0, resume=True)
    expected = pretrain(of, once, trainer=TrainerOptions(max_epochs=3, **OPTIONS), seed=0)
    assert (result.steps, result.epochs) == (expected.steps, expected.epochs) == (21, 3)
    assert run.metrics.read_text() == once.metrics.read_text()
    assert run.encoder.read_bytes() == once.encoder.read_bytes()


def test_a_method_takes_all_its_parts_from_a_checkpoint(tmp_path: Path) -> None:
    made = study()
    run = Run.create(tmp_path, "synthetic", "parts")
    pretrain(made, run, trainer=TrainerOptions(max_steps=3, **OPTIONS), seed=1)
    checkpoint = run.path / "checkpoints" / "last.ckpt"
    one, other = (made.method(made.new_encoder()) for _ in range(2))
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    load_method(one, checkpoint)
    load_method(other, checkpoint)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())
    assert any(not torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())


def test_a_checkpoint_of_another_method_is_refused(tmp_path: Path) -> None:
    made = study()
    run = Run.create(tmp_path, "synthetic", "parts")
    pretrain(made, run, trainer=TrainerOptions(max_steps=1, **OPTIONS), seed=1)
    other = collapsing_method(made.new_encoder())
    with pytest.raises(UserError, match="is of another method"):
        load_method(other, run.path / "checkpoints" / "last.ckpt")
