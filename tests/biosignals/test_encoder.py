"""The encoder equals plain ``conv1d`` modules, at every length, with its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diptych.errors import UserError
from diptych_biosignals.encoder import DilatedEncoder, draw_keep, dropout, live_taps


def literal(encoder: DilatedEncoder, x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The architecture through ``F.conv1d``, all taps and all padding: (n, T, C) to (n, T, width)."""
    weights = dict(encoder.named_parameters())
    h = F.linear(x, weights["input_fc.weight"], weights["input_fc.bias"])
    if mask is not None:
        h = h * (mask if mask.ndim == 3 else mask.unsqueeze(-1))
    h = h.transpose(1, 2)
    blocks = len(encoder.feature_extractor.net)
    for i in range(blocks):
        y, name = h, f"feature_extractor.net.{i}"
        for conv in ("conv1", "conv2"):
            weight = weights[f"{name}.{conv}.conv.weight"]
            padding = 2**i * (weight.shape[2] // 2)
            y = F.conv1d(
                F.gelu(y), weight, weights[f"{name}.{conv}.conv.bias"], padding=padding, dilation=2**i
            )
        if i == blocks - 1:
            h = F.conv1d(h, weights[f"{name}.projector.weight"], weights[f"{name}.projector.bias"])
        h = h + y
    return h.transpose(1, 2)


def gradients(output: Tensor, encoder: DilatedEncoder, x: Tensor) -> dict[str, Tensor]:
    weights = torch.randn(output.shape, dtype=output.dtype, generator=torch.Generator().manual_seed(3))
    named = {"x": x} | dict(encoder.named_parameters())
    return dict(zip(named, torch.autograd.grad((output * weights).sum(), list(named.values())), strict=True))


@pytest.mark.parametrize("steps", [1, 2, 3, 17, 255, 300, 513])
def test_outputs_and_gradients_equal_plain_convolutions(steps: int) -> None:
    torch.manual_seed(steps)
    encoder = DilatedEncoder(3, width=12, hidden=8).double().eval()
    x = torch.randn(2, steps, 3, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, steps) < 0.6
    ours, plain = encoder(x, mask), literal(encoder, x, mask)
    assert ours.grid is not None
    torch.testing.assert_close(ours.grid.transpose(1, 2), plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(ours.whole, plain.amax(1), rtol=1e-12, atol=1e-12)
    expected = gradients(plain, encoder, x)
    for name, got in gradients(ours.grid.transpose(1, 2), encoder, x).items():
        torch.testing.assert_close(
            got, expected[name], rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize("kernel", [1, 5])
def test_other_kernels_equal_plain_convolutions(kernel: int) -> None:
    torch.manual_seed(kernel)
    encoder = DilatedEncoder(2, width=6, hidden=4, depth=4, kernel=kernel).double().eval()
    x = torch.randn(3, 21, 2, dtype=torch.float64, requires_grad=True)
    ours, plain = encoder(x).grid.transpose(1, 2), literal(encoder, x)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    expected = gradients(plain, encoder, x)
    for name, got in gradients(ours, encoder, x).items():
        torch.testing.assert_close(got, expected[name], rtol=1e-12, atol=1e-12)


def test_gradients_of_dead_taps_are_zero_not_none() -> None:
    encoder = DilatedEncoder(2, width=6, hidden=4, depth=5)
    encoder(torch.randn(2, 20, 2)).grid.sum().backward()
    dead = encoder.feature_extractor.net[5].conv1.conv.weight.grad  # dilation 32 in 20 steps
    assert dead is not None
    assert dead[:, :, [0, 2]].eq(0).all()
    assert dead[:, :, 1].ne(0).any()


def test_a_tap_lives_when_it_meets_the_series() -> None:
    assert [tap.k for tap in live_taps(3, 8, 8)] == [1]
    assert [tap.k for tap in live_taps(3, 7, 8)] == [1, 0, 2]


def test_released_parameter_names_and_number() -> None:
    names = dict(DilatedEncoder(15).named_parameters())
    expected = {"input_fc.weight", "input_fc.bias"}
    for i in range(11):
        for part in ("conv1.conv", "conv2.conv"):
            expected |= {f"feature_extractor.net.{i}.{part}.{kind}" for kind in ("weight", "bias")}
    expected |= {"feature_extractor.net.10.projector.weight", "feature_extractor.net.10.projector.bias"}
    assert set(names) == expected
    assert sum(weight.numel() for weight in names.values()) == 638_144


def test_masked_steps_are_zero_after_the_projection_so_their_values_do_not_matter() -> None:
    encoder = DilatedEncoder(3, width=8, hidden=4, depth=2).eval()
    x, mask = torch.randn(2, 10, 3), torch.arange(10).expand(2, 10) % 3 > 0
    changed = torch.where(mask.unsqueeze(-1), x, 100.0)
    assert torch.equal(encoder(x, mask).grid, encoder(changed, mask).grid)
    hidden = mask.unsqueeze(-1).expand(2, 10, 4)
    assert torch.equal(encoder(x, mask).grid, encoder(x, hidden).grid)


def test_training_hides_nothing_unless_asked() -> None:
    encoder = DilatedEncoder(3, width=8, hidden=4, depth=2, dropout=0.0)
    x = torch.randn(2, 10, 3)
    assert torch.equal(encoder.train()(x).grid, encoder.eval()(x).grid)


def test_frozen_weights_get_no_gradient_and_the_others_the_same_one() -> None:
    encoder = DilatedEncoder(3, width=8, hidden=4, depth=2).double().eval()
    x = torch.randn(2, 10, 3, dtype=torch.float64)
    encoder(x).grid.square().sum().backward()
    before = {name: weight.grad.clone() for name, weight in encoder.named_parameters()}
    encoder.zero_grad()
    for layer in encoder.layers()[:2]:
        layer.requires_grad_(False)
    encoder(x).grid.square().sum().backward()
    frozen = ("input_fc", "feature_extractor.net.0.")
    for name, weight in encoder.named_parameters():
        if name.startswith(frozen):
            assert weight.grad is None
        else:
            torch.testing.assert_close(weight.grad, before[name], rtol=1e-12, atol=1e-12)


def test_layers_hold_every_parameter_once_from_input_to_output() -> None:
    encoder = DilatedEncoder(3, depth=3)
    listed = [weight for layer in encoder.layers() for weight in layer.parameters()]
    assert [id(weight) for weight in listed] == [id(weight) for weight in encoder.parameters()]


def test_dropout_drops_its_share_keeps_the_mean_and_replays() -> None:
    x = torch.ones(400, 500)
    dropped = dropout(x, 0.1, torch.Generator().manual_seed(1))
    assert dropped.eq(0).double().mean().item() == pytest.approx(0.1, abs=0.004)
    assert dropped.mean().item() == pytest.approx(1, abs=0.005)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9], rel=1e-4)
    assert torch.equal(dropped, dropout(x, 0.1, torch.Generator().manual_seed(1)))
    assert not torch.equal(dropped, dropout(x, 0.1, torch.Generator().manual_seed(2)))


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.999])
def test_the_factor_belongs_to_the_share_that_is_kept(p: float) -> None:
    keep, scale = draw_keep((1001, 1003), p, torch.device("cpu"), torch.Generator().manual_seed(0))
    assert scale == pytest.approx(1 / (1 - p), rel=0.02)
    assert (keep.double().mean() * scale).item() == pytest.approx(1, abs=0.1)


def test_the_gradient_of_dropout_passes_where_it_kept() -> None:
    x = torch.randn(50, 60, requires_grad=True)
    dropped = dropout(x, 0.3, torch.Generator().manual_seed(5))
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, (dropped != 0) / 0.7, rtol=1e-4, atol=0)


def test_bfloat16_autocast_gives_finite_gradients_near_those_in_float32() -> None:
    torch.manual_seed(0)
    encoder = DilatedEncoder(3, width=16, hidden=8, depth=4).eval()
    x = torch.randn(4, 30, 3)
    encoder(x).grid.mean().backward()
    exact = encoder.input_fc.weight.grad.clone()
    encoder.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        grid = encoder(x).grid
    assert grid.dtype == torch.bfloat16
    grid.float().mean().backward()
    torch.testing.assert_close(
        encoder.input_fc.weight.grad, exact, rtol=0.1, atol=0.1 * exact.abs().max().item()
    )


@pytest.mark.parametrize("shape", [(2, 10, 4), (2, 10), (2, 0, 3)])
def test_windows_of_another_shape_are_a_clear_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"takes windows of shape \(n, time steps, 3 channels\), got"):
        DilatedEncoder(3)(torch.zeros(shape))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ValueError, match="kernel must be odd to keep the length of a series, got 4"):
        DilatedEncoder(3, kernel=4)
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\), got 1"):
        DilatedEncoder(3, dropout=1.0)
