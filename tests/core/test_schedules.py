from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from diptych.errors import ConfigError
from diptych.schedules import WarmupCosine, build_schedule


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def rates_of(schedule: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return found


def test_equals_the_formula_at_every_step() -> None:
    found = rates_of(WarmupCosine(optimizer(0.5), 20, warmup=4, final=0.1), 20)
    for step, rate in enumerate(found):
        if step < 4:
            expected = (step + 1) / 5
        else:
            expected = 0.1 + 0.9 * (1 + math.cos(math.pi * (step - 4) / 16)) / 2
        assert rate == pytest.approx(0.5 * expected)
    assert max(found) == 0.5


def test_warmup_is_a_share_below_one_and_steps_from_one_on() -> None:
    assert WarmupCosine(optimizer(1.0), 200, warmup=0.05).warmup_steps == 10
    assert WarmupCosine(optimizer(1.0), 200, warmup=10).warmup_steps == 10
    assert rates_of(WarmupCosine(optimizer(1.0), 10, warmup=0), 1) == [1.0]


def test_stays_at_the_final_rate_after_the_end_and_scales_every_group() -> None:
    schedule = WarmupCosine(optimizer(1.0, 0.1), 5, warmup=1, final=0.2)
    rates_of(schedule, 9)
    assert [group["lr"] for group in schedule.optimizer.param_groups] == pytest.approx([0.2, 0.02])


def test_continues_from_its_saved_state() -> None:
    whole = rates_of(WarmupCosine(optimizer(1.0), 12, warmup=3), 12)
    first = WarmupCosine(optimizer(1.0), 12, warmup=3)
    begun = rates_of(first, 5)
    second = WarmupCosine(optimizer(1.0), 12, warmup=3)
    second.load_state_dict(first.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert begun + rates_of(second, 7) == pytest.approx(whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"warmup": 20}, "a warm-up of 20 is 20 of 20 steps; it must be at least 0 and end before"),
        ({"warmup": -1}, "a warm-up of -1 is -1 of 20 steps"),
        ({"final": 1.5}, "between 0 and 1; got 1.5"),
        ({"total_steps": 0}, "total_steps of at least 1, got 0"),
    ],
)
def test_refuses_what_has_no_meaning(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WarmupCosine(optimizer(1.0), **({"total_steps": 20} | arguments))  # type: ignore[arg-type]


def make(*arguments: object, **keywords: object) -> LRScheduler:
    """Takes anything, as what jsonargparse makes of a class path does."""
    return OneCycleLR(*arguments, **keywords)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "factory",
    [
        partial(OneCycleLR, max_lr=0.1),
        partial(OneCycleLR, max_lr=0.1, total_steps=None),
        partial(make, max_lr=0.1, total_steps=None, epochs=None),
        lambda optimizer, total_steps: OneCycleLR(optimizer, 0.1, total_steps=total_steps),
    ],
)
def test_the_length_is_filled_in_where_it_is_open(factory: partial[LRScheduler]) -> None:
    schedule = build_schedule(factory, optimizer(0.1), 33)
    assert isinstance(schedule, OneCycleLR)
    assert schedule.total_steps == 33


def test_a_given_length_and_a_schedule_without_one_stay_as_they_are() -> None:
    given = build_schedule(partial(OneCycleLR, max_lr=0.1, total_steps=7), optimizer(0.1), 33)
    assert isinstance(given, OneCycleLR)
    assert given.total_steps == 7
    other = build_schedule(partial(CosineAnnealingLR, T_max=9), optimizer(0.1), 33)
    assert isinstance(other, CosineAnnealingLR)
    assert other.T_max == 9


def test_a_schedule_that_follows_a_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="ReduceLROnPlateau follows a metric"):
        build_schedule(ReduceLROnPlateau, optimizer(0.1), 33)
