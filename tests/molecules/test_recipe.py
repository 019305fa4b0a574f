"""The recipe makes a study whose loaders give batches of the store with their ids."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from molecule_files import SMILES
from rdkit import RDConfig

from diptych.evaluation.embeddings import embed
from diptych.graphs.batch import GraphBatch
from diptych.graphs.recipes import GraphCL
from diptych.runs import Run
from diptych.training import TrainerOptions, pretrain
from diptych_molecules.encoders import GIN, Network
from diptych_molecules.recipe import build
from diptych_molecules.settings import Loading, Source, Splitting
from diptych_molecules.study import MoleculeStudy


def study(tmp_path: Path, smiles: list[str], **settings: Any) -> MoleculeStudy:
    path = tmp_path / "molecules.smi"
    path.write_text("\n".join(smiles))
    return build(
        data=Source(path=str(path), computed=["MolLogP"]),
        tasks=["computed MolLogP"],
        split=settings.pop("split", Splitting(by="scaffold", train=0.6, validation=0.2, test=0.2)),
        loader=Loading(cache=str(tmp_path / "cache"), readers=1, **settings.pop("loader", {"batch_size": 8})),
        encoder=settings.pop("encoder", partial(GIN, hidden=8, depth=2)),
        method=GraphCL(hidden=8, width=8),
        optimizer=partial(torch.optim.AdamW, lr=1e-2),
        **settings,
    )


def nci(count: int) -> list[str]:
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    return [line.split()[0] for line in lines[:count]]


def test_a_batch_carries_the_ids_of_samples_molecules_scaffolds_and_atoms(tmp_path: Path) -> None:
    made = study(tmp_path, [*SMILES, "OCC"])
    [batch] = made.plain(np.array([4, 0, 1]))
    view: GraphBatch = batch.views[0]
    groups = batch.groups
    assert groups["sample"].tolist() == [4, 0, 1]
    assert groups["molecule"][0] == groups["molecule"][1] != groups["molecule"][2]
    assert groups["scaffold"][0] == groups["scaffold"][1] != groups["scaffold"][2]
    assert len(groups["part"].unique()) == len(view.nodes) == 3 + 3 + 7
    [alone] = made.plain(np.array([1]))
    assert groups["part"][6:].tolist() == alone.groups["part"].tolist()


def test_units_are_named_by_what_the_split_keeps_together(tmp_path: Path) -> None:
    made = study(tmp_path, SMILES, split=Splitting(by="random"))
    [batch] = made.plain(np.arange(4))
    assert set(batch.groups) == {"sample", "molecule", "part"}


@pytest.mark.parametrize("order", ["random", "similar"])
def test_training_serves_every_molecule_once_and_resumes_in_the_middle(tmp_path: Path, order: str) -> None:
    made = study(tmp_path, nci(60), loader={"batch_size": 8, "order": order, "cluster_size": 16})
    train = made.samples.where("train")
    whole = [batch.groups["sample"].tolist() for batch in made.training(train, 5)]
    assert sorted(sample for batch in whole for sample in batch) == train.tolist()
    later = made.training(train, 5)
    later.start(0, 2)
    assert [batch.groups["sample"].tolist() for batch in later] == whole[2:]


@pytest.mark.parametrize(("count", "batches"), [(9, 1), (10, 2)])
def test_no_molecule_is_left_alone_in_a_batch(tmp_path: Path, count: int, batches: int) -> None:
    made = study(tmp_path, nci(60))
    sizes = [len(batch.groups["sample"]) for batch in made.training(np.arange(count), 0)]
    assert len(sizes) == batches
    assert min(sizes) > 1


@pytest.mark.parametrize(
    "encoder",
    [
        partial(GIN, hidden=8, depth=2),
        partial(Network, "torch_geometric.nn.GAT", options={"hidden_channels": 8, "num_layers": 2}),
    ],
    ids=["GIN", "GAT of torch-geometric"],
)
def test_pretraining_takes_unusual_molecules(tmp_path: Path, encoder: Any) -> None:
    """Salts, single atoms, dummies, metals and 500 atoms in one run, with finite embeddings of each alone."""
    from naive_molecules import UNUSUAL

    made = study(tmp_path, UNUSUAL, encoder=encoder)
    run = Run.create(str(tmp_path / "runs"), "check", "molecules")
    options = TrainerOptions(max_steps=3, accelerator="cpu", devices=1, progress="off")
    trained = pretrain(made, run, trainer=options, seed=0).encoder
    together = embed(trained, made.plain(np.arange(len(UNUSUAL))), "cpu")
    assert np.isfinite(together).all()
    alone = np.concatenate([embed(trained, made.plain(np.array([i])), "cpu") for i in range(len(UNUSUAL))])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("features", "width"), [("fingerprints", 1024), ("descriptors", 217)])
def test_hand_made_features_are_rows_of_the_indices(tmp_path: Path, features: str, width: int) -> None:
    made = study(tmp_path, SMILES, features=features)
    assert made.baseline is not None
    forth, back = (made.baseline(np.array(order)).values for order in ([0, 1, 3], [3, 1, 0]))
    assert forth.shape[0] == 3
    assert forth.shape[1] >= min(width, 200)
    np.testing.assert_array_equal(forth, back[::-1])
