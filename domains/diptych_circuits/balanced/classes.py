"""Losses for classes of uneven frequency. Logits are (n, classes), labels (n,) int64, counts (classes,)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def balanced_softmax(logits: Tensor, label: Tensor, counts: Tensor) -> Tensor:
    """Cross-entropy of logits + log n_c, n_c the training set's counts.

    (Ren et al. 2020, "Balanced Meta-Softmax for Long-Tailed Visual Recognition", equation 4.)

    The logits themselves then are those for evenly distributed classes. A class of count 0 is left out of the
    comparison, and a label of it has an infinite loss.
    """
    _check(logits, label, counts)
    return F.cross_entropy(logits + counts.to(logits.dtype).log(), label)


def released_balanced_softmax(logits: Tensor, label: Tensor) -> Tensor:
    """The balanced softmax of CircuitGCL's release, for comparison: its counts are those of the batch.

    So the correction changes from batch to batch, and a class that a batch lacks is left out of the comparison.
    """
    counts = torch.zeros(logits.shape[1], dtype=torch.int64, device=label.device)
    return balanced_softmax(logits, label, counts.index_add(0, label, torch.ones_like(label)))


def focal(logits: Tensor, label: Tensor, weights: Tensor, gamma: float = 2.0) -> Tensor:
    """mean_i - w_y (1 - p_y)^gamma log p_y, p the softmax (Lin et al. 2017, "Focal Loss", equation 5)."""
    _check(logits, label, weights)
    log_p = logits.log_softmax(1).gather(1, label[:, None]).squeeze(1)
    return -(weights[label] * (1 - log_p.exp()).pow(gamma) * log_p).mean()


def inverse_frequency(counts: Tensor) -> Tensor:
    """Weights (classes,) proportional to 1 / count, of sum = the number of classes; 0 for a class of count 0."""
    present = counts > 0
    inverse = torch.where(present, 1 / counts.clamp(min=1).float(), 0.0)
    return inverse * len(counts) / inverse.sum()


def _check(logits: Tensor, label: Tensor, of_classes: Tensor) -> None:
    if logits.ndim != 2 or label.shape != logits.shape[:1] or of_classes.shape != logits.shape[1:]:
        raise ValueError(
            f"expected logits (n, classes), labels (n,) and one value per class, got {tuple(logits.shape)}, "
            f"{tuple(label.shape)} and {tuple(of_classes.shape)}"
        )
