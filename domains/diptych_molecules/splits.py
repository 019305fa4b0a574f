"""Units that stay together in a split, and how they are dealt out to train, validation and test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diptych.data.identity import SPLITS, Split
from diptych.errors import ConfigError
from diptych.nearest import nearest
from diptych_molecules.settings import Assign, Splitting

Integers = NDArray[np.int64]
Names = NDArray[np.object_]

_COLUMN_WORDS = {
    "train": "train",
    "training": "train",
    "valid": "validation",
    "val": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
}


def deal(units: Integers, keys: Sequence[str], split: Splitting) -> Names:
    """The split of every molecule, (n,): "train", "validation" or "test".

    Args:
        units: (n,) code of the unit of each molecule; molecules of one unit are in one split.
        keys: by code a text that names the unit in every data set; what "hash" hashes.
        split: how units are dealt out.
    """
    if not len(units):
        return np.array([], object)
    assign = resolved(split)
    if assign == "hash":
        rule = Split(salt=split.salt, train=split.train, validation=split.validation, test=split.test)
        # with a word before it, since the scaffold of molecules without rings is empty
        return np.array([rule.of(f"{split.by}:{key}") for key in keys], object)[units]
    _, first, inverse, sizes = np.unique(units, return_index=True, return_inverse=True, return_counts=True)
    order = largest_first(first, sizes) if assign == "largest_first" else balanced(sizes, len(units), split)
    return fill(order, sizes, split)[inverse]


def resolved(split: Splitting) -> Assign:
    """What "auto" stands for."""
    if split.assign != "auto":
        return split.assign
    return "hash" if split.by == "random" else "largest_first"


def largest_first(first: Integers, sizes: Integers) -> Integers:
    """The order of units by falling size, of equal ones the one that comes last first (DeepChem, dgllife)."""
    return np.lexsort((-first, -sizes)).astype(np.int64)


def balanced(sizes: Integers, total: int, split: Splitting) -> Integers:
    """Units larger than half of validation or test first, then the others, each in an order drawn from the seed."""
    large = (sizes > total * split.validation / 2) | (sizes > total * split.test / 2)
    generator = np.random.default_rng(split.seed)
    return np.concatenate(
        [generator.permutation(np.flatnonzero(large)), generator.permutation(np.flatnonzero(~large))]
    ).astype(np.int64)


def fill(order: Integers, sizes: Integers, split: Splitting) -> Names:
    """The split of every unit, (units,): each in turn goes to train while it fits, else validation, else test."""
    total = int(sizes.sum())
    train_end, validation_end = split.train * total, (split.train + split.validation) * total
    train = validation = 0
    names = np.empty(len(sizes), object)
    slack = 1e-9 * total  # shares are decimal fractions
    for unit in order.tolist():
        size = int(sizes[unit])
        if train + size <= train_end + slack:
            names[unit], train = SPLITS[0], train + size
        elif train + validation + size <= validation_end + slack:
            names[unit], validation = SPLITS[1], validation + size
        else:
            names[unit] = SPLITS[2]
    return names


def from_column(texts: Sequence[str | None], column: str) -> Names:
    """The splits that a column says. Raises ConfigError for a text that is none."""
    found = [_COLUMN_WORDS.get((text or "").strip().casefold()) for text in texts]
    for text, name in zip(texts, found, strict=True):
        if name is None:
            raise ConfigError(
                f"split.column: {text!r} in the column {column!r} is no split; "
                f"{nearest(text or '', list(_COLUMN_WORDS))}"
            )
    return np.array(found, object)
