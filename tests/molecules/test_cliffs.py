"""Activity cliffs are scored apart, on the molecules that the data mark."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evaluated_molecules import Counts, labelled, study_of

from diptych.errors import ConfigError, DataError
from diptych_molecules.cliffs import marked_cliffs
from diptych_molecules.evaluators.frozen import LinearProbe
from diptych_molecules.scoring import Contender, Trial, compare_tasks
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import prepare_tasks

LEVEL = "activity-cliff molecule"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> MoleculeStudy:
    frame = labelled().assign(never=0, number=np.arange(120) % 7)
    return study_of(tmp_path_factory.mktemp("study"), frame, ["logp", "cliff", "never", "number"])


def test_the_error_at_cliffs_is_that_of_the_marked_test_molecules(study: MoleculeStudy) -> None:
    tasks = prepare_tasks({"random": study.samples}, ["logp"])
    target = tasks.targets[0][0]
    predicted = target.values[target.test] + np.random.default_rng(0).normal(size=len(target.test))
    contender = Contender(name="one", fraction=1.0, trials=[Trial(0, (predicted,), 1, 1)])
    table = compare_tasks(
        tasks, [contender], title="", draws=20, marked=marked_cliffs(study.samples, "cliff")
    )
    squares = []
    for place, row in enumerate(target.rows[target.test].tolist()):
        if study.samples.labels["cliff"].iloc[row] == 1:
            squares.append((predicted[place] - target.values[target.test][place]) ** 2)
    assert 0 < len(squares) < len(target.test)
    assert table.score("one", "RMSE", LEVEL).value == pytest.approx(np.sqrt(np.mean(squares)), abs=1e-12)
    whole = np.sqrt(np.mean((predicted - target.values[target.test]) ** 2))
    assert table.score("one", "RMSE", "sample").value == pytest.approx(whole, abs=1e-12)


def test_the_column_that_marks_them_is_no_task(study: MoleculeStudy) -> None:
    torch.manual_seed(0)
    three = study.samples.labels[["logp", "number", "cliff"]]
    from dataclasses import replace

    samples = replace(study.samples, labels=three)
    other = replace(study, samples=samples, molecules=replace(study.molecules, samples=samples))
    table = LinearProbe(
        task="regression", seeds=1, draws=20, cliffs="cliff", baselines=("constant",), device="cpu"
    )(other, Counts())
    assert table.levels == [
        "molecule, mean of 2 tasks",
        "molecule, logp",
        "molecule, number",
        f"{LEVEL}, molecule, mean of 2 tasks",
    ]


@pytest.mark.parametrize(
    ("column", "error", "message"),
    [
        ("clif", ConfigError, "there is no label 'clif'; did you mean 'cliff'"),
        (
            "number",
            ConfigError,
            "the label 'number' holds '2.0'; expected 0 and 1, true and false, or yes and no",
        ),
        ("never", DataError, "the label 'never' marks no molecule; leave cliffs out, or give another column"),
    ],
)
def test_a_column_that_cannot_mark_is_refused(
    study: MoleculeStudy, column: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        marked_cliffs(study.samples, column)
