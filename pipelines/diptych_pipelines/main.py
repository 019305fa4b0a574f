"""The command ``diptych``: finds the verb, runs it, and turns what goes wrong into a message and a code.

Results go to stdout, progress and messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage or config,
130 after Ctrl-C, 143 after SIGTERM (the run is saved and can be resumed).
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

from diptych import __version__
from diptych.discovery import find_domain, find_domains
from diptych.errors import ConfigError, UserError
from diptych.nearest import nearest
from diptych_pipelines.arguments import Words, split_words
from diptych_pipelines.commands import DOMAIN, GENERAL, Call, Command, own_commands


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command line and exits with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = _run(split_words(words))
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = _failed("interrupted", 130)
    except BrokenPipeError:  # the reader of our output went away: nobody is left to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except (UserError, OSError) as error:
        if "--debug" in words:
            traceback.print_exc()
        code = _failed(_message(error), getattr(error, "exit_code", 1))
    sys.exit(code)


def _run(words: Words) -> int:
    if "--version" in words.flags:
        print(f"diptych {__version__}")
        return 0
    if not words.positionals:
        print(_overview())
        return 0 if words.wants_help else 2
    first, *rest = words.positionals
    for command in GENERAL:
        if command.name == first:
            return _call(command, Call(None), rest, words)
    return _run_domain(first, rest, words)


def _run_domain(name: str, rest: Sequence[str], words: Words) -> int:
    names = [each.name for each in find_domains()]
    if name not in names:
        choices = [*(each.name for each in GENERAL), *names]
        raise ConfigError(f"no command or domain is called {name!r}; {nearest(name, choices)}")
    if not rest:
        print(_overview(name))
        return 0 if words.wants_help else 2
    verb, *rest = rest
    found = find_domain(name)
    commands = (*DOMAIN, *own_commands(found))
    for command in commands:
        if command.name == verb:
            return _call(command, Call(found), rest, words)
    raise ConfigError(f"{name} has no command {verb!r}; {nearest(verb, [each.name for each in commands])}")


def _call(command: Command, call: Call, positionals: Sequence[str], words: Words) -> int:
    from diptych_pipelines.calling import call_command, help_of

    if words.wants_help:
        print(help_of(command, call, positionals, words), end="")
        return 0
    return call_command(command, call, positionals, words)


def _overview(domain: str = "") -> str:
    if domain:
        usage = f"usage: diptych {domain} COMMAND ...  (each with --help)"
        own = [each.name for each in own_commands(find_domain(domain))]
        more = ["", f"commands of {domain} alone: {', '.join(own)}"] if own else []
        return "\n".join([usage, "", *_summaries(DOMAIN), *more])
    lines = [
        "usage: diptych COMMAND ...  or  diptych DOMAIN COMMAND ...  (each with --help)",
        "",
        "Self-supervised contrastive pretraining, one domain at a time.",
        "",
        *_summaries(GENERAL),
        "",
        f"domains: {', '.join(each.name for each in find_domains()) or 'none installed'}; their commands:",
        *_summaries(DOMAIN),
        "",
        "options: --help, --version, --debug (shows the traceback of an error)",
    ]
    return "\n".join(lines)


def _summaries(commands: Sequence[Command]) -> list[str]:
    return [f"  {each.name:<10}{each.summary.split('. ')[0].rstrip('.')}." for each in commands]


def _message(error: UserError | OSError) -> str:
    if isinstance(error, UserError):
        return str(error)
    place = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{place}"


def _failed(message: str, code: int) -> int:
    sys.stdout.flush()
    print(f"diptych: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
