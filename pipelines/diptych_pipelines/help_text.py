"""The text that ``--help`` prints: a sentence, arguments and options with their defaults, two examples."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from diptych.settings.schema import (
    REQUIRED,
    Setting,
    find_class,
    form_of,
    settings_of,
    skipped_parameters,
    spell,
)

WIDTH = 100
_WORDS: dict[Any, str] = {str: "TEXT", int: "INTEGER", float: "NUMBER", bool: "true|false"}
_INDENT = 28


def page(usage: str, summary: str, groups: Sequence[str], examples: Sequence[str]) -> str:
    """A whole help page."""
    shown = "\n".join(f"  {each}" for each in examples)
    paragraphs = [f"usage: {usage}", textwrap.fill(summary, WIDTH), *groups]
    return "\n\n".join([*(each for each in paragraphs if each), f"examples:\n{shown}"]) + "\n"


def group(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """A titled list of (what to write, what it means); empty without rows."""
    return "\n".join([f"{title}:", *(_row(left, right) for left, right in rows)]) if rows else ""


def option_rows(settings: Sequence[Setting], prefix: str = "--") -> list[tuple[str, str]]:
    """Rows for plain options."""
    return [(f"{prefix}{each.name} {_placeholder(each)}", _meaning(each)) for each in settings]


def argument_rows(settings: Sequence[Setting]) -> list[tuple[str, str]]:
    """Rows for positional arguments."""
    return [(each.name.upper(), _meaning(each)) for each in settings]


def config_groups(settings: Sequence[Setting], base: Mapping[str, Any]) -> Iterator[str]:
    """One group per section; a class of the user's choice shows the arguments of the one in ``base``."""
    single = []
    for each in settings:
        form = form_of(each.hint)
        doc = f" ({each.doc.rstrip('.')})" if each.doc else ""
        if form.kind == "section":
            yield group(f"{each.name}{doc}", option_rows(settings_of(form.inner), f"--{each.name}."))
        elif form.kind == "named":
            fields = settings_of(form.inner) if form_of(form.inner).kind == "section" else []
            yield group(f"{each.name}{doc}", option_rows(fields, f"--{each.name}.NAME."))
        elif form.kind == "open":
            yield group(f"{each.name}{doc}", _class_rows(each, base.get(each.name)))
        else:
            single.append(each)
    yield group("other settings", option_rows(single))


def _class_rows(setting: Setting, chosen: Any) -> list[tuple[str, str]]:
    rows = [(f"--{setting.name} CLASS", f"{spell(setting.hint)}{_default(setting)}")]
    path = chosen.get("class_path") if isinstance(chosen, Mapping) else chosen
    if isinstance(path, str):
        target = find_class(path)
        skip = skipped_parameters(form_of(setting.hint).inner, target)
        rows += [
            ("", f"with {path}:"),
            *option_rows(_shortened(settings_of(target, skip)), f"--{setting.name}."),
        ]
    return rows


def _shortened(settings: Sequence[Setting]) -> list[Setting]:
    """The settings with the first sentence of their text: other libraries write paragraphs."""
    return [replace(each, doc=re.split(r"[.;] |\s*\(default:", each.doc, maxsplit=1)[0]) for each in settings]


def _placeholder(setting: Setting) -> str:
    """What stands for a value: its type where that is one word, or the words it may be."""
    form = form_of(setting.hint)
    if form.kind != "leaf":
        return "CLASS" if form.kind == "open" else "YAML"
    hints = get_args(setting.hint) if get_origin(setting.hint) in (Union, UnionType) else (setting.hint,)
    present = [each for each in hints if each is not type(None)]
    if len(present) == 1 and get_origin(present[0]) is Literal:
        return "|".join(map(str, get_args(present[0])))
    return _WORDS.get(present[0], "VALUE") if len(present) == 1 else "VALUE"


def _meaning(setting: Setting) -> str:
    doc = setting.doc.rstrip(".")
    kind = (
        spell(setting.hint).removesuffix(" or null")
        if _placeholder(setting) in ("VALUE", "YAML", "CLASS")
        else ""
    )
    return f"{doc}{'; ' if doc and kind else ''}{kind}{_default(setting)}".strip()


def _default(setting: Setting) -> str:
    if setting.default is REQUIRED:
        return " (required)"
    return f" (default: {_shown(setting.default)})"


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_shown(each) for each in value) + "]"
    return str(value) if isinstance(value, str | int | float) else str(value).replace("\n", " ")


def _row(left: str, right: str) -> str:
    lines = textwrap.wrap(right, WIDTH - _INDENT) or [""]
    head = f"  {left}"
    gap = " " * _INDENT
    if len(head) + 2 > _INDENT:
        return "\n".join([head, *(gap + line for line in lines)])
    return "\n".join([head.ljust(_INDENT) + lines[0], *(gap + line for line in lines[1:])])
