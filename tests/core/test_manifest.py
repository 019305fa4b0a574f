"""The manifest: what is in the files, found again to the byte, and without paths in public."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from diptych.data.manifest import Entry, Manifest, checksum, checksums
from diptych.data.quarantine import Quarantine
from diptych.errors import ConfigError, DataError

FACTS = {
    "shape": (12, 5000),
    "rate": 500.0,
    "leads": ["I", "II"],
    "sex": None,
    "note": 'a, "b"\n# c',
    "ok": True,
}


def folder(root: Path) -> Manifest:
    """Three files and their manifest."""
    paths = ["DOE_JANE/a.dat", "DOE_JANE/b.dat", "other/c, d.dat"]
    for number, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(bytes([number]) * (1000 + number))
    found = checksums(root, paths)
    return Manifest(
        root,
        [
            Entry(
                path=path,
                size=found[path].size,
                sha256=found[path].sha256,
                patient=f"p{number // 2}",
                recording=f"r{number}",
                facts=FACTS if number else {"rate": 250},
            )
            for number, path in enumerate(paths)
        ],
    )


def test_a_checksum_is_that_of_the_bytes(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert checksum(tmp_path / "x") == (len(content), hashlib.sha256(content).hexdigest())


def test_unreadable_files_go_to_quarantine_without_their_path(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"1")
    quarantine = Quarantine()
    found = checksums(tmp_path, ["good", "gone_DOE.dat"], quarantine=quarantine)
    assert list(found) == ["good"]
    assert quarantine.rows == [("gone_DOE.dat", "cannot be read: No such file or directory")]
    with pytest.raises(FileNotFoundError):
        checksums(tmp_path, ["gone_DOE.dat"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    manifest = folder(tmp_path / "data")
    manifest.write(tmp_path / "elsewhere" / f"manifest{suffix}")
    again = Manifest.read(tmp_path / "elsewhere" / f"manifest{suffix}")
    assert again.entries == manifest.entries
    assert again.digest == manifest.digest
    assert again.changed() == []


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_empty_manifest_is_read_again(tmp_path: Path, suffix: str) -> None:
    Manifest(tmp_path, []).write(tmp_path / f"manifest{suffix}")
    assert Manifest.read(tmp_path / f"manifest{suffix}", tmp_path).entries == ()


def test_a_manifest_beside_the_data_moves_with_them(tmp_path: Path) -> None:
    folder(tmp_path / "before" / "data").write(tmp_path / "before" / "manifest.csv")
    (tmp_path / "before").rename(tmp_path / "after")
    assert Manifest.read(tmp_path / "after" / "manifest.csv").changed() == []


def test_a_root_given_by_hand_is_used(tmp_path: Path) -> None:
    folder(tmp_path / "data").write(tmp_path / "manifest.csv")
    (tmp_path / "data").rename(tmp_path / "moved")
    moved = Manifest.read(tmp_path / "manifest.csv", tmp_path / "moved")
    assert moved.changed() == []
    assert {what for _, what in Manifest.read(tmp_path / "manifest.csv").changed()} == {"missing"}


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    manifest = folder(tmp_path)
    content = bytearray((tmp_path / "DOE_JANE/b.dat").read_bytes())
    content[500] ^= 1
    (tmp_path / "DOE_JANE/b.dat").write_bytes(content)
    assert manifest.changed() == [("DOE_JANE/b.dat", "has other contents of the same size")]


def test_other_changes_are_told_apart(tmp_path: Path) -> None:
    manifest = folder(tmp_path)
    (tmp_path / "DOE_JANE/a.dat").write_bytes(b"short")
    (tmp_path / "other/c, d.dat").unlink()
    assert manifest.changed() == [
        ("DOE_JANE/a.dat", "has 5 bytes instead of 1000"),
        ("other/c, d.dat", "missing"),
    ]


def test_the_digest_is_of_contents_and_facts_alone(tmp_path: Path) -> None:
    manifest = folder(tmp_path)
    renamed = [
        replace(entry, path=f"z{number}", patient="other", recording=f"q{number}")
        for number, entry in enumerate(reversed(manifest.entries))
    ]
    assert Manifest("/elsewhere", renamed).digest == manifest.digest
    first = manifest.entries[0]
    for other in (
        replace(first, sha256="0" * 64),
        replace(first, size=first.size + 1),
        replace(first, facts={"rate": 251}),
    ):
        assert Manifest(tmp_path, [other, *manifest.entries[1:]]).digest != manifest.digest
    assert Manifest(tmp_path, manifest.entries[1:]).digest != manifest.digest


def test_the_public_form_holds_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_SALT", "correct horse battery")
    manifest = folder(tmp_path / "secret_folder")
    manifest.write_public(tmp_path / "manifest.json")
    text = (tmp_path / "manifest.json").read_text()
    for secret in ("DOE", "JANE", "a.dat", "secret_folder", "correct horse"):
        assert secret not in text
    content = json.loads(text)
    assert content["digest"] == manifest.digest
    assert (content["files"], content["bytes"], content["salt"]["secret"]) == (3, 3003, True)
    assert sorted(each["sha256"] for each in content["entries"]) == sorted(e.sha256 for e in manifest.entries)
    keys = {each["file"] for each in content["entries"]}
    monkeypatch.setenv("DIPTYCH_SALT", "another")
    manifest.write_public(tmp_path / "manifest.json")
    assert keys.isdisjoint(
        each["file"] for each in json.loads((tmp_path / "manifest.json").read_text())["entries"]
    )


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    manifest = folder(tmp_path)
    with pytest.raises(ValueError, match="is in the manifest twice"):
        Manifest(tmp_path, [*manifest.entries, manifest.entries[0]])


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../b", "a//b", "."])
def test_a_path_that_leaves_the_root_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="relative to the root"):
        Entry(path=path, size=1, sha256="0", patient="p", recording="r")


@pytest.mark.parametrize("fact", [object(), float("nan"), {1, 2}])
def test_facts_that_are_not_plain_are_refused(fact: object) -> None:
    with pytest.raises(TypeError, match="facts are text, finite numbers"):
        Entry(path="x", size=1, sha256="0", patient="p", recording="r", facts={"x": fact})


def test_files_that_are_no_manifest_are_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("path,size\nx,1\n")
    with pytest.raises(
        DataError, match="is not a manifest: it has no column root, sha256, patient, recording"
    ):
        Manifest.read(tmp_path / "table.csv")
    with pytest.raises(ConfigError, match=r"a manifest is a \.csv or \.parquet file; got 'm\.txt'"):
        Manifest.read(tmp_path / "m.txt")
    with pytest.raises(DataError, match=r"'gone\.csv' cannot be read"):
        Manifest.read(tmp_path / "gone.csv")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match=r"'broken\.parquet' cannot be read"):
        Manifest.read(tmp_path / "broken.parquet")


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    folder(tmp_path).write(tmp_path / "manifest.csv")
    text = (tmp_path / "manifest.csv").read_text()
    (tmp_path / "manifest.csv").write_text(text.replace(",1001,", ",many,"))
    with pytest.raises(DataError, match=r"row 3 of the manifest 'manifest\.csv' is not valid"):
        Manifest.read(tmp_path / "manifest.csv")
    (tmp_path / "manifest.csv").write_text(text.rsplit(',"[12', 1)[0])
    with pytest.raises(DataError, match=r"row 4 has \d+ cells, the header has"):
        Manifest.read(tmp_path / "manifest.csv")


def test_an_interrupted_write_leaves_the_old_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = folder(tmp_path / "data")
    manifest.write(tmp_path / "manifest.csv")
    before = (tmp_path / "manifest.csv").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        Manifest(tmp_path / "data", manifest.entries[:1]).write(tmp_path / "manifest.csv")
    assert (tmp_path / "manifest.csv").read_bytes() == before
    assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "manifest.csv"]
