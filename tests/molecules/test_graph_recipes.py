"""Every recipe over graphs and nodes takes a training step on real molecules, salts and single atoms among them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from graphs_of import graph_of, nci_smiles
from torch import nn

from diptych.graphs.recipes import BGRL, GRACE, SGRL, GCooL, GraphCL, MolCLR
from diptych.graphs.views import DropEdges
from diptych.method import Method, MethodBuilder
from diptych.types import Views
from diptych_molecules.columns import ATOM_COLUMNS
from diptych_molecules.encoders import GIN
from diptych_molecules.gcn import GCN
from diptych_molecules.kcl import KCL, Pair
from diptych_molecules.kmpnn import KMPNN
from diptych_molecules.prompt import FunctionalPrompt

MASKED = [float(column.mask) for column in ATOM_COLUMNS]
SMALL = partial(GIN, hidden=16, depth=2)
QUICK = partial(KMPNN, steps=2, iterations=1)
SGD = partial(torch.optim.SGD, lr=0.1)


def molecules() -> Views:
    batch = graph_of([*nci_smiles(4), "[Na+].CC(=O)[O-]", "C", "*CC"])
    return Views((batch,), {"sample": torch.arange(7), "part": torch.arange(len(batch.nodes))})


def train_step(method: Method, batch: Views) -> list[float]:
    """One step of every phase, as the Pretrainer takes it; the losses."""
    method.train()
    losses = []
    for phase in method.phases:
        optimizer = phase.optimizer(list(phase.parameters()))
        optimizer.zero_grad()
        for each in phase.passes:
            with torch.no_grad():
                target = () if each.target is None else each.target(batch)
            online = each.online(batch)
            loss = torch.stack([t.weight * t.objective(online, target, batch) for t in each.terms]).sum()
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        for call in phase.after:
            call()
    return losses


@pytest.mark.parametrize("encoder", [SMALL, partial(FunctionalPrompt, SMALL)], ids=["gin", "prompt"])
@pytest.mark.parametrize(
    "recipe",
    [
        GraphCL(),
        MolCLR(fill=MASKED),
        GRACE(fill=MASKED),
        BGRL(fill=MASKED),
        SGRL(nodes="all"),
        GCooL(fill=MASKED, communities=3),
        KCL(other=QUICK, changes=(DropEdges(fraction=0.2),)),
    ],
    ids=lambda recipe: type(recipe).__name__,
)
def test_a_step_changes_the_encoder_and_stays_finite(
    recipe: MethodBuilder, encoder: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    made = encoder()
    method = recipe(made, SGD, None)
    before = {name: each.clone() for name, each in made.named_parameters()}
    losses = train_step(method, molecules())
    assert all(torch.tensor(losses).isfinite())
    moved = [name for name, each in made.named_parameters() if not torch.equal(each, before[name])]
    assert any("tables" in name for name in moved)
    assert all(each.isfinite().all() for each in made.parameters())
    whole = method.encoder.eval()(molecules().views[0]).whole
    assert whole.shape == (7, made.width)
    assert whole.isfinite().all()


@pytest.mark.parametrize("encoder", [GCN, partial(GCN, features="all"), QUICK, partial(Pair, GCN, QUICK)])
@pytest.mark.parametrize("recipe", [GraphCL(), MolCLR(fill=MASKED)], ids=lambda recipe: type(recipe).__name__)
def test_kcl_s_encoders_are_trained_by_other_recipes_too(
    recipe: MethodBuilder, encoder: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    losses = train_step(recipe(encoder(), SGD, None), molecules())
    assert all(torch.tensor(losses).isfinite())


@pytest.mark.parametrize(
    "recipe",
    [GRACE(fill=MASKED), BGRL(fill=MASKED), SGRL(nodes="all"), GCooL(fill=MASKED)],
    ids=lambda recipe: type(recipe).__name__,
)
@pytest.mark.parametrize("make", [GCN, QUICK], ids=["gcn", "kmpnn"])
def test_methods_over_atoms_take_encoders_whose_molecules_have_another_width(
    recipe: MethodBuilder, make: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    encoder = make()
    assert encoder.parts_width != encoder.width
    before = [each.detach().clone() for each in encoder.parameters()]
    losses = train_step(recipe(encoder, SGD, None), molecules())
    assert torch.tensor(losses).isfinite().all()
    assert any((one != other).any() for one, other in zip(before, encoder.parameters(), strict=True))
