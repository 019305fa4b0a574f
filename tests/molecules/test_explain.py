"""What atoms attend to is printed and drawn, from a run whose encoder has relations; other runs say why not."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from graphs_of import graph_of

from diptych.errors import ConfigError, UserError
from diptych.weights import save_encoder
from diptych_molecules.explain import attended, explain
from diptych_molecules.gcn import GCN
from diptych_molecules.kcl import Pair
from diptych_molecules.kmpnn import KMPNN

SALT = "[Na+].CC(=O)[O-]"
QUICK = partial(KMPNN, steps=2, iterations=1)
KMPNN_CONFIG = {"class_path": "diptych_molecules.kmpnn.KMPNN", "init_args": {"steps": 2, "iterations": 1}}


def run_of(folder: Path, encoder: torch.nn.Module, config: object) -> str:
    """A run's folder as far as an explanation reads it."""
    folder.mkdir()
    content = {
        "data": {"path": "nowhere.csv"},
        "encoder": config,
        "method": {"class_path": "diptych_molecules.kcl.KCL"},
        "optimizer": {"class_path": "torch.optim.Adam"},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(content))
    save_encoder(encoder, folder / "encoder.safetensors")
    return str(folder)


@pytest.fixture
def run(tmp_path: Path) -> str:
    torch.manual_seed(0)
    return run_of(tmp_path / "run", QUICK(), KMPNN_CONFIG)


def test_the_table_has_each_atom_s_largest_shares(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    encoder = QUICK()
    explain(SALT, run=run, step=2)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("step 2")
    assert len(lines) == 6
    shares = encoder.attend(graph_of([SALT]))[1].relations
    for atom, (line, symbol) in enumerate(zip(lines[1:], ["Na", "C", "C", "O", "O"], strict=True)):
        assert line.split()[:2] == [str(atom), symbol]
        printed = [float(number) for number in re.findall(r" (\d\.\d{3})", line)]
        assert printed == pytest.approx(shares[atom].sort(descending=True).values[:3].tolist(), abs=6e-4)


def test_the_mean_over_steps_is_the_default() -> None:
    torch.manual_seed(0)
    encoder = QUICK()
    steps = [attended(encoder, "CO", step).shares for step in (1, 2)]
    torch.testing.assert_close(attended(encoder, "CO").shares, torch.stack(steps).mean(0))
    assert not torch.allclose(*steps)


@pytest.mark.parametrize("relation", [None, "density"])
@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_molecule_is_drawn(
    run: str, tmp_path: Path, suffix: str, relation: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"picture{suffix}"
    explain("*CC(=O)Oc1ccccc1", run=run, out=str(out), relation=relation)
    content = out.read_bytes()
    assert content.startswith(b"<?xml" if suffix == ".svg" else b"\x89PNG")
    printed = capsys.readouterr().out
    assert "   0 *   no attribute values" in printed.splitlines()
    assert printed.splitlines()[-1] == str(out)
    if suffix == ".svg":
        text = content.decode()
        assert text.rstrip().endswith("</svg>")
        assert text.count("<ellipse") == (
            11 if relation else 10
        )  # an atom each, the dummy atom only with a share


def test_a_pair_is_explained_by_the_kmpnn_that_it_holds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"class_path": "diptych_molecules.kcl.Pair", "init_args": {"augmented": KMPNN_CONFIG}}
    pair = run_of(tmp_path / "pair", Pair(None, QUICK), config)
    explain("CO", run=pair)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_what_cannot_be_explained_is_said(run: str, tmp_path: Path) -> None:
    plain = run_of(tmp_path / "plain", GCN(), {"class_path": "diptych_molecules.gcn.GCN"})
    with pytest.raises(
        UserError, match="is a GCN, which has no relations of elements to attend to; give a run"
    ):
        explain("CO", run=plain)
    with pytest.raises(UserError, match="SMILES 0 cannot be used"):
        explain("C(", run=run)
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.yaml"):
        explain("CO", run=str(tmp_path))
    with pytest.raises(ConfigError, match=r"a picture ends in \.svg or \.png, got 'x\.pdf'"):
        explain("CO", run=run, out="x.pdf")
    with pytest.raises(ConfigError, match="passes messages in steps 1 to 2, got step 3"):
        explain("CO", run=run, step=3)
    with pytest.raises(ConfigError, match="there is no relation 'densty'; did you mean 'density'"):
        explain("CO", run=run, relation="densty")
    (tmp_path / "run" / "encoder.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no encoder\.safetensors: the run did not end"):
        explain("CO", run=run)
