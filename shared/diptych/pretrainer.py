"""Runs any method: per batch and phase, one backward per pass, one step per phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from diptych.errors import UserError
from diptych.method import Method, Pass, Phase
from diptych.schedules import build_schedule
from diptych.types import Encoded, Views
from diptych.weights import compare_weights

NEVER = 2**62  # the step of a failure that did not happen


class Pretrainer(LightningModule):
    """The one LightningModule: runs the phases of a :class:`Method` with manual optimisation.

    A step takes ``accumulate`` batches (fewer at the end of an epoch). For every phase in turn it
    encodes and backpropagates every batch and pass (one pass's activations live at a time), clips
    and steps over what the phase trains, drops all gradients, and calls ``after``. With several
    batches the gradient is that of the mean of their losses. The batches themselves are held until the step,
    so that a phase sees what the phase before it has trained, as it would with one large batch.

    Every ``log_every`` steps the means since the last time are logged: ``loss/<term>`` without its weight,
    ``loss/total`` with weights, ``rate/<phase>``, and ``gradient/<phase>`` (the norm) where gradients are
    clipped. Nothing waits for the device in between. In a distributed run the means are over processes too.

    Raises:
        UserError: a term or the weights are not finite. This is looked at when logging and before every
            checkpoint, so that a checkpoint never holds such weights, and names the first step and the term.
        ValueError: two terms have the same name.
    """

    def __init__(
        self,
        method: Method,
        *,
        total_steps: int,
        batches_per_epoch: int,
        accumulate: int = 1,
        clip: float | None = None,
        log_every: int = 10,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.method = method
        self.total_steps = total_steps
        self.batches_per_epoch = batches_per_epoch
        self.accumulate = accumulate
        self.clip = clip
        self.log_every = log_every
        self.step = 0  # steps taken
        self.epoch = 0  # the epoch of the next batch
        self.batch = 0  # the next batch's position in it
        self._held: list[Views] = []
        terms = [term.name for phase in method.phases for each in phase.passes for term in each.terms]
        for name in terms:
            if terms.count(name) > 1:
                raise ValueError(f"two terms of the method are named {name!r}; each is logged by its name")
        self._weights = list(method.parameters())
        self._trained = [list(phase.parameters()) for phase in method.phases]
        self._stepping: list[nn.Parameter] = []  # what the optimiser at work steps over
        self._norm = torch.zeros(())  # of its gradient
        self._names = [f"loss/{name}" for name in terms] + ["loss/total"]
        if clip is not None:
            self._names += [f"gradient/{phase.name}" for phase in method.phases]
        self._sums: Tensor | None = None  # (names,): since the last row of metrics
        self._count = 0
        self._failed: Tensor | None = None  # (names,): the first step at which each was not finite
        self.latest: dict[str, float] = {}  # the last row of metrics

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """One optimiser and at most one schedule for every phase, in order."""
        configured: list[Any] = []
        for phase, trained in zip(self.method.phases, self._trained, strict=True):
            optimizer = phase.optimizer(trained)
            entry: dict[str, Any] = {"optimizer": optimizer}
            if phase.schedule is not None:
                entry["lr_scheduler"] = build_schedule(phase.schedule, optimizer, self.total_steps)
            configured.append(entry)
        return tuple(configured)

    def training_step(self, batch: Views, batch_idx: int) -> None:
        """Holds the batch, and takes a step when the group of batches is full or the epoch ends."""
        self._held.append(batch)
        self.epoch, self.batch = self.trainer.current_epoch, batch_idx + 1
        if len(self._held) == self.accumulate or self.batch == self.batches_per_epoch:
            self._take_step(self._held)
            self._held = []
        if self.batch == self.batches_per_epoch:
            self.epoch, self.batch = self.epoch + 1, 0

    @property
    def at_step_end(self) -> bool:
        """Whether no batch waits for its step: the moments at which a checkpoint is whole."""
        return not self._held

    def _take_step(self, batches: list[Views]) -> None:
        values: dict[str, Tensor] = {}
        schedules = iter(_listed(self.lr_schedulers()))
        rates: dict[str, float] = {}
        optimizers = _listed(self.optimizers())
        for phase, trained, optimizer in zip(self.method.phases, self._trained, optimizers, strict=True):
            rates[f"rate/{phase.name}"] = float(optimizer.param_groups[0]["lr"])
            self._train_phase(phase, trained, optimizer, batches, values)
            if phase.schedule is not None:
                next(schedules).step()
        if self.batch == self.batches_per_epoch:
            with torch.no_grad():
                for call in (call for phase in self.method.phases for call in phase.after_epoch):
                    call()
        self.step += 1
        self._remember(values)
        if self.step % self.log_every == 0 or self.step == self.total_steps:
            self._log_means(rates)
        if self.step >= self.total_steps:
            self.trainer.should_stop = True

    def _train_phase(
        self,
        phase: Phase,
        trained: list[nn.Parameter],
        optimizer: LightningOptimizer,
        batches: list[Views],
        values: dict[str, Tensor],
    ) -> None:
        for batch in batches:
            for each in phase.passes:
                self._backpropagate(phase, each, batch, 1 / len(batches), values)
        self._stepping = trained
        optimizer.step()
        if self.clip is not None:
            values[f"gradient/{phase.name}"] = self._norm
        for parameter in self._weights:  # those of other phases have got gradients too
            parameter.grad = None
        with torch.no_grad():
            for call in phase.after:
                call()

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Clips: Lightning calls this within the step, when half-precision gradients are unscaled."""
        if self.clip is not None:
            self._norm = nn.utils.clip_grad_norm_(self._stepping, self.clip)

    def _backpropagate(
        self, phase: Phase, each: Pass, batch: Views, share: float, values: dict[str, Tensor]
    ) -> None:
        target: tuple[Encoded, ...] = ()
        if each.target is not None:
            with torch.no_grad():
                target = each.target(batch)
        online = each.online(batch)
        losses: list[Tensor] = []
        for term in each.terms:
            loss = term.objective(online, target, batch)
            losses.append(term.weight * loss)
            _add(values, f"loss/{term.name}", share * loss.detach().float())
        total = torch.stack(losses).sum()
        if not total.requires_grad:
            names = ", ".join(term.name for term in each.terms)
            raise RuntimeError(f"phase {phase.name!r}: no weight to train has a part in the loss of {names}")
        _add(values, "loss/total", share * total.detach().float())
        del online, target  # the graph holds what the gradient needs, which may be less
        self.manual_backward(share * total)

    def _remember(self, values: dict[str, Tensor]) -> None:
        row = torch.stack([values[name] for name in self._names])
        if self._sums is None or self._failed is None:
            self._sums = torch.zeros_like(row)
            self._failed = torch.full(row.shape, NEVER, dtype=torch.int64, device=row.device)
        self._sums += row
        self._count += 1
        bad = ~torch.isfinite(row)
        if self.clip is not None:  # a scaled half-precision gradient may overflow: its step is left out
            bad[-len(self.method.phases) :] = False
        self._failed = torch.where(bad & (self._failed == NEVER), self.step, self._failed)

    def _log_means(self, rates: dict[str, float]) -> None:
        assert self._sums is not None
        means = self._sums / self._count
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(means)
            means /= self.trainer.world_size
        self.check_losses()
        self.record(dict(zip(self._names, means.tolist(), strict=True)) | rates)
        self._sums.zero_()
        self._count = 0

    def record(self, row: Mapping[str, float]) -> None:
        """Logs named numbers at the present step; callbacks use it too."""
        self.latest |= row
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.trainer.current_epoch, **row}, self.step)

    def check_losses(self, together: bool = True) -> None:
        """Raises UserError when a term was not finite at some step since the start.

        In a distributed run all processes look together, or this one for itself.
        """
        if self._failed is None:
            return
        failed = self._failed.clone()
        if together and self.trainer.world_size > 1:
            torch.distributed.all_reduce(failed, torch.distributed.ReduceOp.MIN)
        steps = failed.tolist()
        if min(steps) < NEVER:
            names = [name for name, step in zip(self._names, steps, strict=True) if step == min(steps)]
            names = [name for name in names if name != "loss/total"] or names
            raise UserError(
                f"the loss is not finite (NaN or infinite) from step {min(steps)} on: {', '.join(names)}; "
                "the last checkpoint is from before. Lower the learning rate, clip gradients "
                "(gradient_clip: 1.0), use precision 32-true or bf16-mixed, or look for extreme values in "
                "the data"
            )

    def check_weights(self) -> None:
        """Raises UserError when weights are not finite; called before a checkpoint is written."""
        self.check_losses()
        finite = [tensor.isfinite().all() for tensor in self.method.parameters()]
        if finite and not bool(torch.stack(finite).all()):
            names = [name for name, each in self.method.parts.named_parameters() if not each.isfinite().all()]
            raise UserError(
                f"after step {self.step} the weights are not finite (NaN or infinite): {', '.join(names[:3])}"
                f"{' and others' if len(names) > 3 else ''}; no checkpoint was written. Lower the learning "
                "rate or clip gradients (gradient_clip: 1.0)"
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the position in the data and the sums since the last row of metrics."""
        checkpoint["pretrainer"] = {
            "step": self.step,
            "epoch": self.epoch,
            "batch": self.batch,
            "names": self._names,
            "sums": None if self._sums is None else self._sums.cpu(),
            "count": self._count,
            "latest": dict(self.latest),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the position back. Raises UserError when the checkpoint is of another method."""
        state = checkpoint["pretrainer"]
        report = compare_weights(self.state_dict(), checkpoint["state_dict"])
        if report or state["names"] != self._names:
            raise UserError(
                "the checkpoint was written with another configuration; resume with the config.yaml of its "
                "run. " + (report or f"It trains {state['names']}, this configuration {self._names}")
            )
        self.step, self.epoch, self.batch = state["step"], state["epoch"], state["batch"]
        self._count, self.latest = state["count"], dict(state["latest"])
        if state["sums"] is not None:
            self._sums = state["sums"].clone()
            self._failed = torch.full(self._sums.shape, NEVER, dtype=torch.int64)

    def on_train_start(self) -> None:
        """Brings restored sums to the device; a run that is resumed at its end stops at once."""
        if self._sums is not None and self._failed is not None:
            self._sums, self._failed = self._sums.to(self.device), self._failed.to(self.device)
        if self.step >= self.total_steps:
            self.trainer.should_stop = True


def _add(values: dict[str, Tensor], name: str, value: Tensor) -> None:
    values[name] = values[name] + value if name in values else value


def _listed(items: Any) -> list[Any]:
    """Lightning gives one, several in a list, or none."""
    if items is None:
        return []
    return items if isinstance(items, list) else [items]
