"""Configs: read strictly from YAML, overridden from the command line, checked whole, then built."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diptych.errors import ConfigError
from diptych.settings.schema import Setting, form_of, settings_of
from diptych.settings.walk import Fault, Walk, all_keys, raise_faults

Config = dict[str, Any]


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error, and ``no``, ``on`` or a date are text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                line = node.value[index][0].start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} is given twice, again in line {line}"
                )
        return super().construct_mapping(node, deep)


_WITHOUT = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp")
_StrictLoader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in _WITHOUT]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _word in ("true", "True", "TRUE", "false", "False", "FALSE"):
    _StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(f"^{_word}$"), [_word[0]])


@dataclass(frozen=True)
class Resolved:
    """A checked config: the built values by section, and the YAML text that gives them again."""

    values: Mapping[str, Any]
    text: str


def read_yaml(path: Path) -> Config:
    """The mapping in a YAML file. Raises ConfigError when it cannot be read or is not a mapping."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"cannot read the config {path}: {reason}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, source: str) -> Config:
    """The mapping in a YAML text; ``source`` names it in errors."""
    try:
        config = yaml.load(text, _StrictLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from error
    if config is None:
        return {}
    if not isinstance(config, dict):
        raise ConfigError(f"{source}: expected settings as 'key: value', came {type(config).__name__}")
    return config


def overridden(config: Config, options: Iterable[tuple[str, str]], settings: Sequence[Setting]) -> Config:
    """The config with dotted options from the command line put in; the given one is left as it is.

    A class's arguments may be given short: ``--encoder.width 8`` is ``encoder.init_args.width``. Another
    class path drops the arguments of the one before.
    """
    result: Config = _copied(config)
    hints = {each.name: each.hint for each in settings}
    for key, text in options:
        first, *rest = key.split(".")
        result[first] = _with(result.get(first), hints.get(first), rest, text)
    return result


def resolve(
    config: Config,
    settings: Sequence[Setting],
    source: str,
    more: Sequence[Fault] = (),
    more_keys: Iterable[str] = (),
) -> Resolved:
    """Checks a config whole and builds its values. Raises ConfigError with every fault, and ``more``."""
    walk = Walk(every_key=[*all_keys(settings), *more_keys])
    built = walk.settings(config, settings)
    raise_faults([*more, *walk.faults], source)
    plain = {name: each.plain for name, each in built.items()}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110)
    return Resolved({name: each.value for name, each in built.items()}, text)


def _with(value: Any, hint: Any, keys: Sequence[str], text: str) -> Any:
    form = form_of(hint) if hint is not None else None
    kind = form.kind if form else "leaf"
    if kind == "open":
        return _with_class(value, keys, text)
    if not keys:
        return text if kind == "leaf" else parse_text(text)
    inner = _inner_hint(form.inner, keys[0]) if form and kind == "section" else None
    inner = form.inner if form and kind == "named" else inner
    result = dict(value) if isinstance(value, Mapping) else {}
    result[keys[0]] = _with(result.get(keys[0]), inner, keys[1:], text)
    return result


def _with_class(value: Any, keys: Sequence[str], text: str) -> Any:
    before: Config = {"class_path": value} if isinstance(value, str) else dict(value or {})
    if not keys or keys == ["class_path"]:
        chosen = parse_text(text) if not keys else text
        if isinstance(chosen, Mapping) or chosen is None:
            return chosen
        return before if before.get("class_path") == chosen else {"class_path": chosen}
    names = keys[1:] if keys[0] == "init_args" else keys
    if not names:
        return {**before, "init_args": parse_text(text)}
    return {**before, "init_args": _with(before.get("init_args"), None, names, text)}


def parse_text(text: str) -> Any:
    """The value of an option that stands for a whole section, written as YAML in one line."""
    try:
        return yaml.load(text, _StrictLoader)
    except yaml.YAMLError:
        return text


def _inner_hint(dataclass_type: Any, name: str) -> Any:
    return next((each.hint for each in settings_of(dataclass_type) if each.name == name), None)


def _copied(value: Any) -> Any:
    return {key: _copied(each) for key, each in value.items()} if isinstance(value, dict) else value
