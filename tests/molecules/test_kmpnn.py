"""KMPNN in its fast form is the literal one on the explicit augmented graph: rows and all gradients."""

from __future__ import annotations

import pytest
import torch
from graphs_of import graph_of, nci_smiles
from references_kmpnn import LiteralKMPNN, augmented_graphs
from torch import Tensor

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch, join
from diptych_molecules import kmpnn
from diptych_molecules.columns import ATOM_COLUMNS
from diptych_molecules.elements import knowledge
from diptych_molecules.kmpnn import KMPNN

# a salt whose ion comes first, a dummy atom, the heaviest element, single atoms, one that is alone and has no bond
ODD = ["[Na+].CC(=O)[O-]", "*CC", "[Og]", "C", "*", "N#Cc1ccccc1Br"]


def made(dtype: torch.dtype = torch.float64, **options: object) -> KMPNN:
    torch.manual_seed(0)
    encoder = KMPNN(**options)  # type: ignore[arg-type]
    torch.nn.init.normal_(encoder.bias)
    return encoder.to(dtype)


def gradients(encoder: KMPNN, whole: Tensor, parts: Tensor) -> dict[str, Tensor]:
    encoder.zero_grad()
    (whole.sin().sum() + parts.cos().sum()).backward()
    return {name: each.grad.clone() for name, each in encoder.named_parameters() if each.grad is not None}


@pytest.fixture(params=["sizes that occur", "static sizes"], autouse=True)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds on a CPU and, with static sizes, as on a GPU and in exported programs."""
    if request.param == "static sizes":
        monkeypatch.setattr(kmpnn, "_may_wait", lambda tensor: False)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_rows_and_gradients_are_those_of_the_literal_form(dtype: torch.dtype, tolerance: float) -> None:
    batch = graph_of([*nci_smiles(4), *ODD])
    encoder = made(dtype, steps=3)
    fast, literal = encoder(batch), LiteralKMPNN(encoder)(augmented_graphs(batch))
    torch.testing.assert_close(fast.whole, literal[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(fast.parts, literal[1], rtol=tolerance, atol=tolerance)
    own, theirs = gradients(encoder, *fast[:2]), gradients(encoder, *literal)
    assert own.keys() == theirs.keys() == dict(encoder.named_parameters()).keys()
    for name, gradient in own.items():
        scale = theirs[name].abs().max().item()
        torch.testing.assert_close(gradient, theirs[name], rtol=0, atol=tolerance * max(scale, 1.0), msg=name)


def test_the_explicit_graph_has_the_salt_s_relations_at_its_own_atoms() -> None:
    (graph,) = augmented_graphs(graph_of(["[Na+].CC(=O)[O-]"]))
    per_atom = [int((graph.relation_edges[1] == v).sum()) for v in range(5)]
    known = knowledge()
    assert per_atom == [len(known.of(z)) for z in (11, 6, 6, 8, 8)]
    assert graph.relation_edges[0].min() == 5


def test_molecules_do_not_depend_on_their_batch_and_atoms_may_be_renumbered() -> None:
    from rdkit import Chem

    from diptych_molecules.graph_of import batch_of

    encoder = made(features="all")
    alone, together = graph_of([ODD[5]]), graph_of(ODD)
    torch.testing.assert_close(encoder(alone).whole[0], encoder(together).whole[5])
    mol = Chem.MolFromSmiles(ODD[5])
    order = torch.randperm(mol.GetNumAtoms(), generator=torch.Generator().manual_seed(1)).tolist()
    renumbered = encoder(batch_of([Chem.RenumberAtoms(mol, order)]))
    torch.testing.assert_close(renumbered.whole, encoder(alone).whole)
    torch.testing.assert_close(renumbered.parts, encoder(alone).parts[order])


def test_attention_is_a_softmax_over_what_the_element_has_and_over_bonds() -> None:
    batch = graph_of(ODD)
    encoder = made(steps=2)
    steps = encoder.attend(batch)
    assert len(steps) == 2
    slots = torch.from_numpy(knowledge().slots.copy())[batch.nodes[:, 0]]
    degree = torch.bincount(batch.edges[1], minlength=len(batch.nodes))
    for each in steps:
        assert ((each.relations > 0) == (slots >= 0)).all()
        torch.testing.assert_close(each.relations.sum(1), (batch.nodes[:, 0] > 0).double())
        into = torch.zeros(len(batch.nodes)).double().index_add(0, batch.edges[1], each.bonds)
        torch.testing.assert_close(into, (degree > 0).double())


def test_a_masked_atom_has_no_attribute_values() -> None:
    batch = graph_of(["CCO"])
    nodes = batch.nodes.clone()
    nodes[1] = torch.tensor([column.mask for column in ATOM_COLUMNS])
    masked = batch._replace(nodes=nodes)
    encoder = made(features="all")
    assert encoder(masked).whole.isfinite().all()
    assert encoder.attend(masked)[0].relations[1].abs().max() == 0
    present = encoder.present(masked)
    assert torch.equal(present, encoder.present(graph_of(["C.O"])))


def test_features_all_sees_charge_and_stereo_and_element_does_not() -> None:
    pairs = [("C[NH3+]", "CN"), ("C/C=C/C", "C/C=C\\C"), ("C[C@H](N)O", "C[C@@H](N)O")]
    seeing, blind = made(features="all"), made()
    for first, second in pairs:
        batch = graph_of([first, second])
        assert not torch.allclose(*seeing(batch).whole)
        torch.testing.assert_close(*blind(batch).whole)


def test_relations_start_from_rotate_or_at_random() -> None:
    from diptych_molecules.rotate import shipped

    encoder = made(torch.float32)
    torch.testing.assert_close(encoder.attributes.weight, shipped().entities[:106])
    torch.testing.assert_close(encoder.relations.weight, shipped().relations)
    random = made(torch.float32, elements="random")
    assert not torch.allclose(random.attributes.weight, encoder.attributes.weight)
    assert encoder.attributes.weight.requires_grad


def test_an_empty_batch_and_molecules_without_atoms() -> None:
    batch = graph_of(["CO"])
    empty = GraphBatch(batch.nodes[:0], batch.edges[:, :0], batch.edge_features[:0], batch.graph[:0], 1)
    encoder = made(torch.float32)
    assert encoder(empty).whole.isfinite().all()
    whole = encoder(join([empty, batch, empty])).whole
    torch.testing.assert_close(whole[1], encoder(batch).whole[0])
    torch.testing.assert_close(whole[0], whole[2])


def test_half_precision_stays_near() -> None:
    batch = graph_of(ODD)
    encoder = made(torch.float32, features="all")
    torch.nn.init.zeros_(encoder.bias)
    exact = encoder(batch).whole
    with torch.autocast("cpu", torch.bfloat16):
        near = encoder(batch).whole.float()
    near.square().sum().backward()
    assert (near - exact).abs().max() < 0.05 * exact.abs().max()
    assert all(each.grad.isfinite().all() for each in encoder.parameters() if each.grad is not None)


def test_bad_options_and_batches_are_named() -> None:
    with pytest.raises(ConfigError, match="hidden and steps of at least 1, got 0 and 6"):
        KMPNN(hidden=0)
    with pytest.raises(ConfigError, match="elements start from rotate or random, got 'x'"):
        KMPNN(elements="x")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="features are element or all, got 'some'"):
        KMPNN(features="some")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="KMPNN sees kinds of bonds, but the batch has no edge features"):
        made()(graph_of(["CO"])._replace(edge_features=None))
