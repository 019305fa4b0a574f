"""The words of a command line: positionals, and options that each take one value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from diptych.errors import ConfigError

FLAGS = ("--help", "-h", "--debug", "--version")


@dataclass(frozen=True)
class Words:
    """A command line after the split: what has no name, what has one, and the flags."""

    positionals: tuple[str, ...]
    options: tuple[tuple[str, str], ...]  # (dotted key, text), in order; a later one wins
    flags: frozenset[str]

    @property
    def wants_help(self) -> bool:
        """Whether -h or --help is among them."""
        return not self.flags.isdisjoint({"--help", "-h"})


def split_words(words: Sequence[str]) -> Words:
    """Splits ``OUT.npz --run R --data.path=D --debug``. Raises ConfigError for an option without a value."""
    positionals: list[str] = []
    options: list[tuple[str, str]] = []
    flags: set[str] = set()
    left = list(words)
    while left:
        word = left.pop(0)
        if word in FLAGS:
            flags.add(word)
        elif word == "--":
            positionals += left
            break
        elif word.startswith("--"):
            key, equals, value = word[2:].partition("=")
            if not equals:
                if not left or left[0].startswith("--"):
                    raise ConfigError(f"option --{key} needs a value: --{key} VALUE")
                value = left.pop(0)
            options.append((key, value))
        elif word.startswith("-") and len(word) > 1 and not word[1].isdigit():
            raise ConfigError(f"no option is called {word}; options have two dashes and a full name")
        else:
            positionals.append(word)
    return Words(tuple(positionals), tuple(options), frozenset(flags))
