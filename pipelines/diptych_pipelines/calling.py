"""Binds a command line to a command's typed signature, and makes its help page from the same signature."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from typing import Any

from diptych.nearest import nearest
from diptych.settings.schema import REQUIRED, Setting, form_of, settings_of, summary_of
from diptych.settings.walk import Fault, Walk, raise_faults
from diptych_pipelines.arguments import Words
from diptych_pipelines.commands import Call, Command
from diptych_pipelines.help_text import argument_rows, config_groups, group, option_rows, page


def call_command(command: Command, call: Call, positionals: Sequence[str], words: Words) -> int:
    """Runs a command. Raises ConfigError with everything that is wrong with its arguments."""
    function = _function(command, call)
    arguments, options = signature_of(function, command)
    left_out = _left_out(arguments, positionals)
    given = dict(zip((each.name for each in arguments[left_out:]), positionals, strict=False))
    own = {each.name for each in options}
    given |= {key: text for key, text in words.options if key in own}
    others = tuple((key, text) for key, text in words.options if key not in own)
    walk = Walk(faults=_wrong_words(command, arguments, positionals, options, others))
    values: dict[str, Any] = {each.name: None for each in arguments[:left_out]}
    for each in (*arguments[left_out:], *options):
        written = f"--{each.name}" if each in options else each.name.upper()
        if each.name in given:
            values[each.name] = walk.value(given[each.name], each.hint, written).value
        elif each.default is REQUIRED:
            walk.faults.append(Fault(written, f"missing; {each.doc}"))
    raise_faults(walk.faults, "the command line")
    first = () if command.own else (replace(call, overrides=others),)
    return int(function(*first, **values) or 0)


def help_of(command: Command, call: Call, positionals: Sequence[str], words: Words) -> str:
    """The help page of a command; with a config or an evaluator given, of that one's settings too."""
    function = _function(command, call)
    arguments, options = signature_of(function, command)
    domain = call.found.name if call.found else ""
    title = " ".join(["diptych", *([domain] if domain else []), command.name])
    required = [f"--{each.name} {each.name.upper()}" for each in options if each.default is REQUIRED]
    shown = [
        f"[{each.name.upper()}]"
        if each.default is not REQUIRED or _may_be_left_out(each)
        else each.name.upper()
        for each in arguments
    ]
    usage = " ".join([title, *shown, *required, "[--option VALUE ...]"])
    debug = ("--debug", "show the traceback of an error")
    groups = [
        group("arguments", argument_rows(arguments)),
        group("options", [*option_rows(options), debug]),
    ]
    if command.reads != "nothing":
        groups += _settings_groups(command, call, positionals, dict(words.options))
    summary = command.summary or summary_of(function)
    return page(usage, summary, groups, command.example_lines(domain))


def signature_of(function: Callable[..., Any], command: Command) -> tuple[list[Setting], list[Setting]]:
    """A command's positional arguments, without the call itself, and its options."""
    parameters = inspect.signature(function).parameters
    settings = settings_of(function, skip=0 if command.own else 1)
    keyword_only = inspect.Parameter.KEYWORD_ONLY
    return (
        [each for each in settings if parameters[each.name].kind is not keyword_only],
        [each for each in settings if parameters[each.name].kind is keyword_only],
    )


def _settings_groups(
    command: Command, call: Call, positionals: Sequence[str], options: Mapping[str, str]
) -> list[str]:
    from diptych.settings import plans

    groups = []
    if command.reads == "evaluator":
        names = list(plans.evaluators_of(call.domain))
        if not positionals or positionals[0] not in names:
            return [
                group("evaluators (each with --help for its options)", plans.evaluator_summaries(call.domain))
            ]
        evaluator = plans.load_evaluator(call.domain, positionals[0])
        groups.append(group(f"options of {positionals[0]}", option_rows(plans.evaluator_settings(evaluator))))
    settings = plans.recipe_settings(call.domain)
    if command.name == "pretrain":
        settings = [*plans.run_settings(), *settings]
    return [*groups, *config_groups(settings, plans.base_config(call.domain, options))]


def _may_be_left_out(argument: Setting) -> bool:
    """Whether it is a first argument that may be null but has no default: ``embed [DATA] OUT``."""
    return argument.default is REQUIRED and form_of(argument.hint).nullable


def _left_out(arguments: Sequence[Setting], positionals: Sequence[str]) -> int:
    """How many leading arguments are not given, 0 or 1."""
    few = len(positionals) < len(arguments)
    return int(few and bool(arguments) and _may_be_left_out(arguments[0]))


def _function(command: Command, call: Call) -> Callable[..., Any]:
    if command.own:
        from diptych.discovery import load

        loaded: Callable[..., Any] = load(call.domain, command.target)
        return loaded
    module, _, name = command.target.partition(":")
    function: Callable[..., Any] = getattr(import_module(module), name)
    return function


def _wrong_words(
    command: Command,
    arguments: Sequence[Setting],
    positionals: Sequence[str],
    options: Sequence[Setting],
    others: Sequence[tuple[str, str]],
) -> list[Fault]:
    surplus = positionals[len(arguments) :]
    faults = [Fault(each, "one argument too many") for each in surplus]
    if command.reads == "nothing":
        names = [each.name for each in options]
        faults += [Fault(f"--{key}", f"no such option; {nearest(key, names)}") for key, _ in others]
    return faults
