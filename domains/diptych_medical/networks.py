"""Networks by class path, with channels and dimensions filled in."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from torch import nn

from diptych.errors import ConfigError
from diptych.nearest import nearest
from diptych.settings.schema import find_class


def build_network(path: str, channels: int, dims: int, options: Mapping[str, Any]) -> nn.Module:
    """The network of a class path, with channels and dimensions filled in where ``options`` do not give them.

    Raises:
        ConfigError: no such class, options it does not know, lacks or refuses, or no torch module.
    """
    try:
        target = find_class(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if not callable(target):
        raise ConfigError(f"network must name a class or function, but {path} is {type(target).__name__}")
    parameters, open_ended = _parameters(target)
    filled = {
        name: value
        for name, value in (("spatial_dims", dims), ("in_channels", channels), ("n_input_channels", channels))
        if name in parameters
    }
    arguments = filled | dict(options)
    unknown = [name for name in options if name not in parameters and not open_ended]
    missing = [name for name, required in parameters.items() if required and name not in arguments]
    faults = [f"no option {name!r}; {nearest(name, list(parameters))}" for name in unknown]
    faults += [f"option {name!r} is missing" for name in missing]
    if faults:
        raise ConfigError(f"{path}: {'; '.join(faults)}")
    try:
        network = target(**arguments)
    except (TypeError, ValueError, KeyError, IndexError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"{path} refuses its options ({type(error).__name__}): {first_line(error)}"
        ) from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"network must give a torch module, but {path} gives {type(network).__name__}")
    return network


def _parameters(target: Callable[..., Any]) -> tuple[dict[str, bool], bool]:
    """Names of the options, whether each is required, and whether others are taken.

    A function that passes ``**kwargs`` on to the class it returns, as MONAI's ``resnet18``, has that class's too.
    """
    try:
        listed = inspect.signature(target).parameters.values()
    except ValueError:  # builtins have none
        return {}, True
    named = [each for each in listed if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    parameters = {each.name: each.default is each.empty for each in named}
    open_ended = any(each.kind is each.VAR_KEYWORD for each in listed)
    if not open_ended:
        return parameters, False
    behind = target.__mro__[1] if isinstance(target, type) else get_type_hints(target).get("return")
    if not isinstance(behind, type) or behind in (nn.Module, object):
        return parameters, True
    inner, open_ended = _parameters(behind)
    # What the function or subclass fills in itself is not required, and cannot be told from what it does not.
    return {**dict.fromkeys(inner, False), **parameters}, open_ended


def first_line(error: BaseException | None) -> str:
    """The first line of what an error says, or what kind it is."""
    lines = str(error).strip().splitlines() if error is not None else []
    return lines[0] if lines else type(error).__name__
