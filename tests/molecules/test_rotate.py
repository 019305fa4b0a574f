"""RotatE: its formulas as loops, corrupted triples that are not true, and an embedding that knows the graph."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch

from diptych.errors import ConfigError
from diptych_molecules import rotate
from diptych_molecules.elements import knowledge
from diptych_molecules.rotate import RotatE, free, loss, reciprocal_rank, scores, shipped, subsampling, train

TRIPLES = np.array([[0, 0, 3], [0, 0, 4], [1, 0, 4], [2, 1, 3]])
SMALL = RotatE(width=4, batch=3, negatives=5, steps=20)


def test_scores_are_the_equation() -> None:
    torch.manual_seed(0)
    h, r, t = torch.rand(5, 8).double(), torch.rand(5, 4).double(), torch.rand(5, 8).double()
    found = scores(h, r, t, margin=7.0, half_range=1.5)
    for i in range(5):
        distance = 0.0
        for k in range(4):
            head, tail = complex(h[i, k], h[i, k + 4]), complex(t[i, k], t[i, k + 4])
            distance += abs(head * cmath.exp(1j * math.pi * float(r[i, k]) / 1.5) - tail)
        assert found[i].item() == pytest.approx(7.0 - distance, abs=1e-12)


def test_a_triple_met_exactly_has_the_margin_and_a_finite_gradient() -> None:
    h = torch.rand(1, 8).double().requires_grad_()
    score = scores(h, torch.zeros(1, 4).double(), h.detach(), margin=7.0, half_range=1.0)
    score.sum().backward()
    assert score.item() == pytest.approx(7.0)
    assert h.grad is not None
    assert h.grad.isfinite().all()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_loss_is_the_equation_and_its_weights_carry_no_gradient() -> None:
    torch.manual_seed(0)
    true, corrupted = torch.randn(3).double(), torch.randn(3, 4).double().requires_grad_()
    weights = torch.tensor([1.0, 0.5, 2.0]).double()
    found = loss(true, corrupted, weights, adversarial=0.7)
    plain, weigh = corrupted.tolist(), weights.tolist()
    total, gradient = 0.0, np.zeros((3, 4))
    for i in range(3):
        exponents = [math.exp(0.7 * plain[i][c]) for c in range(4)]
        total -= weigh[i] * math.log(sigmoid(true[i].item()))
        for c in range(4):
            share = exponents[c] / sum(exponents)
            total -= weigh[i] * share * math.log(sigmoid(-plain[i][c]))
            gradient[i, c] = weigh[i] * share * sigmoid(plain[i][c]) / (2 * 3.5)
    assert found.item() == pytest.approx(total / (2 * 3.5), rel=1e-12)
    (own,) = torch.autograd.grad(found, corrupted)
    np.testing.assert_allclose(own.numpy(), gradient, rtol=1e-10)


def test_subsampling_counts_heads_and_tails_with_their_relation() -> None:
    # (0, r0) twice, (r0, 3) once: counts 5 and 4; (r0, 4) twice
    expected = [1 / math.sqrt(5 + 4), 1 / math.sqrt(5 + 5), 1 / math.sqrt(4 + 5), 1 / math.sqrt(4 + 4)]
    np.testing.assert_allclose(subsampling(TRIPLES), expected)


@pytest.mark.parametrize("column", [0, 2])
def test_free_entities_are_those_that_make_no_known_triple(column: int) -> None:
    found = free(TRIPLES, 5, column)
    known = {tuple(row) for row in TRIPLES.tolist()}
    for i, row in enumerate(TRIPLES.tolist()):
        for entity in range(5):
            changed = list(row)
            changed[column] = entity
            assert found[i, entity] == (tuple(changed) not in known)


def test_training_is_a_function_of_its_seed() -> None:
    first, again = (train(TRIPLES, 5, 2, SMALL) for _ in range(2))
    other = train(TRIPLES, 5, 2, RotatE(width=4, batch=3, negatives=5, steps=20, seed=1))
    assert torch.equal(first.entities, again.entities)
    assert torch.equal(first.relations, again.relations)
    assert not torch.equal(first.entities, other.entities)


def test_reciprocal_rank_is_that_of_a_loop_over_entities() -> None:
    embedding = train(TRIPLES, 5, 2, SMALL)
    table, phases = embedding
    shape = {"margin": SMALL.margin, "half_range": SMALL.half_range}
    known, total = {tuple(row) for row in TRIPLES.tolist()}, 0.0
    for column in (0, 2):
        for row in TRIPLES.tolist():

            def score(triple: list[int]) -> float:
                return float(scores(table[triple[0]], phases[triple[1]], table[triple[2]], **shape))

            changed = [[entity if k == column else row[k] for k in range(3)] for entity in range(5)]
            better = sum(score(each) > score(row) for each in changed if tuple(each) not in known)
            total += 1 / (1 + better)
    assert reciprocal_rank(embedding, TRIPLES, SMALL) == pytest.approx(total / 8, rel=1e-6)


def test_the_shipped_embedding_knows_the_graph_and_a_random_one_does_not() -> None:
    graph = knowledge()
    triples = graph.numbered()
    embedding = shipped()
    assert embedding.entities.shape == (graph.entities, 128)
    assert embedding.relations.shape == (17, 64)
    random = rotate.Embedding(torch.rand(graph.entities, 128), torch.rand(17, 64))
    assert reciprocal_rank(embedding, triples, RotatE()) > 0.8
    assert reciprocal_rank(random, triples, RotatE()) < 0.1


def test_an_embedding_of_another_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotate, "digest", lambda: "another")
    with pytest.raises(
        ConfigError, match=r"rotate\.safetensors belongs to another elements\.tsv; run: python -m"
    ):
        shipped.__wrapped__()


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="negatives and steps of at least 1 and a margin above 0, got 64, 64, 0"
    ):
        RotatE(negatives=0)
