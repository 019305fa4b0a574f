"""KCL's loss is NT-Xent of the two views by hand, its readouts are trained, and what is kept can be loaded again."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from graphs_of import graph_of, nci_smiles
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.graphs.views import DropEdges, MaskFeatures
from diptych.method import Method
from diptych.types import Views
from diptych_molecules.columns import ATOM_COLUMNS
from diptych_molecules.encoders import GIN
from diptych_molecules.gcn import GCN
from diptych_molecules.kcl import KCL, Pair
from diptych_molecules.kmpnn import KMPNN

ADAM = partial(torch.optim.Adam, lr=1e-3)
QUICK = partial(KMPNN, steps=2, iterations=2)
MASK = MaskFeatures(fraction=0.3, what="nodes", fill=[float(column.mask) for column in ATOM_COLUMNS])


def views(count: int = 5) -> Views:
    return Views((graph_of([*nci_smiles(count - 1), "[Na+].CC(=O)[O-]"]),), {"sample": torch.arange(count)})


def loss_of(method: Method, batch: Views) -> Tensor:
    (phase,) = method.phases
    (each,) = phase.passes
    (term,) = each.terms
    return term.objective(each.online(batch), (), batch)


def ntxent_by_hand(first: Tensor, second: Tensor, temperature: float) -> float:
    """mean over 2 n rows of -log( exp(cos(z_i, z_j) / t) / sum_{k != i} exp(cos(z_i, z_k) / t) )."""
    z = [*first.tolist(), *second.tolist()]
    n = len(first)

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    total = 0.0
    for i in range(2 * n):
        others = sum(math.exp(cosine(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        total -= math.log(math.exp(cosine(z[i], z[(i + n) % (2 * n)]) / temperature) / others)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.05])
def test_the_loss_is_ntxent_of_both_views_through_one_projector(temperature: float) -> None:
    torch.manual_seed(0)
    pair = Pair(GCN, QUICK).double()
    method = KCL(temperature=temperature)(pair, ADAM).double()
    batch = views()
    (head,) = method.parts["projector"]
    rows = [head(encoder(batch.views[0]).whole) for encoder in (pair.original, pair.augmented)]
    assert loss_of(method, batch).item() == pytest.approx(ntxent_by_hand(*rows, temperature), rel=1e-9)


def test_every_parameter_is_trained_the_readouts_too() -> None:
    torch.manual_seed(0)
    method = KCL()(Pair(GCN, QUICK), ADAM)
    loss_of(method, views()).backward()
    trained = list(method.phases[0].parameters())
    names = dict(method.named_parameters())
    assert {id(each) for each in trained} == {id(each) for each in names.values()}
    still = [name for name, each in names.items() if each.grad is None or each.grad.abs().sum() == 0]
    assert still == []
    assert any("gate" in name for name in names)
    assert any("lstm" in name for name in names)


@pytest.mark.parametrize(
    ("encoder", "other", "partner"),
    [
        (GCN(), None, KMPNN),
        (QUICK(), None, GCN),
        (GIN(hidden=8, depth=2), QUICK, KMPNN),
        (QUICK(), QUICK, KMPNN),
    ],
)
def test_the_recipe_s_encoder_is_kept_and_the_other_view_s_is_a_part(
    encoder: nn.Module, other: object, partner: type
) -> None:
    method = KCL(other=other)(encoder, ADAM)  # type: ignore[arg-type]
    assert method.encoder is encoder
    assert type(method.parts["other"]) is partner
    assert len(method.parts["projector"]) == (1 if encoder.width == 128 else 2)


def test_a_pair_is_kept_whole_its_rows_side_by_side_and_loads_again() -> None:
    torch.manual_seed(0)
    pair = Pair(partial(GCN, hidden=32), QUICK)
    method = KCL()(pair, ADAM)
    assert method.encoder is pair
    assert "other" not in method.parts
    batch = views().views[0]
    encoded = pair(batch)
    torch.testing.assert_close(
        encoded.whole, torch.cat([pair.original(batch).whole, pair.augmented(batch).whole], 1)
    )
    assert (encoded.whole.shape[1], encoded.parts.shape[1]) == (pair.width, pair.parts_width) == (192, 96)
    again = Pair(partial(GCN, hidden=32), QUICK)
    again.load_state_dict(method.encoder.state_dict())
    torch.testing.assert_close(again(batch).whole, encoded.whole)


def test_changes_are_drawn_anew_for_each_view_and_leave_the_batch_alone() -> None:
    torch.manual_seed(0)
    seen: list[Tensor] = []

    class Watching(nn.Module):
        width = 128

        def forward(self, batch):  # type: ignore[no-untyped-def]
            seen.append(batch.nodes)
            return GCN()(batch)

    batch = views()
    before = batch.views[0].nodes.clone()
    method = KCL(other=Watching, changes=(MASK, DropEdges(fraction=0.1)))(Watching(), ADAM)
    loss_of(method, batch)
    assert torch.equal(batch.views[0].nodes, before)
    assert not torch.equal(seen[0], seen[1])
    assert (seen[0][:, 0] == ATOM_COLUMNS[0].mask).any()
    seen.clear()
    loss_of(KCL(other=Watching)(Watching(), ADAM), batch)
    assert torch.equal(seen[0], before)
    assert torch.equal(seen[1], before)


def test_an_average_is_kept_on_request_and_follows_the_weights() -> None:
    torch.manual_seed(0)
    encoder = Pair(GCN, QUICK)
    method = KCL(averaging="ema", decay=0.5)(encoder, ADAM)
    before = method.encoder.original.atoms.tables[0].weight.clone()
    assert method.encoder is not encoder
    with torch.no_grad():
        encoder.original.atoms.tables[0].weight.add_(1.0)
    for call in method.phases[0].after:
        call()
    torch.testing.assert_close(method.encoder.original.atoms.tables[0].weight, before + 0.5)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="the temperature must be above 0, got 0"):
        KCL(temperature=0)
    with pytest.raises(
        ConfigError, match=r"a Pair holds the encoders of both views; leave method\.other out"
    ):
        KCL(other=QUICK)(Pair(GCN, QUICK), ADAM)
    with pytest.raises(ConfigError, match="an encoder says how wide its embedding is; Linear has no width"):
        KCL()(nn.Linear(2, 2), ADAM)
