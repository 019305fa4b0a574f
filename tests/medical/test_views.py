"""Views of images: identity parameters change nothing, drawn ones do what they say, and places are told."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diptych.augment import Augment, Augmentation
from diptych.errors import ConfigError
from diptych.places import moved, within
from diptych_medical.spatial import Spatial, positions
from diptych_medical.views import Blur, Brightness, Change, Cutout, Gamma, Noise, TwoViews, usual_intensity
from diptych_medical.warp import sample_at

CPU = torch.device("cpu")
SHAPES = [(4, 2, 9, 12), (4, 1, 7, 10, 8)]
ALL: list[Augmentation] = [Brightness(), Gamma(), Noise(), Blur(), Cutout()]
NAMES = [type(each).__name__ for each in ALL]
STILL = Spatial(rotation=(0.0,), scale=(1.0, 1.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(shape, dtype=torch.float64, generator=generator()).to(dtype)


@pytest.mark.parametrize("augmentation", ALL, ids=NAMES)
@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_a_view_keeps_shape_and_type_replays_and_leaves_its_input(
    augmentation: Augmentation, shape: tuple[int, ...]
) -> None:
    for dtype in (torch.float32, torch.float64):
        x = images(shape, dtype)
        before = x.clone()
        views = [augmentation.apply(x, augmentation.draw(shape, CPU, generator(seed))) for seed in (1, 1, 2)]
        assert views[0].shape == x.shape
        assert views[0].dtype == dtype
        assert views[0].isfinite().all()
        assert torch.equal(views[0], views[1])
        assert not torch.equal(views[0], views[2])
        assert torch.equal(x, before)


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_identity_parameters_give_the_image_itself(shape: tuple[int, ...]) -> None:
    x = images(shape)
    each = (shape[0], 1, *(1 for _ in shape[2:]))
    still = torch.tensor([0.0, 1.0, 0.0]).expand(shape[0], 3)
    for view in (
        Brightness.apply(x, Change(torch.ones(each), torch.zeros(each))),
        Gamma.apply(x, torch.ones(each)),
        Noise.apply(x, torch.zeros(shape)),
        Blur.apply(x, still),
        Cutout.apply(x, torch.full((shape[0], 2, len(shape) - 2, 2), 0.5)),
    ):
        torch.testing.assert_close(view, x, atol=1e-6, rtol=0)


@pytest.mark.parametrize("augmentation", ALL, ids=NAMES)
def test_every_image_has_a_draw_of_its_own(augmentation: Augmentation) -> None:
    x = images((1, 1, 9, 12)).expand(100, -1, -1, -1)
    view = augmentation.apply(x, augmentation.draw((100, 1, 9, 12), CPU, generator()))
    assert len({tuple(image.flatten().tolist()) for image in view}) > 20


def test_brightness_changes_spread_and_mean_as_drawn() -> None:
    x = images(SHAPES[0], torch.float64)
    drawn = Brightness(contrast=2, shift=0.3).draw(SHAPES[0], CPU, generator())
    view = Brightness.apply(x, drawn)
    torch.testing.assert_close(view.mean((2, 3)), x.mean((2, 3)) + drawn.shift[..., 0, 0])
    torch.testing.assert_close(view.std((2, 3)), x.std((2, 3)) * drawn.factor[..., 0, 0])
    many = Brightness(contrast=2, shift=0.3).draw((5000, 1, 1, 1), CPU, generator())
    assert 0.5 <= many.factor.min() < 0.51
    assert 1.96 < many.factor.max() <= 2
    assert 0.29 < many.shift.abs().max() <= 0.3


def test_gamma_raises_to_powers_within_its_range() -> None:
    x = images((3, 1, 5, 5), torch.float64) - 0.2
    powers = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    view = Gamma.apply(x, powers.view(3, 1, 1, 1))
    for image, result, power in zip(x.flatten(1), view.flatten(1), powers, strict=True):
        torch.testing.assert_close(result, image.clamp(min=0) ** power)
    drawn = Gamma(largest=2).draw((5000, 1, 1, 1), CPU, generator())
    assert 0.5 <= drawn.min() < 0.51
    assert 1.96 < drawn.max() <= 2
    assert drawn.log().mean().abs() < 0.03


def test_noise_has_a_deviation_of_its_own_in_every_image() -> None:
    deviation = Noise(deviation=0.4).draw((500, 1, 20, 20), CPU, generator()).std((1, 2, 3))
    assert deviation.max() < 0.45
    assert deviation.min() < 0.02
    assert deviation.mean().item() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_blur_is_a_convolution_with_a_gaussian(shape: tuple[int, ...]) -> None:
    x = images(shape, torch.float64)
    weights = Blur(deviation=1.0).draw(shape, CPU, generator()).double()
    d, reach = len(shape) - 2, weights.shape[1] // 2
    convolve = functional.conv2d if d == 2 else functional.conv3d
    for image, line, view in zip(x, weights, Blur.apply(x, weights), strict=True):
        kernel = line
        for _ in range(d - 1):
            kernel = kernel[..., None] * line
        padded = functional.pad(image[:, None], (reach, reach) * d, mode="replicate")
        torch.testing.assert_close(view, convolve(padded, kernel[None, None])[:, 0])


def test_a_gaussian_has_the_deviation_that_was_drawn() -> None:
    weights = Blur(deviation=1.5).draw((2000, 1, 1, 1), CPU, generator())
    offset = torch.arange(-5.0, 6.0)
    deviation = (weights * offset**2).sum(1).sqrt()
    torch.testing.assert_close(weights.sum(1), torch.ones(2000))
    torch.testing.assert_close(weights, weights.flip(1))
    assert deviation.max().item() == pytest.approx(1.5, abs=0.03)
    assert deviation.median().item() == pytest.approx(0.75, abs=0.1)


def test_cutout_clears_its_boxes_and_nothing_else() -> None:
    boxes = torch.tensor([[[[0.0, 0.5], [0.25, 0.5]], [[0.75, 1.0], [0.0, 1.0]]]])
    view = Cutout.apply(torch.ones(1, 2, 4, 8), boxes)
    expected = torch.ones(4, 8)
    expected[:2, 2:4] = 0
    expected[3] = 0
    assert torch.equal(view, expected.expand(1, 2, 4, 8))
    drawn = Cutout(boxes=2, share=0.3).draw((1000, 1, 4, 8), CPU, generator())
    assert drawn.shape == (1000, 2, 2, 2)
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert 0.29 < (drawn[..., 1] - drawn[..., 0]).max() <= 0.3 + 1e-6


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_places_of_a_view_say_where_its_voxels_come_from(shape: tuple[int, ...]) -> None:
    space = shape[2:]
    spatial = Spatial(crop=(0.3, 0.8), rotation=(15.0,), flips=(0,))
    x = images(shape)
    for located in TwoViews(spatial, ()).located(x, generator()):
        assert located.space == located.extent == space
        torch.testing.assert_close(located.view, sample_at(x, positions(located.matrix, space)))
        assert located.points is None


@pytest.mark.parametrize("shape", SHAPES, ids=len)
def test_points_are_the_same_place_in_both_views(shape: tuple[int, ...]) -> None:
    spatial = Spatial(rotation=(10.0,), scale=(0.9, 1.1))
    first, second = TwoViews(spatial, (), points=50).located(images(shape), generator())
    assert first.points is not None
    assert second.points is not None
    assert first.points.shape == (shape[0], 50, len(shape) - 2)
    one, two = moved(first.matrix, first.points), moved(second.matrix, second.points)
    torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
    for at in (first.points, second.points, one):
        assert within(at.transpose(1, 2), shape[2:]).float().mean() > 0.99


def test_two_views_differ_replay_and_need_no_gradient() -> None:
    make = TwoViews(Spatial(), usual_intensity())
    x = images(SHAPES[1]).requires_grad_()
    first, second = make(x, generator(3))
    again, _ = make(x, generator(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    assert not first.requires_grad
    still, _ = TwoViews(STILL, ()).located(x)
    torch.testing.assert_close(still.view, x.detach(), atol=1e-5, rtol=0)


def test_without_an_affine_part_images_stay_where_they_are() -> None:
    x = images(SHAPES[0])
    first, _ = TwoViews(None, (Cutout(),), probability=1.0).located(x)
    kept = first.view != 0
    assert 0.5 < kept.float().mean() < 1
    assert torch.equal(first.view[kept], x[kept])
    torch.testing.assert_close(
        positions(first.matrix, (9, 12))[0], positions(STILL.draw((1, 9, 12), CPU), (9, 12))[0]
    )


def test_changes_apply_to_their_share_of_images() -> None:
    x = torch.full((4000, 1, 2, 2), 0.5)
    changed = (Augment([Noise()], probability=0.3).view(x, generator()) != x).any(3).any(2).any(1)
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Brightness(contrast=0.5), "brightness's contrast must lie in 1..inf, got 0.5"),
        (lambda: Brightness(shift=2), "brightness's shift must lie in 0..1, got 2"),
        (lambda: Gamma(largest=0), "gamma's largest power must lie in 1..inf, got 0"),
        (lambda: Noise(deviation=-1), "noise's deviation must lie in 0..inf, got -1"),
        (lambda: Blur(deviation=0), "blur's deviation must be above 0 and finite, got 0"),
        (lambda: Blur(deviation=math.inf), "blur's deviation must be above 0 and finite, got inf"),
        (lambda: Cutout(share=2), "cutout's share must lie in 0..1, got 2"),
        (lambda: Cutout(boxes=0), "cutout's boxes must lie in 1..inf, got 0"),
        (lambda: TwoViews(None, ()), "both views would be the same image"),
        (
            lambda: TwoViews(None, ALL, probability=2),
            "probability of an augmentation must lie in 0..1, got 2",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()  # type: ignore[operator]
