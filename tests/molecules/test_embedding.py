"""From SMILES to embeddings in one call."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from evaluated_molecules import labelled, run_folder, study_of

import diptych_molecules
from diptych.errors import ConfigError, DataError, UserError
from diptych.evaluation.embeddings import embed as embed_batches

SPLIT = {"by": "random"}


def test_embeddings_are_those_of_the_runs_encoder_in_the_order_of_the_smiles(tmp_path: Path) -> None:
    run, encoder = run_folder(tmp_path, ["CCO", "c1ccccc1"], SPLIT)
    study = study_of(tmp_path / "study", labelled(30))
    wanted = embed_batches(encoder, study.plain(np.arange(30)), "cpu")
    found = diptych_molecules.embed(study.molecules.smiles(), run=run, batch_size=7, device="cpu")
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert found.dtype == np.float32
    assert diptych_molecules.embed([], run=run).shape == (0, 5)


def test_a_smiles_that_cannot_be_read_is_a_row_of_nan_or_an_error(tmp_path: Path) -> None:
    run, _ = run_folder(tmp_path, ["CCO", "c1ccccc1"], SPLIT)
    found = diptych_molecules.embed(["CCO", "C(C)(C)(C)(C)C", "OCC", ""], run=run, device="cpu")
    np.testing.assert_allclose(found[0], found[2], atol=1e-6)
    assert np.isnan(found).all(axis=1).tolist() == [False, True, False, True]
    with pytest.raises(DataError, match=r"2 of 3 SMILES cannot be read; the first is number 1, .* valence"):
        diptych_molecules.embed(["CCO", "C(C)(C)(C)(C)C", ""], run=run, invalid="raise")


def test_what_is_no_list_of_smiles_or_no_run_is_refused(tmp_path: Path) -> None:
    run, _ = run_folder(tmp_path, ["CCO", "c1ccccc1"], SPLIT)
    with pytest.raises(ConfigError, match=r"expected a list of SMILES, came the text 'CCO'; give \['CCO'\]"):
        diptych_molecules.embed("CCO", run=run)
    with pytest.raises(ConfigError, match="invalid is 'nan' or 'raise'; got 'skip'"):
        diptych_molecules.embed(["CCO"], run=run, invalid="skip")
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
        diptych_molecules.embed(["CCO"], run=tmp_path)
    (run / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no encoder\.safetensors: the run did not end"):
        diptych_molecules.embed(["CCO"], run=run)


def test_importing_the_domain_stays_light() -> None:
    code = "import sys, diptych_molecules; print([name for name in ('torch', 'rdkit', 'numpy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
