"""The losses of heads by name, each owning what it knows of the training labels and the noise that it learns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, get_args

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, DataError
from diptych_circuits.balanced import classes, regression

RegressionLoss = Literal["mse", "gai", "bmc", "bni", "lds", "released_bmc"]
ClassLoss = Literal["ce", "balanced_softmax", "released_balanced_softmax", "focal"]

RELEASED_SIGMA = 0.001


class HeadLoss(Protocol):
    """What a head is trained with: (prediction, label) to a scalar; its parameters go to the head's optimiser.

    For numbers both are (n,) float; for classes they are logits (n, classes) and labels (n,) int64.
    """

    def __call__(self, prediction: Tensor, label: Tensor, /) -> Tensor: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...


def make_loss(
    name: RegressionLoss | ClassLoss,
    train_labels: Tensor,
    *,
    classes: int | None = None,
    sigma: float | None = None,
) -> HeadLoss:
    """The loss of a name, with what it needs to know of the training labels.

    Args:
        name: "mse", "gai", "bmc", "bni", "lds" and "released_bmc" for numbers; "ce", "balanced_softmax",
            "released_balanced_softmax" and "focal" for classes.
        train_labels: (n,) labels of the training samples and of no others: float, or int64 classes.
        classes: how many classes there are, where the last ones may be missing from the training labels.
        sigma: the noise that gai, bmc and bni start from, in units of the label; by default the labels'
            standard deviation, the noise of a head that knows nothing yet. It is trained. That of released_bmc
            is not, and 0.001.

    Raises:
        ConfigError: an unknown name.
        DataError: labels that are empty, not finite or all equal, or class labels that are not 0 .. classes - 1.
    """
    if name in get_args(ClassLoss):
        counts = count_classes(train_labels, classes)
        if name == "balanced_softmax":
            return BalancedSoftmax(counts)
        if name == "focal":
            return Focal(counts)
        return CrossEntropy() if name == "ce" else ReleasedBalancedSoftmax()
    if name not in get_args(RegressionLoss):
        known = ", ".join((*get_args(RegressionLoss), *get_args(ClassLoss)))
        raise ConfigError(f"there is no loss {name!r}; expected one of {known}")
    labels = check_numbers(train_labels)
    if name == "mse":
        return SquaredError()
    if name == "lds":
        return WeightedSquaredError(labels)
    if name == "released_bmc":
        return ReleasedBalancedByBatch(RELEASED_SIGMA if sigma is None else sigma)
    start = float(labels.std(correction=0)) if sigma is None else sigma
    if name == "bmc":
        return BalancedByBatch(start)
    return BalancedByMixture(labels, start) if name == "gai" else BalancedByBins(labels, start)


class Noise(nn.Module):
    """The standard deviation of a head's error, learned as its logarithm.

    Raises ConfigError for a sigma not above 0.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        if not sigma > 0:
            raise ConfigError(f"the noise sigma of a balanced loss must be above 0, got {sigma}")
        self.log_sigma = nn.Parameter(regression.log_of(sigma))

    @property
    def variance(self) -> Tensor:
        """sigma^2, a scalar with gradient."""
        return (2 * self.log_sigma).exp()


class SquaredError(nn.Module):
    """The mean squared error."""

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.regression.squared_error`."""
        return regression.squared_error(prediction, label)


class BalancedByMixture(nn.Module):
    """GAI: the training labels (n,) as a mixture of ``components`` normal distributions, fitted here once."""

    weights: Tensor
    means: Tensor
    variances: Tensor

    def __init__(self, labels: Tensor, sigma: float, *, components: int = 8) -> None:
        super().__init__()
        self.noise = Noise(sigma)
        for name, value in fit_mixture(labels, components)._asdict().items():
            self.register_buffer(name, value)

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.regression.balanced_by_mixture`."""
        mixture = regression.Mixture(self.weights, self.means, self.variances)
        return regression.balanced_by_mixture(prediction, label, self.noise.variance, mixture)


class BalancedByBatch(nn.Module):
    """BMC: the labels of each batch stand for those of the training set."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.noise = Noise(sigma)

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.regression.balanced_by_batch`."""
        return regression.balanced_by_batch(prediction, label, self.noise.variance)


class BalancedByBins(nn.Module):
    """BNI: the training labels (n,) as a histogram."""

    centres: Tensor
    shares: Tensor

    def __init__(self, labels: Tensor, sigma: float, *, bins: int = 50) -> None:
        super().__init__()
        self.noise = Noise(sigma)
        histogram, _, _ = regression.count_in_bins(labels, bins)
        occupied = histogram.shares > 0
        self.register_buffer("centres", histogram.centres[occupied])
        self.register_buffer("shares", histogram.shares[occupied])

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.regression.balanced_by_bins`."""
        histogram = regression.Histogram(self.centres, self.shares)
        return regression.balanced_by_bins(prediction, label, self.noise.variance, histogram)


class WeightedSquaredError(nn.Module):
    """LDS: squared errors weighted by 1 / the smoothed density of the training labels (n,), mean weight 1.

    ``reach`` and ``sigma`` are the kernel's, in bins, as in Yang et al. 2021. No label weighs more than the
    rarest training label does.
    """

    weights: Tensor

    def __init__(self, labels: Tensor, *, bins: int = 50, reach: int = 2, sigma: float = 2.0) -> None:
        super().__init__()
        histogram, self.lowest, self.width = regression.count_in_bins(labels, bins)
        density = regression.smoothed(histogram.shares, reach=reach, sigma=sigma)
        occupied = histogram.shares > 0
        inverse = 1 / density.clamp(min=float(density[occupied].min()))
        self.register_buffer("weights", inverse / (histogram.shares * inverse).sum())

    def weigh(self, label: Tensor) -> Tensor:
        """The weights (n,) of labels (n,); a label outside the training range has that of the nearest end."""
        return self.weights[regression.bin_of(label, self.lowest, self.width, len(self.weights))]

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.regression.weighted_squared_error`."""
        return regression.weighted_squared_error(prediction, label, self.weigh(label))


class ReleasedBalancedByBatch(nn.Module):
    """BMC as CircuitGCL's release computes it, with its fixed noise; for comparison."""

    variance: Tensor

    def __init__(self, sigma: float = RELEASED_SIGMA) -> None:
        super().__init__()
        self.register_buffer("variance", torch.tensor(sigma**2))

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.regression.released_balanced_by_batch`."""
        return regression.released_balanced_by_batch(prediction, label, self.variance)


class CrossEntropy(nn.Module):
    """The cross-entropy."""

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """Of logits (n, classes) and labels (n,)."""
        return F.cross_entropy(prediction, label)


class BalancedSoftmax(nn.Module):
    """Balanced softmax with the training set's counts (classes,)."""

    counts: Tensor

    def __init__(self, counts: Tensor) -> None:
        super().__init__()
        self.register_buffer("counts", counts)

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.classes.balanced_softmax`."""
        return classes.balanced_softmax(prediction, label, self.counts)


class ReleasedBalancedSoftmax(nn.Module):
    """Balanced softmax with the counts of each batch, as CircuitGCL's release has it; for comparison."""

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.classes.released_balanced_softmax`."""
        return classes.released_balanced_softmax(prediction, label)


class Focal(nn.Module):
    """The focal loss with weights by the inverse of the training set's counts (classes,)."""

    weights: Tensor

    def __init__(self, counts: Tensor, *, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weights", classes.inverse_frequency(counts))

    def forward(self, prediction: Tensor, label: Tensor) -> Tensor:
        """See :func:`~diptych_circuits.balanced.classes.focal`."""
        return classes.focal(prediction, label, self.weights, self.gamma)


def fit_mixture(labels: Tensor, components: int) -> regression.Mixture:
    """A mixture fitted to labels (n,) by expectation maximisation; of fewer components for fewer different labels.

    It is fitted to standardised labels, so that the fit does not depend on their unit.
    """
    values = labels.double().numpy(force=True)
    mean, deviation = values.mean(), values.std()
    model = GaussianMixture(min(components, len(np.unique(values))), random_state=0, max_iter=1000)
    model.fit(((values - mean) / deviation)[:, None])
    parts = (model.weights_, mean + deviation * model.means_, deviation**2 * model.covariances_)
    return regression.Mixture(*(torch.from_numpy(np.ravel(part)).to(labels) for part in parts))


def check_numbers(labels: Tensor) -> Tensor:
    """Labels (n,) as they are, in float32 or better. Raises DataError when a loss cannot be made of them."""
    if labels.ndim != 1 or len(labels) < 2:
        raise DataError(
            f"a loss needs at least 2 training labels in one row, (n,), got {tuple(labels.shape)}"
        )
    numbers = labels if labels.is_floating_point() else labels.float()
    if not bool(numbers.isfinite().all()):
        bad = int((~numbers.isfinite()).sum())
        raise DataError(f"{bad} of {len(labels)} training labels are not finite; leave them out")
    if float(numbers.min()) == float(numbers.max()):
        raise DataError(
            f"all {len(labels)} training labels are {float(numbers[0]):g}; there is nothing to learn. "
            "Take more training designs, or another target"
        )
    return numbers


def count_classes(labels: Tensor, classes: int | None) -> Tensor:
    """How many training labels (n,) each class has, (classes,) int64. Raises DataError for labels that are none."""
    if labels.ndim != 1 or len(labels) == 0 or labels.is_floating_point():
        raise DataError(
            f"a loss of classes needs training labels (n,) of whole numbers, n at least 1; got "
            f"{tuple(labels.shape)} of {str(labels.dtype).removeprefix('torch.')}"
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or (classes is not None and highest >= classes):
        raise DataError(
            f"class labels must lie in 0..{highest if classes is None else classes - 1}, got {lowest}..{highest}"
        )
    return torch.bincount(labels, minlength=classes or 0)
