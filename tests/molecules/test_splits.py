"""Units stay together; what is dealt out follows the stated rules, written here as plain loops."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from molecule_files import from_texts
from rdkit import Chem, DataStructs, RDConfig
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from rdkit.ML.Cluster import Butina

from diptych.errors import ConfigError, DataError
from diptych_molecules import derived, splits
from diptych_molecules.settings import Splitting
from diptych_molecules.similarity import alike, butina, nearest_of, tanimoto, words_of

UNITS = st.lists(st.integers(0, 12), min_size=1, max_size=80).map(lambda each: np.array(each, np.int64))


def nci(count: int) -> list[str]:
    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    mols = (Chem.MolFromSmiles(line.split()[0]) for line in lines[:count])
    return [Chem.MolToSmiles(mol) for mol in mols if mol is not None]


def largest_first(units: list[int], split: Splitting) -> list[str]:
    """As MoleculeNet and dgllife: sets by size and first member, both falling, to train, then validation, then test."""
    members = defaultdict(list)
    for place, unit in enumerate(units):
        members[unit].append(place)
    named = [""] * len(units)
    train = validation = 0
    total = len(units)
    for group in sorted(members.values(), key=lambda each: (len(each), each[0]), reverse=True):
        if train + len(group) <= split.train * total + 1e-9 * total:
            name, train = "train", train + len(group)
        elif train + validation + len(group) <= (split.train + split.validation) * total + 1e-9 * total:
            name, validation = "validation", validation + len(group)
        else:
            name = "test"
        for place in group:
            named[place] = name
    return named


@given(UNITS)
@settings(max_examples=100, deadline=None)
def test_largest_first_is_the_loop(units: np.ndarray) -> None:
    split = Splitting()
    keys = [str(unit) for unit in range(13)]
    assert splits.deal(units, keys, split).tolist() == largest_first(units.tolist(), split)


@given(UNITS, st.sampled_from(["largest_first", "balanced", "hash"]))
@settings(max_examples=100, deadline=None)
def test_a_unit_is_in_one_split_only(units: np.ndarray, assign: str) -> None:
    split = Splitting(assign=assign)  # type: ignore[arg-type]
    dealt = splits.deal(units, [str(unit) for unit in range(13)], split)
    for unit in np.unique(units):
        assert len(set(dealt[units == unit])) == 1


def test_balanced_gives_exact_shares_of_single_molecules_and_depends_on_the_seed() -> None:
    units = np.arange(100)
    keys = list(map(str, units))
    one, other = (
        splits.deal(units, keys, Splitting(by="random", assign="balanced", seed=seed)) for seed in (0, 1)
    )
    for dealt in (one, other):
        assert {name: int((dealt == name).sum()) for name in set(dealt)} == {
            "train": 80,
            "validation": 10,
            "test": 10,
        }
    assert (one != other).any()
    again = splits.deal(units, keys, Splitting(by="random", assign="balanced", seed=1))
    np.testing.assert_array_equal(other, again)


def test_balanced_puts_sets_larger_than_half_of_the_test_set_into_train() -> None:
    units = np.repeat(np.arange(32), [20, 20, *[2] * 30])
    for seed in range(20):
        dealt = splits.deal(units, list(map(str, range(32))), Splitting(assign="balanced", seed=seed))
        assert set(dealt[units < 2]) == {"train"}


def test_hash_depends_on_the_unit_alone() -> None:
    split = Splitting(assign="hash")
    whole = splits.deal(np.arange(300), [f"u{i}" for i in range(300)], split)
    part = splits.deal(np.array([0, 1, 1]), ["u200", "u7"], split)
    assert part.tolist() == [whole[200], whole[7], whole[7]]
    salted = splits.deal(np.arange(300), [f"u{i}" for i in range(300)], Splitting(assign="hash", salt="x"))
    assert (whole != salted).any()


def test_scaffolds_are_those_of_rdkit(tmp_path: Path) -> None:
    smiles = nci(200)
    found = from_texts(
        tmp_path / "data", "smiles\n" + "\n".join(smiles), split=Splitting(by="scaffold"), identity="smiles"
    )
    units, texts = found.units(found.splitting)
    expected = [MurckoScaffold.MurckoScaffoldSmiles(smiles=each, includeChirality=False) for each in smiles]
    assert [texts[unit] for unit in units.tolist()] == expected
    assert found.samples.ids["split"].tolist() == largest_first(
        np.unique(expected, return_inverse=True)[1].tolist(), found.splitting
    )


def test_molecules_without_rings_are_together_or_apart(tmp_path: Path) -> None:
    lines = "smiles\nCO\nCCO\nc1ccccc1\n"
    split = Splitting(by="scaffold", assign="hash")
    together = from_texts(tmp_path / "data", lines, split=split)
    apart = from_texts(tmp_path / "data", lines, split=replace(split, acyclic="apart"))
    assert together.samples.ids["patient"].nunique() == 2
    assert apart.samples.ids["patient"].nunique() == 3


def test_clusters_hold_like_molecules_and_rows_of_one_molecule(tmp_path: Path) -> None:
    rows = [
        "CCCCCCCO",
        "c1ccccc1",
        "CCCCCCCCO",
        "OCCCCCCC",
        "c1ccccc1C",
        "[Na+]",
        "[Na+]",
        "Oc1ccccn1",
        "O=c1cccc[nH]1",
    ]
    split = Splitting(by="cluster", similarity=0.5)
    found = from_texts(tmp_path / "data", "smiles\n" + "\n".join(rows), split=split)
    ids = found.samples.ids
    assert found.samples.words.unit == "cluster"
    assert ids.groupby("recording")["patient"].nunique().max() == 1
    patients = ids["patient"].tolist()
    assert patients[0] == patients[2] == patients[3] != patients[1]
    units, texts = found.units(split)
    assert len(texts) == units.max() + 1 == ids["patient"].nunique()


def test_another_split_of_the_same_molecules_is_to_be_had(tmp_path: Path) -> None:
    found = from_texts(tmp_path / "data", "smiles\n" + "\n".join(nci(60)), split=Splitting(by="scaffold"))
    other = found.split(Splitting(by="random", assign="balanced", seed=3))
    assert len(other) == len(found)
    assert (other != found.samples.ids["split"].to_numpy()).any()


def test_a_column_says_the_split(tmp_path: Path) -> None:
    lines = "smiles,fold\nC,Train\nCC,valid\nCCC,test\nN,dev\n"
    found = from_texts(tmp_path / "data", lines, split=Splitting(by="column", column="fold"))
    assert found.samples.ids["split"].tolist() == ["train", "validation", "test", "validation"]
    assert found.samples.words.unit == "molecule"


def test_a_column_with_other_words_or_one_molecule_in_two_splits_stops(tmp_path: Path) -> None:
    split = Splitting(by="column", column="fold")
    with pytest.raises(
        ConfigError, match=r"split.column: 'tset' in the column 'fold' is no split; did you mean 'test'"
    ):
        from_texts(tmp_path / "data", "smiles,fold\nC,train\nCC,tset\n", split=split)
    lines = "smiles,fold\nCO,train\nOC,test\nN,train\n"
    with pytest.raises(
        DataError, match=r"1 molecules are in more than one split of the column \(the same inchikey\)"
    ):
        from_texts(tmp_path / "data", lines, split=split)
    merged = from_texts(tmp_path / "data", lines, split=split, duplicates="merge")
    assert merged.samples.ids["split"].tolist() == ["train", "train"]
    with pytest.raises(ConfigError, match=r"split.column: there is no column 'fld'"):
        from_texts(tmp_path / "data", lines, split=Splitting(by="column", column="fld"))


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"add up to 1; got train 0.9, validation 0.1, test 0.1"):
        Splitting(train=0.9)
    with pytest.raises(ConfigError, match=r"split.column goes with split.by: column"):
        Splitting(column="fold")


def packed(smiles: list[str]) -> np.ndarray:
    return derived.morgan(smiles)


def test_tanimoto_is_rdkits() -> None:
    smiles = [*nci(60), "[Na+]"]
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(each)) for each in smiles]
    expected = [DataStructs.BulkTanimotoSimilarity(each, prints) for each in prints]
    np.testing.assert_allclose(
        tanimoto(words_of(packed(smiles)), words_of(packed(smiles))), expected, atol=1e-6
    )


def test_empty_fingerprints_are_like_nothing() -> None:
    nothing = np.zeros((2, 128), np.uint8)
    assert tanimoto(words_of(nothing), words_of(nothing)).tolist() == [[0, 0], [0, 0]]
    assert butina(nothing, 0.4).tolist() == [0, 1]


def test_butina_is_rdkits() -> None:
    """The release's own way: all pairs as a list of distances."""
    smiles = nci(150)
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=1024)
    prints = [generator.GetFingerprint(Chem.MolFromSmiles(each)) for each in smiles]
    distances = [
        1 - each
        for i in range(1, len(prints))
        for each in DataStructs.BulkTanimotoSimilarity(prints[i], prints[:i])
    ]
    clusters = Butina.ClusterData(distances, len(prints), 1 - 0.35, isDistData=True)
    found = butina(packed(smiles), 0.35)
    sizes = sorted(map(len, clusters))
    assert sizes[-1] > 5
    assert abs(len(clusters) - int(found.max()) - 1) <= 3  # ties are broken in another order
    leaders = {}
    similar = tanimoto(words_of(packed(smiles)), words_of(packed(smiles))) >= 0.35
    neighbours = similar.sum(1)
    for code in range(int(found.max()) + 1):
        members = np.flatnonzero(found == code)
        free = found >= code
        best = [i for i in members if similar[i][members].all() and (similar[i] & free).sum() == len(members)]
        assert best, "no member has the whole cluster, and nothing else that was free, as its neighbours"
        leaders[code] = max(neighbours[i] for i in best)
    assert list(leaders.values()) == sorted(leaders.values(), reverse=True)


def test_nearest_of_is_the_loop_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from diptych_molecules import similarity

    monkeypatch.setattr(similarity, "_BLOCK", 50)
    words = words_of(packed(nci(40)))
    expected = [
        int(np.argmax([tanimoto(words[i : i + 1], words[j : j + 1])[0, 0] for j in range(7)]))
        for i in range(len(words))
    ]
    assert nearest_of(words, words[:7]).tolist() == expected


def test_alike_clusters_are_more_similar_inside_than_outside() -> None:
    prints = packed(nci(600))
    codes = alike(prints, 40)
    assert 8 <= codes.max() + 1 <= 30
    similar = tanimoto(words_of(prints), words_of(prints))
    same = codes[:, None] == codes[None]
    np.fill_diagonal(same, False)
    other = ~same
    np.fill_diagonal(other, False)
    assert similar[same].mean() > 1.5 * similar[other].mean()
    np.testing.assert_array_equal(codes, alike(prints, 40))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_alike_of_few_molecules_is_one_cluster(count: int) -> None:
    assert alike(packed(["C", "CC", "CCC", "CO", "N"][:count]), 512).tolist() == [0] * count
