"""Training as plain loops, and diagnostics as loops over floats."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from diptych.method import Method
from diptych.types import Views


def naive_training(
    method: Method, batches: Sequence[Sequence[Views]], clip: float | None = None
) -> list[dict[str, float]]:
    """Trains a method on groups of batches; the terms of each step, averaged over its group."""
    optimizers = [phase.optimizer(list(phase.parameters())) for phase in method.phases]
    history = []
    for group in batches:
        row: dict[str, float] = {}
        for phase, optimizer in zip(method.phases, optimizers, strict=True):
            loss = torch.zeros(())
            for batch in group:
                for each in phase.passes:
                    target = ()
                    if each.target is not None:
                        target = tuple(
                            part._replace(whole=part.whole.detach()) for part in each.target(batch)
                        )
                    online = each.online(batch)
                    for term in each.terms:
                        value = term.objective(online, target, batch)
                        loss = loss + term.weight * value / len(group)
                        name = f"loss/{term.name}"
                        row[name] = row.get(name, 0.0) + value.item() / len(group)
            row["loss/total"] = row.get("loss/total", 0.0) + loss.item()
            trained = list(phase.parameters())
            gradients = torch.autograd.grad(loss, trained)
            norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
            factor = 1.0 if clip is None else min(1.0, clip / norm)
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter.grad = gradient * factor
            optimizer.step()
            for parameter in trained:
                parameter.grad = None
            for call in phase.after:
                call()
        history.append(row)
    return history


def naive_alignment(z: np.ndarray, other: np.ndarray, alpha: float) -> float:
    total = 0.0
    for one, two in zip(z, other, strict=True):
        difference = one / math.sqrt(sum(one**2)) - two / math.sqrt(sum(two**2))
        total += math.sqrt(sum(difference**2)) ** alpha
    return total / len(z)


def naive_uniformity(z: np.ndarray, t: float) -> float:
    units = [row / math.sqrt(sum(row**2)) for row in z]
    terms = []
    for i in range(len(units)):
        for j in range(i + 1, len(units)):
            terms.append(math.exp(-t * sum((units[i] - units[j]) ** 2)))
    return math.log(sum(terms) / len(terms))


def naive_rankme(z: np.ndarray) -> float:
    """Through the eigenvalues of the Gram matrix, another way to singular values."""
    values = np.sqrt(np.clip(np.linalg.eigvalsh(z.T @ z), 0, None)) if len(z) >= z.shape[1] else None
    if values is None:
        values = np.sqrt(np.clip(np.linalg.eigvalsh(z @ z.T), 0, None))
    entropy = 0.0
    for value in values:
        share = value / sum(values) + 1e-7
        entropy -= share * math.log(share)
    return math.exp(entropy)
