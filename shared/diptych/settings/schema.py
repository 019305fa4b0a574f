"""Settings as the typed signatures give them: what the checker walks and what ``--help`` prints."""

from __future__ import annotations

import enum
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from docstring_parser import parse_from_object

REQUIRED = inspect.Parameter.empty
Kind = Literal["section", "named", "items", "open", "leaf"]
_PLAIN = (str, int, float, bool, bytes, complex, list, tuple, dict, set, type(None), Path, enum.Enum)


@dataclass(frozen=True)
class Setting:
    """One parameter of a typed function or dataclass."""

    name: str
    hint: Any
    default: Any  # REQUIRED without one
    doc: str


@dataclass(frozen=True)
class Form:
    """How a type looks in YAML.

    ``section``: a dataclass, keys are its fields. ``named``: a mapping of such forms. ``items``: a list of
    them. ``open``: a class of the user's choice, as ``class_path`` and ``init_args``. ``leaf``: anything
    else, which jsonargparse checks whole. ``inner`` is the dataclass, the type of an item, or the open type.
    """

    kind: Kind
    inner: Any
    nullable: bool = False


def settings_of(target: Callable[..., Any], skip: int = 0) -> list[Setting]:
    """The settings of a function, class or dataclass, in order, without the first ``skip`` parameters."""
    hints = get_type_hints(target if is_dataclass(target) else _initializer(target))
    # A dataclass documents what it adds; what it inherits is documented where it comes from.
    documented = (
        [each for each in reversed(target.__mro__) if is_dataclass(each)]
        if is_dataclass(target)
        else [target]
    )
    docs = {
        each.arg_name: " ".join((each.description or "").split())
        for owner in documented
        for each in parse_from_object(owner).params
    }
    defaults = _field_defaults(target)
    listed = list(inspect.signature(target).parameters.values())[skip:]
    return [
        Setting(
            name=each.name,
            hint=hints.get(each.name, Any),
            default=defaults.get(each.name, each.default),
            doc=docs.get(each.name, ""),
        )
        for each in listed
        if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    ]


def takes_anything(target: Callable[..., Any]) -> bool:
    """Whether the signature has ``**kwargs``, so that its settings cannot be listed."""
    return any(each.kind is each.VAR_KEYWORD for each in inspect.signature(target).parameters.values())


def summary_of(target: Callable[..., Any]) -> str:
    """The first sentence of a docstring, on one line."""
    return " ".join((parse_from_object(target).short_description or "").split())


def form_of(hint: Any) -> Form:
    """How values of a type are written in YAML."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        others = [each for each in arguments if each is not type(None)]
        if len(others) == 1:
            inner = form_of(others[0])
            return Form(inner.kind, inner.inner if inner.kind != "leaf" else hint, nullable=True)
        return Form("leaf", hint)
    if is_dataclass(hint):
        return Form("section", hint)
    if _is_open(hint):
        return Form("open", hint)
    if isinstance(origin, type) and issubclass(origin, Mapping) and form_of(arguments[1]).kind != "leaf":
        return Form("named", arguments[1])
    if _is_list(origin, arguments) and form_of(arguments[0]).kind != "leaf":
        return Form("items", arguments[0])
    return Form("leaf", hint)


def is_factory(hint: Any, target: Any) -> bool:
    """Whether ``target`` itself is the callable that ``hint`` asks for, once its arguments are bound.

    ``Callable[[Iterable], Optimizer]`` and the class AdamW: calling AdamW gives an Optimizer. A function
    always is one.
    """
    returned = _returned(hint)
    if returned is None:
        return False
    if not isinstance(target, type):
        return callable(target)
    return isinstance(returned, type) and issubclass(target, returned)


def gives_instance(hint: Any, target: Any) -> bool:
    """Whether an instance of the class ``target`` is what ``hint`` asks for: of that type, or callable."""
    if not isinstance(target, type):
        return False
    returned = _returned(hint)
    if returned is not None:
        call = call_of(target)
        given = None if call is None else get_type_hints(call).get("return")
        return given is not None and (not isinstance(returned, type) or _fits(given, returned))
    if getattr(hint, "_is_protocol", False):
        wanted = [name for name in vars(hint) if not name.startswith("_") and callable(vars(hint)[name])]
        return all(name in _members(target) for name in wanted)
    return issubclass(target, hint)


def call_of(target: type) -> types.FunctionType | None:
    """The function behind a call of an instance; None where instances cannot be called."""
    call = next((vars(each)["__call__"] for each in target.__mro__ if "__call__" in vars(each)), None)
    return call if isinstance(call, types.FunctionType) else None


def skipped_parameters(hint: Any, target: Any) -> int:
    """How many leading parameters of a factory its caller gives: ``Callable[[int], Module]`` gives one."""
    if not is_factory(hint, target):
        return 0
    if get_origin(hint) is Callable:
        given = get_args(hint)[0]
        return len(given) if isinstance(given, list) else 0
    return len(inspect.signature(hint.__call__).parameters) - 1


def path_of(target: Any) -> str:
    """The class path of a class or function."""
    return f"{target.__module__}.{target.__qualname__}"


def find_class(path: str) -> Any:
    """What a class path names. Raises ValueError that says which part is missing."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ValueError(f"expected a full class path such as torch.optim.AdamW, came {path!r}")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"there is no module {error.name!r} (in class path {path!r})") from error
    if not hasattr(module, name):
        nearest = get_close_matches(name, [each for each in dir(module) if not each.startswith("_")], n=1)
        hint = f"; did you mean {module_name}.{nearest[0]}?" if nearest else ""
        raise ValueError(f"module {module_name!r} has no {name!r}{hint}")
    return getattr(module, name)


def spell(hint: Any) -> str:
    """A type in plain words: ``tuple[float, float] | None`` is "a list of 2 (a number, a number) or null"."""
    plain = {str: "text", int: "a whole number", float: "a number", bool: "true or false", type(None): "null"}
    if hint in plain:
        return plain[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(spell(each) for each in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(each) for each in arguments)
    if _is_open(hint):
        returned = _returned(hint)
        return (
            f"the class path of {_article(_name(hint))}"
            if returned is None
            else (f"the class path of what makes {_article(_name(returned))}")
        )
    if is_dataclass(hint):
        return f"settings of {_name(hint)}"
    if _is_list(origin, arguments):
        return f"a list of {_plural(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: " + ", ".join(spell(each) for each in arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"a mapping of {_plural(arguments[0])} to {_plural(arguments[1])}"
    if isinstance(hint, type) and issubclass(hint, Path):
        return "a path"
    return _name(hint)


def _returned(hint: Any) -> Any:
    """What a callable type returns; None for a type that is no callable."""
    if get_origin(hint) is Callable:
        return get_args(hint)[1]
    if getattr(hint, "_is_protocol", False) and "__call__" in vars(hint):
        return get_type_hints(hint.__call__).get("return", Any)
    return None


def _fits(given: Any, returned: type) -> bool:
    return given is Any or (isinstance(given, type) and issubclass(given, returned))


def _members(target: type) -> set[str]:
    return {name for each in target.__mro__ for name in vars(each)}


def _article(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


def _plural(hint: Any) -> str:
    names = {str: "texts", int: "whole numbers", float: "numbers"}
    return names.get(hint) or f"({spell(hint)})"


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _initializer(target: Callable[..., Any]) -> Any:
    if isinstance(target, type):
        return inspect.getattr_static(target, "__init__")
    return target


def _field_defaults(target: Any) -> dict[str, Any]:
    """Dataclass defaults with factories called: their signature shows only that there is one."""
    if not is_dataclass(target):
        return {}
    return {
        each.name: each.default_factory()
        for each in fields(target)
        if each.init and each.default_factory is not MISSING
    }


def _is_open(hint: Any) -> bool:
    if get_origin(hint) is not None:
        return get_origin(hint) is Callable or get_origin(hint) is type
    if not isinstance(hint, type) or hint is Any or is_dataclass(hint):
        return False
    return not issubclass(hint, _PLAIN) and hint is not object


def _is_list(origin: Any, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(origin, type) or issubclass(origin, Mapping):
        return False
    return issubclass(origin, Sequence) and (origin is not tuple or arguments[1:] == (...,))
