"""Losses for numbers whose distribution is uneven: balanced mean squared errors, and weights by label density.

With p the predictions (n,), y the labels (n,) and v = sigma^2 the variance of the noise, a balanced error is
the negative logarithm of the likelihood of y under a training set with the label distribution q (Ren et al.
2022, "Balanced MSE for Imbalanced Visual Regression", equation 3.3):

    - log N(y; p, v) + log integral N(y'; p, v) q(y') dy'

so that what p estimates is the regression for evenly distributed labels. The forms differ in what they take for
q. All are multiplied by 2 v held fixed, which gives the gradient the scale of the squared error whatever the noise.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Mixture(NamedTuple):
    """A mixture of k normal distributions of a label."""

    weights: Tensor  # (k,), sum 1
    means: Tensor  # (k,)
    variances: Tensor  # (k,)


class Histogram(NamedTuple):
    """Labels counted in bins of equal width; bins without labels may be left out."""

    centres: Tensor  # (bins,)
    shares: Tensor  # (bins,), sum 1


def squared_error(prediction: Tensor, label: Tensor) -> Tensor:
    """mean_i (p_i - y_i)^2. Raises ValueError unless both are (n,)."""
    _check(prediction, label)
    return (prediction - label).square().mean()


def balanced_by_mixture(prediction: Tensor, label: Tensor, variance: Tensor, mixture: Mixture) -> Tensor:
    """GAI (Ren et al. 2022, section 3.4): the label distribution is a mixture of k normal ones (w, m, s),

    mean_i 2v { (p_i - y_i)^2 / 2v + log(v) / 2 + log sum_k w_k (s_k + v)^-1/2 exp[-(p_i - m_k)^2 / 2(s_k + v)] }.

    The constants of both normal densities cancel. Raises ValueError unless p and y are (n,).
    """
    _check(prediction, label)
    spread = mixture.variances + variance  # (k,)
    terms = mixture.weights.log() - spread.log() / 2 - _halved(prediction, mixture.means) / spread  # (n, k)
    likelihood = (prediction - label).square() / (2 * variance) + variance.log() / 2
    return 2 * variance.detach() * (likelihood + terms.logsumexp(1)).mean()


def balanced_by_batch(prediction: Tensor, label: Tensor, variance: Tensor) -> Tensor:
    """BMC (Ren et al. 2022, equation 3.9): the labels of the batch are the label distribution,

    mean_i 2v { - log softmax_j [-(p_i - y_j)^2 / 2v] at j = i }.

    Equal labels are candidates of each other, as published. Takes n^2 memory. Raises ValueError unless p and y are
    (n,).
    """
    _check(prediction, label)
    logits = -_halved(prediction, label) / variance  # (n, n)
    own = torch.arange(len(label), device=label.device)
    return 2 * variance.detach() * F.cross_entropy(logits, own)


def balanced_by_bins(prediction: Tensor, label: Tensor, variance: Tensor, histogram: Histogram) -> Tensor:
    """BNI (Ren et al. 2022, section 3.4): the label distribution is a histogram with centres c and shares pi,

    mean_i 2v { (p_i - y_i)^2 / 2v + log sum_b pi_b exp[-(p_i - c_b)^2 / 2v] }.

    Raises ValueError unless p and y are (n,).
    """
    _check(prediction, label)
    terms = histogram.shares.log() - _halved(prediction, histogram.centres) / variance  # (n, bins)
    likelihood = (prediction - label).square() / (2 * variance)
    return 2 * variance.detach() * (likelihood + terms.logsumexp(1)).mean()


def released_balanced_by_batch(prediction: Tensor, label: Tensor, variance: Tensor) -> Tensor:
    """What CircuitGCL's release computes under the name of BMC, for comparison:

    2v { - sum_i i log softmax_i [-(p_i - y_i)^2 / 2v] },   i = 0 .. n - 1.

    A sample is compared with the errors of the others, and weighs by its place in the batch. Raises ValueError
    unless p and y are (n,).
    """
    _check(prediction, label)
    logits = -(prediction - label).square() / (2 * variance)
    place = torch.arange(len(label), dtype=logits.dtype, device=logits.device)
    return -2 * variance.detach() * (place * logits.log_softmax(0)).sum()


def weighted_squared_error(prediction: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """mean_i w_i (p_i - y_i)^2. Raises ValueError unless all are (n,)."""
    _check(prediction, label)
    _check(prediction, weights)
    return (weights * (prediction - label).square()).mean()


def smoothed(shares: Tensor, *, reach: int, sigma: float) -> Tensor:
    """A histogram's shares (bins,) convolved with a normal kernel over ``reach`` bins to each side, of sum 1.

    This is the label density of Yang et al. 2021 ("Delving into Deep Imbalanced Regression", equation 1); beyond
    its ends the histogram is empty. ``sigma`` is in bins.
    """
    offsets = torch.arange(-reach, reach + 1, dtype=shares.dtype, device=shares.device)
    kernel = (-offsets.square() / (2 * sigma**2)).exp()
    return F.conv1d(shares.view(1, 1, -1), (kernel / kernel.sum()).view(1, 1, -1), padding=reach).flatten()


def count_in_bins(labels: Tensor, bins: int) -> tuple[Histogram, float, float]:
    """Labels (n,) in ``bins`` bins of equal width between the smallest and the largest: (histogram, lowest, width)."""
    lowest, highest = float(labels.min()), float(labels.max())
    width = (highest - lowest) / bins
    place = bin_of(labels, lowest, width, bins)
    shares = torch.bincount(place, minlength=bins).to(labels.dtype) / len(labels)
    centres = lowest + width * (torch.arange(bins, dtype=labels.dtype, device=labels.device) + 0.5)
    return Histogram(centres, shares), lowest, width


def bin_of(labels: Tensor, lowest: float, width: float, bins: int) -> Tensor:
    """The bin (n,) int64 of each label; what lies outside belongs to the first or the last."""
    return ((labels - lowest) / width).floor().clamp(0, bins - 1).long()


def log_of(sigma: float) -> Tensor:
    """log sigma as a scalar to train."""
    return torch.tensor(math.log(sigma))


def _halved(prediction: Tensor, others: Tensor) -> Tensor:
    """(p_i - o_j)^2 / 2, (n, others)."""
    return (prediction[:, None] - others[None, :]).square() / 2


def _check(prediction: Tensor, label: Tensor) -> None:
    if prediction.ndim != 1 or prediction.shape != label.shape:
        raise ValueError(
            f"predictions and labels must both be (n,), got {tuple(prediction.shape)} and {tuple(label.shape)}"
        )
