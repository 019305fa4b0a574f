"""GEMINI's networks: they equal their literal forms, weights, padding and upsampling being those of the release."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from diptych.errors import ConfigError, DataError
from diptych_medical.deformer import Deformer
from diptych_medical.second_phase import DenseHead
from diptych_medical.stages import pad_to_multiple
from diptych_medical.unet import UNet
from diptych_medical.upsampled import conv_of_upsampled, conv_of_upsampled_gradients, upsample, worthwhile

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from medical_step_literal import LiteralDeformer, LiteralUNet, doubled, halved

WIDTHS = (8, 16, 24)
SPACES = {2: (13, 22), 3: (9, 14, 6)}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def copied(source: nn.Module, target: nn.Module) -> None:
    """Put the weights of one module into another that lists the same ones in the same order."""
    with torch.no_grad():
        for one, other in zip(source.parameters(), target.parameters(), strict=True):
            other.copy_(one)


def networks(dims: int, **settings: Any) -> tuple[LiteralUNet, LiteralDeformer, UNet, Deformer]:
    torch.manual_seed(0)
    literal = LiteralUNet(2, dims, WIDTHS).double(), LiteralDeformer(8, dims).double()
    ours = (
        UNet(2, dims, widths=WIDTHS, **settings).double(),
        Deformer(8, dims, **settings).double(),
    )
    for one, other in zip(literal, ours, strict=True):
        copied(one, other)
    return *literal, *ours


def images(dims: int, n: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 2, *SPACES[dims], generator=generator, dtype=torch.float64)


def assert_same_gradients(one: nn.Module, other: nn.Module) -> None:
    for (name, ours), literal in zip(one.named_parameters(), other.parameters(), strict=True):
        assert ours.grad is not None, name
        assert literal.grad is not None
        # The bias of a convolution before a norm has no effect; its gradient is rounding.
        torch.testing.assert_close(ours.grad, literal.grad, rtol=1e-8, atol=1e-9, msg=name)


def test_the_networks_have_the_released_numbers_of_weights() -> None:
    unet, deformer, restorer = UNet(1, 3), Deformer(32, 3), DenseHead(32, 1, 3)
    assert count(unet) == 23_538_144
    assert count(deformer) == 528_675
    assert count(unet) + count(deformer) + count(restorer) == 24_080_708


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_networks_and_gradients_equal_the_literal_ones(dims: int, checkpointing: bool) -> None:
    literal, literal_deformer, unet, deformer = networks(dims, checkpointing=checkpointing)
    x = images(dims)
    features = [literal(each[None]) for each in x]
    fields = torch.cat([literal_deformer(*features), literal_deformer(*features[::-1])])
    weights = torch.rand(fields.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ((fields * weights).sum() + torch.cat(features).sin().sum()).backward()

    grid = unet(x).grid
    assert grid is not None
    torch.testing.assert_close(grid, torch.cat(features), rtol=1e-9, atol=1e-9)
    both = deformer.both(grid)
    torch.testing.assert_close(both, fields, rtol=1e-9, atol=1e-9)
    ((both * weights).sum() + grid.sin().sum()).backward()
    assert_same_gradients(unet, literal)
    assert_same_gradients(deformer, literal_deformer)


@pytest.mark.parametrize("dims", [2, 3])
def test_columns_are_all_stages_of_the_literal_decoder_at_every_voxel(dims: int) -> None:
    literal, _, unet, _ = networks(dims)
    x = images(dims)
    padded, place = pad_to_multiple(x, 4)
    skips, maps = [literal.inc(padded)], []
    for down in literal.downs:
        skips.append(down(halved(skips[-1])))
    maps.append(skips.pop())
    for up in literal.ups:
        maps.append(up(torch.cat([skips.pop(), doubled(maps[-1])], dim=1)))
    mode = "bilinear" if dims == 2 else "trilinear"
    large = [
        functional.interpolate(each, padded.shape[2:], mode=mode, align_corners=dims == 3) for each in maps
    ]
    columns = unet.columns(x)
    assert columns.shape == (2, unet.columns_width, *SPACES[dims])
    torch.testing.assert_close(columns, torch.cat(large, dim=1)[place], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(columns[:, -8:], unet(x).grid, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
def test_both_directions_at_once_are_two_directions(dims: int) -> None:
    *_, deformer = networks(dims)
    features = torch.randn(4, 8, *SPACES[dims], dtype=torch.float64)
    first, second = features.chunk(2)
    apart = torch.cat([deformer(first, second), deformer(second, first)])
    torch.testing.assert_close(deformer.both(features), apart, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
def test_images_of_a_batch_do_not_see_each_other(dims: int) -> None:
    *_, unet, _ = networks(dims)
    x = images(dims, 3)
    together, alone = unet(x), [unet(each[None]) for each in x]
    torch.testing.assert_close(together.grid, torch.cat([each.grid for each in alone]), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(together.whole, torch.cat([each.whole for each in alone]))


def test_the_joined_map_and_the_kept_maps_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, unet, _ = networks(3)
    x = images(3)
    results = []
    for apart in (True, False):
        monkeypatch.setattr("diptych_medical.stages.worthwhile", lambda small, outputs, way=apart: way)
        unet.zero_grad()
        grid = unet(x).grid
        grid.sin().sum().backward()
        results.append([grid.detach(), *(parameter.grad.clone() for parameter in unet.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("small", [(3, 4, 5), (1, 2, 6), (4, 7), (1, 1)])
def test_convolving_the_upsampled_without_making_it(small: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, *small, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, *[3] * len(small), dtype=torch.float64, requires_grad=True)
    conv = functional.conv3d if len(small) == 3 else functional.conv2d
    plain = conv(upsample(x), weight, padding=1)
    with torch.no_grad():
        torch.testing.assert_close(conv_of_upsampled(x, weight), plain, rtol=1e-12, atol=1e-12)
    by_output = torch.randn_like(plain)
    expected = torch.autograd.grad(plain, (x, weight), by_output)
    found = conv_of_upsampled_gradients(by_output, x.detach(), weight.detach())
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_long_axes_and_half_precision_are_convolved_plainly() -> None:
    assert worthwhile(torch.empty(1, 64, 32, 32, 32), 32)
    assert not worthwhile(torch.empty(1, 64, 32, 32, 32, dtype=torch.bfloat16), 32)
    assert not worthwhile(torch.empty(1, 64, 256, 256), 32)


def test_volumes_are_upsampled_between_corners_and_images_between_edges() -> None:
    line = torch.tensor([0.0, 1.0])
    volume = upsample(line.view(1, 1, 1, 1, 2).expand(1, 1, 2, 2, 2))[0, 0, 0, 0]
    image = upsample(line.view(1, 1, 1, 2).expand(1, 1, 2, 2))[0, 0, 0]
    torch.testing.assert_close(volume, torch.tensor([0, 1 / 3, 2 / 3, 1]))
    torch.testing.assert_close(image, torch.tensor([0, 0.25, 0.75, 1]))


def test_padding_puts_the_smaller_half_in_front_and_says_where_the_image_is() -> None:
    x = torch.ones(1, 1, 5, 16, 18)
    padded, place = pad_to_multiple(x, 8)
    assert padded.shape == (1, 1, 8, 16, 24)
    assert torch.equal(padded[place], x)
    assert padded.sum() == x.sum()
    assert place[2:] == (slice(1, 6), slice(0, 16), slice(3, 21))


def test_the_encoder_says_what_it_gives() -> None:
    encoded = UNet(1, 2, widths=WIDTHS)(torch.rand(3, 1, 7, 10))
    assert encoded.whole.shape == (3, 24)
    assert encoded.grid is not None
    assert encoded.grid.shape == (3, 8, 7, 10)
    by_grid = UNet(1, 2, widths=WIDTHS, whole="grid")
    assert (by_grid.width, by_grid.grid_width) == (8, 8)
    encoded = by_grid(torch.rand(3, 1, 7, 10))
    torch.testing.assert_close(encoded.whole, encoded.grid.mean((2, 3)))
    names = [name for name, _ in by_grid.named_parameters()]
    assert "enter.first.conv.weight" in names
    assert "down.1.second.norm.bias" in names
    layers = [parameter for layer in by_grid.layers() for parameter in layer.parameters()]
    assert len(layers) == len(names)


def test_under_autocast_convolutions_alone_are_half_precision() -> None:
    torch.manual_seed(0)
    unet = UNet(1, 2, widths=WIDTHS)
    x = torch.rand(1, 1, 12, 16)
    exact = unet(x).grid
    with torch.autocast("cpu", torch.bfloat16):
        half = unet(x).grid
    assert half.dtype == torch.float32
    assert not torch.equal(half, exact)
    assert functional.cosine_similarity(half, exact).min() > 0.98
    half.sum().backward()
    assert all(each.grad is not None and each.grad.dtype == torch.float32 for each in unet.parameters())


def test_a_new_deformer_moves_nothing_unless_asked() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 12, 12, 12)
    assert Deformer(8, 3).both(features).abs().max() < 1e-2
    assert Deformer(8, 3, still=False).both(features).abs().max() > 0.1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (partial(UNet, 1, 4), "2 or 3 dimensions, got 4"),
        (partial(UNet, 1, 2, widths=(8,)), "at least 2 multiples of 8"),
        (partial(UNet, 1, 2, widths=(8, 12)), r"at least 2 multiples of 8 .* got \[8, 12\]"),
        (partial(UNet, 1, 2, whole="top"), "whole must be bottleneck or grid, got 'top'"),
    ],
)
def test_widths_and_dimensions_that_do_not_fit(settings: partial[UNet], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings()


def test_images_that_do_not_fit() -> None:
    with pytest.raises(DataError, match=r"takes 3D images with 1 channels.*got \(1, 1, 8, 8\)"):
        UNet(1, 3, widths=WIDTHS)(torch.rand(1, 1, 8, 8))
    with pytest.raises(DataError, match=r"takes 2D images with 1 channels.*got \(1, 3, 8, 8\)"):
        UNet(1, 2, widths=WIDTHS)(torch.rand(1, 3, 8, 8))
