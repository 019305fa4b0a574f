"""``diptych molecules embed DATA OUT``: any file of SMILES, with where each row stands, and without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluated_molecules import run_folder

import diptych_molecules
from diptych_pipelines.main import main

SPLIT = {"by": "random"}


def test_rows_say_where_they_stand_and_need_no_label(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = run_folder(tmp_path, ["CCO", "c1ccccc1"], SPLIT)
    config = run / "config.yaml"
    config.write_text(config.read_text() + "\nlabels: {active: {column: active}}\n")  # which the file has not
    data = tmp_path / "in.smi"
    data.write_text("OCC ethanol\nnonsense x\nc1ccccc1 benzene\n")
    out = tmp_path / "out.parquet"
    words = ["molecules", "embed", str(data), str(out), "--run", str(run), "--data.max_quarantined", "0.5"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--device", "cpu"])
    assert int(left.value.code or 0) == 0, capsys.readouterr().err
    frame = pd.read_parquet(out)
    assert frame["file"].tolist() == ["in.smi", "in.smi"]
    assert frame["row"].tolist() == [0, 2]
    assert frame["smiles"].tolist() == ["CCO", "c1ccccc1"]
    rows = frame[[name for name in frame if name[0] == "e" and name[1:].isdigit()]].to_numpy()
    np.testing.assert_allclose(rows, diptych_molecules.embed(["CCO", "c1ccccc1"], run=run), atol=1e-6)
