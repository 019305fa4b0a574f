"""A trained encoder for code that has no Diptych: a torch.export program, or the weights of the network inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from diptych.data.atomic import replacing
from diptych.errors import ConfigError, UserError
from diptych.types import Encoded
from diptych.weights import save_encoder


class Plain(nn.Module):
    """An encoder that gives a dictionary of tensors instead of :class:`Encoded`."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, view: Tensor) -> dict[str, Tensor]:
        """What the encoder makes of a view: "whole", and "parts" and "grid" where it gives them."""
        encoded: Encoded = self.encoder(view)
        return {name: value for name, value in encoded._asdict().items() if value is not None}


def export_program(encoder: nn.Module, view: Tensor, path: str | Path) -> list[str]:
    """Writes a program that ``torch.export.load(path).module()(view)`` runs without Diptych.

    It returns {"whole": (n, width), "grid": (n, width, *space), ...}. An axis is free where the encoder takes
    twice its size too, as it does for samples and lengths, and has the example's size where not, as channels.

    Args:
        encoder: The trained encoder; it is exported in evaluation mode, on the CPU.
        view: (n, channels, *space) or (n, time, channels): an example of what it takes, n at least 2.
        path: The file to write, .pt2.

    Returns:
        Each axis of the view in words: "free", or the one size that the program takes.

    Raises:
        UserError: torch.export cannot follow the encoder's code.
    """
    plain = Plain(encoder).cpu().eval()
    view = view.cpu()
    try:
        with torch.no_grad():
            shapes = ({axis: Dim.AUTO for axis in range(view.ndim) if _takes_double(plain, view, axis)},)
            program: ExportedProgram = torch.export.export(
                plain, (view,), dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # torch.export raises what the traced code raises
        raise UserError(
            f"torch.export cannot follow {type(encoder).__name__} ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0][:200] if str(error).strip() else 'no message'}); "
            "write its weights instead (.safetensors)"
        ) from error
    with replacing(path) as partial, partial.open("wb") as file:
        torch.export.save(program, file)
    return [str(size) if isinstance(size, int) else "free" for size in _input_shape(program)]


def export_weights(encoder: nn.Module, path: str | Path) -> str:
    """Writes the weights of the network inside an encoder, under that network's own names, as safetensors.

    Returns:
        The class that loads them, as text.

    Raises:
        ConfigError: the encoder holds no network of another library (it has no attribute ``network``).
    """
    network = getattr(encoder, "network", None)
    if not isinstance(network, nn.Module):
        raise ConfigError(
            f"{type(encoder).__name__} is no wrapper around another library's network, so there are no weights "
            "under other names; export a program (.pt2), or load encoder.safetensors of the run"
        )
    save_encoder(network, path)
    return f"{type(network).__module__}.{type(network).__qualname__}"


def _takes_double(plain: nn.Module, view: Tensor, axis: int) -> bool:
    try:
        plain(torch.cat([view, view], dim=axis))
    except (RuntimeError, ValueError):  # what layers raise on another number of channels
        return False
    return True


def _input_shape(program: ExportedProgram) -> list[Any]:
    inputs = set(program.graph_signature.user_inputs)
    node = next(each for each in program.graph.nodes if each.op == "placeholder" and each.name in inputs)
    return list(node.meta["val"].shape)
