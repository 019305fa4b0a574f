"""The graph convolution of KCL as a loop over atoms and bonds."""

from __future__ import annotations

import pytest
import torch
from graphs_of import graph_of, nci_smiles
from torch.nn import functional as F

from diptych.errors import ConfigError, DataError
from diptych_molecules.gcn import GCN


def made(**options: object) -> GCN:
    torch.manual_seed(0)
    return GCN(**options).double()  # type: ignore[arg-type]


@pytest.mark.parametrize("features", ["element", "all"])
def test_layers_are_the_equation(features: str) -> None:
    batch = graph_of(["[Na+].CC(=O)[O-]", "C", nci_smiles(1)[0]])
    encoder = made(features=features, embedding=6, hidden=5, depth=2)
    tables = encoder.atoms.tables
    x = torch.stack([sum(t(row[c]) for c, t in enumerate(tables)) for row in batch.nodes])
    for layer in range(2):
        rows = []
        for v in range(len(x)):
            gathered = torch.zeros(x.shape[1]).double()
            for k in range(batch.edges.shape[1]):
                if batch.edges[1, k] == v:
                    sent = x[batch.edges[0, k]]
                    if features == "all":
                        codes = batch.edge_features[k]
                        sent = F.gelu(
                            sent + sum(t(codes[c]) for c, t in enumerate(encoder.bonds[layer].tables))
                        )
                    gathered = gathered + sent
            rows.append(F.gelu(encoder.neighbours[layer](gathered)) + F.gelu(encoder.own[layer](x[v])))
        x = torch.stack(rows)
    found = encoder(batch)
    torch.testing.assert_close(found.parts, x)
    torch.testing.assert_close(found.whole, encoder.readouts[0](x, batch.graph, 3))
    assert (found.whole.shape, encoder.width, encoder.parts_width) == ((3, 10), 10, 5)


def test_layers_all_reads_the_input_and_every_layer_each_on_its_own() -> None:
    batch = graph_of(["CCO", "C"])
    encoder = made(layers="all", embedding=6, hidden=5, depth=2)
    found = encoder(batch).whole
    assert found.shape == (2, encoder.width) == (2, 2 * (6 + 5 + 5))
    torch.testing.assert_close(
        found[:, :12], encoder.readouts[0](encoder.atoms(batch.nodes[:, :1]), batch.graph, 2)
    )
    deep = encoder.readouts[2](encoder(batch).parts, batch.graph, 2)
    torch.testing.assert_close(found[:, 22:], deep)


def test_features_all_sees_what_element_does_not() -> None:
    batch = graph_of(["C=CC", "CCC"])
    torch.testing.assert_close(*made()(batch).whole)
    assert not torch.allclose(*made(features="all")(batch).whole)


def test_a_single_atom_and_a_dummy_have_finite_rows_of_their_own() -> None:
    for readout in ("weighted", "set2set"):
        whole = made(readout=readout)(graph_of(["C", "*", "[Og]"])).whole
        assert whole.isfinite().all()
        assert len(whole.unique(dim=0)) == 3


def test_bad_options_and_batches_are_named() -> None:
    with pytest.raises(ConfigError, match="embedding, hidden and depth of at least 1, got 128, 64 and 0"):
        GCN(depth=0)
    with pytest.raises(ConfigError, match="features are element or all, got 'bonds'"):
        GCN(features="bonds")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the readout is weighted or set2set, got 'sum'"):
        GCN(readout="sum")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="layers are last or all, got 'first'"):
        GCN(layers="first")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"sees bonds \(features: all\), but the batch has no edge features"):
        made(features="all")(graph_of(["CO"])._replace(edge_features=None))
