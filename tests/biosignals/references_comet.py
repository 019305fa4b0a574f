"""COMET's losses as the paper's loops: one Python float at a time, in the names of the paper's code.

z and z' are the two views of a level, nested lists or tensors indexed [window][time][channel]. Written to be
read beside Wang et al. 2023 and to be differentiated (every number may be a float64 tensor scalar); never
fast.
"""

from __future__ import annotations

import torch
from torch import Tensor


def logsumexp(logits: list[Tensor]) -> Tensor:
    return torch.stack(logits).logsumexp(0)


def contrast_with_the_twin(vectors: list[Tensor]) -> Tensor:
    """2n vectors, of which m and m + n are the two views of one thing: the mean over all of -log softmax."""
    n = len(vectors) // 2
    terms = []
    for m in range(2 * n):
        twin = (m + n) % (2 * n)
        others = [vectors[m] @ vectors[j] for j in range(2 * n) if j != m]
        terms.append(logsumexp(others) - vectors[m] @ vectors[twin])
    return torch.stack(terms).mean()


def observation_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """One time scale: per window, its T steps in view 1 and its T steps in view 2."""
    B, T, _ = z1.shape
    per_window = [
        contrast_with_the_twin([z1[b, t] for t in range(T)] + [z2[b, t] for t in range(T)]) for b in range(B)
    ]
    return torch.stack(per_window).mean()


def sample_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """One time scale: per time step, the B windows in view 1 and the B windows in view 2."""
    B, T, _ = z1.shape
    per_step = [
        contrast_with_the_twin([z1[b, t] for b in range(B)] + [z2[b, t] for b in range(B)]) for t in range(T)
    ]
    return torch.stack(per_step).mean()


def max_pool(z: Tensor) -> Tensor:
    """Maximum of each two time steps; of two equal values the first is taken; an odd last step is dropped."""
    B, T, K = z.shape
    pooled = [
        torch.stack(
            [
                torch.stack(
                    [z[b, t, k] if z[b, t, k] >= z[b, t + 1, k] else z[b, t + 1, k] for k in range(K)]
                )
                for t in range(0, T - 1, 2)
            ]
        )
        for b in range(B)
    ]
    return torch.stack(pooled)


def over_scales(loss, z1: Tensor, z2: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    """Evaluate, halve the time axis, repeat while more than one step is left; the mean over the scales."""
    scales = []
    while z1.shape[1] > 1:
        scales.append(loss(z1, z2))
        z1, z2 = max_pool(z1), max_pool(z2)
    return torch.stack(scales).mean()


def similarity(z1: Tensor, z2: Tensor, temperature: float = 0.1) -> list[list[Tensor]]:
    """S[a][b]: both windows normalised along time, channel by channel, flattened: cosine / temperature."""

    def unit(window: Tensor) -> Tensor:
        T, K = window.shape
        channels = []
        for k in range(K):
            norm = sum(window[t, k] ** 2 for t in range(T)) ** 0.5
            channels.append(window[:, k] / max(norm, 1e-12))
        return torch.stack(channels, dim=1).flatten()

    u, w = [unit(each) for each in z1], [unit(each) for each in z2]
    return [[(a @ b) / (a.norm() * b.norm()) / temperature for b in w] for a in u]


def id_loss(z1: Tensor, z2: Tensor, ids: list[int], order: str = "as_released") -> Tensor:
    """The trial or patient level: pairs of windows with one id; in the released code only a < b."""
    B = len(ids)
    S = similarity(z1, z2)
    up, down = [], []
    for a in range(B):
        for b in range(B):
            positive = ids[a] == ids[b] and ids[a] != -1 and (a < b if order == "as_released" else a != b)
            if positive:
                up.append(logsumexp([S[a][j] for j in range(B)]) - S[a][b])
                down.append(logsumexp([S[j][a] for j in range(B)]) - S[b][a])
    if not up:
        return 0 * (z1.sum() + z2.sum())
    return (torch.stack(up).mean() + torch.stack(down).mean()) / 2
