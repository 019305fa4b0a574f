"""A second encoder that is trained itself and drawn towards the first: where a teacher only averages."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import deepcopy

import torch
from torch import nn
from torch.optim import Optimizer

from diptych.errors import ConfigError
from diptych.method import OptimizerFactory


def fresh_copy(module: nn.Module) -> nn.Module:
    """The same architecture with weights of its own, from ``reset_parameters`` of its layers, innermost first.

    Raises:
        ConfigError: no weight changed, so the copy would be the same.
    """
    copy = deepcopy(module)
    for each in reversed(list(copy.modules())):
        reset = getattr(each, "reset_parameters", None)
        if callable(reset):
            reset()
    pairs = zip(copy.parameters(), module.parameters(), strict=True)
    if all(torch.equal(new, old) for new, old in pairs):
        raise ConfigError(
            f"a target encoder begins with weights of its own, but no layer of {type(module).__name__} has a "
            "method reset_parameters that draws some"
        )
    return copy


def follow(target: nn.Module, online: nn.Module, decay: float) -> Callable[[], None]:
    """A call that makes parameters decay target + (1 - decay) online; buffers stay the target's own."""

    @torch.no_grad()
    def move() -> None:
        for own, new in zip(target.parameters(), online.parameters(), strict=True):
            own.lerp_(new.to(own.dtype), 1 - decay)

    return move


def at_rate(optimizer: OptimizerFactory, rate: float) -> OptimizerFactory:
    """The same optimiser with another learning rate.

    Raises:
        ConfigError: a rate not above 0.
    """
    if not rate > 0:
        raise ConfigError(f"a learning rate must be above 0, got {rate}")

    def make(parameters: Iterable[nn.Parameter]) -> Optimizer:
        made = optimizer(parameters)
        for group in made.param_groups:
            group["lr"] = rate
        return made

    return make
