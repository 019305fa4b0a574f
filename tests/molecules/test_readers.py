"""Every form of file gives the same molecules and labels; what is damaged is named with its place and a reason."""

from __future__ import annotations

import gzip
from pathlib import Path

import molecule_files
import numpy as np
import pandas as pd
import pytest
from molecule_files import SMILES, prepared, write
from rdkit import Chem

from diptych.data.labels import Label
from diptych.errors import ConfigError, DataError

CANONICAL = [Chem.MolToSmiles(Chem.MolFromSmiles(smiles)) for smiles in SMILES]
FORMS = ["csv", "tsv", "parquet", "sdf", "csv.gz", "tsv.gz", "sdf.gz"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "data"
    place.mkdir()
    return place


def rejected(molecules: molecule_files.Molecules) -> list[tuple[str, str]]:
    return [(row.path, row.reason) for row in molecules.samples.quarantine.rows]


@pytest.mark.parametrize("form", FORMS)
def test_forms_with_columns_agree(folder: Path, form: str) -> None:
    found = prepared(write(folder / f"set.{form}"), {"code": Label(column="code")}, ["activity"])
    assert found.smiles() == CANONICAL
    assert found.samples.labels["code"].tolist() == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(found.samples.labels["activity"], [1, 0, np.nan, 1])
    assert found.tasks == {"code": "classification", "activity": "classification"}


@pytest.mark.parametrize("form", ["smi", "smi.gz"])
def test_smi_lines_have_a_structure_and_a_name(folder: Path, form: str) -> None:
    found = prepared(write(folder / f"set.{form}"), {"name": Label(column="name")})
    assert found.smiles() == CANONICAL
    assert found.samples.labels["name"].tolist() == ["a", "b", "c", "d"]


def test_smi_header_and_blank_lines_are_no_molecules(folder: Path) -> None:
    path = folder / "set.smi"
    path.write_text("SMILES Name\nCCO first one\n\nC1CC broken\nN\n")
    found = prepared(path, {"name": Label(column="name")}, max_quarantined=0.5)
    assert found.smiles() == ["CCO", "N"]
    assert found.samples.labels["name"].tolist() == ["first one", None]
    assert rejected(found) == [("set.smi[2]", "not parsed: unclosed ring")]


def test_broken_molecules_are_quarantined_with_row_and_reason(folder: Path) -> None:
    bad = {
        "C1CC": "not parsed: unclosed ring",
        "C(C": "not parsed: extra open parentheses around character 2",
        "[Xx]": "not parsed: syntax error around character 2",
        "CC(C)(C)(C)C": "valence: Explicit valence for atom # 1 C, 5, is greater than permitted",
        "c1cccc1C": "not kekulised: Can't kekulize mol. Unkekulized atoms: 0 1 2 3 4",
        "[#119]": "no element: Atomic number not found",
        "": "empty: no structure in this row",
        "   ": "empty: no structure in this row",
        "CC>>C": "not parsed: syntax error around character 3",
    }
    lines = [f'"{smiles}",{row}' for row, smiles in enumerate(["CCO", *bad, "N"])]
    found = molecule_files.from_texts(folder, "\n".join(["smiles,y", *lines]), max_quarantined=0.9)
    assert found.smiles() == ["CCO", "N"]
    assert rejected(found) == [
        (f"molecules.csv[{row}]", reason) for row, reason in enumerate(bad.values(), 1)
    ]


def test_no_reason_quotes_the_structure(folder: Path) -> None:
    lines = "smiles\nCCO\nCC(C)CSECRETNN\nc1ccc(SECRET"
    found = molecule_files.from_texts(folder, lines, max_quarantined=0.9)
    assert len(rejected(found)) == 2
    assert not any("SECRET" in reason for _, reason in rejected(found))


def test_broken_records_of_an_sd_file_are_quarantined(folder: Path) -> None:
    path = write(folder / "set.sdf")
    records = path.read_text().split("$$$$\n")
    records[1] = records[1].replace("V2000", "V2OOO")
    records.insert(2, "\n\n\n  0  0  0  0  0  0  0  0  0  0999 V2000\nM  END\n")
    path.write_text("$$$$\n".join(records))
    found = prepared(path, max_quarantined=0.9)
    assert found.smiles() == [CANONICAL[0], *CANONICAL[2:]]
    assert [path for path, _ in rejected(found)] == ["set.sdf[1]", "set.sdf[2]"]
    assert rejected(found)[0][1].startswith("not parsed: ")
    assert rejected(found)[1][1] == "empty: a molecule without atoms"


def test_an_item_of_an_sd_file_named_smiles_is_not_its_structure(folder: Path) -> None:
    path = write(folder / "set.sdf")
    path.write_text(path.read_text().replace("<code>", "<smiles>"))
    assert prepared(path).smiles() == CANONICAL


def test_lines_with_other_numbers_of_cells_are_quarantined_and_rows_keep_their_numbers(folder: Path) -> None:
    found = molecule_files.from_texts(
        folder, "smiles,y\nCCO,1\nN,2,3\nCC,4\nC1CC,5\n", tasks=["y"], max_quarantined=0.9
    )
    assert found.samples.labels["y"].tolist() == [1, 4]
    assert rejected(found) == [
        ("molecules.csv[1]", "not a row: 3 cells, the header has 2"),
        ("molecules.csv[3]", "not parsed: unclosed ring"),
    ]


def test_a_wrong_column_names_the_nearest(folder: Path) -> None:
    path = write(folder / "set.csv")
    with pytest.raises(
        ConfigError, match=r"data.smiles: 'set.csv' has no column 'smile'; did you mean 'smiles'\?"
    ):
        prepared(path, smiles="smile")
    with pytest.raises(ConfigError, match=r"tasks: there is no column 'activty'; did you mean 'activity'\?"):
        prepared(path, tasks=["activty"])
    with pytest.raises(
        ConfigError, match=r"labels.x.column: there is no column 'cod'; did you mean 'code'\?"
    ):
        prepared(path, {"x": Label(column="cod")})


def test_a_column_may_differ_in_case(folder: Path) -> None:
    assert prepared(write(folder / "set.csv"), smiles="SMILES").smiles() == CANONICAL


@pytest.mark.parametrize(
    ("encoding", "note"),
    [
        ("utf-8", None),
        ("utf-8-sig", None),
        ("latin-1", "read as Latin-1, since it is no UTF-8"),
        ("utf-16", "read as UTF-16"),
    ],
)
def test_encodings_are_read_and_stated(folder: Path, encoding: str, note: str | None) -> None:
    path = folder / "set.csv"
    path.write_bytes("smiles,Größe\nCCO,süß\n".encode(encoding))
    found = prepared(path, {"x": Label(column="Größe")})
    assert found.samples.labels["x"].tolist() == ["süß"]
    assert found.report.get("encoding") == (None if note is None else f"set.csv: {note}")


def test_other_delimiters_quotes_and_line_ends(folder: Path) -> None:
    path = folder / "set.csv"
    path.write_bytes(b'smiles;note\r\nCCO;"two\r\nlines; one cell"\r\nN;\r\n')
    found = prepared(path, {"note": Label(column="note")})
    assert found.smiles() == ["CCO", "N"]
    assert found.samples.labels["note"].tolist() == ["two\r\nlines; one cell", None]


def test_a_truncated_gz_alone_stops_and_among_others_is_quarantined(folder: Path) -> None:
    whole = write(folder / "a.csv.gz")
    cut = folder / "b.csv.gz"
    cut.write_bytes(gzip.compress(b"smiles,code,activity\n" + b"CCO,x,1\n" * 1000)[:60])
    with pytest.raises(
        DataError, match=r"none of 1 files of molecules can be read: truncated: the compressed file ends"
    ):
        prepared(cut)
    found = prepared(folder, max_quarantined=0.5)
    assert found.smiles() == CANONICAL
    reason = "truncated: the compressed file ends before its end; copy or download it again"
    assert rejected(found) == [("b.csv.gz", reason)]
    assert [entry.path for entry in found.samples.manifest.entries] == [whole.name]


def test_damaged_files_are_quarantined(folder: Path) -> None:
    write(folder / "a.csv")
    (folder / "b.parquet").write_bytes(b"PAR1 and no more")
    broken = bytearray(gzip.compress(b"smiles\nCCO\n" * 99))
    broken[20:30] = bytes(10)
    (folder / "c.smi.gz").write_bytes(broken)
    (folder / "d.csv").write_bytes(b"")
    (folder / "e.csv").write_text("smiles,code,code\nCCO,1,2\n")
    found = prepared(folder, max_quarantined=0.9)
    assert found.smiles() == CANONICAL
    kinds = {path: reason.split(":")[0] for path, reason in rejected(found)}
    assert kinds == {"b.parquet": "damaged", "c.smi.gz": "damaged", "d.csv": "empty", "e.csv": "ambiguous"}


def test_several_files_keep_their_order_and_their_own_row_numbers(folder: Path) -> None:
    (folder / "a.csv").write_text("smiles,y\nCCO,1\nC1CC,2\n")
    (folder / "b.smi").write_text("N x\nC(C y\n")
    found = prepared(folder, max_quarantined=0.9)
    assert found.smiles() == ["CCO", "N"]
    assert [path for path, _ in rejected(found)] == ["a.csv[1]", "b.smi[1]"]
    with pytest.raises(ConfigError, match=r"tasks: 1 files have no column 'y'; the first: 'b.smi'"):
        prepared(folder, tasks=["y"], max_quarantined=0.9)


def test_include_and_exclude_choose_files_of_a_folder(folder: Path) -> None:
    (folder / "a.smi").write_text("CCO\n")
    (folder / "b.smi").write_text("N\n")
    assert prepared(folder, exclude=["b*"]).smiles() == ["CCO"]
    assert prepared(folder / "b.smi", exclude=["b*"]).smiles() == ["N"]
    with pytest.raises(DataError, match=r"data.include and data.exclude leave none of the 2 files"):
        prepared(folder, include=["c*"])


def test_nothing_there(folder: Path) -> None:
    (folder / "a.pdf").write_text("no molecules")
    with pytest.raises(DataError, match=r"expected .csv, .tsv, .*found .pdf \(1\); data.form names the form"):
        prepared(folder)
    with pytest.raises(ConfigError, match=r"data.path: there is no file or folder '.*missing.csv'"):
        prepared(folder / "missing.csv")


def test_form_reads_files_of_any_suffix(folder: Path) -> None:
    path = folder / "set.txt"
    path.write_text("CCO a\n")
    assert prepared(path, form="smi").smiles() == ["CCO"]


def test_a_manifest_is_read_and_checked(folder: Path, tmp_path: Path) -> None:
    path = write(folder / "set.csv")
    manifest = tmp_path / "manifest.csv"
    prepared(path).samples.manifest.write(manifest)
    assert prepared(manifest).smiles() == CANONICAL
    path.write_text(path.read_text() + "N,e,1\n")
    with pytest.raises(DataError, match=r"1 of 1 files are not what the manifest says"):
        prepared(manifest)


def test_files_of_a_package_are_found_and_a_missing_one_says_what_to_install(tmp_path: Path) -> None:
    found = molecule_files.prepare(
        molecule_files.Source(path="package:rdkit/Data/NCI/first_5K.smi", limit=20),
        {},
        None,
        molecule_files.Splitting(by="random"),
        cache=tmp_path,
        workers=1,
    )
    assert len(found) == 20
    with pytest.raises(ConfigError, match=r"needs the package 'no_such_package', which is not installed"):
        molecule_files.prepared(Path("package:no_such_package/x.csv"))


def test_a_limit_draws_the_same_rows_in_order(folder: Path) -> None:
    path = folder / "set.smi"
    path.write_text("".join(f"{'C' * (i + 1)}\n" for i in range(40)))
    lengths = [len(smiles) for smiles in prepared(path, limit=10).smiles()]
    assert len(lengths) == 10
    assert lengths == sorted(lengths) != list(range(1, 11))
    assert [len(smiles) for smiles in prepared(path, limit=10).smiles()] == lengths


def test_too_many_in_quarantine_stop(folder: Path) -> None:
    lines = "smiles\nCCO\nC1CC\nC1C\n"
    with pytest.raises(
        DataError, match=r"2 of 3 files \(67%\) cannot be used, more than 20% allowed.*not parsed \(2\)"
    ):
        molecule_files.from_texts(folder, lines)
    with pytest.raises(DataError, match=r"no molecule can be used: not parsed: unclosed ring \(1\)"):
        molecule_files.from_texts(folder, "smiles\nC1CC\n")


@pytest.mark.parametrize(
    ("settings", "smiles"),
    [
        ({}, "CC(=O)[O-].[Na+]"),
        ({"fragments": "largest"}, "CC(=O)[O-]"),
        ({"fragments": "without_salts"}, "CC(=O)[O-]"),
        ({"fragments": "largest", "neutralise": True}, "CC(=O)O"),
        ({"isolated_atoms": "drop"}, "CC(=O)[O-].[Na+]"),
    ],
)
def test_standardisation_is_off_by_default_and_does_what_is_asked(
    folder: Path, settings: dict[str, object], smiles: str
) -> None:
    path = folder / "set.smi"
    path.write_text("CC(=O)[O-].[Na+]\n")
    found = prepared(path, **settings)
    assert found.smiles() == [smiles]
    assert found.store.atom_counts(np.array([0])) == (4 if settings else 5) or settings.get("neutralise")


def test_tautomers_become_one_when_asked(folder: Path) -> None:
    path = folder / "set.smi"
    path.write_text("Oc1ccccn1\nO=c1cccc[nH]1\n")
    apart = prepared(path, identity="smiles")
    one = prepared(path, tautomer=True, identity="smiles")
    assert len(set(apart.smiles())) == 2
    assert len(set(one.smiles())) == 1


def test_parquet_keeps_numbers(folder: Path) -> None:
    path = folder / "set.parquet"
    pd.DataFrame({"smiles": ["C", "N"], "y": [0.1, 2.5e-7], "n": [[1], [2]]}).to_parquet(path)
    assert prepared(path, tasks=["y"]).samples.labels["y"].tolist() == [0.1, 2.5e-7]
