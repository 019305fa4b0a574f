"""Learning-rate schedules, and how a schedule learns the length of the training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from diptych.errors import ConfigError


class WarmupCosine(LRScheduler):
    """Linear warm-up from 0, then half a cosine down to a final rate (Loshchilov and Hutter 2017, eq. 5).

    At step t (from 0) with W warm-up steps and S steps in all, the rate is the optimiser's own times
    (t + 1) / (W + 1) during the warm-up, then final + (1 - final) (1 + cos(pi (t - W) / (S - W))) / 2.

    Args:
        optimizer: its rates are the highest ones.
        total_steps: S; the training fills it in.
        warmup: W as a share of S if below 1 (0.05), as a number of steps from 1 on (500).
        final: the last rate as a share of the highest.
        last_epoch: as for every torch schedule; -1 begins anew.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int | None = None,
        warmup: float = 0.05,
        final: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None or total_steps < 1:
            raise ConfigError(f"WarmupCosine needs total_steps of at least 1, got {total_steps}")
        steps = round(warmup * total_steps) if 0 <= warmup < 1 else int(warmup)
        if not 0 <= steps < total_steps:
            raise ConfigError(
                f"a warm-up of {warmup:g} is {steps} of {total_steps} steps; "
                "it must be at least 0 and end before the training does"
            )
        if not 0 <= final <= 1:
            raise ConfigError(f"the final rate is a share of the highest, between 0 and 1; got {final:g}")
        self.total_steps, self.warmup_steps, self.final = total_steps, steps, final
        super().__init__(optimizer, last_epoch)

    def factor(self, step: int) -> float:
        """The share of the highest rate at a step; the last value from ``total_steps`` on."""
        if step < self.warmup_steps:
            return (step + 1) / (self.warmup_steps + 1)
        progress = min(1.0, (step - self.warmup_steps) / (self.total_steps - self.warmup_steps))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2

    def get_lr(self) -> list[float | Any]:
        """The rate of every parameter group at the current step."""
        return [rate * self.factor(self.last_epoch) for rate in self.base_lrs]


def build_schedule(
    factory: Callable[..., LRScheduler], optimizer: Optimizer, total_steps: int
) -> LRScheduler:
    """Calls a schedule factory, with ``total_steps`` if it takes that and was not given one.

    Raises ConfigError for a schedule that follows a metric: pretraining has none to follow at each step.
    """
    schedule = factory(optimizer, total_steps=total_steps) if _lacks_length(factory) else factory(optimizer)
    if isinstance(schedule, ReduceLROnPlateau):
        raise ConfigError(
            "ReduceLROnPlateau follows a metric, and a pretraining step has none to follow; "
            "use WarmupCosine or another schedule of torch.optim.lr_scheduler that counts steps"
        )
    return schedule


def _lacks_length(factory: Callable[..., LRScheduler]) -> bool:
    """Whether the factory takes ``total_steps`` and has none yet: a class, a function or a partial of one."""
    if isinstance(factory, partial) and "total_steps" in factory.keywords:
        return factory.keywords["total_steps"] is None
    parameter = inspect.signature(factory).parameters.get("total_steps")
    return parameter is not None and parameter.default in (None, inspect.Parameter.empty)
