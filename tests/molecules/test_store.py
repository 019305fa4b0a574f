"""The store gives what a reference by molecule gives, survives kills and damage, and refuses other versions."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import naive_molecules
import numpy as np
import pytest
from rdkit import Chem, RDConfig

from diptych.errors import DataError
from diptych_molecules import chunks
from diptych_molecules.chunks import Job
from diptych_molecules.parse import Standard
from diptych_molecules.store import Store, make_store


def jobs(smiles: list[str], drop_isolated: bool = False) -> list[Job]:
    return chunks.jobs(smiles, "smiles", Standard(), drop_isolated)


def nci(count: int) -> list[str]:
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    return [line.split()[0] for line in lines[:count]]


def assert_batch_is(store: Store, indices: list[int], mols: list[Chem.Mol]) -> None:
    batch = store.batch(np.array(indices, np.int64))
    atoms, edges, features, graph = [], [], [], []
    for number, mol in enumerate(mols):
        rows, ends, bonds = naive_molecules.codes(mol)
        edges += [[len(atoms) + one, len(atoms) + other] for one, other in ends]
        atoms += rows
        features += bonds
        graph += [number] * len(rows)
    assert batch.nodes.tolist() == atoms
    assert batch.edges.T.tolist() == edges
    assert batch.edge_features is not None
    assert batch.edge_features.tolist() == features
    assert batch.graph.tolist() == graph
    assert batch.graphs == len(mols)


def test_batch_equals_reference_on_unusual_molecules(tmp_path: Path) -> None:
    store, _ = make_store(jobs(naive_molecules.UNUSUAL), tmp_path, workers=1)
    assert not store.rejected
    mols = [Chem.MolFromSmiles(smiles) for smiles in naive_molecules.UNUSUAL]
    order = [3, 0, 19, 7, 7, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]
    assert_batch_is(store, order, [mols[i] for i in order])


def test_batch_equals_reference_on_real_molecules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 128)
    smiles = nci(500)
    mols = {row: mol for row, each in enumerate(smiles) if (mol := Chem.MolFromSmiles(each)) is not None}
    store, _ = make_store(jobs(smiles), tmp_path, workers=1)
    assert store.rows.tolist() == list(mols)
    order = np.random.default_rng(0).permutation(len(store)).tolist()
    rows = store.rows.tolist()
    assert_batch_is(store, order, [mols[rows[i]] for i in order])


def test_an_empty_batch_has_no_graphs(tmp_path: Path) -> None:
    store, _ = make_store(jobs(["CCO"]), tmp_path, workers=1)
    batch = store.batch(np.zeros(0, np.int64))
    assert (batch.graphs, batch.nodes.shape, batch.edges.shape) == (0, (0, 7), (2, 0))


def test_dropping_isolated_atoms_keeps_bonds_and_may_leave_a_graph_empty(tmp_path: Path) -> None:
    store, _ = make_store(
        jobs(["[Na+].CC(=O)[O-].[Na+]", "C", "OC"], drop_isolated=True), tmp_path, workers=1
    )
    batch = store.batch(np.array([0, 1, 2]))
    assert batch.graph.tolist() == [0, 0, 0, 0, 2, 2]
    assert batch.nodes[:, 0].tolist() == [6, 6, 8, 8, 8, 6]
    assert batch.edges.tolist() == [[0, 1, 1, 2, 1, 3, 4, 5], [1, 0, 2, 1, 3, 1, 5, 4]]


def test_atom_ids_are_unique_and_follow_the_atom(tmp_path: Path) -> None:
    store, _ = make_store(jobs(["CCO", "C", "N#N"]), tmp_path, workers=1)
    everything = store.atom_ids(np.array([0, 1, 2]))
    assert len(np.unique(everything)) == len(everything) == 6
    np.testing.assert_array_equal(store.atom_ids(np.array([2, 0])), np.r_[everything[4:], everything[:3]])


def test_rejected_rows_have_their_numbers_and_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "CHUNK", 2)
    store, _ = make_store(jobs(["C", "C1CC", "", "CC", "c1cccc1C"]), tmp_path, workers=1)
    assert store.rejected == [
        (1, "not parsed: unclosed ring"),
        (2, "empty: no structure in this row"),
        (4, "not kekulised: Can't kekulize mol. Unkekulized atoms: 0 1 2 3 4"),
    ]
    assert store.rows.tolist() == [0, 3]
    assert store.all_smiles() == ["C", "CC"]


def test_a_store_is_found_again_and_another_setting_is_another_store(tmp_path: Path) -> None:
    _, fate = make_store(jobs(["[Na+].CO"]), tmp_path, workers=1)
    again, second = make_store(jobs(["[Na+].CO"]), tmp_path, workers=1)
    other, third = make_store(jobs(["[Na+].CO"], drop_isolated=True), tmp_path, workers=1)
    assert (fate, second, third) == ("made now", "found", "made now")
    assert (again.atom_counts(np.array([0])), other.atom_counts(np.array([0]))) == (3, 2)


def test_a_store_of_another_version_is_refused_and_made_anew(tmp_path: Path) -> None:
    store, _ = make_store(jobs(["CO"]), tmp_path, workers=1)
    meta = json.loads((store.folder / "store.json").read_text())
    (store.folder / "store.json").write_text(json.dumps({**meta, "version": 0}))
    with pytest.raises(DataError, match=r"was made by version 0, and this is version 1; make it again"):
        Store(store.folder)
    again, fate = make_store(jobs(["CO"]), tmp_path, workers=1)
    assert fate.startswith("made anew: the store of molecules")
    assert again.smiles(0) == "CO"


@pytest.mark.parametrize("name", ["atoms", "bonds", "text_starts"])
def test_a_truncated_store_is_refused_and_made_anew(tmp_path: Path, name: str) -> None:
    store, _ = make_store(jobs(["CO", "CN"]), tmp_path, workers=1)
    path = store.folder / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"is damaged: {name}.npy has \d+ bytes instead of \d+"):
        Store(store.folder)
    again, fate = make_store(jobs(["CO", "CN"]), tmp_path, workers=1)
    assert "is damaged" in fate
    assert again.all_smiles() == ["CO", "CN"]


def test_a_folder_that_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"is no whole store of molecules: its store.json is missing or damaged"
    ):
        Store(tmp_path)


def test_a_sent_store_reads_its_files_itself(tmp_path: Path) -> None:
    store, _ = make_store(jobs(["CO", "CN"]), tmp_path, workers=1)
    store.batch(np.array([0, 1]))
    sent = pickle.dumps(store)
    assert len(sent) < 1000
    assert pickle.loads(sent).smiles(1) == "CN"


_KILLED = """
import sys
from pathlib import Path
from test_store import jobs, nci
from diptych_molecules import chunks
from diptych_molecules.store import make_store
chunks.CHUNK = 64
make_store(jobs(nci(2000)), Path(sys.argv[1]), workers=1)
"""


def test_a_killed_run_goes_on_with_the_missing_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    process = subprocess.Popen([sys.executable, "-c", _KILLED, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 300
    while process.poll() is None and len(list(tmp_path.glob("chunks/*/*.npz"))) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("chunks/*/[!.]*.npz")}
    assert before, "the run was over before it could be killed"
    assert not list(tmp_path.glob("stores/*/store.json"))
    made: list[Path] = []
    store_chunk = chunks.store

    def counting(job: Job, target: Path) -> None:
        made.append(target.with_suffix(".npz"))
        store_chunk(job, target)

    monkeypatch.setattr(chunks, "CHUNK", 64)
    monkeypatch.setattr(chunks, "store", counting)
    resumed, _ = make_store(jobs(nci(2000)), tmp_path, workers=1)
    assert not set(before) & set(made)
    assert len(before) + len(made) == -(-2000 // 64)
    whole, _ = make_store(jobs(nci(2000)), tmp_path / "other", workers=1)
    assert resumed.all_smiles() == whole.all_smiles()
    for name in ("atoms", "ends", "bonds"):
        np.testing.assert_array_equal(
            np.load(resumed.folder / f"{name}.npy"), np.load(whole.folder / f"{name}.npy")
        )
    assert not list(tmp_path.glob("chunks/*/*.npz"))


def test_a_damaged_chunk_is_made_again(tmp_path: Path) -> None:
    [job] = jobs(["CO", "CN"])
    target = tmp_path / "chunks" / job.key[:2] / job.key
    target.parent.mkdir(parents=True)
    chunks.store(job, target)
    path = target.with_suffix(".npz")
    path.write_bytes(path.read_bytes()[:200])
    store, _ = make_store([job], tmp_path, workers=1)
    assert store.all_smiles() == ["CO", "CN"]


_MAKES = """
import sys
from pathlib import Path
import test_store
from diptych_molecules import chunks, derived
from diptych_molecules.store import make_store

chunks.CHUNK = 64
derived.slices = lambda count: chunks.slices(count, 64)
store, fate = make_store(test_store.jobs(test_store.nci(1500)), Path(sys.argv[1]), workers=1)
print(fate, len(store), derived.fingerprints(store, 1).shape[0], len(derived.scaffolds(store, 1)[0]))
"""


def test_processes_that_want_the_same_molecules_at_once_share_one_store(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _MAKES, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    told = sorted(process.communicate(timeout=300)[0].split("\n")[0] for process in processes)
    assert [process.returncode for process in processes] == [0, 0, 0]
    count = len(make_store(jobs(nci(1500)), tmp_path / "other", workers=1)[0])
    assert told == [f"found {count} {count} {count}"] * 2 + [f"made now {count} {count} {count}"]
    assert len(list(tmp_path.glob("stores/*"))) == 1
