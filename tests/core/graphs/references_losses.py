"""The losses over graphs as loops over rows, from their formulas."""

from __future__ import annotations

import math

import torch


def cosine(a, b):
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


def nt_xent(one, two, temperature):
    """GRACE (Zhu et al. 2020): mean over nodes and both directions, by its own formula."""
    total, n = 0.0, len(one)
    for u, v in ((one, two), (two, one)):
        for i in range(n):
            between = [math.exp(cosine(u[i], v[j]) / temperature) for j in range(n)]
            within = [math.exp(cosine(u[i], u[j]) / temperature) for j in range(n) if j != i]
            total -= math.log(between[i] / (sum(between) + sum(within)))
    return total / (2 * n)


def one_sided(one, two, temperature):
    """GraphCL's own: the positive is not in the sum."""
    n, total = len(one), 0.0
    for i in range(n):
        others = [math.exp(cosine(one[i], two[j]) / temperature) for j in range(n) if j != i]
        total -= math.log(math.exp(cosine(one[i], two[i]) / temperature) / sum(others))
    return total / n


def across(one, two, temperature):
    """gCooL's node term in both directions, the second one transposed."""
    n, total = len(one), 0.0
    for u, v in ((one, two), (two, one)):
        for i in range(n):
            between = [math.exp(cosine(u[i], v[j]) / temperature) for j in range(n)]
            total -= math.log(between[i] / sum(between))
    return total / (2 * n)


def density(belongs, adjacency, between):
    """DeCA with the dense matrices of the paper."""
    n = len(belongs)
    f = belongs.T @ adjacency @ belongs
    first = (between * f.sum() - (n - 1 + between) * f.trace()) / (n * (n - 1))
    return first + (belongs.T @ belongs).trace() / (2 * n)


def against_communities(h, other, community, k, temperature, nearness):
    """ReSC for each node."""
    unit = [row / row.norm() for row in other]
    present = sorted(set(community))
    centres = {
        c: torch.stack([u for u, own in zip(unit, community, strict=True) if own == c]).mean(0)
        for c in present
    }
    assert set(centres) <= set(range(k))
    losses = []
    for row, own in zip(h, community, strict=True):
        row = row / row.norm()
        score = {c: math.exp(float(row @ centres[c]) / temperature) for c in present}
        weight = {c: math.exp(-nearness * float((centres[c] - centres[own]).square().sum())) for c in present}
        losses.append(-math.log(score[own] / sum(weight[c] * score[c] for c in present)))
    return losses
