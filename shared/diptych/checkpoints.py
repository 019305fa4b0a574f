"""Checkpoints that are whole or not there, and that continue the same numbers."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from diptych.data.atomic import replacing
from diptych.data.loading import ResumableLoader, process_of
from diptych.errors import DataError, UserError
from diptych.method import Method
from diptych.pretrainer import Pretrainer
from diptych.weights import compare_weights, read_weights

LAST = "last.ckpt"


class Preempted(UserError):
    """The run was asked to stop; it saved its state and can be resumed."""

    exit_code = 143  # 128 + SIGTERM, what batch systems expect


class AtomicCheckpoints(CheckpointIO):
    """Writes beside the target, synchronises, renames; loads nothing but tensors and plain values."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Raises UserError when the disk is full or the folder not writable; the checkpoint there stays."""
        try:
            with replacing(path) as partial, partial.open("wb") as file:
                watched = _Watched(file)
                torch.save(checkpoint, cast(BinaryIO, watched))
                if watched.error is not None:
                    raise watched.error
            _synchronise_folder(Path(path).parent)
        except OSError as error:
            there = Path(path).exists()
            kept = "the checkpoint before it is kept" if there else "there is none before it"
            raise UserError(
                f"the checkpoint {path} could not be written ({error.strerror}); {kept}. Make room or "
                f"make the folder writable, then {'resume this run' if there else 'start again'}"
            ) from error

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Raises UserError when the file is missing, torn or holds more than tensors and plain values."""
        if not Path(path).is_file():
            raise UserError(
                f"there is no checkpoint at {path}; the run ended before its first one, so start anew"
            )
        try:
            state: dict[str, Any] = torch.load(path, map_location=map_location or "cpu", weights_only=True)
        except Exception as error:
            raise UserError(
                f"the checkpoint {path} cannot be read: {str(error).splitlines()[0]}; "
                "resume from another one of the same run, or start anew"
            ) from error
        return state

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Removes a checkpoint that may be gone already."""
        Path(path).unlink(missing_ok=True)


class _Watched:
    """Keeps the first error of a file and lets torch's writer finish: it cannot be stopped half-way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                return self.file.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        if self.error is None:
            try:
                self.file.flush()
            except OSError as error:
                self.error = error


def _synchronise_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def random_states() -> dict[str, Any]:
    """The states of all global generators of this process, as tensors and plain values."""
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, cached],
        "python": [version, torch.tensor(internal, dtype=torch.int64), gauss],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """Puts back what :func:`random_states` gave."""
    torch.set_rng_state(states["torch"].cpu())
    if torch.cuda.is_available() and len(states["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    kind, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached))  # noqa: NPY002
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal.tolist()), gauss))


def load_method(method: Method, checkpoint: str | Path) -> None:
    """Gives a method the weights and states of a run's checkpoint: what the exported encoder leaves out.

    Raises UserError when the file is not there, or holds another method.
    """
    prefix = "method."
    state = {name.removeprefix(prefix): tensor for name, tensor in read_weights(checkpoint).items()}
    if report := compare_weights(method.state_dict(), state):
        raise UserError(f"the checkpoint {Path(checkpoint)} is of another method. {report}")
    method.load_state_dict(state, strict=True)


class Checkpoints(Callback):
    """Saves ``last.ckpt`` (and some epochs' own files) at the end of steps and epochs, and takes it back.

    Put it last among the callbacks: what the others did at the end of an epoch belongs to the checkpoint.

    SIGTERM and SIGUSR1 (what batch systems send ahead of the end) save at the end of the running step and
    raise :class:`Preempted`, in every process of a distributed run.

    Args:
        folder: where the files go.
        loader: whose position is restored.
        digest: of the manifest; another one at resumption raises DataError.
        every: steps between checkpoints; None saves at the end of every epoch.
        keep_every: epochs whose checkpoint is kept under its own name; None keeps only the last one.
    """

    def __init__(
        self,
        folder: Path,
        loader: ResumableLoader,
        digest: str,
        *,
        every: int | None = None,
        keep_every: int | None = None,
    ) -> None:
        self.folder = folder
        self.loader = loader
        self.digest = digest
        self.every = every
        self.keep_every = keep_every
        self.saved_at = 0  # the step of the last checkpoint
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}
        self._random: list[dict[str, Any]] | None = None

    @property
    def last(self) -> Path:
        """The file of the last checkpoint."""
        return self.folder / LAST

    # saving

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves in the middle of an epoch, when it is time or the run is to stop."""
        assert isinstance(pl_module, Pretrainer)
        at_epoch_end = pl_module.batch == 0 or trainer.should_stop
        if at_epoch_end or not pl_module.at_step_end:
            return
        stop = self._agreed_to_stop(trainer)
        due = self.every is not None and pl_module.step - self.saved_at >= self.every
        if stop or due:
            self.save(trainer, pl_module)
        if stop:
            self._leave(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves at the end of an epoch, when it is time, and always at the end of the run."""
        assert isinstance(pl_module, Pretrainer)
        stop = self._agreed_to_stop(trainer)
        last = trainer.should_stop or pl_module.step >= pl_module.total_steps
        due = self.every is None or pl_module.step - self.saved_at >= self.every
        if stop or last or due:
            self.save(trainer, pl_module)
        if self.keep_every is not None and pl_module.batch == 0 and pl_module.epoch % self.keep_every == 0:
            trainer.save_checkpoint(self.folder / f"epoch-{pl_module.epoch:04d}.ckpt")
        if stop and not last:
            self._leave(pl_module)

    def save(self, trainer: Trainer, pretrainer: Pretrainer) -> None:
        """Writes ``last.ckpt``, after making sure that the weights are finite."""
        pretrainer.check_weights()
        self.saved_at = pretrainer.step
        trainer.save_checkpoint(self.last)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Adds random states of all processes and the data's digest, and says plainly where the run is."""
        assert isinstance(pl_module, Pretrainer)
        states: list[Any] = [random_states()]
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, states[0])
            states = gathered
        checkpoint["random"] = states
        checkpoint["manifest"] = self.digest
        _plain_progress(checkpoint["loops"]["fit_loop"], pl_module)

    # taking back

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Moves the loader to where the checkpoint was written. Raises DataError on other data."""
        assert isinstance(pl_module, Pretrainer)
        if checkpoint["manifest"] != self.digest:
            raise DataError(
                f"the checkpoint was trained on the data with digest {checkpoint['manifest']}, and the data "
                f"here have digest {self.digest}; resume with the same files, or start a new run"
            )
        self.loader.start(pl_module.epoch, pl_module.batch)
        self.saved_at = pl_module.step
        self._random = checkpoint["random"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restores the random states, as the last thing before the first step, and listens to signals."""
        if self._random is not None:
            rank, _ = process_of()
            if rank < len(self._random):  # with more processes than before the new ones keep their own seed
                restore_random_states(self._random[rank])
            self._random = None
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGUSR1):
                self._before[number] = signal.signal(number, self._ask)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Gives the signals back."""
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    # leaving early

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _agreed_to_stop(self, trainer: Trainer) -> bool:
        """Whether any process was asked to stop: they have to stop at the same step."""
        if trainer.world_size == 1:
            return self._asked
        asked: Tensor = torch.tensor(int(self._asked), device=trainer.strategy.root_device)
        torch.distributed.all_reduce(asked, torch.distributed.ReduceOp.MAX)
        return bool(asked)

    def _leave(self, pretrainer: Pretrainer) -> None:
        raise Preempted(
            f"asked to stop: saved {self.last} after step {pretrainer.step} of {pretrainer.total_steps}; "
            "resume the run to go on"
        )


def _plain_progress(fit_loop: dict[str, Any], pretrainer: Pretrainer) -> None:
    """Says in Lightning's own counters that the run stands between two batches or between two epochs.

    A checkpoint is written inside a hook, when some counters of the batch or epoch are up and others not.
    Lightning guesses from the differences which hook that was; equal counters need no guess.
    """
    epochs, batches = pretrainer.epoch, pretrainer.batch
    inside = 1 if batches else 0  # an epoch begun and not ended
    for progress in (fit_loop["epoch_progress"]["total"], fit_loop["epoch_progress"]["current"]):
        progress.update(ready=epochs + inside, started=epochs + inside, processed=epochs, completed=epochs)
    batch = fit_loop["epoch_loop.batch_progress"]
    seen = epochs * pretrainer.batches_per_epoch + batches
    batch["total"].update(ready=seen, started=seen, processed=seen, completed=seen)
    batch["current"].update(ready=batches, started=batches, processed=batches, completed=batches)
    batch["is_last_batch"] = False
