"""Walks a config along the typed signatures: builds its values, and collects every fault on the way.

A parser stops at its first fault; this walk goes on, so that a user sees all of them at once. Single values
are jsonargparse's to parse and check.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any

from jsonargparse import ArgumentParser

from diptych.errors import ConfigError, UserError
from diptych.settings.schema import (
    REQUIRED,
    Form,
    Setting,
    find_class,
    form_of,
    gives_instance,
    is_factory,
    path_of,
    settings_of,
    skipped_parameters,
    spell,
    takes_anything,
)


@dataclass(frozen=True)
class Fault:
    """One thing wrong with a config: the dotted key, and what was expected and what came."""

    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}"


@dataclass(frozen=True)
class Built:
    """A checked value, and the plain data (for YAML) that give it again."""

    value: Any
    plain: Any


def raise_faults(faults: Sequence[Fault], source: str) -> None:
    """Raises one ConfigError that lists all faults, when there are any."""
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"{count} in {source}; nothing was read or written:", *(f"  {each}" for each in faults)]
        raise ConfigError("\n".join(lines))


def parse_leaf(hint: Any, value: Any) -> Built:
    """A value from YAML or the command line; jsonargparse raises what it likes when it does not fit."""
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_argument("--value", type=hint)
    parsed = parser.parse_object({"value": value})
    return Built(
        parser.instantiate(parsed)["value"], json.loads(parser.dump(parsed, format="json")).get("value")
    )


@dataclass
class Walk:
    """One walk over a config. ``faults`` is complete when the walk is done; what has a fault is not built."""

    every_key: Sequence[str] = ()  # to suggest from
    faults: list[Fault] = field(default_factory=list)

    def settings(
        self, config: Mapping[str, Any], settings: Sequence[Setting], prefix: str = ""
    ) -> dict[str, Built]:
        """The settings of one level by name, with defaults for those that are not given."""
        names = [each.name for each in settings]
        for key in config:
            if key not in names:
                self._fault(f"{prefix}{key}", f"no such setting; {self._nearest(str(key), prefix, names)}")
        built = {}
        for each in settings:
            key = f"{prefix}{each.name}"
            if each.name in config:
                built[each.name] = self.value(config[each.name], each.hint, key)
            elif each.default is REQUIRED:
                self._missing(each, key)
            else:
                built[each.name] = self.value(plain_of(each.default), each.hint, key)
        return built

    def value(self, value: Any, hint: Any, key: str) -> Built:
        """One value of any form."""
        form = form_of(hint)
        if form.nullable and value is None:
            return Built(None, None)
        if form.kind == "leaf":
            return self._leaf(value, hint, key)
        if form.kind == "items" and isinstance(value, list | tuple):
            each = [self.value(item, form.inner, f"{key}.{index}") for index, item in enumerate(value)]
            return Built([item.value for item in each], [item.plain for item in each])
        if form.kind == "open" and isinstance(value, str):
            value = {"class_path": value}
        if form.kind == "items" or not isinstance(value, Mapping):
            return self._fault(key, f"expected {spell(hint)}, came {value!r}")
        if form.kind == "open":
            return self._open(value, form, key)
        if form.kind == "section":
            return self._section(value, form, key)
        named = {name: self.value(each, form.inner, f"{key}.{name}") for name, each in value.items()}
        return _together(named, {name: each.value for name, each in named.items()})

    def _leaf(self, value: Any, hint: Any, key: str) -> Built:
        try:
            return parse_leaf(hint, value)
        except Exception:  # jsonargparse raises many kinds, and their texts are about itself
            return self._fault(key, f"expected {spell(hint)}, came {value!r}")

    def _section(self, value: Mapping[str, Any], form: Form, key: str) -> Built:
        before = len(self.faults)
        inner = self.settings(value, settings_of(form.inner), f"{key}.")
        if len(self.faults) > before:
            return Built(None, None)
        return self.called(partial(form.inner, **_values(inner)), _plains(inner), key)

    def _open(self, value: Mapping[str, Any], form: Form, key: str) -> Built:
        before = len(self.faults)
        for unknown in [each for each in value if each not in ("class_path", "init_args")]:
            self._fault(f"{key}.{unknown}", "no such setting; expected class_path and init_args")
        target = self._target(value.get("class_path"), form, f"{key}.class_path")
        given = value.get("init_args") or {}
        if not isinstance(given, Mapping):
            self._fault(f"{key}.init_args", f"expected settings as 'key: value', came {given!r}")
        if target is None or not isinstance(given, Mapping):
            return Built(None, None)
        settings = settings_of(target, skip=skipped_parameters(form.inner, target))
        if takes_anything(target):
            settings += [
                Setting(name, Any, None, "") for name in given if name not in {x.name for x in settings}
            ]
        inner = self.settings(given, settings, f"{key}.init_args.")
        if len(self.faults) > before:
            return Built(None, None)
        plain = {"class_path": value["class_path"], **({"init_args": _plains(inner)} if inner else {})}
        made = partial(target, **_values(inner))
        return Built(made, plain) if is_factory(form.inner, target) else self.called(made, plain, key)

    def _target(self, path: Any, form: Form, key: str) -> Any:
        """The class behind a class path, None (and a fault) when there is none or it is of another type."""
        if not isinstance(path, str):
            self._fault(key, f"missing; expected {spell(form.inner)}")
            return None
        try:
            target = find_class(path)
        except ValueError as error:
            self._fault(key, str(error))
            return None
        if not (is_factory(form.inner, target) or gives_instance(form.inner, target)):
            self._fault(key, f"expected {spell(form.inner)}, came {path}, which gives something else")
            return None
        return target

    def called(self, make: partial[Any], plain: Any, key: str) -> Built:
        """What is made of checked settings; what refuses them is a fault."""
        try:
            return Built(make(), plain)
        except UserError as error:
            return self._fault(key, str(error))
        except (ValueError, TypeError) as error:  # how a class refuses its arguments
            return self._fault(key, str(error))

    def _missing(self, setting: Setting, key: str) -> None:
        """A required section is named by the keys it requires, so that one look at the message is enough."""
        form = form_of(setting.hint)
        inner = settings_of(form.inner) if form.kind == "section" else []
        required = [each for each in inner if each.default is REQUIRED]
        for each in required:
            self._fault(f"{key}.{each.name}", f"missing; expected {spell(each.hint)}")
        if not required:
            self._fault(key, f"missing; expected {spell(setting.hint)}")

    def _fault(self, key: str, message: str) -> Built:
        self.faults.append(Fault(key, message))
        return Built(None, None)

    def _nearest(self, name: str, prefix: str, siblings: Sequence[str]) -> str:
        options = [] if prefix.strip("-") else [key for key in self.every_key if "." not in key]
        close = get_close_matches(name, [*siblings, *options], n=1)
        if close:
            return f"did you mean {prefix}{close[0]}?"
        last_parts = {key.rpartition(".")[2]: key for key in self.every_key}
        elsewhere = get_close_matches(name, list(last_parts), n=1)
        if elsewhere:
            return f"did you mean {last_parts[elsewhere[0]]}?"
        return f"known here: {', '.join(siblings) or 'none'}"


def all_keys(settings: Sequence[Setting], prefix: str = "") -> Iterator[str]:
    """Every dotted key of the settings down to the fields of dataclasses."""
    for each in settings:
        form = form_of(each.hint)
        yield f"{prefix}{each.name}"
        if form.kind == "section":
            yield from all_keys(settings_of(form.inner), f"{prefix}{each.name}.")


def plain_of(value: Any) -> Any:
    """A default as plain data; a function or class as its class path.

    Raises TypeError for an object whose arguments cannot be known: only dataclasses can be defaults.
    """
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {key: plain_of(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain_of(each) for each in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain_of(getattr(value, each.name)) for each in fields(value) if each.init}
    if callable(value) and hasattr(value, "__qualname__"):
        return path_of(value)
    return str(value)


def _values(built: Mapping[str, Built]) -> dict[str, Any]:
    return {name: each.value for name, each in built.items()}


def _plains(built: Mapping[str, Built]) -> dict[str, Any]:
    return {name: each.plain for name, each in built.items()}


def _together(built: Mapping[str, Built], value: Any) -> Built:
    return Built(value, _plains(built))
