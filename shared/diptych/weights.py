"""Weights in files: safetensors of our own, checkpoints of others, and what did and did not match."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from diptych.data.atomic import replacing
from diptych.errors import UserError

METADATA = "diptych"  # one key: with several, safetensors writes them in another order each time
COUNTERS = {"n_averaged"}  # of torch.optim.swa_utils.AveragedModel: a number of updates, no weight


def save_encoder(module: nn.Module, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """Writes a module's weights and buffers as safetensors, atomically; the metadata are text."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    seen: dict[int, str] = {}
    for name, tensor in tensors.items():  # safetensors refuses tensors that share memory
        if tensor.numel() and tensor.data_ptr() in seen:
            tensors[name] = tensor.clone()
        seen[tensor.data_ptr()] = name
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, {METADATA: json.dumps(dict(metadata or {}), sort_keys=True)}))


def load_encoder(module: nn.Module, path: str | Path) -> None:
    """Loads weights that fit exactly, from a file of ours or of others.

    Raises UserError when a key is missing, unexpected or of another shape, and lists them.
    """
    found = read_weights(path)
    report = compare_weights(module.state_dict(), found)
    if report:
        raise UserError(f"the weights in {Path(path)} do not fit this encoder. {report}")
    module.load_state_dict(found, strict=True)


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a checkpoint written by ``torch.save``, on the CPU.

    Nothing is unpickled but tensors and plain containers. A checkpoint may be the state itself or hold it
    under ``state_dict`` or ``model``. Prefixes ``module.`` that all keys of wrapped models have are taken off,
    and the counter ``n_averaged`` of an averaged model is left out.

    Raises UserError when the file is not there or holds no weights.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"there is no file of weights at {path}; give a .safetensors file or a torch checkpoint"
        )
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
        except SafetensorError as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}") from error
    return _plain_state(_read_checkpoint(path), path)


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{path} holds more than weights, and loading that could run code; "
            "save the model's state_dict alone and give that file"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:  # a torn or foreign file
        raise UserError(f"{path} cannot be read as a torch checkpoint: {error}") from error


def _plain_state(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise UserError(f"{path} holds no weights: expected names with tensors, got {type(content).__name__}")
    state: dict[str, Tensor] = {}
    for name, tensor in content.items():
        if not isinstance(tensor, Tensor):
            raise UserError(
                f"{path} holds {name!r} of type {type(tensor).__name__} where a tensor is expected"
            )
        if name in COUNTERS:
            continue
        state[str(name)] = tensor
    while state and all(name.startswith("module.") for name in state):  # averaged, and parallel inside
        state = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    return state


def read_metadata(path: str | Path) -> dict[str, str]:
    """The text that :func:`save_encoder` stored beside the weights; {} in files of others."""
    with safe_open(Path(path), framework="pt") as file:
        return dict(json.loads((file.metadata() or {}).get(METADATA, "{}")))


def compare_weights(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], listed: int = 5) -> str:
    """What does not fit, in words: keys missing, unexpected or of another shape; "" when all fits."""
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected
        if name in found and found[name].shape != expected[name].shape
    ]
    parts = []
    for title, names in (("missing", missing), ("unexpected", extra), ("of another shape", shapes)):
        if names:
            rest = f" and {len(names) - listed} more" if len(names) > listed else ""
            parts.append(f"{len(names)} {title}: {', '.join(names[:listed])}{rest}")
    return f"{'; '.join(parts)} (of {len(expected)} expected)" if parts else ""
