"""Baselines of molecules against their literal forms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from evaluated_molecules import labelled, study_of
from rdkit import Chem
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from diptych.errors import ConfigError
from diptych.evaluation.linear_model import fit_linear
from diptych_molecules.baselines import BITS, all_descriptors, baseline_rows, ecfp, with_ecfp
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import Tasks, prepare_tasks


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> MoleculeStudy:
    return study_of(tmp_path_factory.mktemp("study"), labelled(), ["large", "nitrogen", "logp"])


def tasks_of(study: MoleculeStudy, *labels: str) -> Tasks:
    return prepare_tasks({"random": study.samples}, labels)


def dense(study: MoleculeStudy) -> np.ndarray:
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=BITS)
    mols = [Chem.MolFromSmiles(text) for text in study.molecules.smiles()]
    return np.stack([generator.GetCountFingerprintAsNumPy(mol) for mol in mols]).astype(np.float64)


def test_fingerprints_are_those_of_rdkit(study: MoleculeStudy) -> None:
    np.testing.assert_array_equal(ecfp(study.molecules.smiles()).toarray(), dense(study))
    assert ecfp([]).shape == (0, BITS)


def test_the_forest_is_that_on_dense_fingerprints(study: MoleculeStudy) -> None:
    tasks = tasks_of(study, "nitrogen")
    [contender], _ = baseline_rows(study.molecules, tasks, ["forest"], (1.0,), 2)
    target = tasks.targets[0][0]
    counts = dense(study)[target.rows]
    for seed, trial in enumerate(contender.trials):
        forest = RandomForestClassifier(200, random_state=seed)
        forest.fit(counts[target.train], target.codes[target.train])
        np.testing.assert_allclose(
            trial.predictions[0], forest.predict_proba(counts[target.test]), atol=1e-12
        )
    assert len(contender.trials) == 2


def test_the_linear_row_is_logistic_regression_on_logarithms_of_counts(study: MoleculeStudy) -> None:
    tasks = tasks_of(study, "large")
    [contender], _ = baseline_rows(study.molecules, tasks, ["linear"], (1.0,), 3)
    [trial] = contender.trials  # seeds make no difference
    target = tasks.targets[0][0]
    logs = np.log1p(dense(study)[target.rows])
    strength = fit_linear(logs, target, target.train, standardise=False).strength
    model = LogisticRegression(C=strength, max_iter=2000).fit(logs[target.train], target.codes[target.train])
    np.testing.assert_allclose(trial.predictions[0], model.predict_proba(logs[target.test]), atol=1e-3)


def test_the_constant_row_says_the_share_of_the_training_labels(study: MoleculeStudy) -> None:
    tasks = tasks_of(study, "nitrogen")
    [contender], notes = baseline_rows(study.molecules, tasks, ["constant"], (1.0,), 3)
    target = tasks.targets[0][0]
    share = target.codes[target.train].mean()
    np.testing.assert_allclose(contender.trials[0].predictions[0], [[1 - share, share]] * len(target.test))
    assert contender.constant
    assert notes == []


def test_gradient_boosting_on_descriptors_learns_what_descriptors_say(study: MoleculeStudy) -> None:
    tasks = tasks_of(study, "logp")
    [contender], _ = baseline_rows(study.molecules, tasks, ["boosting"], (1.0,), 3)
    target = tasks.targets[0][0]
    error = contender.trials[0].predictions[0] - target.values[target.test]
    assert np.mean(error**2) < 0.2 * np.var(target.values[target.test])


def test_descriptors_are_finite_or_missing_and_leave_the_unbounded_one_out(tmp_path: Path) -> None:
    frame = labelled(6)
    frame.loc[0, "smiles"] = "[Na+].[Cl-]"  # of ions alone some descriptors are not defined
    values = all_descriptors(study_of(tmp_path, frame).molecules)
    assert values.shape == (6, len(Descriptors.descList) - 3)
    assert not np.isinf(values).any()
    assert np.isnan(values[0]).any()
    assert not np.isnan(values[1:]).all(axis=1).any()


def test_side_by_side_with_fingerprints_both_parts_are_used(study: MoleculeStudy) -> None:
    target = tasks_of(study, "large").targets[0][0]
    truth = np.zeros((len(study.samples), 1))
    truth[target.rows, 0] = 1000 * target.codes + 5
    found = with_ecfp(study.molecules, truth)(target, target.train, 0)
    assert (found.argmax(axis=1) == target.codes[target.test]).all()
    nothing = with_ecfp(study.molecules, np.zeros((len(study.samples), 1)))(target, target.train, 0)
    [alone], _ = baseline_rows(study.molecules, tasks_of(study, "large"), ["linear"], (1.0,), 1)
    np.testing.assert_allclose(nothing, alone.trials[0].predictions[0], atol=1e-6)


def test_an_unknown_baseline_is_refused(study: MoleculeStudy) -> None:
    with pytest.raises(ConfigError, match="there is no baseline 'forrest'; did you mean 'forest'"):
        baseline_rows(study.molecules, tasks_of(study, "large"), ["forrest"], (1.0,), 1)
