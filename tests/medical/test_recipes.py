"""The recipes take real steps in 2D and 3D: gradient where it belongs, teachers in order, queues that wrap."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.method import Method, Phase
from diptych.places import Located
from diptych.queue import Queue
from diptych.recipes import SharedViews, grid_width_of, width_of
from diptych.types import Encoded, Views
from diptych_medical.recipes import BYOL, DenseCL, NTXent, PixPro
from diptych_medical.spatial import Spatial
from diptych_medical.views import Noise

SPACES = {2: (16, 12), 3: (8, 12, 10)}
METHODS: dict[str, Any] = {
    "ntxent": NTXent(hidden=8, width=6),
    "ntxent by patient, averaged": NTXent(
        hidden=8, width=6, group="patient", averaging="ema", normalize=False
    ),
    "byol": BYOL(hidden=8, width=6),
    "densecl": DenseCL(hidden=8, width=6, queue=8, points=None),
    "densecl, sampled": DenseCL(hidden=8, width=6, queue=0, points=11, group="patient"),
    "pixpro": PixPro(hidden=8, width=6, points=None),
    "pixpro, sampled": PixPro(hidden=8, width=6, points=11, normalize=False, decay_steps=5),
}
# A learning rate at which a step cannot be lost in rounding.
optimizer = partial(torch.optim.SGD, lr=0.1)


class Small(nn.Module):
    """An encoder with a map of half the resolution, and a wider row per image from a layer of its own."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.width, self.grid_width = 5, 4
        convolution = nn.Conv2d if dims == 2 else nn.Conv3d
        self.layer = convolution(1, 4, 3, stride=2, padding=1)
        self.whole = nn.Linear(4, 5)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Encoded:
        self.seen.append(x)
        grid = torch.tanh(self.layer(x))
        return Encoded(self.whole(grid.flatten(2).mean(2)), None, grid)


def small(dims: int) -> Small:
    torch.manual_seed(0)
    return Small(dims)


def batch(dims: int, first: int = 0, n: int = 4) -> Views:
    x = torch.rand(n, 1, *SPACES[dims], generator=torch.Generator().manual_seed(first))
    ids = torch.arange(first, first + n)
    return Views((x,), {"sample": ids, "patient": ids // 2})


def losses(phase: Phase, views: Views) -> dict[str, Tensor]:
    (each,) = phase.passes
    with torch.no_grad():
        target = () if each.target is None else each.target(views)
    online = each.online(views)
    return {term.name: term.weight * term.objective(online, target, views) for term in each.terms}


def step(phase: Phase, views: Views) -> dict[str, float]:
    """One step as the Pretrainer takes it."""
    made = optimizer(list(phase.parameters()))
    found = losses(phase, views)
    torch.stack(list(found.values())).sum().backward()
    made.step()
    made.zero_grad()
    with torch.no_grad():
        for call in phase.after:
            call()
    return {name: loss.item() for name, loss in found.items()}


def weights(module: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def build(name: str, dims: int) -> tuple[Small, Method]:
    encoder = small(dims)
    method: Method = METHODS[name](encoder, optimizer, None)
    torch.manual_seed(1)
    return encoder, method


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_gradient_reaches_all_that_is_trained_and_nothing_else(name: str, dims: int) -> None:
    encoder, method = build(name, dims)
    (phase,) = method.phases
    step(phase, batch(dims))  # fills the queues
    found = losses(phase, batch(dims, 4))
    assert all(loss.isfinite() for loss in found.values())
    torch.stack(list(found.values())).sum().backward()
    idle = set(encoder.whole.parameters()) if "pixpro" in name else set()  # PixPro sees the map alone
    # A bias before the batch norm of rows, or of the last layer before cosines, may have a gradient of 0.
    for module in phase.trains:
        for key, parameter in module.named_parameters():
            if parameter in idle:
                assert parameter.grad is None, key
            else:
                assert parameter.grad is not None, key
                assert parameter.grad.isfinite().all(), key
                assert parameter.grad.any() or key.endswith("bias"), key
    trained = set(phase.parameters())
    assert all(parameter.grad is None for parameter in method.parameters() if parameter not in trained)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_changes_the_encoder_that_is_kept(name: str, dims: int) -> None:
    encoder, method = build(name, dims)
    before = weights(method.encoder)
    step(method.phases[0], batch(dims))
    step(method.phases[0], batch(dims, 4))
    assert any(
        not torch.equal(old, new) for old, new in zip(before, method.encoder.parameters(), strict=True)
    )
    assert (method.encoder is encoder) == ("averaged" not in name)


@pytest.mark.parametrize("name", ["byol", "densecl", "pixpro"])
def test_the_teacher_takes_in_each_step_after_it_was_taken(name: str) -> None:
    encoder, method = build(name, 2)
    (phase,) = method.phases
    teacher: Any = method.parts["teacher"]
    kept = teacher.copy.encoders[0] if name == "byol" else teacher.copy.encoder
    decay = METHODS[name].decay
    start = weights(encoder)
    for own, online in zip(kept.parameters(), start, strict=True):
        assert torch.equal(own, online), "the teacher starts as the encoder"
    expected = start
    for first in (0, 4):
        step(phase, batch(2, first))
        expected = [
            decay * old + (1 - decay) * new for old, new in zip(expected, weights(encoder), strict=True)
        ]
        for own, value in zip(kept.parameters(), expected, strict=True):
            torch.testing.assert_close(own, value)


def test_the_queues_hold_the_last_keys_and_wrap() -> None:
    _, method = build("densecl", 2)
    for first in (0, 4, 8):
        step(method.phases[0], batch(2, first))
    for name in ("whole_queue", "grid_queue"):
        queue = method.parts[name]
        assert isinstance(queue, Queue)
        assert sorted(queue.rows().row.tolist()) == list(range(4, 12))
        assert queue.rows().row.tolist()[:4] == [8, 9, 10, 11], "the third batch is where the first was"


@pytest.mark.parametrize("name", ["densecl", "pixpro"])
def test_the_teacher_sees_the_other_view(name: str) -> None:
    encoder, method = build(name, 2)
    (each,) = method.phases[0].passes
    teacher: Any = method.parts["teacher"]
    views = batch(2)
    assert each.target is not None
    each.target(views)
    each.online(views)
    ours, theirs = encoder.seen, teacher.copy.encoder.seen
    if name == "densecl":
        assert len(ours) == len(theirs) == 1
        assert not torch.equal(ours[0], theirs[0])
    else:
        assert torch.equal(ours[0], theirs[1])
        assert torch.equal(ours[1], theirs[0])
        assert not torch.equal(ours[0], ours[1])


def test_views_are_made_once_for_both_branches_and_anew_for_the_next_batch() -> None:
    made = []

    def make(x: Tensor) -> tuple[Tensor, ...]:
        made.append(x)
        return (x + len(made),)

    shared = SharedViews(make)
    x, y = torch.zeros(2), torch.zeros(2)
    assert shared(x) is shared(x)
    assert len(made) == 1
    assert shared(x) is not shared(y)
    assert len(made) == 3
    assert shared(y)[0].tolist() == [3, 3]
    assert shared._waiting is None


def test_large_maps_are_read_at_the_points_of_both_views() -> None:
    _, method = build("pixpro, sampled", 3)
    (each,) = method.phases[0].passes
    views = batch(3)
    assert each.target is not None
    target, online = each.target(views), each.online(views)
    for view, aim in zip(online, target, strict=True):
        assert view.rows.shape == aim.rows.shape == (4, 11, 6)  # type: ignore[attr-defined]
        apart = (view.places - aim.places).norm(dim=2)  # type: ignore[attr-defined]
        limit = torch.maximum(view.diagonal, aim.diagonal)  # type: ignore[attr-defined]
        near = apart[apart.isfinite()] < limit[:, None].expand_as(apart)[apart.isfinite()]
        assert near.float().mean() > 0.9


def test_pixpro_of_views_that_agree_is_as_small_as_it_can_be() -> None:
    """Views that differ in nothing, a map that is the same everywhere: every prediction is right."""
    method = PixPro(
        spatial=Spatial(rotation=(0.0,), scale=(1.0, 1.0)),
        intensity=[Noise(deviation=0.0)],
        hidden=8,
        width=6,
    )
    encoder = small(2)
    with torch.no_grad():
        encoder.layer.weight.zero_()
    made = method(encoder, optimizer, None)
    propagation: Any = made.parts["propagation"]
    with torch.no_grad():
        propagation.transform.weight.copy_(torch.eye(6))
        propagation.transform.bias.zero_()
    assert losses(made.phases[0], batch(2))["consistency"].item() == pytest.approx(-4, abs=1e-5)


def test_the_weight_of_densecl_shares_out_its_two_losses() -> None:
    encoder = small(2)
    method = DenseCL(weight=0.0, hidden=8, width=6, queue=0)(encoder, optimizer, None)
    found = losses(method.phases[0], batch(2))
    assert found["grid"].item() == 0
    assert found["whole"].item() > 0
    assert {
        term.name: term.weight
        for term in DenseCL(weight=0.7)(encoder, optimizer, None).phases[0].passes[0].terms
    } == {
        "whole": pytest.approx(0.3),
        "grid": pytest.approx(0.7),
    }


def test_views_are_made_from_the_settings() -> None:
    encoder = small(2)
    still = NTXent(spatial=None, intensity=[Noise(deviation=0.5)], probability=1.0, hidden=8, width=6)
    (phase,) = still(encoder, optimizer, None).phases
    losses(phase, batch(2))
    first, second = encoder.seen
    (x,) = batch(2).views
    assert not torch.equal(first, second)
    for view in (first, second):
        assert (view - x).std() < 0.5
    (phase,) = DenseCL(spatial=Spatial(flips=(0, 1)), hidden=8, width=6)(encoder, optimizer, None).phases
    online: Any = phase.passes[0].online
    located = online.augment(x)
    assert all(isinstance(view, Located) for view in located)
    assert (torch.linalg.det(located[0].matrix[:, :, :2]).sign()).unique().numel() == 2


def test_encoders_that_do_not_fit_are_refused() -> None:
    class Flat(Small):
        def forward(self, x: Tensor) -> Encoded:
            return Encoded(super().forward(x).whole)

    assert (width_of(small(2)), grid_width_of(small(2))) == (5, 4)
    with pytest.raises(ConfigError, match="Linear has no width"):
        PixPro()(nn.Linear(3, 4), optimizer, None)
    for method in (DenseCL(hidden=8, width=6), PixPro(hidden=8, width=6)):
        (phase,) = method(Flat(2), optimizer, None).phases
        with pytest.raises(ConfigError, match="needs an encoder with a grid; Flat returns none"):
            losses(phase, batch(2))
    with pytest.raises(ConfigError, match=r"DenseCL's weight must lie in 0\.\.1, got 2"):
        DenseCL(weight=2)
    for build_method in (DenseCL(temperature=0), PixPro(distance=0), PixPro(power=0), DenseCL(points=1)):
        with pytest.raises(ConfigError):
            build_method(small(2), optimizer, None)
