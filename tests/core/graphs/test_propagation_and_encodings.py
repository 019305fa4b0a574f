"""Propagation, random walks and centralities are those of the matrices they stand for."""

from __future__ import annotations

import math

import pytest
import torch
from references_graphs import normalised
from small import dense_adjacency, pairs_of, random_batch

from diptych.errors import ConfigError
from diptych.graphs.centrality import centrality, leading_eigenvector, pagerank, spared
from diptych.graphs.encodings import positions, random_walk_returns
from diptych.graphs.propagation import Smoothed, normalised_adjacency, propagate
from diptych.types import Encoded


def directed(batch, seed=3):
    """Half of the edges, a loop and a parallel edge."""
    half = batch.edges[:, ::2]
    return batch._replace(edges=torch.cat([half, half[:, :1], torch.tensor([[2], [2]])], 1))


@pytest.mark.parametrize("hops", [0, 1, 3])
@pytest.mark.parametrize("change", [lambda batch: batch, directed])
def test_propagation_is_the_power_of_the_matrix_and_so_is_its_gradient(hops, change):
    batch = change(random_batch())
    m = len(batch.nodes)
    matrix = torch.tensor(normalised(pairs_of(batch), m), dtype=torch.float64)
    h = batch.nodes.clone().requires_grad_()
    adjacency = normalised_adjacency(batch.edges, m, torch.ones(batch.edges.shape[1]).double())
    found = propagate(h, batch.edges, hops=hops, adjacency=adjacency)
    expected = torch.linalg.matrix_power(matrix, hops) @ h
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(h)
    mine = torch.autograd.grad((found * direction).sum(), h)[0]
    torch.testing.assert_close(mine, torch.autograd.grad((expected * direction).sum(), h)[0])


def test_weights_count_like_parallel_edges():
    batch = random_batch()
    e = batch.edges.shape[1]
    twice = torch.cat([batch.edges, batch.edges], 1)
    weighed = normalised_adjacency(batch.edges, len(batch.nodes), torch.full((e,), 2.0))
    torch.testing.assert_close(
        propagate(batch.nodes.float(), batch.edges, adjacency=weighed),
        propagate(batch.nodes.float(), twice),
    )


class Linear(torch.nn.Module):
    width = 3

    def forward(self, batch):
        return Encoded(batch.nodes[:2], batch.nodes)


def test_a_smoothed_encoder_adds_what_the_neighbours_have():
    batch = random_batch()
    expected = batch.nodes + propagate(batch.nodes, batch.edges, hops=2)
    encoder = Smoothed(Linear(), 2)
    torch.testing.assert_close(encoder(batch).parts, expected)
    assert torch.equal(encoder(batch).whole, batch.nodes[:2])
    roots = torch.tensor([4, 0])
    torch.testing.assert_close(encoder(batch._replace(roots=roots)).whole, expected[roots])
    with pytest.raises(ConfigError, match="at least 1 hop, got 0"):
        Smoothed(Linear(), 0)


@pytest.mark.parametrize("block", [1, 3, 64])
def test_random_walk_returns_are_diagonals_of_powers(block):
    batch = directed(random_batch())
    adjacency = dense_adjacency(batch).T  # [source, target]
    walk = adjacency / adjacency.sum(1, keepdim=True).clamp(min=1)
    expected = torch.stack([torch.linalg.matrix_power(walk, k).diagonal() for k in range(1, 5)], 1)
    found = random_walk_returns(batch, 4, block=block)
    torch.testing.assert_close(found, expected.float())
    assert positions(batch).tolist() == [*range(5), *range(8), 0, *range(6)]


def test_centralities_are_those_of_each_graph_alone():
    batch = random_batch(density=0.7)
    adjacency = dense_adjacency(batch)
    assert centrality(batch, "degree").tolist() == adjacency.sum(1).tolist()
    for graph in range(batch.graphs):
        own = (batch.graph == graph).nonzero()[:, 0]
        part = adjacency[own][:, own]
        vector = torch.linalg.eigh(part + torch.eye(len(own))).eigenvectors[:, -1].abs()
        torch.testing.assert_close(leading_eigenvector(batch)[own].double(), vector, atol=1e-4, rtol=1e-3)
        rank = [1 / len(own)] * len(own)
        for _ in range(10):
            rank = [
                0.15 / len(own)
                + 0.85
                * sum(
                    rank[u] * float(part[v, u]) / max(1.0, float(part[:, u].sum())) for u in range(len(own))
                )
                for v in range(len(own))
            ]
        torch.testing.assert_close(
            pagerank(batch)[own].double(), torch.tensor(rank).double(), atol=1e-6, rtol=1e-5
        )


def test_what_is_central_is_spared_by_the_formula():
    scores, graph = [1.0, 4.0, 2.0, 0.0, 3.0, 3.0], [0, 0, 0, 0, 1, 1]
    logs = [math.log(each) for each in (1.0, 4.0, 2.0, 1.0)]  # 0 counts as the lowest
    mean = sum(logs) / 4
    expected = [min(0.3 * (max(logs) - s) / (max(logs) - mean), 0.5) for s in logs] + [0.3, 0.3]
    found = spared(torch.tensor(scores), torch.tensor(graph), 2, 0.3, 0.5)
    torch.testing.assert_close(found, torch.tensor(expected))
