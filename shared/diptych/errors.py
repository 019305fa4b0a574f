"""Errors that are the user's to mend: said in one message, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Says what was expected, what came and what to do. The command line prints it and exits with 1."""

    exit_code = 1


class ConfigError(UserError):
    """A setting is wrong; nothing was read or written yet. The command line exits with 2."""

    exit_code = 2


class DataError(UserError):
    """The data cannot be used as they are (a leak between splits, too many unreadable files, no files)."""
