"""COMET's method: its passes add up to the literal sum of eight, with the weights and averages it names."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.method import Method
from diptych.types import Views
from diptych_biosignals.comet import Comet
from diptych_biosignals.encoder import DilatedEncoder, draw_keep
from diptych_biosignals.masks import Shape, draw_mask

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from comet_literal import LiteralEncoder, comet_loss

CPU = torch.device("cpu")
TRIALS = torch.tensor([0, 0, 1, 2, 2, 1])
PATIENTS = torch.tensor([0, 0, 0, 1, 1, 0])
ADAMW = partial(torch.optim.AdamW, lr=1e-3)


def batch(steps: int = 20, channels: int = 3, dtype: torch.dtype = torch.float64) -> Views:
    x = torch.randn(6, steps, channels, generator=torch.Generator().manual_seed(steps)).to(dtype)
    return Views((x,), {"sample": torch.arange(6), "trial": TRIALS, "patient": PATIENTS})


def small(dropout: float = 0.1) -> DilatedEncoder:
    torch.manual_seed(0)
    return DilatedEncoder(3, width=8, hidden=6, depth=3, dropout=dropout).double()


def backpropagate(method: Method, views: Views) -> tuple[float, dict[str, float]]:
    """What the Pretrainer does before the optimiser steps: the weighted total, and every term unweighted."""
    total, terms = 0.0, {}
    for phase in method.phases:
        for each in phase.passes:
            online = each.online(views)
            losses = {term.name: term.objective(online, (), views) for term in each.terms}
            loss = torch.stack([term.weight * losses[term.name] for term in each.terms]).sum()
            loss.backward()
            total += loss.item()
            terms |= {name: value.item() for name, value in losses.items()}
    return total, terms


def literal_views(encoder: LiteralEncoder, views: Views, p: float) -> list[Tensor]:
    """The eight passes in the paper's order, their masks and dropouts drawn as the library draws them."""
    x: Tensor = views.views[0]
    n, steps, _ = x.shape

    def drop(z: Tensor) -> Tensor:
        if p == 0:
            return z
        keep, scale = draw_keep((steps, n, z.shape[2]), p, CPU)
        return z * keep.transpose(0, 1) * scale

    encoded = [drop(encoder(x)) for _ in range(4)]
    for _ in ("sample", "observation"):
        masks = [draw_mask("continuous", Shape(n, steps, 64, CPU)) for _ in range(2)]
        encoded += [drop(encoder(x, mask)) for mask in masks]
    return encoded


@pytest.mark.parametrize("p", [0.0, 0.1])
@pytest.mark.parametrize("weighting", ["as_released", "as_written"])
def test_the_passes_add_up_to_the_literal_eight(weighting: str, p: float) -> None:
    torch.manual_seed(0)
    views = batch(steps=21)
    encoder = DilatedEncoder(3, dropout=p).double()
    literal = LiteralEncoder(3, dropout=0.0).double()
    literal.load_released(encoder.state_dict())
    method = Comet(weights=(0.1, 0.7, 0.2, 0.3), weighting=weighting)(encoder, ADAMW, None)
    torch.manual_seed(5)
    total, _ = backpropagate(method, views)
    torch.manual_seed(5)
    weights = (1.0, 1.0, 0.2, 0.3) if weighting == "as_released" else (0.1, 0.7, 0.2, 0.3)
    expected = comet_loss(literal_views(literal, views, p), PATIENTS, TRIALS, weights)
    expected.backward()
    assert total == pytest.approx(expected.item(), rel=1e-10)
    for name, weight in encoder.named_parameters():
        plain = literal.get_parameter(name.removeprefix("feature_extractor.").replace(".conv.", "."))
        torch.testing.assert_close(weight.grad, plain.grad, rtol=1e-8, atol=1e-10, msg=name)


def test_shared_views_have_the_value_of_own_ones_where_nothing_is_random() -> None:
    encoder, views = small(dropout=0.0), batch()
    found = [
        backpropagate(Comet(views=kind, mask="all_true")(encoder, ADAMW, None), views)
        for kind in ("own", "shared")
    ]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-12)
    assert set(found[0][1]) == {"patient", "trial", "sample", "observation"}


def test_shared_views_have_the_mean_of_own_ones() -> None:
    encoder, views = small(), batch(steps=8)
    torch.manual_seed(1)
    totals = {
        kind: torch.tensor(
            [backpropagate(Comet(views=kind)(encoder, ADAMW, None), views)[0] for _ in range(40)]
        )
        for kind in ("own", "shared")
    }
    error = (sum(each.var() for each in totals.values()) / 40).sqrt()
    assert abs(totals["own"].mean() - totals["shared"].mean()) < 4 * error


@pytest.mark.parametrize(("views", "trunks"), [("own", 5), ("shared", 3)])
def test_number_of_passes_through_the_trunk(views: str, trunks: int) -> None:
    encoder = small()
    counted = []
    encoder.input_fc.register_forward_pre_hook(lambda *_: counted.append(1))
    called = encoder.trunk
    encoder.trunk = lambda *inputs: (counted.append(1), called(*inputs))[1]
    backpropagate(Comet(views=views)(encoder, ADAMW, None), batch())
    assert len(counted) == trunks


def test_weights_as_released_and_as_written() -> None:
    def weights(**options: object) -> dict[str, float]:
        (phase,) = Comet(**options)(small(), ADAMW, None).phases
        return {term.name: term.weight for each in phase.passes for term in each.terms}

    given = (0.1, 0.7, 0.2, 0.0)
    assert weights(weights=given) == {"patient": 1.0, "trial": 1.0, "sample": 0.2}
    assert weights(weights=given, weighting="as_written") == {"patient": 0.1, "trial": 0.7, "sample": 0.2}
    assert weights(weights=(0.0, 0.0, 0.0, 1.0), views="shared") == {"observation": 1.0}
    assert weights(weights=(0.0, 0.5, 0.0, 0.0)) == {"trial": 1.0}


def test_only_the_id_levels_train_on_a_single_time_step() -> None:
    views = batch(steps=1)
    with pytest.raises(UserError, match="at least 2 time steps, got 1"):
        backpropagate(Comet()(small(), ADAMW, None), views)
    total, _ = backpropagate(Comet(weights=(1.0, 1.0, 0.0, 0.0))(small(), ADAMW, None), views)
    assert total > 0


def steps_of(method: Method, count: int) -> list[dict[str, Tensor]]:
    """The online weights at the start and after each of ``count`` steps."""
    (phase,) = method.phases
    optimizer = phase.optimizer(list(phase.parameters()))
    online = method.parts["encoder"]
    weights = [{name: value.clone() for name, value in online.state_dict().items()}]
    for _ in range(count):
        optimizer.zero_grad()
        backpropagate(method, batch())
        optimizer.step()
        for call in phase.after:
            call()
        weights.append({name: value.clone() for name, value in online.state_dict().items()})
    return weights


def test_the_uniform_average_is_the_mean_of_all_iterates_with_the_first() -> None:
    method = Comet()(small(), ADAMW, None)
    iterates = steps_of(method, 4)
    for name, value in method.encoder.state_dict().items():
        torch.testing.assert_close(value, torch.stack([each[name] for each in iterates]).mean(0))


def test_the_moving_average_and_no_average() -> None:
    moving = Comet(averaging="ema", decay=0.5)(small(), ADAMW, None)
    iterates = steps_of(moving, 2)
    for name, value in moving.encoder.state_dict().items():
        first, second, third = (each[name] for each in iterates)
        torch.testing.assert_close(value, 0.25 * first + 0.25 * second + 0.5 * third)
    last = Comet(averaging="none")(encoder := small(), ADAMW, None)
    assert last.encoder is encoder


def test_training_lowers_the_loss_of_a_batch() -> None:
    method = Comet(averaging="none")(small(dropout=0.0), partial(torch.optim.AdamW, lr=1e-2), None)
    torch.manual_seed(3)
    before, _ = backpropagate(method, batch())
    steps_of(method, 15)
    torch.manual_seed(3)
    after, _ = backpropagate(method, batch())
    assert after < before - 0.5


def test_the_same_seed_gives_the_same_gradients() -> None:
    def gradients(seed: int) -> list[Tensor]:
        encoder = small()
        torch.manual_seed(seed)
        backpropagate(Comet()(encoder, ADAMW, None), batch())
        return [weight.grad for weight in encoder.parameters() if weight.grad is not None]

    first, again, other = gradients(1), gradients(1), gradients(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("views", ["own", "shared"])
def test_bfloat16_autocast_gives_finite_losses_near_those_in_float32(views: str) -> None:
    encoder, data = small(dropout=0.0).float(), batch(dtype=torch.float32)
    method = Comet(views=views, mask="all_true")(encoder, ADAMW, None)
    exact, _ = backpropagate(method, data)
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = backpropagate(method, data)
    assert total == pytest.approx(exact, rel=0.05)
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"weights": (0.0, 0.0, 0.0, 0.0)},
            r"none below 0 and at least one above; got \[0.0, 0.0, 0.0, 0.0\]",
        ),
        ({"weights": (1.0, -0.1, 0.0, 0.0)}, "none below 0"),
        ({"weights": (1.0, 1.0)}, "weights are four numbers"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0"),
        ({"mask": "gaussian"}, "mask must be one of all_true, .*, got 'gaussian'"),
        ({"segments": 0}, "at least 1 segment"),
        ({"segment_share": 1.5}, "segment_share 1.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Comet(**settings)


def test_another_encoder_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"masks the hidden units of a DilatedEncoder, got a Linear; set"):
        Comet()(nn.Linear(3, 4), ADAMW, None)
