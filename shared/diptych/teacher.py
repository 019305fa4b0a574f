"""A teacher: an average of a module's weights over training, without gradient."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError

Average = Literal["constant", "cosine", "uniform"]


class Teacher(nn.Module):
    """Holds and calls a copy of ``online``; :meth:`update` averages its parameters in and copies its buffers.

    At the k-th update (k = 1, 2, ...) the copy becomes ``d copy + (1 - d) online`` with

    * "constant": d = ``decay`` (MoCo, He et al. 2020, equation 2);
    * "cosine": d = 1 - (1 - decay) (cos(pi (k - 1) / steps) + 1) / 2, ``decay`` to 1 over ``steps`` updates
      (BYOL, Grill et al. 2020, section 3.2);
    * "uniform": d = k / (k + 1), so the copy is (theta_0 + ... + theta_k) / (k + 1), the mean of all iterates
      with the initial weights among them (COMET's averaging).

    Raises:
        ConfigError: a decay outside [0, 1], or "cosine" without ``steps``.
    """

    updates: Tensor

    def __init__(
        self,
        online: nn.Module,
        *,
        average: Average = "constant",
        decay: float = 0.99,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if average not in ("constant", "cosine", "uniform"):
            raise ConfigError(f"a teacher's average must be constant, cosine or uniform, got {average!r}")
        if not 0 <= decay <= 1:
            raise ConfigError(f"a teacher's decay must lie in 0..1, got {decay}")
        if average == "cosine" and (steps is None or steps < 1):
            raise ConfigError(
                f"a cosine decay needs the number of steps it runs over, at least 1, got {steps}"
            )
        self.average, self.decay, self.steps = average, decay, steps
        self.copy = deepcopy(online).requires_grad_(False)
        self._online = (online,)  # in a tuple: it is registered, and saved, where it belongs
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Any:
        """What the averaged copy makes of the inputs."""
        return self.copy(*inputs)

    @torch.no_grad()
    def update(self) -> None:
        """Move one step towards the online module; call it after each optimiser step."""
        online = self._online[0]
        weight = 1 - self._decay()
        for own, new in zip(self.copy.parameters(), online.parameters(), strict=True):
            own.lerp_(new.to(own.dtype), weight.to(own.dtype))
        for kept, current in zip(self.copy.buffers(), online.buffers(), strict=True):
            kept.copy_(current)
        self.updates += 1

    def _decay(self) -> Tensor:
        """The decay of the next update, on the device, in float64 so that uniform weights stay exact."""
        done = self.updates.double()
        if self.average == "uniform":
            return (done + 1) / (done + 2)
        if self.average == "cosine" and self.steps is not None:
            phase = (done / self.steps).clamp(max=1) * math.pi
            return 1 - (1 - self.decay) * (phase.cos() + 1) / 2
        return torch.full_like(done, self.decay)
