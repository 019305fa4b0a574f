"""Methods over graphs compute their papers' losses, on whole graphs as on sampled neighbourhoods."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import references_losses as reference
import torch
from small import Largest, random_batch
from torch import nn
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.encoders import GCN, GIN
from diptych.graphs.neighbours import Adjacency, sample_neighbours
from diptych.graphs.propagation import Smoothed, propagate
from diptych.graphs.recipes import BGRL, GRACE, SGRL, GCooL, GraphCL, MolCLR
from diptych.graphs.views import DropEdges, DropNodes, MaskFeatures
from diptych.types import Views

sgd = functools.partial(torch.optim.SGD, lr=0.1)
EVERY = [GraphCL(), GraphCL(form="one_sided"), MolCLR(), GRACE(), BGRL(), SGRL(), GCooL()]
OF_NODES = [GRACE(), BGRL(steps=9), SGRL(), SGRL(centre="running"), GCooL()]


def views_of(batch):
    n = batch.graphs if batch.roots is None else len(batch.roots)
    return Views((batch,), {"sample": torch.arange(n) + 100, "part": torch.arange(len(batch.nodes)) + 7})


def encoder_of(batch, width=6):
    return GCN(batch.nodes.shape[1], widths=(8, width), activation="prelu").double()


def method_of(recipe, encoder):
    method = recipe(encoder, sgd, None)
    return method.double()


def loss_of(each, batch):
    with torch.no_grad():
        target = () if each.target is None else each.target(batch)
    online = each.online(batch)
    return sum(term.weight * term.objective(online, target, batch) for term in each.terms)


def step(method, batch):
    """One step of every phase, as the pretrainer takes it; the losses."""
    losses = []
    for phase in method.phases:
        optimizer = phase.optimizer(list(phase.parameters()))
        loss = sum(loss_of(each, batch) for each in phase.passes)
        loss.backward()
        optimizer.step()
        for parameter in method.parameters():
            parameter.grad = None
        for call in phase.after:
            call()
        losses.append(loss.item())
    return losses


def unchanged(batch):
    return {"first": [DropEdges(fraction=0.0)], "second": [DropEdges(fraction=0.0)]}


def heads(method, rows):
    return method.parts["projector"](rows)


@pytest.mark.parametrize("roots", [None, [4, 11, 2]])
def test_grace_is_its_formula_over_nodes_or_roots(roots):
    torch.manual_seed(0)
    batch = random_batch()
    batch = batch if roots is None else batch._replace(roots=torch.tensor(roots))
    column = [MaskFeatures(fraction=0.5)]
    method = method_of(GRACE(first=[DropEdges(fraction=0.5)], second=column), encoder := encoder_of(batch))
    torch.manual_seed(3)
    loss = loss_of(method.phases[0].passes[0], views_of(batch))
    torch.manual_seed(3)
    seen = [view.apply(batch, view.draw(batch)) for view in (DropEdges(fraction=0.5), column[0])]
    one, two = (
        heads(method, encoder(each).parts if roots is None else encoder(each).parts[roots]).detach()
        for each in seen
    )
    assert float(loss.detach()) == pytest.approx(reference.nt_xent(one, two, 0.4), rel=1e-9)


def test_molclr_and_graphcl_are_nt_xent_over_graphs():
    batch = random_batch((4, 7, 5), density=0.6)
    for recipe in (GraphCL(temperature=0.3, **unchanged(batch)), MolCLR(temperature=0.3, **unchanged(batch))):
        torch.manual_seed(0)
        encoder = encoder_of(batch)
        method = method_of(recipe, encoder)
        one = heads(method, encoder(batch).whole).detach()
        loss = loss_of(method.phases[0].passes[0], views_of(batch)).item()
        assert loss == pytest.approx(reference.nt_xent(one, one, 0.3), rel=1e-9)
    method = method_of(GraphCL(temperature=0.3, form="one_sided", **unchanged(batch)), encoder)
    one = heads(method, encoder(batch).whole).detach()
    loss = loss_of(method.phases[0].passes[0], views_of(batch)).item()
    assert loss == pytest.approx(reference.one_sided(one, one, 0.3), rel=1e-9)


def test_molclr_masks_by_code_and_drops_whole_bonds():
    batch = random_batch((9, 8), codes=(5, 4))
    method = MolCLR(fill=(5, 4))(GIN((6, 5), hidden=4, depth=1), sgd, None)
    for view in method.phases[0].passes[0].online.augment(batch):
        assert int((view.nodes == torch.tensor([5, 4])).all(1).sum()) == 2 + 2
        pairs = set(map(tuple, view.edges.T.tolist()))
        assert pairs == {(b, a) for a, b in pairs}
        assert len(pairs) < batch.edges.shape[1]


def sampled(batch, roots, hops):
    found = sample_neighbours(
        Adjacency.of(batch.edges.numpy(), len(batch.nodes)),
        roots,
        hops=hops,
        limit=10**6,
        disjoint=True,
        key=0,
    )
    return GraphBatch(
        nodes=batch.nodes[found.nodes],
        edges=torch.from_numpy(found.edges),
        edge_features=None,
        graph=torch.from_numpy(found.owner),
        graphs=len(roots),
        roots=torch.from_numpy(found.roots),
    )


def test_with_a_large_limit_sampled_neighbourhoods_give_what_the_whole_graph_gives():
    """A layer looks one hop away; a normalised one needs the degrees of what it sees, one hop further."""
    torch.manual_seed(0)
    batch = random_batch((25,), density=0.1)
    roots = np.array([3, 20, 7, 8])
    whole = batch._replace(roots=torch.from_numpy(roots))
    for encoder, hops in ((GIN(3, hidden=4, depth=2).double().eval(), 2), (encoder_of(batch), 3)):
        assert len(sampled(batch, roots, hops).nodes) != len(batch.nodes)
        torch.testing.assert_close(encoder(sampled(batch, roots, hops)).whole, encoder(whole).whole)
    method = method_of(SGRL(hops=1), encoder_of(batch))
    for phase in method.phases:
        one, two = (loss_of(phase.passes[0], views_of(each)) for each in (sampled(batch, roots, 4), whole))
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("roots", [None, [0, 5, 7, 19]])
@pytest.mark.parametrize("recipe", OF_NODES, ids=lambda each: type(each).__name__)
def test_methods_over_nodes_train_their_encoder(recipe, roots):
    torch.manual_seed(0)
    batch = random_batch(features=8)
    batch = batch if roots is None else batch._replace(roots=torch.tensor(roots))
    encoder = encoder_of(batch)
    before = [each.clone() for each in encoder.parameters()]
    method = method_of(recipe, encoder)
    assert method.encoder is encoder
    for _ in range(2):
        assert all(math.isfinite(each) for each in step(method, views_of(batch)))
    weights = dict(encoder.named_parameters())
    moved = [not torch.equal(a, b) for a, b in zip(before, weights.values(), strict=True)]
    assert all(moved)


@pytest.mark.parametrize("recipe", EVERY, ids=lambda each: type(each).__name__)
def test_the_order_of_graphs_in_a_batch_does_not_matter_to_the_loss(recipe):
    """All random views left out: the same graphs in another order, with their ids, give the same loss."""
    batch = random_batch((4, 6), density=0.7)
    swap = torch.tensor([*range(4, 10), *range(4)])
    back = swap.argsort()
    other = batch._replace(nodes=batch.nodes[swap], edges=back[batch.edges], graph=1 - batch.graph[swap])
    recipe = type(recipe)(**(vars(recipe) | unchanged(batch) if hasattr(recipe, "first") else vars(recipe)))
    torch.manual_seed(0)
    method = method_of(recipe, encoder_of(batch)).eval()  # nothing moves on between the two calls
    ids = views_of(batch).groups
    moved = Views((other,), {"sample": ids["sample"].flip(0), "part": ids["part"][swap]})
    for phase in method.phases:
        one, two = loss_of(phase.passes[0], views_of(batch)), loss_of(phase.passes[0], moved)
        torch.testing.assert_close(one, two)


def test_bgrl_predicts_the_average_from_the_same_two_views():
    torch.manual_seed(0)
    batch = random_batch()
    encoder = encoder_of(batch)
    method = method_of(BGRL(), encoder)
    teacher, predictor = method.parts["teacher"], method.parts["predictor"]
    assert not torch.equal(teacher.copy.encoder.linears[0].weight, encoder.linears[0].weight)
    each = method.phases[0].passes[0]
    torch.manual_seed(5)
    loss = loss_of(each, views_of(batch))
    torch.manual_seed(5)
    one, two = each.online.augment.make(batch)
    expected = sum(
        2 - 2 * F.cosine_similarity(predictor(encoder(a).parts), teacher.copy.encoder(b).parts).mean()
        for a, b in ((one, two), (two, one))
    )
    torch.testing.assert_close(loss, expected / 2)
    before = teacher.copy.encoder.linears[0].weight.clone()
    step(method, views_of(batch))
    torch.testing.assert_close(
        teacher.copy.encoder.linears[0].weight, 0.99 * before + 0.01 * encoder.linears[0].weight
    )


@pytest.mark.parametrize("hops", [0, 1, 2])
def test_sgrl_aligns_then_moves_the_target_then_scatters_it(hops):
    torch.manual_seed(0)
    batch = random_batch()
    encoder = encoder_of(batch)
    method = method_of(SGRL(hops=hops, target_rate=0.5), encoder)
    target, predictor = method.parts["target"], method.parts["predictor"]
    alignment, scattering = (phase.passes[0] for phase in method.phases)
    h = encoder(batch).parts
    seen = h + propagate(h, batch.edges, hops=hops) if hops else h
    expected = -F.cosine_similarity(predictor(seen), target(batch).parts).mean()
    torch.testing.assert_close(loss_of(alignment, views_of(batch)), expected)
    unit = F.normalize(target(batch).parts)
    torch.testing.assert_close(
        loss_of(scattering, views_of(batch)), -(unit - unit.mean(0)).square().sum(1).mean()
    )
    name = "linears.0.weight"
    first = target.get_parameter(name).clone()
    step(method, views_of(batch))
    moved = 0.99 * first + 0.01 * encoder.get_parameter(name)
    copy = type(encoder)(3, widths=(8, 6), activation="prelu").double()
    copy.load_state_dict(target.state_dict())
    assert not torch.equal(target.get_parameter(name), moved)  # its own step comes after
    optimizer = method.phases[1].optimizer(list(method.phases[1].parameters()))
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert set(method.phases[0].parameters()) == {*encoder.parameters(), *predictor.parameters()}
    assert set(method.phases[1].parameters()) == set(target.parameters())


def test_sgrl_moves_the_target_by_epoch_where_asked():
    method = SGRL(update="epoch")(encoder_of(random_batch()), sgd, None)
    assert not method.phases[0].after
    target, encoder = method.parts["target"], method.parts["encoder"]
    before = target.linears[0].weight.clone()
    for call in method.phases[0].after_epoch:
        call()
    torch.testing.assert_close(target.linears[0].weight, 0.99 * before + 0.01 * encoder.linears[0].weight)


def test_sgrl_looks_at_the_roots_or_at_all_nodes():
    torch.manual_seed(0)
    batch = random_batch()._replace(roots=torch.tensor([4, 0, 9]))
    encoder = encoder_of(batch)
    for nodes, rows in (("roots", batch.roots), ("all", torch.arange(len(batch.nodes)))):
        method = method_of(SGRL(nodes=nodes, hops=0), encoder)
        unit = F.normalize(method.parts["target"](batch).parts[rows])
        expected = -(unit - unit.mean(0)).square().sum(1).mean()
        torch.testing.assert_close(loss_of(method.phases[1].passes[0], views_of(batch)), expected)


def test_a_smoothed_encoder_keeps_what_sgrl_embeds():
    torch.manual_seed(0)
    batch = random_batch()
    encoder = Smoothed(encoder_of(batch), 2)
    method = method_of(SGRL(hops=1), encoder)
    predictor, target = method.parts["predictor"], method.parts["target"]
    expected = -F.cosine_similarity(predictor(encoder(batch).parts), target(batch).parts).mean()
    torch.testing.assert_close(loss_of(method.phases[0].passes[0], views_of(batch)), expected)
    assert method.encoder is encoder
    assert not isinstance(target, Smoothed)


def test_gcool_adds_its_two_terms():
    torch.manual_seed(0)
    batch = random_batch()
    encoder = encoder_of(batch)
    method = method_of(GCooL(weight=0.5, **unchanged(batch)), encoder)
    h = heads(method, encoder(batch).parts).detach()
    node, groups = method.phases[0].passes[0].terms
    online = method.phases[0].passes[0].online(views_of(batch))
    assert node.objective(online, (), views_of(batch)).item() == pytest.approx(reference.across(h, h, 0.4))
    assert groups.weight == 0.5
    assert set(method.parts["communities"].parameters()) <= set(method.phases[0].parameters())


@pytest.mark.parametrize(
    "recipe", [GRACE(), GCooL(), SGRL(), BGRL(hidden=16)], ids=lambda each: type(each).__name__
)
def test_memory_grows_with_nodes_not_their_square(recipe):
    torch.manual_seed(0)
    n, width = 3000, 8
    edges = torch.randint(0, n, (2, 3 * n))
    batch = GraphBatch(torch.randn(n, 4), edges, None, torch.zeros(n, dtype=torch.int64), 1)
    method = recipe(GCN(4, widths=(width,)), sgd, None)
    with Largest() as largest:
        for phase in method.phases:
            loss_of(phase.passes[0], views_of(batch)).backward()
    assert largest.found <= 100 * n < n * n / 10


def test_views_that_lose_nodes_are_refused_where_nodes_are_compared():
    for recipe in (GRACE, BGRL, GCooL):
        with pytest.raises(
            ConfigError, match=f"{recipe.__name__} compares nodes, so both views must have the same"
        ):
            recipe(first=[DropNodes()])(encoder_of(random_batch()), sgd, None)


class Fixed(nn.Module):
    """An encoder without weights that are drawn."""

    width = 3

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def test_bad_settings_are_named():
    encoder = encoder_of(random_batch())
    with pytest.raises(ConfigError, match="form must be ntxent or one_sided, got 'both'"):
        GraphCL(form="both")(encoder, sgd, None)
    with pytest.raises(ConfigError, match="update must be step or epoch, got 'batch'"):
        SGRL(update="batch")
    with pytest.raises(ConfigError, match=r"got hops -1, decay 0\.99"):
        SGRL(hops=-1)
    with pytest.raises(ConfigError, match="learning rate must be above 0, got 0"):
        SGRL(target_rate=0.0)(encoder, sgd, None)
    with pytest.raises(ConfigError, match="no layer of Fixed has a method reset_parameters"):
        SGRL()(Fixed(), sgd, None)
    batch = random_batch()
    with pytest.raises(ConfigError, match="needs their ids 'part'; the batch has sample"):
        loss_of(
            GRACE()(encoder, sgd, None).double().phases[0].passes[0],
            Views((batch,), {"sample": torch.arange(4)}),
        )
