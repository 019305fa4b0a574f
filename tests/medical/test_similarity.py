"""Losses of a registered pair against plain loops, against the literal formulas, and where formulas lose digits."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from references_deformation import mean_cosine_distance, mean_squared_correlation, roughness
from torch import Tensor

from diptych_medical import correspondence
from diptych_medical.correspondence import warped_similarity
from diptych_medical.local_ncc import window_moments, window_sums
from diptych_medical.similarity import geometric_similarity, local_ncc, smoothness
from diptych_medical.warp import Convention, inside, scale_gradient, warp

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from medical_literal import Pair, literal_head, literal_ncc, random_pair

SPACES = [(9, 11), (6, 5, 7)]
CONVENTIONS: list[Convention] = ["aligned", "official"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some(*shape: int, seed: int = 9) -> Tensor:
    """A mask with about 2 of 3 voxels."""
    return (random(*shape, seed=seed) > -0.4).double()


# Smoothness


@pytest.mark.parametrize("space", SPACES)
def test_smoothness_equals_plain_loops(space: tuple[int, ...]) -> None:
    flow = random(1, len(space), *space)
    assert float(smoothness(flow)) == pytest.approx(roughness(flow[0].numpy()), rel=1e-12)


def test_smoothness_of_a_shift_is_0_and_of_a_slope_its_square() -> None:
    flow = torch.zeros(2, 3, 4, 5, 6)
    flow[:, 1] = 7.0
    assert smoothness(flow) == 0
    flow[:, 1] = 0.5 * torch.arange(6.0)
    assert float(smoothness(flow)) == pytest.approx(0.25 / 3 / 3)  # one of 3 axes, one of 3 components
    assert smoothness(torch.ones(1, 2, 1, 1)) == 0


# Local correlation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [1, 3, 5, 9])
@pytest.mark.parametrize("space", SPACES)
def test_local_correlation_equals_plain_loops(space: tuple[int, ...], window: int, channels: int) -> None:
    fixed, moved = random(1, channels, *space), random(1, channels, *space, seed=1)
    mask = some(1, 1, *space)
    expected = mean_squared_correlation(
        fixed[0].numpy(), moved[0].numpy(), mask[0, 0].numpy(), window, guard=1e-5
    )
    assert float(local_ncc(fixed, moved, mask, window=window)) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("length", [1, 3, 5, 7, 9, 13])
def test_merged_windows_are_sums_over_windows(length: int) -> None:
    x, y = random(2, 2, 17, 6), random(2, 2, 17, 6, seed=1)
    moments, samples = window_moments(x, y, length)
    assert samples == 2 * length**2
    ones = torch.ones(1, 2, length, length, dtype=torch.float64)
    expected = torch.conv2d(x, ones, padding=length // 2)
    torch.testing.assert_close(moments.sums[0], expected)
    torch.testing.assert_close(window_sums(x, length, 2).sum(1, keepdim=True), expected)
    products = torch.conv2d(x * y, ones, padding=length // 2)
    torch.testing.assert_close(
        moments.cross, products - moments.sums[0] * moments.sums[1] / samples, rtol=1e-7, atol=1e-9
    )


def test_gradients_of_the_local_correlation() -> None:
    fixed, moved = random(2, 2, 5, 6).requires_grad_(), random(2, 2, 5, 6, seed=1).requires_grad_()
    mask = some(2, 1, 5, 6)
    assert torch.autograd.gradcheck(lambda a, b: local_ncc(a, b, mask, window=3), (fixed, moved))
    volumes = [random(1, 1, 3, 4, 4, seed=seed).requires_grad_() for seed in (2, 3)]
    assert torch.autograd.gradcheck(lambda a, b: local_ncc(a, b, window=3), tuple(volumes))


def test_an_image_correlates_with_itself_whatever_its_level_and_contrast() -> None:
    x = random(1, 1, 20, 20)
    assert float(local_ncc(x, -3 * x, window=5, guard=0.0)) == pytest.approx(0, abs=1e-2)  # zeros around
    inner = torch.zeros_like(x)
    inner[..., 2:-2, 2:-2] = 1
    assert float(local_ncc(x, 5 - 3 * x, inner, window=5)) == pytest.approx(0, abs=1e-6)


def test_bright_and_even_images_keep_their_digits() -> None:
    """At level 0.97 with noise of 1e-3, subtraction in float32 loses variances; merging does not."""
    x = (0.97 + 1e-3 * random(1, 1, 20, 20, 20)).float()
    y = (0.97 + 1e-3 * (random(1, 1, 20, 20, 20) + random(1, 1, 20, 20, 20, seed=1))).float()
    mask = torch.zeros_like(x)
    mask[..., 4:-4, 4:-4, 4:-4] = 1
    moments, _ = window_moments(x, y, 9)
    truth, _ = window_moments(x.double(), y.double(), 9)
    torch.testing.assert_close(moments.squares.double(), truth.squares, rtol=1e-4, atol=0)
    expected = float(local_ncc(x.double(), y.double(), mask, guard=1e-10))
    assert float(local_ncc(x, y, mask, guard=1e-10)) == pytest.approx(expected, abs=1e-4)
    assert abs(float(literal_ncc(x, y, mask)) - float(local_ncc(x.double(), y.double(), mask))) > 1e-3


def test_flat_windows_and_an_empty_mask_give_1_without_gradient() -> None:
    flat = torch.full((1, 1, 12, 12), 0.7).requires_grad_()
    inner = torch.zeros(1, 1, 12, 12)
    inner[..., 5:7, 5:7] = 1
    loss = local_ncc(flat.detach(), flat, inner, window=9)
    (gradient,) = torch.autograd.grad(loss, flat)
    assert float(loss.detach()) == pytest.approx(1, abs=1e-4)
    assert gradient.abs().max() < 1e-3
    loss = local_ncc(torch.rand(1, 1, 12, 12), flat, torch.zeros_like(inner))
    (gradient,) = torch.autograd.grad(loss, flat)
    assert loss == 1
    assert not gradient.any()


def test_only_images_that_need_it_get_a_gradient_and_none_is_kept_without() -> None:
    fixed, moved = torch.rand(1, 1, 9, 9), torch.rand(1, 1, 9, 9).requires_grad_()
    local_ncc(fixed, moved).backward()
    assert fixed.grad is None
    assert moved.grad is not None
    with torch.no_grad():
        assert not local_ncc(fixed, moved).requires_grad


# Geometric similarity


@pytest.mark.parametrize("space", SPACES)
def test_geometric_similarity_equals_plain_loops(space: tuple[int, ...]) -> None:
    moved, fixed, mask = random(1, 4, *space), random(1, 4, *space, seed=1), some(1, 1, *space)
    expected = mean_cosine_distance(moved[0].numpy(), fixed[0].numpy(), mask[0, 0].numpy())
    assert float(geometric_similarity(moved, fixed, mask)) == pytest.approx(expected, rel=1e-12)


def test_features_without_direction_and_empty_masks_have_no_gradient() -> None:
    moved = torch.zeros(1, 3, 4, 4).requires_grad_()
    loss = geometric_similarity(moved, torch.rand(1, 3, 4, 4), torch.ones(1, 1, 4, 4))
    loss.backward()
    assert loss == 1
    assert moved.grad is not None
    assert not moved.grad.any()
    assert geometric_similarity(moved, moved, torch.zeros(1, 1, 4, 4)) == 1


def written_out(
    features: Tensor, flow: Tensor, mask: Tensor, weights: tuple[float, float], convention: Convention
) -> Tensor:
    """The sum over both directions of both terms, with two warps each."""
    half, total = len(features) // 2, features.new_zeros(())
    partner = features.roll(half, 0)
    by_features = warp(features, flow.detach(), convention=convention)
    by_flow = warp(features.detach(), flow, convention=convention)
    for part in (slice(half), slice(half, None)):
        total = total + weights[0] * geometric_similarity(by_features[part], partner[part], mask[part])
        total = total + weights[1] * geometric_similarity(by_flow[part], partner[part].detach(), mask[part])
    return total


class Drawn(NamedTuple):
    features: Tensor
    flow: Tensor


def drawn(images: int, space: tuple[int, ...], width: int = 5) -> Drawn:
    features, flow = random(images, width, *space), 2 * random(images, len(space), *space, seed=1)
    return Drawn(features.requires_grad_(), flow.requires_grad_())


@pytest.mark.parametrize("block", [16, 2**17])
@pytest.mark.parametrize("chunk", [1, 2**18])
@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("space", SPACES)
def test_the_fused_similarity_is_the_formula_with_its_two_gradients(
    space: tuple[int, ...], convention: Convention, chunk: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correspondence, "CPU_CHUNK", chunk)
    monkeypatch.setattr(correspondence, "CPU_BLOCK", block)
    pair = drawn(6, space)
    mask = inside(pair.flow, convention=convention).double()
    found = warped_similarity(*pair, mask, feature_weight=0.3, flow_weight=0.7, convention=convention)
    expected = written_out(*pair, mask, (0.3, 0.7), convention)
    torch.testing.assert_close(found, expected)
    gradients = zip(torch.autograd.grad(found, pair), torch.autograd.grad(expected, pair), strict=True)
    for one, two in gradients:
        torch.testing.assert_close(one, two)


def test_one_warp_with_scaled_gradients_is_the_same_too() -> None:
    features, flow = drawn(2, (7, 8))
    mask = inside(flow).double()
    found = torch.autograd.grad(warped_similarity(features, flow, mask), (features, flow))
    moved, fixed = warp(scale_gradient(features, 0.1), flow), scale_gradient(features, 0.1).flip(0)
    loss = sum(geometric_similarity(moved[i, None], fixed[i, None], mask[i, None]) for i in range(2))
    for one, two in zip(found, torch.autograd.grad(loss, (features, flow)), strict=True):  # type: ignore[arg-type]
        torch.testing.assert_close(one, two)


def test_a_retained_graph_gives_the_same_gradients_twice() -> None:
    features, flow = drawn(2, (7, 8))
    loss = warped_similarity(features, flow, inside(flow))
    first = torch.autograd.grad(2 * loss, (features, flow), retain_graph=True)
    second = torch.autograd.grad(2 * loss, (features, flow))
    for one, two in zip(first, second, strict=True):
        assert torch.equal(one, two)
    assert first[0].abs().max() > 0


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_layout_and_type_of_features_are_those_of_their_gradient(layout: torch.memory_format) -> None:
    features, flow = drawn(2, (7, 8))
    half = features.detach().bfloat16().to(memory_format=layout).requires_grad_()
    loss = warped_similarity(half, flow.detach().float(), inside(flow))
    (gradient,) = torch.autograd.grad(loss, half)
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    assert gradient.is_contiguous(memory_format=layout)


def test_the_fused_similarity_keeps_no_graph_where_none_is_wanted() -> None:
    features, flow = drawn(2, (7, 8))
    mask = inside(flow)
    with torch.no_grad():
        value = warped_similarity(features, flow, mask)
    assert not value.requires_grad
    torch.testing.assert_close(value, warped_similarity(features, flow, mask).detach())
    (only,) = torch.autograd.grad(warped_similarity(features.detach(), flow, mask), flow)
    torch.testing.assert_close(only, torch.autograd.grad(warped_similarity(features, flow, mask), flow)[0])


def test_the_fused_similarity_survives_empty_masks_and_features_without_direction() -> None:
    features, flow = drawn(2, (7, 8))
    loss = warped_similarity(features, flow, torch.zeros(2, 1, 7, 8))
    assert float(loss.detach()) == pytest.approx(2.2)
    assert not any(each.any() for each in torch.autograd.grad(loss, (features, flow)))
    nothing = torch.zeros(2, 3, 7, 8).requires_grad_()
    (gradient,) = torch.autograd.grad(warped_similarity(nothing, flow.detach(), inside(flow)), nothing)
    assert not gradient.any()


@pytest.mark.parametrize("dims", [2, 3])
def test_all_losses_together_are_the_literal_head(dims: int) -> None:
    pair = random_pair(12 if dims == 3 else 24, 6, dims)
    pair = Pair(*[each.detach().double().requires_grad_(each.requires_grad) for each in pair])
    expected = literal_head(pair, torch.float64)
    images, flows = torch.cat([pair.a, pair.b]), torch.cat([pair.flow_ab, pair.flow_ba])
    mask = inside(flows, convention="official").double()
    moved = warp(images, flows, convention="official")
    gvs = [local_ncc(images[1 - i, None], moved[i, None], mask[i, None]) for i in range(2)]
    gss = warped_similarity(torch.cat([pair.features_a, pair.features_b]), flows, mask, convention="official")
    found = 0.4 * 2 * smoothness(flows) + 0.8 * gss + gvs[0] + gvs[1]
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)
    leaves = pair[2:]
    for one, two in zip(
        torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True
    ):
        np.testing.assert_allclose(one.numpy(), two.numpy(), rtol=0, atol=1e-7 * float(two.abs().max()))


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ((torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5)), {}, "two images"),
        ((torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)), {}, "two images"),
        ((torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)), {"window": 4}, "odd"),
    ],
)
def test_misuse_of_the_correlation_is_told(
    images: tuple[Tensor, Tensor], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        local_ncc(*images, window=options.get("window", 9))


def test_misuse_of_the_fused_similarity_is_told() -> None:
    with pytest.raises(ValueError, match="pairs"):
        warped_similarity(torch.zeros(3, 2, 4, 4), torch.zeros(3, 2, 4, 4), torch.zeros(3, 1, 4, 4))
    with pytest.raises(ValueError, match="pairs"):
        warped_similarity(torch.zeros(2, 2, 4, 4), torch.zeros(2, 3, 4, 4), torch.zeros(2, 1, 4, 4))
