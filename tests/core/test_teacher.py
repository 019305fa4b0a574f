"""A teacher averages parameters as its equation says, copies buffers, and learns nothing itself."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.teacher import Teacher


def online() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2)).double()


def train(module: nn.Module, step: int) -> None:
    """Move every parameter and buffer as a training step would, far enough to tell averages apart."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        module(torch.randn(8, 3, generator=generator, dtype=torch.float64))


DECAYS: dict[str, tuple[dict[str, object], Callable[[int], float]]] = {
    "constant": ({"decay": 0.9}, lambda k: 0.9),
    "decay 0": ({"decay": 0.0}, lambda k: 0.0),
    "decay 1": ({"decay": 1.0}, lambda k: 1.0),
    "cosine": (
        {"average": "cosine", "decay": 0.8, "steps": 5},
        lambda k: 1 - 0.2 * (math.cos(math.pi * min(k - 1, 5) / 5) + 1) / 2,
    ),
}


@pytest.mark.parametrize(("options", "decay"), DECAYS.values(), ids=DECAYS)
def test_moving_averages(options: dict[str, object], decay: Callable[[int], float]) -> None:
    module = online()
    teacher = Teacher(module, **options)  # type: ignore[arg-type]
    expected = [parameter.detach().clone() for parameter in module.parameters()]
    for k in range(1, 9):
        train(module, k)
        teacher.update()
        now = list(module.parameters())
        expected = [decay(k) * e + (1 - decay(k)) * p.detach() for e, p in zip(expected, now, strict=True)]
        for ours, theirs in zip(teacher.copy.parameters(), expected, strict=True):
            torch.testing.assert_close(ours.detach(), theirs, rtol=0, atol=1e-12)


def test_uniform_is_the_mean_of_all_iterates_with_the_first() -> None:
    module = online()
    teacher = Teacher(module, average="uniform")
    iterates = [[parameter.detach().clone() for parameter in module.parameters()]]
    for k in range(1, 30):
        train(module, k)
        teacher.update()
        iterates.append([parameter.detach().clone() for parameter in module.parameters()])
        for ours, seen in zip(teacher.copy.parameters(), zip(*iterates, strict=True), strict=True):
            torch.testing.assert_close(ours.detach(), torch.stack(seen).mean(0), rtol=0, atol=1e-12)


def test_buffers_are_copied_not_averaged() -> None:
    module = online()
    teacher = Teacher(module, decay=0.9)
    train(module, 1)
    teacher.update()
    for ours, theirs in zip(teacher.copy.buffers(), module.buffers(), strict=True):
        assert torch.equal(ours, theirs)
        assert ours.data_ptr() != theirs.data_ptr()


def test_it_has_no_gradient_and_leaves_the_online_module_alone() -> None:
    module = online()
    before = [parameter.detach().clone() for parameter in module.parameters()]
    teacher = Teacher(module)
    output = teacher(torch.randn(5, 3, dtype=torch.float64))
    assert not output.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())
    teacher.update()
    for ours, theirs in zip(module.parameters(), before, strict=True):
        assert torch.equal(ours, theirs)
    assert {name.split(".")[0] for name in teacher.state_dict()} == {"copy", "updates"}


def test_it_calls_the_copy() -> None:
    module = online().eval()
    teacher = Teacher(module).eval()
    x = torch.randn(5, 3, dtype=torch.float64)
    expected = module(x)
    train(module, 1)
    assert torch.equal(teacher(x), expected)


def test_a_checkpoint_continues_the_count() -> None:
    module = online()
    whole = Teacher(module, average="uniform")
    for k in range(4):
        train(module, k)
        whole.update()
    resumed = Teacher(module, average="uniform")
    resumed.load_state_dict(whole.state_dict())
    train(module, 9)
    for teacher in (whole, resumed):
        teacher.update()
    for ours, theirs in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, theirs)


BAD: list[tuple[dict[str, object], str]] = [
    ({"decay": 1.01}, r"decay must lie in 0..1, got 1.01"),
    ({"decay": -0.1}, r"decay must lie in 0..1, got -0.1"),
    ({"decay": math.nan}, r"decay must lie in 0..1, got nan"),
    ({"average": "cosine"}, "a cosine decay needs the number of steps it runs over, at least 1, got None"),
    ({"average": "cosine", "steps": 0}, "at least 1, got 0"),
    ({"average": "ema"}, "a teacher's average must be constant, cosine or uniform, got 'ema'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Teacher(online(), **options)  # type: ignore[arg-type]
