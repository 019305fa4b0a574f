"""From loaders to arrays: what a frozen encoder makes of samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from numpy.typing import NDArray
from torch import nn

from diptych.errors import ConfigError, UserError
from diptych.types import Encoded, Views


def embed(encoder: nn.Module, loader: Iterable[Any], device: str = "auto") -> NDArray[np.float32]:
    """The ``whole`` rows of the first view of every batch, (n, width) float32, in the loader's order.

    Runs in evaluation mode and without gradient; the encoder's device, the mode of each of its modules and torch's
    random state are restored afterwards.

    Raises:
        UserError: the loader is empty, or an embedding is not finite.
    """
    target = choose_device(device)
    # A DataLoader draws a seed from the global generator; whoever embeds while training must not notice.
    with torch.random.fork_rng(devices=[]), _evaluating(encoder, target), torch.inference_mode():
        rows = [whole(encoder, batch, target).float().cpu() for batch in loader]
    if not rows:
        raise UserError("there is nothing to embed: the loader is empty; expected at least one sample")
    result: NDArray[np.float32] = torch.cat(rows).numpy()
    broken = np.flatnonzero(~np.isfinite(result).all(axis=1))
    if len(broken):
        raise UserError(
            f"the encoder gives values that are not finite for {len(broken)} of {len(result)} samples (the "
            f"first is number {broken[0]}); its training diverged or its weights are "
            "damaged: take an earlier checkpoint"
        )
    return result


def whole(encoder: nn.Module, batch: Views, device: torch.device) -> torch.Tensor:
    """One batch's embeddings (n, width), with gradient where it is on."""
    encoded = encoder(move_data_to_device(batch.views[0], device))
    if not isinstance(encoded, Encoded) or encoded.whole.ndim != 2:
        raise TypeError(
            f"{type(encoder).__name__} must return Encoded with whole of shape (n, width); "
            f"got {type(encoded).__name__}"
        )
    return encoded.whole


def choose_device(device: str = "auto") -> torch.device:
    """The named device, or with "auto" the machine's accelerator, or else the CPU."""
    if device == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator if accelerator is not None else torch.device("cpu")
    try:
        torch.empty(0, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"device {device!r} cannot be used here; expected 'auto', 'cpu' or an accelerator of this machine"
        ) from error


@contextmanager
def _evaluating(encoder: nn.Module, device: torch.device) -> Iterator[None]:
    modes = [(module, module.training) for module in encoder.modules()]
    home = next(encoder.parameters(), torch.empty(0)).device
    try:
        encoder.eval().to(device)
        yield
    finally:
        encoder.to(home)
        for module, training in modes:
            module.training = training
