"""Duplicates, labels, ids and the report of a data set of molecules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from molecule_files import from_texts

from diptych.data.identity import pseudonym_salt, salted_key
from diptych.data.labels import Label
from diptych.data.leaks import check_leaks
from diptych.errors import ConfigError, DataError
from diptych_molecules.settings import Splitting

# Ethanol three times in two spellings, aniline twice, one molecule alone.
REPEATED = (
    "smiles,y,active,kind\nCCO,1.0,1,a\nOCC,3.0,0,a\nNc1ccccc1,5,1,b\nc1ccccc1N,5,1,c\nC(O)C,,1,\nCC,7,0,d\n"
)


def test_duplicates_are_kept_counted_and_share_ids_and_split(tmp_path: Path) -> None:
    found = from_texts(tmp_path / "data", REPEATED, tasks=["y", "active"])
    assert len(found) == 6
    ids = found.samples.ids
    assert ids["recording"].nunique() == 3
    assert ids.groupby("recording")["split"].nunique().max() == 1
    assert found.report["duplicates"] == (
        "3 rows repeat a molecule (same inchikey); molecules whose rows differ in a label: y (1), active (1); "
        "all rows are kept"
    )


def test_merged_duplicates_average_numbers_and_lose_contradictory_classes(tmp_path: Path) -> None:
    found = from_texts(
        tmp_path / "data",
        REPEATED,
        labels={"kind": Label(column="kind")},
        tasks=["y", "active"],
        duplicates="merge",
    )
    assert found.smiles() == ["CCO", "Nc1ccccc1", "CC"]
    labels = found.samples.labels
    assert labels["y"].tolist() == [2.0, 5.0, 7.0]
    np.testing.assert_array_equal(labels["active"], [np.nan, 1, 0])
    assert labels["kind"].tolist() == ["a", None, "d"]
    assert found.report["duplicates"].endswith("the first row of each is kept, labels merged")


def test_inchikey_joins_what_canonical_smiles_does_not(tmp_path: Path) -> None:
    """A tautomer of mobile hydrogens: one InChIKey, two SMILES."""
    lines = "smiles\nOc1ccccn1\nO=c1cccc[nH]1\n"
    by_key = from_texts(tmp_path / "data", lines)
    by_smiles = from_texts(tmp_path / "data", lines, identity="smiles")
    assert by_key.samples.ids["recording"].nunique() == 1
    assert by_smiles.samples.ids["recording"].nunique() == 2


def test_tautomers_of_one_inchikey_share_the_scaffold_of_the_first(tmp_path: Path) -> None:
    lines = "smiles\nOc1ccccn1\nO=c1cccc[nH]1\nCO\n"
    found = from_texts(tmp_path / "data", lines, split=Splitting(by="scaffold"))
    patients = found.samples.ids["patient"].tolist()
    assert patients[0] == patients[1] != patients[2]
    check_leaks(found.samples.ids, found.samples.manifest, found.samples.words)


def test_keys_are_salted_and_the_same_in_every_data_set(tmp_path: Path) -> None:
    split = Splitting(by="scaffold")
    one = from_texts(tmp_path / "data", "smiles\nCc1ccccc1\nCO\n", split=split)
    other = from_texts(tmp_path / "data", "smiles\nN\nc1ccccc1CC\nOC\n", split=split)
    assert one.samples.ids["patient"][0] == other.samples.ids["patient"][1]
    assert one.samples.ids["recording"][1] == other.samples.ids["recording"][2]
    assert one.samples.ids["patient"][0] == salted_key(pseudonym_salt(), "scaffold:c1ccccc1")
    assert one.molecule_ids[1] == other.molecule_ids[2]
    assert one.unit_ids[0] == other.unit_ids[1]


def test_tasks_all_takes_numeric_columns_and_leaves_texts_and_labels_alone(tmp_path: Path) -> None:
    lines = "smiles,name,a,b,c,blank\nC,x,1,0.5,0,\nCC,y,,1.5,1,\nCCC,z,0,x,1,\n" + "".join(
        f"{'C' * n},n{n},1,{n},0,\n" for n in range(4, 14)
    )
    found = from_texts(tmp_path / "data", lines, labels={"see": Label(column="c")}, tasks="all")
    assert found.tasks == {"see": "classification", "a": "classification", "b": "regression"}
    assert (
        found.report["label b"] == "12 known, 1 missing, of these 1 with a text that is no number or no class"
    )


def test_a_label_that_is_no_number_is_missing_and_counted(tmp_path: Path) -> None:
    found = from_texts(tmp_path / "data", "smiles,y\nC,1.5\nCC,n.d.\nCCC,\n", tasks=["y"])
    np.testing.assert_array_equal(found.samples.labels["y"], [1.5, np.nan, np.nan])
    assert (
        found.report["label y"] == "1 known, 2 missing, of these 1 with a text that is no number or no class"
    )


def test_a_task_without_any_label_stops(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"the label 'y' is missing for every molecule; check the column"):
        from_texts(tmp_path / "data", "smiles,y\nC,\nCC,x\n", tasks=["y"])


def test_labels_are_columns_and_named_once(tmp_path: Path) -> None:
    lines = "smiles,y\nC,1\n"
    with pytest.raises(ConfigError, match=r"labels.y: labels of molecules are columns of their file"):
        from_texts(tmp_path / "data", lines, labels={"y": Label(rule="folder")})
    with pytest.raises(ConfigError, match=r"'y' is both in labels and in tasks"):
        from_texts(tmp_path / "data", lines, labels={"y": Label(column="y")}, tasks=["y"])


def test_computed_descriptors_are_columns_named_as_computed(tmp_path: Path) -> None:
    found = from_texts(
        tmp_path / "data", "smiles\nC\nCO\n", tasks=["computed HeavyAtomCount"], computed=["HeavyAtomCount"]
    )
    assert found.samples.labels["computed HeavyAtomCount"].tolist() == [1, 2]
    with pytest.raises(
        ConfigError, match=r"data.computed: RDKit has no descriptor 'MolLogp'; did you mean 'MolLogP'\?"
    ):
        from_texts(tmp_path / "data", "smiles\nC\n", computed=["MolLogp"])


def test_the_report_says_what_was_found(tmp_path: Path) -> None:
    found = from_texts(
        tmp_path / "data",
        "smiles\nc1ccccc1\nCc1ccccc1\nC1CC\n",
        split=Splitting(by="scaffold"),
        max_quarantined=0.5,
    )
    assert found.report["molecules"] == "2 of 3 rows in 1 files (1 csv)"
    assert found.report["scaffolds"] == "1"
    assert found.report["split"] == "by scaffold, largest first"
    assert found.report["quarantine"] == "not parsed (1)"
    assert found.samples.manifest.entries[0].facts == {"format": "csv", "molecules": 2}


def test_fingerprints_and_smiles_follow_the_samples(tmp_path: Path) -> None:
    """Merged rows are fewer than stored ones, so a sample's place is not its place in the store."""
    found = from_texts(tmp_path / "data", "smiles\nCO\nOC\nc1ccccc1\n", duplicates="merge")
    from rdkit import Chem
    from rdkit.Chem import rdFingerprintGenerator

    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    expected = generator.GetFingerprintAsNumPy(Chem.MolFromSmiles("c1ccccc1"))
    np.testing.assert_array_equal(np.unpackbits(found.fingerprints(np.array([1]))[0]), expected)
    assert found.smiles(np.array([1])) == ["c1ccccc1"]
