"""Read files of molecules, featurise them once, and put ids, labels and splits to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.assemble import numbers_of
from diptych.data.labels import Label
from diptych.data.pieces import cache_folder
from diptych.data.quarantine import Quarantine
from diptych.errors import DataError
from diptych.study import Samples
from diptych.words import Words
from diptych_molecules import derived, describe, splits
from diptych_molecules.chunks import jobs
from diptych_molecules.gather import Gathered, gather
from diptych_molecules.labels import (
    Kind,
    Tasks,
    check_labels,
    kinds,
    merged,
    numeric_columns,
    read_labels,
)
from diptych_molecules.settings import Source, Splitting
from diptych_molecules.similarity import butina
from diptych_molecules.store import Store, make_store

__all__ = ["Label", "Molecules", "Source", "Splitting", "prepare"]

Integers = NDArray[np.int64]
_UNITS = {"scaffold": "scaffold", "random": "molecule", "cluster": "cluster", "column": "molecule"}
_COMPUTED = "computed "  # prefix of the columns of computed descriptors


@dataclass(frozen=True, kw_only=True)
class Molecules:
    """A data set of molecules: row i of ``samples`` is the molecule ``rows[i]`` of ``store``."""

    samples: Samples
    store: Store
    rows: Integers  # (n,)
    tasks: Mapping[str, Kind]  # by label
    identity: Integers  # (n,) code: equal for rows of one molecule
    identities: list[str]  # by code: InChIKey or canonical SMILES
    splitting: Splitting
    places: pd.DataFrame = field(
        repr=False
    )  # of each molecule its "file" and the "row" there, counted from 0
    report: Mapping[str, str]  # what was found, in lines for inspect and the report
    workers: int | None = field(repr=False, default=None)

    def __len__(self) -> int:
        return len(self.rows)

    def smiles(self, indices: Integers | None = None) -> list[str]:
        """The canonical SMILES of the molecules at ``indices``, or of all."""
        return self.store.all_smiles(self.rows if indices is None else self.rows[indices])

    def described(self, indices: Integers) -> pd.DataFrame:
        """Where molecules stand in their files, and their canonical SMILES."""
        return self.places.iloc[indices].reset_index(drop=True).assign(smiles=self.smiles(indices))

    def fingerprints(self, indices: Integers) -> NDArray[np.uint8]:
        """Packed Morgan fingerprints (n, 128); see ``derived.fingerprints``."""
        return np.asarray(derived.fingerprints(self.store, self.workers)[self.rows[indices]])

    def units(self, split: Splitting) -> tuple[Integers, list[str]]:
        """(code of the unit of each molecule, text of each unit by code) for a way of splitting."""
        return _units(split, self.store, self.rows, self.identity, self.identities, self.workers)

    def split(self, split: Splitting) -> NDArray[np.object_]:
        """The split of every molecule under other settings than those of the run, (n,)."""
        return splits.deal(*self.units(split), split)

    @cached_property
    def molecule_ids(self) -> Integers:
        """(n,) a number equal for rows of one molecule, the same in every data set."""
        return numbers_of(self.samples.ids["recording"])

    @cached_property
    def unit_ids(self) -> Integers:
        """(n,) a number equal within a unit of the split: a scaffold, a cluster or a molecule."""
        return numbers_of(self.samples.ids["patient"])


def prepare(
    source: Source,
    labels: Mapping[str, Label],
    tasks: Tasks,
    split: Splitting,
    *,
    cache: str | Path | None = None,
    workers: int | None = None,
) -> Molecules:
    """Read every file once, featurise its molecules or find them in the cache, and describe them.

    Args:
        source: Where the molecules are.
        labels: Labels by name.
        tasks: Columns that are labels of their own name, as numbers; "all" takes every numeric one.
        split: What stays together and how it is dealt out.
        cache: Folder of featurised molecules; by default ``DIPTYCH_CACHE`` or the user's cache folder.
        workers: Processes; by default one per CPU this process may use.

    Raises:
        ConfigError: an unknown column, a text that is no split.
        DataError: no molecules, too many in quarantine, one molecule in several splits.
    """
    check_labels(labels, tasks)
    quarantine = Quarantine()
    gathered = gather(source, quarantine)
    store, fate = _stored(source, gathered, quarantine, cache_folder(cache, "molecules"), workers)
    columns = {**gathered.columns(store.rows), **_computed(source, store, workers)}
    report: dict[str, str] = {}
    found = _all_labels(labels, tasks, columns, gathered, split)
    table = read_labels(found, columns, len(store), report)
    identity, identities = _identity(source, store, workers)
    report |= describe.duplicates(table, identity, source)
    named = None if split.column is None else splits.from_column(columns[split.column], split.column)
    rows = np.arange(len(store))
    if source.duplicates == "merge":
        codes, first = np.unique(identity, return_index=True)
        order = np.argsort(first)  # in the order of the files
        table = merged(table, identity).iloc[order].reset_index(drop=True)
        rows, identity = first[order].astype(np.int64), codes[order]
        named = None if named is None else named[rows]
    units, texts = _units(split, store, rows, identity, identities, workers)
    dealt = splits.deal(units, texts, split) if named is None else named
    if named is not None:
        describe.check_one_split(identity, named, source)
    words = Words(unit=_UNITS[split.by], recording="molecule", sample="molecule", overlap="report")
    ids = describe.ids_of(units, texts, identity, identities, dealt, words)
    samples = Samples(
        ids=ids,
        labels=table,
        manifest=describe.manifest_of(gathered, store),
        quarantine=quarantine,
        words=words,
    )
    lines = describe.lines(gathered, store, fate, rows, ids, quarantine, split, words)
    return Molecules(
        samples=samples,
        store=store,
        rows=rows,
        tasks=kinds(table),
        identity=identity,
        identities=identities,
        splitting=split,
        places=describe.places_of(gathered, store.rows[rows]),
        report={**lines, **report},
        workers=workers,
    )


def _stored(
    source: Source, gathered: Gathered, quarantine: Quarantine, folder: Path, workers: int | None
) -> tuple[Store, str]:
    """The store of all rows, and whether it was made or found; rows of no molecule go to quarantine."""
    wanted = [
        job
        for part in gathered.parts
        for job in jobs(
            part.texts,
            "sdf" if part.form == "sdf" else "smiles",
            source.standard,
            source.isolated_atoms == "drop",
        )
    ]
    store, fate = make_store(wanted, folder, workers)
    for row, reason in store.rejected:
        quarantine.add(gathered.name(row), reason)
    if not len(store):
        raise DataError(f"no molecule can be used: {describe.reasons(quarantine)}")
    quarantine.check(gathered.total, source.max_quarantined)
    return store, fate


def _all_labels(
    labels: Mapping[str, Label],
    tasks: Tasks,
    columns: Mapping[str, Sequence[str | None]],
    gathered: Gathered,
    split: Splitting,
) -> dict[str, Label]:
    """The labels and the tasks; every column that a setting names is there."""
    for name, label in labels.items():
        gathered.need(str(label.column), f"labels.{name}.column", columns)
    if split.column is not None:
        gathered.need(split.column, "split.column", columns)
    if tasks == "all":
        taken = {label.column for label in labels.values()} | {split.column}
        tasks = numeric_columns({name: texts for name, texts in columns.items() if name not in taken})
    for name in tasks or ():
        gathered.need(name, "tasks", columns)
    return {**labels, **{name: Label(column=name, number=True) for name in tasks or ()}}


def _computed(source: Source, store: Store, workers: int | None) -> dict[str, list[str | None]]:
    """Columns of descriptors, as the texts that labels are read from."""
    if not source.computed:
        return {}
    values = derived.descriptors(store, source.computed, workers)
    return {
        f"{_COMPUTED}{name}": [
            None if np.isnan(value) else repr(value) for value in values[:, place].tolist()
        ]
        for place, name in enumerate(source.computed)
    }


def _identity(source: Source, store: Store, workers: int | None) -> tuple[Integers, list[str]]:
    """(code of each stored molecule, what identifies the molecule of each code)."""
    if source.identity == "inchikey":
        return derived.inchikeys(store, workers)
    encoded = store.smiles_array().dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def _units(
    split: Splitting,
    store: Store,
    rows: Integers,
    identity: Integers,
    identities: list[str],
    workers: int | None,
) -> tuple[Integers, list[str]]:
    """(code of the unit of each molecule, text of each unit by code)."""
    if split.by in ("random", "column"):
        return identity, identities
    if split.by == "cluster":
        clusters = butina(derived.fingerprints(store, workers)[rows], split.similarity)
        codes, _ = _whole_molecules(clusters, identity, [])
        _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
        return inverse.astype(np.int64), [identities[code] for code in identity[first].tolist()]
    codes, texts = derived.scaffolds(store, workers)
    codes = codes[rows]
    if split.acyclic == "apart" and "" in texts:
        acyclic = codes == texts.index("")
        codes = np.where(acyclic, len(texts) + identity, codes)
        texts = [*texts, *identities]
    return _whole_molecules(codes, identity, texts)


def _whole_molecules(codes: Integers, identity: Integers, texts: list[str]) -> tuple[Integers, list[str]]:
    """Units of which rows of one molecule share one: that of its first row.

    Two SMILES of one InChIKey may be tautomers with different scaffolds or fingerprints.
    """
    _, first, inverse = np.unique(identity, return_index=True, return_inverse=True)
    return codes[first][inverse], texts
