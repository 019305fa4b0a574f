"""What a misspelt word was probably meant to be."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


def nearest(word: str, names: Sequence[str]) -> str:
    """A hint for a word that is not among the names: the closest one, or else all of them."""
    close = get_close_matches(word, names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"
