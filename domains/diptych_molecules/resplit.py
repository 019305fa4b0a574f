"""The molecules of a study under other splits than its own: those of the literature, and several drawn by seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd

from diptych.errors import ConfigError
from diptych.study import Samples
from diptych_molecules.overlap import keys_of
from diptych_molecules.settings import Splitting
from diptych_molecules.source import Molecules
from diptych_molecules.splits import resolved

Splits = Literal["own", "scaffold", "random", "rows"]


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise ConfigError for a seed that NumPy's generators do not take."""
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise ConfigError(f"split_seeds are from 0 to 4294967295; got {seed}")


def samples_of(molecules: Molecules, splits: Splits, seeds: Sequence[int]) -> dict[str, Samples]:
    """The samples under one split, or under one for each seed; by the split's name.

    Args:
        molecules: Of the study.
        splits: own is the study's; scaffold deals 80, 10 and 10 % out by Murcko scaffold, the largest first, and random
            as many single molecules, as MoleculeNet does (Wu et al. 2018). rows deals out rows of the file in NumPy's
            ``RandomState(seed).permutation``, as published figures of random splits were made (dgllife): copies of a
            molecule may be in training and in test.
        seeds: Of the splits; () is one split, for random and rows that of seed 0.

    Raises:
        ConfigError: seeds for a split in which there is no chance, or a split without test molecules.
    """
    if splits == "rows":
        return {f"rows {seed}": _rows(molecules.samples, seed) for seed in dict.fromkeys(seeds or (0,))}
    if splits == "own":
        split = molecules.splitting
        if not len(molecules.samples.where("test")):
            raise ConfigError(
                "the split of this config has no test molecules; take --splits scaffold or --splits random, or set "
                "split.test and split.train"
            )
        if not seeds:
            return {split.by: molecules.samples}
        if split.by == "random" and split.assign == "auto":
            split = replace(split, assign="balanced")  # exact shares, as random splits of the literature have
    else:
        split = Splitting(by=splits, assign="balanced" if splits == "random" else "largest_first")
        seeds = seeds or ((0,) if splits == "random" else ())
    if seeds and (split.by == "column" or resolved(split) == "largest_first"):
        how = "a column" if split.by == "column" else "the largest scaffolds first"
        raise ConfigError(
            f"split_seeds: this split goes by {how}, without chance; leave split_seeds out, or take --splits random, "
            "or --splits own with --split.assign balanced"
        )
    if not seeds:
        return {split.by: _again(molecules, split)}
    return {
        f"{split.by} {seed}": _again(molecules, replace(split, seed=seed, salt=f"{split.salt} {seed}"))
        for seed in dict.fromkeys(seeds)
    }


def copies_notes(molecules: Molecules, samples: Mapping[str, Samples]) -> list[str]:
    """For each split with copies of one molecule in training and in test, how many test molecules have any."""
    notes = []
    for name, each in samples.items():
        split = each.ids["split"]
        tested = molecules.identity[split == "test"]
        copies = int(np.isin(tested, molecules.identity[split == "train"]).sum())
        if copies:
            notes.append(
                f"{name}: {copies} of {len(tested)} test rows are copies of training molecules, as in the literature's "
                "random splits; --splits random keeps copies together"
            )
    return notes


def _rows(samples: Samples, seed: int) -> Samples:
    """80, 10 and 10 % of the rows; every row counts as a molecule of its own."""
    count = len(samples)
    train, validation = int(0.8 * count), int(0.1 * count)
    order = np.random.RandomState(seed).permutation(count)
    dealt = np.empty(count, object)
    dealt[order[:train]] = "train"
    dealt[order[train : train + validation]] = "validation"
    dealt[order[train + validation :]] = "test"
    units = [f"{row:010d}" for row in range(count)]
    ids = samples.ids.assign(patient=units, recording=units, split=dealt)
    return replace(samples, ids=ids, words=replace(samples.words, unit="row"))


def _again(molecules: Molecules, split: Splitting) -> Samples:
    """The samples under another split, with its units: what folds, fractions and intervals keep together.

    Molecules without rings are dealt out as the split says, and each is a unit of its own: as one unit they may be most
    of the molecules, and folds of the few units that are left choose badly.
    """
    samples, dealt = molecules.samples, molecules.split(split)
    if split.by == "random":
        unit, patient = "molecule", samples.ids["recording"]
    else:
        unit, keys = split.by, keys_of(molecules, replace(split, acyclic="apart"))
        patient = pd.Series([f"{key:016x}" for key in keys.tolist()], index=samples.ids.index)
    ids = samples.ids.assign(patient=patient, split=dealt)
    return replace(samples, ids=ids, words=replace(samples.words, unit=unit))
