"""The four levels equal their naive float64 references, with gradients, at awkward shapes and ids."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import references_comet as reference
import torch
from torch import Tensor
from torch.nn import functional as F

from diptych.errors import UserError
from diptych.types import Encoded, Views
from diptych_biosignals.levels import IdLevel, ObservationLevel, SampleLevel, halve_time

Objective = Callable[[tuple[Encoded, ...], tuple[Encoded, ...], Views], Tensor]

IDS = {
    "two trials": [0, 1, 0, 1, 1],
    "one window of a patient": [3, 3, 7, 3],
    "one patient": [4, 4, 4, 4],
    "no positives": [5, 6, 7],
    "unknown is nobody's positive": [-1, 2, -1, 2],
    "a single window": [1],
}


def two_views(
    n: int, steps: int, dtype: torch.dtype = torch.float64, width: int = 5
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n * 1000 + steps)
    z1, z2 = torch.randn(2, n, steps, width, dtype=torch.float64, generator=generator).to(dtype).unbind()
    return z1.clone().requires_grad_(), z2.clone().requires_grad_()


def evaluate(objective: Objective, z1: Tensor, z2: Tensor, **groups: Tensor) -> Tensor:
    encoded = tuple(Encoded(z.amax(1), grid=z.transpose(1, 2)) for z in (z1, z2))
    return objective(encoded, (), Views((), groups))


def assert_same(
    ours: Tensor, theirs: Tensor, z: tuple[Tensor, Tensor], zr: tuple[Tensor, Tensor], to: float
) -> None:
    assert ours.item() == pytest.approx(theirs.item(), rel=to, abs=to)
    expected = torch.autograd.grad(theirs, zr)
    for got, want in zip(torch.autograd.grad(ours, z), expected, strict=True):
        torch.testing.assert_close(got.double(), want, rtol=to, atol=to)


@pytest.mark.parametrize(("dtype", "to"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize(("n", "steps"), [(3, 2), (2, 3), (3, 7), (1, 5), (4, 8)])
@pytest.mark.parametrize(
    ("level", "loss"),
    [(ObservationLevel(), reference.observation_loss), (SampleLevel(), reference.sample_loss)],
    ids=["observation", "sample"],
)
def test_time_levels_equal_the_reference(level, loss, n, steps, dtype, to) -> None:
    z, zr = two_views(n, steps, dtype), two_views(n, steps, dtype)
    zr = tuple(each.detach().double().requires_grad_() for each in zr)
    assert_same(evaluate(level, *z), reference.over_scales(loss, *zr), z, zr, to)


@pytest.mark.parametrize(("dtype", "to"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("order", ["as_released", "order_free"])
@pytest.mark.parametrize("ids", IDS.values(), ids=IDS.keys())
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_id_levels_equal_the_reference(ids, order, steps, dtype, to) -> None:
    z, zr = two_views(len(ids), steps, dtype), two_views(len(ids), steps, dtype)
    zr = tuple(each.detach().double().requires_grad_() for each in zr)
    ours = evaluate(IdLevel(level="trial", order=order), *z, trial=torch.tensor(ids))
    assert_same(ours, reference.id_loss(*zr, ids, order), z, zr, to)


def test_no_positives_give_zero_with_zero_gradient() -> None:
    z = two_views(4, 6)
    loss = evaluate(IdLevel(level="patient"), *z, patient=torch.tensor([1, 2, 3, 4]))
    assert loss.item() == 0
    assert all(grad.eq(0).all() for grad in torch.autograd.grad(loss, z))


def test_a_single_window_gives_zero_at_the_sample_level() -> None:
    z = two_views(1, 6)
    loss = evaluate(SampleLevel(), *z)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_released_order_depends_on_the_order_of_the_batch_and_order_free_does_not() -> None:
    z1, z2 = two_views(6, 8)
    ids = torch.tensor([0, 0, 1, 1, 1, 2])
    turned = torch.tensor([4, 2, 0, 5, 1, 3])

    def both(order: str) -> tuple[float, float]:
        level = IdLevel(level="trial", order=order)
        moved = evaluate(level, z1[turned], z2[turned], trial=ids[turned])
        return evaluate(level, z1, z2, trial=ids).item(), moved.item()

    released, free = both("as_released"), both("order_free")
    assert free[0] == pytest.approx(free[1], rel=1e-12)
    assert abs(released[0] - released[1]) > 1e-3


def test_id_levels_ignore_the_scale_of_a_channel() -> None:
    z1, z2 = two_views(5, 9)
    ids = torch.tensor([0, 0, 1, 1, 1])
    scale = torch.tensor([0.1, 3.0, 1.0, 20.0, 0.5], dtype=torch.float64)
    level = IdLevel(level="patient")
    loss = evaluate(level, z1, z2, patient=ids)
    assert evaluate(level, z1 * scale, z2 / scale, patient=ids).item() == pytest.approx(
        loss.item(), rel=1e-12
    )


def test_id_level_with_a_channel_that_is_zero_throughout_is_finite() -> None:
    z1, z2 = two_views(4, 6)
    with torch.no_grad():
        z1[1, :, 2] = 0
        z2[:, :, 0] = 0
    ids = [0, 0, 1, 1]
    loss = evaluate(IdLevel(level="trial"), z1, z2, trial=torch.tensor(ids))
    zr1, zr2 = (z.detach().clone() for z in (z1, z2))
    assert loss.item() == pytest.approx(reference.id_loss(zr1, zr2, ids).item(), rel=1e-10)
    assert all(grad.isfinite().all() for grad in torch.autograd.grad(loss, (z1, z2)))


@pytest.mark.parametrize("steps", [2, 3, 8, 9])
def test_halving_time_is_max_pooling_with_its_choice_among_equals(steps: int) -> None:
    z = torch.randint(0, 2, (steps, 4, 3), generator=torch.Generator().manual_seed(steps)).double()
    ours, pooled = z.clone().requires_grad_(), z.clone().requires_grad_()
    expected = F.max_pool1d(pooled.permute(1, 2, 0), 2).permute(2, 0, 1)
    got = halve_time(ours)
    weights = torch.arange(1.0, got.numel() + 1, dtype=torch.float64).view(got.shape)
    assert torch.equal(got, expected)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    assert ours.grad is not None
    assert torch.equal(ours.grad, pooled.grad)


@pytest.mark.parametrize("level", [ObservationLevel(), SampleLevel()])
def test_a_single_time_step_is_a_clear_error(level: Objective) -> None:
    with pytest.raises(UserError, match=r"at least 2 time steps, got 1; use longer windows"):
        evaluate(level, *two_views(3, 1))


def test_a_missing_id_is_a_clear_error() -> None:
    with pytest.raises(UserError, match=r"the trial level needs an id 'trial'.* has only patient, sample"):
        evaluate(IdLevel(level="trial"), *two_views(3, 4), sample=torch.arange(3), patient=torch.arange(3))


def test_an_encoder_without_a_grid_is_a_clear_error() -> None:
    whole = torch.randn(2, 4)
    with pytest.raises(
        UserError, match=r"need an encoder whose grid is \(windows, width, time steps\), got None"
    ):
        ObservationLevel()((Encoded(whole), Encoded(whole)), (), Views((), {}))
