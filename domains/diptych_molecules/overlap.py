"""What an encoder has seen of the molecules it is tested on: the molecules themselves, and their scaffolds.

Pretraining needs no label, so an overlap is no leak; but it is told, since a result on molecules that were never seen
may be another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.data.atomic import replacing
from diptych.data.identity import pseudonym_salt, salt_fingerprint, salted_key
from diptych.errors import UserError
from diptych_molecules.settings import Splitting
from diptych_molecules.source import Molecules, prepare
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import Tasks

FILE = "pretrained_on.npz"
MOLECULES = Splitting(by="random")
SCAFFOLDS = Splitting(by="scaffold", acyclic="apart")  # a molecule without rings has no scaffold to share

Keys = NDArray[np.uint64]


class Seen(NamedTuple):
    """Keys of what a run was pretrained on, sorted."""

    molecules: Keys
    scaffolds: Keys


def overlap_notes(study: MoleculeStudy, tasks: Tasks, run_splits: str | Path | None) -> list[str]:
    """How many test molecules, and how many of their scaffolds, the run of this ``splits.csv`` was pretrained on.

    [] where there is no run. Where the run's data are no longer at hand, a note says that it is not known.
    """
    if run_splits is None or not Path(run_splits).with_name("config.yaml").is_file():
        return []
    try:
        seen = pretrained_on(Path(run_splits).parent)
    except UserError as error:
        return [
            f"whether test molecules were among those of pretraining is not known: {str(error).splitlines()[0]}"
        ]
    molecules, scaffolds = (keys_of(study.molecules, by) for by in (MOLECULES, SCAFFOLDS))
    notes = []
    for name, targets in zip(tasks.splits, tasks.targets, strict=True):
        rows = np.unique(np.concatenate([target.rows[target.test] for target in targets]))
        tested, rings = np.unique(molecules[rows]), np.unique(scaffolds[rows])
        same, alike = np.isin(tested, seen.molecules).sum(), np.isin(rings, seen.scaffolds).sum()
        which = f" ({name})" if len(tasks.splits) > 1 else ""
        notes.append(
            f"of {len(tested)} test molecules{which}, {same} were in pretraining, without labels; of their "
            f"{len(rings)} scaffolds, {alike} (an acyclic molecule counts as its own)"
        )
    return notes


def pretrained_on(run: Path) -> Seen:
    """What the run in a folder was pretrained on.

    Found in the cache of featurised molecules the first time, and kept in the run folder.

    Raises:
        UserError: the molecules of the run are no longer there.
    """
    path = run / FILE
    salt = np.frombuffer(salt_fingerprint().encode(), np.uint8)
    if path.is_file():
        with np.load(path, allow_pickle=False) as file:
            if np.array_equal(file["salt"], salt):
                return Seen(file["molecules"], file["scaffolds"])
    settings = _settings(run)
    loader = settings["loader"]
    found = prepare(settings["data"], {}, None, settings["split"], cache=loader.cache, workers=loader.readers)
    rows = found.samples.where("train")
    seen = Seen(*(np.unique(keys_of(found, by)[rows]) for by in (MOLECULES, SCAFFOLDS)))
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, salt=salt, **seen._asdict())
    return seen


def keys_of(molecules: Molecules, by: Splitting) -> Keys:
    """(n,) a salted key of the unit that each molecule belongs to; the same in every data set."""
    codes, texts = molecules.units(by)
    salt = pseudonym_salt()
    used, inverse = np.unique(codes, return_inverse=True)
    keys = [int(salted_key(salt, f"{by.by}:{texts[code]}"), 16) for code in used.tolist()]
    return np.array(keys, np.uint64)[inverse]


def _settings(run: Path) -> Mapping[str, Any]:
    """The checked settings of a run's config."""
    from diptych.discovery import find_domain
    from diptych.settings.plans import plan_of_run

    return plan_of_run(find_domain("molecules"), run, ()).resolved.values
