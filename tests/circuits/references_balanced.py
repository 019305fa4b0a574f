"""Losses for uneven labels as loops over Python floats, in the papers' letters."""

from __future__ import annotations

import math
from collections.abc import Sequence


def normal(x: float, mean: float, variance: float) -> float:
    return math.exp(-((x - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)


def gai(
    p: Sequence[float],
    y: Sequence[float],
    v: float,
    w: Sequence[float],
    m: Sequence[float],
    s: Sequence[float],
) -> float:
    total = 0.0
    for p_i, y_i in zip(p, y, strict=True):
        integral = sum(w_k * normal(p_i, m_k, v + s_k) for w_k, m_k, s_k in zip(w, m, s, strict=True))
        total += -math.log(normal(y_i, p_i, v)) + math.log(integral)
    return 2 * v * total / len(p)


def bmc(p: Sequence[float], y: Sequence[float], v: float) -> float:
    total = 0.0
    for i in range(len(p)):
        total += -math.log(normal(y[i], p[i], v) / sum(normal(y_j, p[i], v) for y_j in y))
    return 2 * v * total / len(p)


def bni(p: Sequence[float], y: Sequence[float], v: float, c: Sequence[float], pi: Sequence[float]) -> float:
    total = 0.0
    for p_i, y_i in zip(p, y, strict=True):
        integral = sum(pi_b * normal(c_b, p_i, v) for c_b, pi_b in zip(c, pi, strict=True))
        total += -math.log(normal(y_i, p_i, v)) + math.log(integral)
    return 2 * v * total / len(p)


def released_bmc(p: Sequence[float], y: Sequence[float], v: float) -> float:
    exponents = [-((p_i - y_i) ** 2) / (2 * v) for p_i, y_i in zip(p, y, strict=True)]
    normaliser = math.log(sum(math.exp(e) for e in exponents))
    return 2 * v * sum(-i * (e - normaliser) for i, e in enumerate(exponents))


def histogram(y: Sequence[float], bins: int) -> tuple[list[float], list[float]]:
    low, high = min(y), max(y)
    width = (high - low) / bins
    counts = [0] * bins
    for y_i in y:
        counts[bin_of(y_i, low, width, bins)] += 1
    return [low + width * (b + 0.5) for b in range(bins)], [count / len(y) for count in counts]


def bin_of(y_i: float, low: float, width: float, bins: int) -> int:
    return min(bins - 1, max(0, math.floor((y_i - low) / width)))


def label_density(pi: Sequence[float], reach: int, sigma: float) -> list[float]:
    kernel = {o: math.exp(-(o**2) / (2 * sigma**2)) for o in range(-reach, reach + 1)}
    total = sum(kernel.values())
    return [
        sum(kernel[o] / total * pi[b + o] for o in kernel if 0 <= b + o < len(pi)) for b in range(len(pi))
    ]


def softmax(logits: Sequence[float]) -> list[float]:
    terms = [math.exp(logit) for logit in logits]
    return [term / sum(terms) for term in terms]


def balanced_softmax(logits: Sequence[Sequence[float]], y: Sequence[int], n: Sequence[int]) -> float:
    total = 0.0
    for row, y_i in zip(logits, y, strict=True):
        total += -math.log(
            n[y_i] * math.exp(row[y_i]) / sum(n_c * math.exp(e) for n_c, e in zip(n, row, strict=True))
        )
    return total / len(y)


def focal(logits: Sequence[Sequence[float]], y: Sequence[int], w: Sequence[float], gamma: float) -> float:
    total = 0.0
    for row, y_i in zip(logits, y, strict=True):
        p = softmax(row)[y_i]
        total += -w[y_i] * (1 - p) ** gamma * math.log(p)
    return total / len(y)
