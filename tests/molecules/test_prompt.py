"""Functional groups are those that RDKit finds by their SMARTS; the prompt made of them stays within a molecule."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from graphs_of import graph_of, nci_smiles
from rdkit import Chem
from torch import nn

from diptych.errors import ConfigError
from diptych_molecules.encoders import GIN
from diptych_molecules.gcn import GCN
from diptych_molecules.groups import GROUPS, groups_of
from diptych_molecules.kmpnn import KMPNN
from diptych_molecules.prompt import FunctionalPrompt, GroupAttention

# groups that the NCI molecules have rarely, and near misses of them
RARE = [
    "CC(=O)[O-].[Na+]", "CC(=O)Cl", "FC(F)(F)C", "FC(F)C", "CS(=O)(=O)OC", "CS(=O)(=O)N", "CB(O)O", "C=C=C", "CC#CC",
    "O=C(OC)OC", "NC(=O)N", "NC(=O)OC", "CC(=O)OC(C)=O", "c1ccc2[nH]ccc2c1", "Cn1ccnc1", "CON", "CN=NC", "CNN", "CSSC",
    "C[N+](C)(C)C", "C[N+](=O)[O-]", "CN=O", "CP(=O)(OC)OC", "CC(N)=S", "CS(C)=O", "CS(C)(=O)=O", "[2H]C",
    "*C(=O)O", "[Og]",
]  # fmt: skip


def test_groups_are_those_of_their_smarts() -> None:
    smiles = [*nci_smiles(300), *RARE]
    mols = [Chem.MolFromSmiles(each) for each in smiles]
    found = groups_of(graph_of(smiles))
    for k, group in enumerate(GROUPS):
        pattern = Chem.MolFromSmarts(group.smarts)
        expected = [mol.HasSubstructMatch(pattern) for mol in mols]
        wrong = [text for text, a, b in zip(smiles, expected, found[:, k].tolist(), strict=True) if a != b]
        assert wrong == [], (group.name, group.smarts)
        assert any(expected), group.name
        assert not all(expected), group.name


def test_group_names_and_patterns_are_unlike() -> None:
    assert len({group.name for group in GROUPS}) == len({group.smarts for group in GROUPS}) == len(GROUPS)


def test_attention_is_a_loop_over_the_groups_present() -> None:
    torch.manual_seed(0)
    attend = GroupAttention(4).double()
    rows = torch.randn(2, 3, 4).double()
    present = torch.tensor([[True, False, True], [True, True, True]])
    found = attend(rows, present)
    for n in range(2):
        for i in range(3):
            there = [j for j in range(3) if present[n, j]]
            scores = [(attend.query(rows[n, i]) @ attend.key(rows[n, j])).item() / 2 for j in there]
            shares = torch.tensor(scores).softmax(0)
            heard = sum(s * attend.value(rows[n, j]) for s, j in zip(shares, there, strict=True))
            torch.testing.assert_close(found[n, i], attend.norm(rows[n, i] + heard), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("encoder", [GCN, partial(KMPNN, steps=2), partial(GIN, hidden=16, depth=2)])
def test_a_prompt_is_added_to_the_atoms_and_depends_on_no_other_molecule(encoder: object) -> None:
    torch.manual_seed(0)
    prompted = FunctionalPrompt(encoder, weight=0.5).eval()  # type: ignore[arg-type]
    batch = graph_of(["CCO", "CC(=O)Cl", "Cc1ccccc1N"])
    whole = prompted(batch).whole
    assert whole.shape == (3, prompted.width)
    torch.testing.assert_close(prompted(graph_of(["CC(=O)Cl"])).whole[0], whole[1], rtol=1e-4, atol=1e-5)
    plain = prompted.encoder(batch).whole
    assert not torch.allclose(plain, whole)
    with torch.no_grad():
        prompted.weight.zero_()
    torch.testing.assert_close(prompted(batch).whole, plain)


def test_a_prompt_is_trained_and_survives_copies_and_errors() -> None:
    torch.manual_seed(0)
    prompted = FunctionalPrompt(GCN)
    copied = copy.deepcopy(prompted)
    batch = graph_of(["CCO", "CC(=O)Cl"])
    torch.testing.assert_close(copied(batch).whole, prompted(batch).whole)
    with pytest.raises(IndexError):
        copied(batch._replace(nodes=batch.nodes + 1000))
    plain = copied.encoder(batch).whole  # nothing was left behind at the table
    torch.testing.assert_close(plain, prompted.encoder(batch).whole)
    prompted(batch).whole.square().sum().backward()
    still = [
        name for name, each in prompted.named_parameters() if each.grad is None or not each.grad.abs().sum()
    ]
    # the shift of all keys alike leaves a softmax unchanged
    assert all(name.endswith("key.bias") for name in still)
    assert not any(each.grad is not None for each in copied.parameters())


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="a prompt needs a width and layers of at least 1, got 0 and 2"):
        FunctionalPrompt(GCN, width=0)
    with pytest.raises(
        ConfigError, match="added to an encoder's table of atom features, but Identity has none"
    ):
        FunctionalPrompt(nn.Identity)
