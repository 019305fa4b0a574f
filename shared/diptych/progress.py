"""How far a training is: a bar on a terminal, a line an epoch elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from tqdm import tqdm  # type: ignore[import-untyped]

from diptych.pretrainer import Pretrainer


class Progress(Callback):
    """Counts steps and shows the last logged total loss; asks nothing of the device."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._since = (0, 0.0)  # step and time at the epoch's start

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar on a terminal."""
        assert isinstance(pl_module, Pretrainer)
        if trainer.is_global_zero and sys.stderr.isatty():
            self._bar = tqdm(
                total=pl_module.total_steps, initial=pl_module.step, unit="step", file=sys.stderr, leave=True
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes when the epoch began."""
        assert isinstance(pl_module, Pretrainer)
        self._since = (pl_module.step, time.monotonic())

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the bar."""
        assert isinstance(pl_module, Pretrainer)
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {trainer.current_epoch + 1}", refresh=False)
            self._bar.set_postfix_str(_loss(pl_module), refresh=False)
            self._bar.update(pl_module.step - self._bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the epoch's line where there is no terminal."""
        assert isinstance(pl_module, Pretrainer)
        if trainer.is_global_zero and self._bar is None:
            step, began = self._since
            seconds = time.monotonic() - began
            pace = f", {(pl_module.step - step) / seconds:.2f} steps/s" if began and seconds > 0 else ""
            print(
                f"epoch {trainer.current_epoch + 1}, step {pl_module.step} of {pl_module.total_steps}"
                f"{pace}{_loss(pl_module, ', ')}",
                file=sys.stderr,
                flush=True,
            )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Closes the bar."""
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar, so that the error stands on a line of its own."""
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _loss(pretrainer: Pretrainer, before: str = "") -> str:
    total = pretrainer.latest.get("loss/total")
    return "" if total is None else f"{before}loss {total:.4f}"
