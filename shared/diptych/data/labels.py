"""Labels of recordings: from a table, header texts, folder or file names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.rules import Rule
from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Label:
    """Where one label comes from and how its text becomes a class or a number.

    Exactly one of ``column`` and ``rule`` says where. Without ``contains``,
    ``classes`` or ``number`` the text itself is the class. Text is stripped; a label that is not there is
    missing, never 0.

    Args:
        column: Column of ``data.table``.
        rule: Another place: ``name:state``, ``folder``, ``comment:sex``, as for ``data.patient``.
        contains: The label is "yes" where the text contains this, in any case, else "no".
        classes: Regular expressions, searched in any case, or ``name=expression``; the first that matches is
            the class, and a text that none matches is missing.
        number: The label is a number; a text that is none is missing, and counted.
        blank: What a blank cell stands for, such as "none"; by default it is a missing label.
    """

    column: str | None = None
    rule: str | None = None
    contains: str | None = None
    classes: list[str] | None = None
    number: bool = False
    blank: str | None = None

    def __post_init__(self) -> None:
        if (self.column is None) == (self.rule is None):
            raise ConfigError("a label needs either 'column' (of the table) or 'rule'; give exactly one")
        if (self.contains is not None) + (self.classes is not None) + self.number > 1:
            raise ConfigError("a label takes only one of 'contains', 'classes' and 'number'")
        for text in self.classes or ():
            try:
                re.compile(_named(text)[1])
            except re.error as error:
                raise ConfigError(f"label class {text!r} is no regular expression: {error}") from None

    def place(self, name: str) -> Rule:
        """The rule that finds this label's text; ``name`` is the label's, for messages."""
        if self.rule is not None:
            return Rule.parse(self.rule, f"labels.{name}.rule")
        return Rule("table", str(self.column))


@dataclass(frozen=True, kw_only=True)
class Values:
    """One label of many recordings."""

    values: NDArray[np.object_] | NDArray[np.float64]  # None or NaN where missing
    unusable: int  # texts that were there but are no number or match no class


def read_values(label: Label, texts: Sequence[str | None]) -> Values:
    """Classes (text, None where missing) or numbers (float64, NaN where missing) from texts."""
    filled = [text if text and text.strip() else label.blank for text in texts]
    if label.number:
        numbers = [_number(text) for text in filled]
        lost = sum(np.isnan(n) and text is not None for n, text in zip(numbers, filled, strict=True))
        return Values(values=np.array(numbers, np.float64), unusable=int(lost))
    found = [None if text is None else _class(label, text.strip()) for text in filled]
    lost = sum(one is None and text is not None for one, text in zip(found, filled, strict=True))
    values = np.empty(len(found), object)
    values[:] = found
    return Values(values=values, unusable=lost)


def contradictions(rows: pd.DataFrame, key: str, columns: Sequence[str]) -> list[str]:
    """Ids that occur in several rows whose given columns are not all equal."""
    repeated = rows[rows.duplicated(key, keep=False)]
    used = [column for column in columns if column != key]
    return sorted(
        str(name) for name, same in repeated.groupby(key) if used and len(same[used].drop_duplicates()) > 1
    )


def _class(label: Label, text: str) -> str | None:
    if label.contains is not None:
        return "yes" if label.contains.casefold() in text.casefold() else "no"
    if label.classes is None:
        return text
    for each in label.classes:
        name, pattern = _named(each)
        if re.search(pattern, text, re.IGNORECASE):
            return name
    return None


def _named(text: str) -> tuple[str, str]:
    """``name=expression``, or an expression that is its own name."""
    match = re.match(r"([\w .+/-]+)=(.*)", text, re.DOTALL)
    return (match[1].strip(), match[2]) if match else (text, text)


def _number(text: str | None) -> float:
    try:
        return float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")


def frame(values: Mapping[str, Values]) -> pd.DataFrame:
    """Label columns as a table."""
    return pd.DataFrame({name: value.values for name, value in values.items()})
