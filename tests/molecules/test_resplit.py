"""Random splits of rows are the literature's, and copies of a molecule on both sides are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluated_molecules import labelled, study_of

from diptych.errors import ConfigError
from diptych_molecules.evaluators.frozen import NearestNeighbours
from diptych_molecules.resplit import copies_notes, samples_of
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import prepare_tasks


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> MoleculeStudy:
    """103 rows: 80 molecules, some of them two or three times."""
    frame = labelled(80)
    again = frame.iloc[[3, 3, *range(10, 31)]].copy()
    return study_of(tmp_path_factory.mktemp("copied"), pd.concat([frame, again], ignore_index=True))


@pytest.mark.parametrize("seed", [0, 7])
def test_rows_are_dealt_out_by_numpys_permutation(copied: MoleculeStudy, seed: int) -> None:
    [(name, samples)] = samples_of(copied.molecules, "rows", (seed,)).items()
    order = np.random.RandomState(seed).permutation(103)
    assert name == f"rows {seed}"
    assert samples.where("train").tolist() == sorted(order[:82])
    assert samples.where("validation").tolist() == sorted(order[82:92])
    assert samples.where("test").tolist() == sorted(order[92:])
    assert samples.ids["patient"].is_unique
    assert prepare_tasks({name: samples}, ["large"]).targets[0][0].test.tolist()
    assert samples.words.unit == "row"


def test_without_seeds_rows_are_those_of_seed_0(copied: MoleculeStudy) -> None:
    assert list(samples_of(copied.molecules, "rows", ())) == ["rows 0"]


def test_copies_across_are_counted_and_random_has_none(copied: MoleculeStudy) -> None:
    found = samples_of(copied.molecules, "rows", (0, 1, 2))
    smiles = np.array(copied.molecules.smiles())
    expected = []
    for name, samples in found.items():
        train = set(smiles[samples.where("train")])
        tested = smiles[samples.where("test")]
        copies = sum(text in train for text in tested)
        assert copies, "the seeds were chosen to have some"
        expected.append(f"{name}: {copies} of {len(tested)} test rows are copies of training molecules")
    notes = copies_notes(copied.molecules, found)
    assert [note.partition(", as in")[0] for note in notes] == expected
    assert copies_notes(copied.molecules, samples_of(copied.molecules, "random", (0, 1, 2))) == []


def test_unparsable_rows_are_not_counted_among_the_rows(tmp_path: Path) -> None:
    """The literature's permutation is over the molecules that could be read."""
    frame = labelled(40)
    frame.loc[5, "smiles"] = "no molecule"
    study = study_of(tmp_path / "bad", frame)
    [samples] = samples_of(study.molecules, "rows", (1,)).values()
    order = np.random.RandomState(1).permutation(39)
    assert samples.where("test").tolist() == sorted(order[31 + 3 :])


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_that_numpy_does_not_take_are_refused_before_data_are_read(seed: int) -> None:
    with pytest.raises(ConfigError, match=rf"split_seeds are from 0 to 4294967295; got {seed}"):
        NearestNeighbours(splits="rows", split_seeds=(0, seed))
    NearestNeighbours(splits="rows", split_seeds=(0, 2**32 - 1))
