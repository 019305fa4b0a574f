"""Losses for uneven labels equal loops over their formulas, obey their limits, and know training labels only."""

from __future__ import annotations

import itertools
import math

import pytest
import references_balanced as reference
import torch
from torch import Tensor

from diptych.errors import ConfigError, DataError
from diptych_circuits.balanced import ClassLoss, RegressionLoss, make_loss
from diptych_circuits.balanced import classes as of_classes
from diptych_circuits.balanced import regression as of_numbers
from diptych_circuits.balanced.losses import Noise, WeightedSquaredError, fit_mixture

NUMBERS: tuple[RegressionLoss, ...] = ("mse", "gai", "bmc", "bni", "lds", "released_bmc")
CLASSES: tuple[ClassLoss, ...] = ("ce", "balanced_softmax", "released_balanced_softmax", "focal")
V = torch.tensor(0.07, dtype=torch.float64)


def numbers(n: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Predictions and labels (n,), labels skewed, some of them equal."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.rand(n, generator=generator, dtype=torch.float64) ** 3
    label[1] = label[0]
    return label + 0.3 * torch.randn(n, generator=generator, dtype=torch.float64), label


def train_labels(n: int = 400) -> Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(7), dtype=torch.float64) ** 3


MIXTURE = of_numbers.Mixture(
    *(torch.tensor(row, dtype=torch.float64) for row in ([0.2, 0.8], [0.1, 0.7], [0.01, 0.2]))
)


def test_balanced_by_mixture_equals_its_loop() -> None:
    p, y = numbers()
    ours = of_numbers.balanced_by_mixture(p, y, V, MIXTURE)
    expected = reference.gai(p.tolist(), y.tolist(), V.item(), *(row.tolist() for row in MIXTURE))
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_balanced_by_batch_equals_its_loop() -> None:
    p, y = numbers()
    ours = of_numbers.balanced_by_batch(p, y, V)
    assert ours.item() == pytest.approx(reference.bmc(p.tolist(), y.tolist(), V.item()), rel=1e-12)


def test_balanced_by_bins_equals_its_loop() -> None:
    p, y = numbers()
    labels = train_labels()
    histogram, _, _ = of_numbers.count_in_bins(labels, 6)
    centres, shares = reference.histogram(labels.tolist(), 6)
    assert histogram.centres.tolist() == pytest.approx(centres, rel=1e-12)
    assert histogram.shares.tolist() == pytest.approx(shares, rel=1e-12)
    ours = of_numbers.balanced_by_bins(p, y, V, histogram)
    expected = reference.bni(p.tolist(), y.tolist(), V.item(), centres, shares)
    assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_the_released_form_equals_its_loop_and_depends_on_the_order_of_the_batch() -> None:
    p, y = numbers()
    ours = of_numbers.released_balanced_by_batch(p, y, V)
    assert ours.item() == pytest.approx(reference.released_bmc(p.tolist(), y.tolist(), V.item()), rel=1e-12)
    assert of_numbers.released_balanced_by_batch(p.flip(0), y.flip(0), V).item() != pytest.approx(ours.item())


@pytest.mark.parametrize("bins", [1, 7, 50])
def test_weights_by_label_density_equal_their_loop(bins: int) -> None:
    labels = train_labels()
    loss = WeightedSquaredError(labels, bins=bins, reach=2, sigma=1.5)
    _, shares = reference.histogram(labels.tolist(), bins)
    density = reference.label_density(shares, 2, 1.5)
    low, high = labels.min().item(), labels.max().item()
    expected = [1 / density[reference.bin_of(y, low, (high - low) / bins, bins)] for y in labels.tolist()]
    scale = len(expected) / sum(expected)
    assert loss.weigh(labels).tolist() == pytest.approx([each * scale for each in expected], rel=1e-9)
    assert loss.weigh(labels).mean().item() == pytest.approx(1.0)


def test_weights_outside_the_training_range_are_those_of_its_ends() -> None:
    loss = WeightedSquaredError(train_labels())
    ends = torch.stack([train_labels().min(), train_labels().max()])
    assert torch.equal(loss.weigh(torch.tensor([-5.0, 5.0], dtype=torch.float64)), loss.weigh(ends))
    gap = WeightedSquaredError(torch.tensor([0.0] * 9 + [1.0]), bins=100)
    assert gap.weigh(torch.tensor([0.5])).item() == gap.weigh(torch.tensor([1.0])).item()


def class_data() -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.randn(8, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return logits, torch.tensor([0, 0, 1, 3, 0, 2, 0, 1]), torch.tensor([50, 20, 3, 7])


def test_losses_of_classes_equal_their_loops() -> None:
    logits, label, counts = class_data()
    rows, y, n = logits.tolist(), label.tolist(), counts.tolist()
    assert of_classes.balanced_softmax(logits, label, counts).item() == pytest.approx(
        reference.balanced_softmax(rows, y, n), rel=1e-12
    )
    in_batch = [y.count(c) for c in range(4)]
    assert of_classes.released_balanced_softmax(logits, label).item() == pytest.approx(
        reference.balanced_softmax(rows, y, in_batch), rel=1e-12
    )
    weights = [1 / c for c in n]
    weights = [4 * w / sum(weights) for w in weights]
    ours = of_classes.inverse_frequency(counts)
    assert ours.tolist() == pytest.approx(weights, rel=1e-6)
    assert of_classes.focal(logits, label, ours.double(), 2.0).item() == pytest.approx(
        reference.focal(rows, y, weights, 2.0), rel=1e-6
    )


def test_the_focal_loss_without_focus_and_weights_is_the_cross_entropy() -> None:
    logits, label, _ = class_data()
    plain = of_classes.focal(logits, label, torch.ones(4, dtype=torch.float64), 0.0)
    torch.testing.assert_close(plain, torch.nn.functional.cross_entropy(logits, label))


def test_balanced_softmax_with_even_counts_is_the_cross_entropy() -> None:
    logits, label, _ = class_data()
    even = of_classes.balanced_softmax(logits, label, torch.full((4,), 9))
    torch.testing.assert_close(even, torch.nn.functional.cross_entropy(logits, label))


def test_a_class_without_training_labels_is_not_compared() -> None:
    logits, _, _ = class_data()
    label, counts = torch.tensor([0, 0, 1, 1, 0, 2, 0, 1]), torch.tensor([5, 3, 1, 0])
    with_it = of_classes.balanced_softmax(logits, label, counts)
    without = of_classes.balanced_softmax(logits[:, :3], label, counts[:3])
    torch.testing.assert_close(with_it, without)
    assert of_classes.inverse_frequency(counts)[3] == 0


def test_one_wide_component_has_the_gradient_of_the_squared_error() -> None:
    p, y = numbers()
    p.requires_grad_()
    wide = of_numbers.Mixture(*(torch.tensor([x], dtype=torch.float64) for x in (1.0, 0.3, 1e9)))
    (ours,) = torch.autograd.grad(of_numbers.balanced_by_mixture(p, y, V, wide), p)
    (plain,) = torch.autograd.grad(of_numbers.squared_error(p, y), p)
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-9)


def test_with_much_noise_the_pairwise_form_is_the_error_less_that_of_other_labels() -> None:
    p, y = numbers()
    variance = torch.tensor(1e6, dtype=torch.float64)
    ours = of_numbers.balanced_by_batch(p, y, variance) - 2 * variance * math.log(len(p))
    others = (p[:, None] - y[None, :]).square().mean()
    assert ours.item() == pytest.approx(((p - y).square().mean() - others).item(), abs=1e-5)


def test_with_little_noise_predictions_at_their_different_labels_cost_nothing() -> None:
    y = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert of_numbers.balanced_by_batch(y, y, torch.tensor(1e-4, dtype=torch.float64)).item() < 1e-9


@pytest.mark.parametrize("form", ["gai", "bmc", "bni"])
def test_balanced_errors_do_not_change_with_order_or_origin(form: str) -> None:
    p, y = numbers()
    order = torch.randperm(len(p), generator=torch.Generator().manual_seed(1))

    def value(p: Tensor, y: Tensor, shift: float) -> float:
        if form == "bmc":
            return of_numbers.balanced_by_batch(p, y, V).item()
        if form == "gai":
            moved = MIXTURE._replace(means=MIXTURE.means + shift)
            return of_numbers.balanced_by_mixture(p, y, V, moved).item()
        histogram = of_numbers.Histogram(MIXTURE.means + shift, MIXTURE.weights)
        return of_numbers.balanced_by_bins(p, y, V, histogram).item()

    assert value(p[order], y[order], 0.0) == pytest.approx(value(p, y, 0.0), rel=1e-12)
    assert value(p + 2.5, y + 2.5, 2.5) == pytest.approx(value(p, y, 0.0), rel=1e-9)


@pytest.mark.parametrize("name", ["gai", "bmc", "bni"])
def test_a_balanced_error_estimates_the_regression_for_even_labels(name: RegressionLoss) -> None:
    """Where an input says nothing about a skewed label, the squared error gives the mean, these less of it."""
    labels = train_labels(300)
    loss = make_loss(name, labels, sigma=0.3)
    guess = labels.mean().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(guess.expand(len(labels)), labels), guess)
    assert gradient.item() < -0.01  # it asks for more than the mean, towards the rare large labels


@pytest.mark.parametrize("name", NUMBERS)
def test_gradients_of_numbers_are_those_of_finite_differences(name: RegressionLoss) -> None:
    loss = make_loss(name, train_labels(), sigma=0.2).double()  # type: ignore[attr-defined]
    p, y = numbers()
    assert torch.autograd.gradcheck(lambda p: loss(p, y), p.requires_grad_(), rtol=1e-5)


@pytest.mark.parametrize("name", ["gai", "bmc", "bni"])
def test_noise_is_learned_towards_the_likeliest_but_does_not_scale_the_loss(name: RegressionLoss) -> None:
    """The factor 2 sigma^2 is held fixed: the gradient of log sigma is 2 sigma^2 times the likelihood's."""
    loss = make_loss(name, train_labels(), sigma=0.2).double()  # type: ignore[attr-defined]
    p, y = numbers()
    (log_sigma,) = loss.parameters()
    (ours,) = torch.autograd.grad(loss(p, y), log_sigma)
    step = 1e-5
    ends = []
    with torch.no_grad():
        middle = log_sigma.item()
        for at in (middle - step, middle + step):
            log_sigma.fill_(at)
            ends.append(loss(p, y).item() / (2 * math.exp(2 * at)))
    expected = 2 * math.exp(2 * middle) * (ends[1] - ends[0]) / (2 * step)
    assert ours.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["gai", "bni"])
def test_an_optimiser_finds_the_noise_of_a_head(name: RegressionLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    label = torch.rand(4000, generator=generator)
    prediction = label + 0.05 * torch.randn(4000, generator=generator)
    loss = make_loss(name, label)
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss(prediction, label).backward()
        optimizer.step()
    (log_sigma,) = loss.parameters()
    assert log_sigma.exp().item() == pytest.approx(0.05, rel=0.1)


@pytest.mark.parametrize("name", [*NUMBERS, *CLASSES])
def test_what_is_learned_and_what_is_saved(name: RegressionLoss | ClassLoss) -> None:
    labels = torch.arange(40) % 3 if name in CLASSES else train_labels().float()
    loss = make_loss(name, labels)
    learned = [key for key, _ in loss.named_parameters()]  # type: ignore[attr-defined]
    assert learned == (["noise.log_sigma"] if name in ("gai", "bmc", "bni") else [])


@pytest.mark.parametrize("name", ["gai", "bni", "lds", "balanced_softmax", "focal"])
def test_a_loss_is_made_of_training_labels_and_not_changed_by_others(
    name: RegressionLoss | ClassLoss,
) -> None:
    """What it knows is a function of the labels it was made of: using it on others leaves it as it is."""
    labels = torch.arange(40) % 3 if name in CLASSES else train_labels().float()
    loss, again = make_loss(name, labels), make_loss(name, labels.clone())
    prediction = torch.randn(5, 3) if name in CLASSES else torch.randn(5)
    loss(prediction, torch.tensor([0, 1, 2, 0, 1]) if name in CLASSES else torch.randn(5))
    states = [each.state_dict() for each in (loss, again)]  # type: ignore[attr-defined]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    other = make_loss(name, labels[: len(labels) // 5]).state_dict()  # type: ignore[attr-defined]
    assert any(not torch.equal(states[0][key], other[key]) for key in other)


def test_a_mixture_is_a_distribution_of_its_labels_and_moves_with_their_unit() -> None:
    labels = train_labels()
    mixture = fit_mixture(labels, 8)
    assert mixture.weights.sum().item() == pytest.approx(1.0)
    assert (mixture.weights @ mixture.means).item() == pytest.approx(labels.mean().item(), rel=1e-6)
    small = fit_mixture(labels * 1e-15, 8)
    torch.testing.assert_close(small.means, mixture.means * 1e-15, rtol=1e-6, atol=0)
    torch.testing.assert_close(small.variances, mixture.variances * 1e-30, rtol=1e-6, atol=0)
    assert len(fit_mixture(torch.tensor([0.0, 0.0, 1.0, 1.0]), 8).means) == 2


@pytest.mark.parametrize("name", [n for n in NUMBERS if n != "released_bmc"])
def test_losses_are_finite_far_from_the_labels_and_for_little_noise(name: RegressionLoss) -> None:
    loss = make_loss(name, train_labels().float(), sigma=1e-3)
    prediction = torch.tensor([100.0, -100.0, 0.5], requires_grad=True)
    value = loss(prediction, torch.tensor([0.1, 0.2, 0.9]))
    value.backward()
    assert value.isfinite()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


def test_rows_that_would_broadcast_are_refused() -> None:
    y = torch.zeros(3)
    calls = [
        lambda p: of_numbers.squared_error(p, y),
        lambda p: of_numbers.balanced_by_batch(p, y, V),
        lambda p: of_numbers.balanced_by_mixture(p, y, V, MIXTURE),
        lambda p: of_numbers.balanced_by_bins(p, y, V, of_numbers.Histogram(y, y)),
        lambda p: of_numbers.weighted_squared_error(p, y, y),
        lambda p: of_numbers.released_balanced_by_batch(p, y, V),
    ]
    for call, shape in itertools.product(calls, [(3, 1), (4,)]):
        with pytest.raises(ValueError, match=r"predictions and labels must both be \(n,\)"):
            call(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"expected logits \(n, classes\)"):
        of_classes.balanced_softmax(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64), torch.ones(5))


def test_labels_that_no_loss_can_be_made_of_are_refused() -> None:
    with pytest.raises(ConfigError, match="there is no loss 'mae'; expected one of mse, gai"):
        make_loss("mae", train_labels())  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"at least 2 training labels in one row, \(n,\), got \(1,\)"):
        make_loss("gai", torch.tensor([1.0]))
    with pytest.raises(DataError, match="1 of 3 training labels are not finite; leave them out"):
        make_loss("mse", torch.tensor([1.0, float("nan"), 2.0]))
    with pytest.raises(DataError, match=r"all 3 training labels are 0\.5; there is nothing to learn"):
        make_loss("lds", torch.full((3,), 0.5))
    with pytest.raises(DataError, match=r"of whole numbers, n at least 1; got \(3,\) of float32"):
        make_loss("ce", torch.zeros(3))
    with pytest.raises(DataError, match=r"class labels must lie in 0\.\.4, got 0\.\.5"):
        make_loss("focal", torch.tensor([0, 5]), classes=5)
    with pytest.raises(ConfigError, match="sigma of a balanced loss must be above 0, got 0"):
        Noise(0.0)
