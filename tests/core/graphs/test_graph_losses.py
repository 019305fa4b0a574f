"""Losses over graphs are their formulas, in value and gradient."""

from __future__ import annotations

import pytest
import references_losses as reference
import torch
from small import Largest, dense_adjacency, random_batch
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.graphs.branches import AcrossViews, Communities
from diptych.losses.across import across_views
from diptych.losses.communities import against_communities, assignments, density
from diptych.objectives import Scattering
from diptych.types import Encoded, Views


def rows(n=7, width=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=generator, dtype=torch.float64).requires_grad_()


IDS = torch.tensor([5, 3, 11, 2, 40, 7, 8])
BATCH = Views((), {"sample": IDS})


@pytest.mark.parametrize("temperature", [0.1, 0.7])
def test_a_view_against_the_other(temperature):
    one, two = rows(), rows(seed=1)
    encoded = (Encoded(one), Encoded(two))
    both = AcrossViews(temperature=temperature)(encoded, (), BATCH)
    assert both.item() == pytest.approx(reference.across(one.detach(), two.detach(), temperature), rel=1e-9)
    side = AcrossViews(temperature=temperature, positive_among=False, both=False)(encoded, (), BATCH)
    assert side.item() == pytest.approx(
        reference.one_sided(one.detach(), two.detach(), temperature), rel=1e-9
    )


def test_the_second_direction_is_not_the_first_again():
    one, two = rows(), rows(seed=1)
    first = across_views(one, two, IDS).mean()
    second = across_views(two, one, IDS).mean()
    assert abs((first - second).item()) > 1e-3
    found = AcrossViews(temperature=0.1)((Encoded(one), Encoded(two)), (), BATCH)
    torch.testing.assert_close(found, (first + second) / 2)


@pytest.mark.parametrize("among", [True, False])
def test_its_gradient_is_that_of_the_dense_table(among):
    one, two = rows(), rows(seed=1)
    logits = F.normalize(one) @ F.normalize(two).T / 0.3
    expected = -logits.diagonal() + (
        logits if among else logits.masked_fill(torch.eye(7, dtype=torch.bool), -torch.inf)
    ).logsumexp(1)
    found = across_views(one, two, IDS, temperature=0.3, positive_among=among, block=3)
    torch.testing.assert_close(found, expected)
    weights = torch.arange(7.0).double()
    mine = torch.autograd.grad((weights * found).sum(), (one, two))
    torch.testing.assert_close(mine, torch.autograd.grad((weights * expected).sum(), (one, two)))


def test_one_sample_has_nothing_to_be_compared_with():
    one, two = rows(1), rows(1, seed=1)
    for among in (True, False):
        found = across_views(one, two, IDS[:1], positive_among=among)
        assert found.tolist() == [0.0]
        assert torch.autograd.grad(found.sum(), one)[0].eq(0).all()


def test_assignments_train_centres_alone():
    h, centres = rows(), rows(4, seed=2)
    belongs = assignments(h, centres, temperature=0.5)
    torch.testing.assert_close(belongs.sum(1), torch.ones(7).double())
    expected = [reference.cosine(h[2].detach(), c) / 0.5 for c in centres.detach()]
    torch.testing.assert_close(belongs[2], torch.tensor(expected).double().softmax(0))
    belongs[:, 0].sum().backward()
    assert h.grad is None
    assert centres.grad is not None


@pytest.mark.parametrize("between", [1.0, 0.1])
def test_density_is_that_of_dense_matrices_and_so_is_its_gradient(between):
    batch = random_batch((9,))
    scores = rows(9, 4)
    belongs = scores.softmax(1)
    found = density(belongs, batch.edges, between=between)
    expected = reference.density(belongs, dense_adjacency(batch), between)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, scores, retain_graph=True), torch.autograd.grad(expected, scores)
    )


def test_density_prefers_communities_that_the_edges_make():
    clique = torch.ones(4, 4) - torch.eye(4)
    adjacency = torch.block_diag(clique, clique)
    edges = adjacency.nonzero().T
    right = torch.eye(2).repeat_interleave(4, 0)
    wrong = torch.eye(2).repeat(4, 1)
    assert density(right, edges) < density(wrong, edges)


@pytest.mark.parametrize("nearness", [0.0, 2.0])
def test_nodes_against_communities(nearness):
    h, other = rows(), rows(seed=1)
    community = [0, 3, 3, 0, 1, 1, 0]  # 2 and 4 are empty
    found = against_communities(h, other, torch.tensor(community), 5, temperature=0.4, nearness=nearness)
    expected = reference.against_communities(h.detach(), other.detach(), community, 5, 0.4, nearness)
    torch.testing.assert_close(found.detach(), torch.tensor(expected).double())
    found.sum().backward()
    assert other.grad is None
    assert h.grad.isfinite().all()


def test_distant_communities_repel_less():
    h, other, community = rows(), rows(seed=1), torch.tensor([0, 3, 3, 0, 1, 1, 0])
    plain, weighed = (
        against_communities(h, other, community, 4, temperature=0.4, nearness=nearness)
        for nearness in (0.0, 1.0)
    )
    assert (weighed < plain).all()


def test_nothing_of_nodes_times_nodes_is_made():
    largest = Largest()
    n, k = 3000, 4
    edges = torch.randint(0, n, (2, 4 * n))
    centres = torch.randn(k, 8, requires_grad=True)
    one, two = torch.randn(n, 8, requires_grad=True), torch.randn(n, 8)
    with largest:
        belongs = assignments(one, centres)
        loss = density(belongs, edges)
        loss = loss + against_communities(one, two, belongs.argmax(1), k, nearness=1.0).mean()
        loss.backward()
    assert largest.found <= 4 * n * max(k, 8)


def test_communities_weigh_density_early_and_contrast_late():
    batch = random_batch((9,))
    views = Views((batch,), {"part": torch.arange(9), "sample": torch.arange(1)})
    encoded = tuple(Encoded(batch.nodes, rows(9, 3, seed).detach()) for seed in (0, 1))
    torch.manual_seed(0)
    objective = Communities(3, communities=4, span=20, fade=0.5, nearness=1.0).double()
    hot = [assignments(each.parts, objective.centres) for each in encoded]
    dense = sum(reference.density(each, dense_adjacency(batch), 1.0) for each in hot) / 2
    late = (
        sum(
            sum(
                reference.against_communities(
                    encoded[one].parts, encoded[1 - one].parts, hot[1 - one].argmax(1).tolist(), 4, 0.4, 1.0
                )
            )
            / 9
            for one in (0, 1)
        )
        / 2
    )
    for t in range(12):
        share = torch.exp(torch.tensor(-t / 20)).double()
        expected = max(0.0, 1 - t / 10) * (share * dense + (1 - share) * late)
        torch.testing.assert_close(objective(encoded, (), views), expected, rtol=1e-5, atol=1e-7)
    objective.eval()
    objective(encoded, (), views)
    assert int(objective.steps) == 12
    assert float(Communities(3, span=20, fade=None).weights()[0]) == 1.0


def test_a_running_centre_is_the_weighed_mean_of_the_batches_so_far():
    objective = Scattering(momentum=0.7, width=3).double()
    batches = [rows(seed=seed) for seed in range(4)]
    means = [F.normalize(each.detach()).mean(0) for each in batches]
    for number, each in enumerate(batches):
        weights = torch.tensor([0.7 ** (number - i) for i in range(number + 1)]).double()
        centre = (weights[:, None] * torch.stack(means[: number + 1])).sum(0) / weights.sum()
        expected = -(F.normalize(each.detach()) - centre).square().sum(1).mean()
        loss = objective((Encoded(each),), (), BATCH)
        torch.testing.assert_close(loss.detach(), expected)
    remembered = objective.state_dict()
    objective.eval()
    objective((Encoded(batches[0]),), (), BATCH)
    assert all(
        torch.equal(a, b) for a, b in zip(remembered.values(), objective.state_dict().values(), strict=True)
    )
    plain = Scattering()((Encoded(batches[0]),), (), BATCH)
    first = Scattering(momentum=0.7, width=3).double()((Encoded(batches[0]),), (), BATCH)
    torch.testing.assert_close(first, plain)
    mine, theirs = (torch.autograd.grad(each, batches[0])[0] for each in (first, plain))
    torch.testing.assert_close(mine, theirs)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"one positive, got anchors \(7, 3\) and \(6, 3\)"):
        across_views(rows(), rows(6), IDS)
    with pytest.raises(
        ValueError, match=r"rows in both views and a community, got \(7, 3\), \(7, 3\) and \(6,\)"
    ):
        against_communities(rows(), rows(), torch.zeros(6).long(), 2, nearness=0.0)
    with pytest.raises(ConfigError, match="in pairs, got 1"):
        AcrossViews()((Encoded(rows()),), (), BATCH)
    with pytest.raises(ConfigError, match="temperature must be above 0, got 0"):
        AcrossViews(temperature=0)
    with pytest.raises(ConfigError, match="at least 2, their span"):
        Communities(3, communities=1)
    with pytest.raises(ConfigError, match="rows of all nodes in two views"):
        Communities(3)((Encoded(rows()), Encoded(rows())), (), BATCH)
    with pytest.raises(ConfigError, match="a moving centre needs the width"):
        Scattering(momentum=0.5)
    with pytest.raises(ConfigError, match=r"momentum must lie in 0\.\.1 and below 1, got 1"):
        Scattering(momentum=1.0, width=3)
