"""Networks of MONAI as encoders, by class path and read at any level; weights in and out under MONAI's own names."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.nearest import nearest
from diptych.types import Encoded
from diptych.weights import read_weights
from diptych_medical.networks import build_network, first_line

# Sides of the image that finds the widths: networks that halve it five times need 64 to keep more than one voxel.
SIDES = (32, 64, 96)
# What layers say of an image whose size does not suit them. Other errors are none of the user's.
SIZE_ERRORS = re.compile(
    r"sizes? of tensors? must match|must match the size|divisible|expected more than 1 (spatial element|value)|"
    r"output size is too small|kernel size can't be greater|size of tensor",
    re.IGNORECASE,
)


class _Reached(Exception):
    """No error: all levels have been read, and what follows in the network is not needed."""


class Monai(nn.Module):
    """Any network of MONAI (or torch) as an encoder whose dense map is read at a level.

    ``network`` is MONAI's own, so that ``encoder.network.state_dict()`` loads in plain MONAI. Modules after the last
    level that is read are not run.

    Args:
        channels: of the images.
        dims: 2 or 3.
        network: class path, such as monai.networks.nets.UNet, SwinUNETR, resnet18 or DenseNet121.
        options: its arguments; channels and dimensions are filled in where they are not given.
        level: dotted name of the submodule whose output is the grid, as ``encoder.network.named_modules()`` names it;
            None takes the network's output.
        whole_level: submodule that samples are embedded from, by the mean over its map or as the row it gives;
            None takes the mean over the grid.

    Raises:
        ConfigError: no such network, options it refuses, no such level, or a level that gives no map.
    """

    def __init__(
        self,
        channels: int,
        dims: int,
        *,
        network: str,
        options: dict[str, Any] | None = None,
        level: str | None = None,
        whole_level: str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.dims = channels, dims
        self.level, self.whole_level = level, whole_level
        self.network = build_network(network, channels, dims, options or {})
        named = [name for name, _ in self.network.named_modules() if name]
        for name, given in (("level", level), ("whole_level", whole_level)):
            if given is not None and given not in named:
                raise ConfigError(f"{network} has no {name} {given!r}; {nearest(given, named)}")
        whole, grid = self._probe(network)
        self.width, self.grid_width = whole.shape[1], grid.shape[1]

    def forward(self, x: Tensor) -> Encoded:
        """Encode images (n, channels, *space): whole (n, width), grid (n, grid_width, *its space).

        Raises:
            ConfigError: the network does not take images of this size.
        """
        try:
            whole, grid = self._read(x)
        except (RuntimeError, ValueError) as error:
            if not SIZE_ERRORS.search(str(error)):
                raise
            raise ConfigError(
                f"{type(self.network).__name__} does not take images of {_times(x.shape[2:])} voxels: "
                f"{first_line(error)}; many networks need sides that are multiples of 16 or 32"
            ) from error
        return Encoded(whole, None, grid)

    def layers(self) -> list[nn.Module]:
        """The network's parts that hold weights, as it lists them, for learning rates that grow with depth."""
        inner: nn.Module = self.network
        while len(children := list(inner.children())) == 1:
            inner = children[0]
        parts: list[nn.Module] = []
        for child in children:
            parts += list(child.children()) if type(child) is nn.Sequential else [child]
        return [each for each in parts if any(True for _ in each.parameters())] or [self.network]

    def _read(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of samples and the map of images x."""
        wanted = dict.fromkeys(each for each in (self.level, self.whole_level) if each is not None)
        found: dict[str, Any] = {}

        def keep(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if name in found:
                    return
                last = len(found) + 1 == len(wanted) and self.level is not None
                # What traces the network wants every module to come to its end.
                stops = last and not torch.compiler.is_compiling()
                # A copy, as modules that follow may work in place.
                found[name] = output.clone() if isinstance(output, Tensor) and not stops else output
                if stops:
                    raise _Reached

            return hook

        handles = [self.network.get_submodule(name).register_forward_hook(keep(name)) for name in wanted]
        result = None
        try:
            result = self.network(x)
        except _Reached:
            pass
        finally:
            for handle in handles:
                handle.remove()
        grid = self._map(result if self.level is None else found.get(self.level), self.level)
        if self.whole_level is None:
            return grid.flatten(2).mean(2), grid
        row = found.get(self.whole_level)
        if isinstance(row, Tensor) and row.ndim == 2:
            return row, grid
        return self._map(row, self.whole_level).flatten(2).mean(2), grid

    def _map(self, output: Any, level: str | None) -> Tensor:
        if isinstance(output, Tensor) and output.ndim == 2 + self.dims:
            return output
        came = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        came = "never run" if output is None else came
        name = f"level {level!r} of {type(self.network).__name__}"
        if level is None:
            name = f"the output of {type(self.network).__name__}"
        children = ", ".join(each for each, _ in self.network.named_children())
        raise ConfigError(
            f"{name} is no map (n, width, {', '.join('DHW'[-self.dims :])}) but {came}; choose another level, "
            f"below one of: {children}"
        )

    @torch.no_grad()
    def _probe(self, path: str) -> tuple[Tensor, Tensor]:
        """What comes out for an empty image, the smallest that the network takes."""
        training = self.network.training
        self.network.eval()
        failed: Exception | None = None
        try:
            for side in SIDES:
                try:
                    return self._read(torch.zeros(1, self.channels, *[side] * self.dims))
                except (RuntimeError, ValueError, TypeError) as error:
                    failed = error
        except ImportError as error:
            raise ConfigError(f"{path} needs a package that is not installed: {first_line(error)}") from error
        finally:
            self.network.train(training)
        raise ConfigError(
            f"{path} with these options takes no image of {' or '.join(map(str, SIDES))} voxels a side and "
            f"{self.channels} channels: {first_line(failed)}"
        ) from failed


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What became of the weights in a file.

    Args:
        loaded: names of the network's tensors that were taken from the file.
        missing: those that the file does not have.
        unexpected: names in the file that the network does not have.
        reshaped: names that both have with different shapes, and the two shapes.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether names and shapes are the same on both sides."""
        return not (self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.missing) + len(self.reshaped)
        parts = [f"{len(self.loaded)} of {total} tensors loaded"]
        for title in ("missing", "unexpected", "reshaped"):
            names: tuple[str, ...] = getattr(self, title)
            if names:
                rest = f" and {len(names) - 5} more" if len(names) > 5 else ""
                word = "of another shape" if title == "reshaped" else title
                parts.append(f"{len(names)} {word}: {', '.join(names[:5])}{rest}")
        return "; ".join(parts)


def load_pretrained(
    encoder: nn.Module, path: str | Path, *, strict: bool = True, prefix: str | None = None
) -> Matched:
    """Loads a file of weights into an encoder, or into the network inside it, and says what matched.

    Files of Diptych (whose names begin with ``network.``) and of MONAI or torch are both taken; nothing but tensors
    is unpickled.

    Args:
        encoder: its ``network`` where it has one, such as :class:`Monai`; else itself.
        path: ``.safetensors`` or a torch checkpoint.
        strict: every name and shape must match; else what matches is loaded and the rest is left as it is.
        prefix: taken off the names in the file; names without it are left out. None takes off "network.".

    Raises:
        UserError: no file of weights, something that does not match where strict, or nothing that matches.
    """
    inner = getattr(encoder, "network", None)
    target = inner if isinstance(inner, nn.Module) else encoder
    expected = target.state_dict()
    found = _without_prefix(
        read_weights(path), "network." if prefix is None and target is inner else prefix, prefix
    )
    same = {name for name in expected if name in found and found[name].shape == expected[name].shape}
    matched = Matched(
        loaded=tuple(name for name in expected if name in same),
        missing=tuple(name for name in expected if name not in found),
        unexpected=tuple(name for name in found if name not in expected),
        reshaped=tuple(
            f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected
            if name in found and name not in same
        ),
    )
    if strict and not matched.complete:
        raise UserError(
            f"the weights in {Path(path)} do not fit {type(target).__name__}: {matched}; with strict: false what "
            "matches is loaded"
        )
    if not same:
        raise UserError(
            f"no weight in {Path(path)} fits {type(target).__name__}: {matched}; is it another network?"
        )
    target.load_state_dict({name: found[name] for name in same}, strict=False)
    return matched


def _without_prefix(
    weights: dict[str, Tensor], prefix: str | None, required: str | None
) -> dict[str, Tensor]:
    """The weights with a prefix taken off: where it is required those that have it, else only if all have it."""
    if not prefix or not (required or all(name.startswith(prefix) for name in weights)):
        return weights
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _times(sizes: torch.Size) -> str:
    return " x ".join(str(size) for size in sizes)
