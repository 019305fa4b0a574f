"""Augmentations: identity parameters change nothing, drawn ones do what they say, and replay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from diptych.augment import Augment, Augmentation
from diptych.errors import ConfigError
from diptych_biosignals.masks import Segments
from diptych_biosignals.views import BandStop, Crop, Jitter, LeadDrop, Scale, TimeMask

CPU = torch.device("cpu")
N, STEPS, CHANNELS = 6, 50, 3
ALL: list[Augmentation] = [Jitter(), Scale(), Crop(), TimeMask(), LeadDrop(), BandStop()]
NAMES = [type(each).__name__ for each in ALL]


def windows(dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(
        N, STEPS, CHANNELS, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    ).to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("augmentation", ALL, ids=NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_view_keeps_shape_and_type_replays_and_leaves_its_input(
    augmentation: Augmentation, dtype: torch.dtype
) -> None:
    x = windows(dtype)
    before = x.clone()
    views = [
        augmentation.apply(x, augmentation.draw((N, STEPS, CHANNELS), CPU, generator(s))) for s in (1, 1, 2)
    ]
    assert views[0].shape == x.shape
    assert views[0].dtype == dtype
    assert torch.equal(views[0], views[1])
    assert not torch.equal(views[0], views[2])
    assert not torch.equal(views[0], x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    ("augmentation", "parameters"),
    [
        (Jitter, torch.zeros(N, STEPS, CHANNELS)),
        (Scale, torch.ones(N, 1, CHANNELS)),
        (Crop, torch.tensor([[0.0, STEPS - 1]]).expand(N, 2)),
        (TimeMask, Segments(torch.zeros(N, 1, dtype=torch.int64), 0)),
        (LeadDrop, torch.ones(N, CHANNELS, dtype=torch.bool)),
        (BandStop, torch.full((N, 2), 0.1)),
    ],
)
def test_identity_parameters_give_the_window_itself(
    augmentation: type[Augmentation], parameters: object
) -> None:
    torch.testing.assert_close(augmentation.apply(windows(), parameters), windows(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("augmentation", ALL, ids=NAMES)
def test_every_window_has_a_draw_of_its_own(augmentation: Augmentation) -> None:
    x = windows()[:1].expand(200, -1, -1)
    view = augmentation.apply(x, augmentation.draw((200, STEPS, CHANNELS), CPU, generator()))
    assert len({tuple(window.flatten().tolist()) for window in view}) > 5


def test_jitter_has_its_standard_deviation() -> None:
    noise = Jitter(deviation=0.3).draw((100, 100, 3), CPU, generator())
    assert noise.std().item() == pytest.approx(0.3, rel=0.02)


def test_scale_factors_lie_in_their_range_and_are_one_in_the_middle() -> None:
    factors = Scale(largest=2.0).draw((5000, 1, 2), CPU, generator())
    assert factors.min() >= 0.5
    assert factors.max() <= 2.0
    assert factors.log().mean().item() == pytest.approx(0, abs=0.02)


def test_a_crop_reads_a_straight_line_at_the_right_places() -> None:
    line = torch.arange(STEPS, dtype=torch.float64)[None, :, None].expand(2, STEPS, 1)
    parts = torch.tensor([[10.0, 20.0], [3.25, 40.5]], dtype=torch.float64)
    view = Crop.apply(line, parts)
    for window, (first, last) in zip(view, parts.tolist(), strict=True):
        expected = torch.linspace(first, last, STEPS, dtype=torch.float64)
        torch.testing.assert_close(window[:, 0], expected)


def test_crops_are_as_long_as_asked_and_inside_the_window() -> None:
    first, last = Crop(shortest=0.6).draw((5000, STEPS, 1), CPU, generator()).unbind(1)
    assert first.min() >= 0
    assert last.max() <= STEPS - 1
    length = (last - first) / (STEPS - 1)
    assert length.min().item() == pytest.approx(0.6, abs=0.01)
    assert length.max().item() == pytest.approx(1.0, abs=0.01)


def test_a_time_mask_hides_its_share() -> None:
    augmentation = TimeMask(segments=1, share=0.2)
    view = augmentation.apply(torch.ones(N, STEPS, CHANNELS), augmentation.draw((N, STEPS, CHANNELS), CPU))
    assert view.eq(0).sum((1, 2)).tolist() == [10 * CHANNELS] * N


def test_lead_drop_keeps_one_lead_and_drops_its_share() -> None:
    assert (LeadDrop(probability=1.0).draw((100, 9, 4), CPU, generator()).sum(1) == 1).all()
    kept = LeadDrop(probability=0.25).draw((5000, 9, 12), CPU, generator())
    assert kept.double().mean().item() == pytest.approx(0.75, abs=0.01)


def test_band_stop_removes_the_energy_of_its_band_and_no_other() -> None:
    time = torch.arange(200, dtype=torch.float64)
    slow, fast = (torch.sin(2 * math.pi * frequency * time) for frequency in (0.05, 0.2))
    x = (slow + fast)[None, :, None]
    view = BandStop.apply(x, torch.tensor([[0.19, 0.21]], dtype=torch.float64))
    torch.testing.assert_close(view, slow[None, :, None], rtol=0, atol=1e-9)
    spectrum = torch.fft.rfft(BandStop.apply(windows(), torch.tensor([[0.1, 0.3]]).expand(N, 2)), dim=1).abs()
    frequency = torch.fft.rfftfreq(STEPS)
    inside = (frequency >= 0.1) & (frequency < 0.3)
    assert spectrum[:, inside].max() < 1e-9
    torch.testing.assert_close(spectrum[:, ~inside], torch.fft.rfft(windows(), dim=1).abs()[:, ~inside])


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("augmentation", ALL, ids=NAMES)
def test_short_windows_stay_finite(augmentation: Augmentation, steps: int) -> None:
    x = torch.randn(4, steps, 1)
    view = augmentation.apply(x, augmentation.draw((4, steps, 1), CPU, generator()))
    assert view.shape == x.shape
    assert view.isfinite().all()


def test_two_views_differ_and_replay() -> None:
    augment = Augment(ALL)
    first, second = augment(windows(), generator(3))
    again, _ = augment(windows(), generator(3))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


def test_augmentations_apply_to_their_share_of_windows() -> None:
    x = torch.ones(4000, 4, 1)
    changed = (Augment([Jitter()], probability=0.3).view(x, generator()) != x).any((1, 2))
    assert changed.double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(Augment(ALL, probability=0.0).view(x), x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Jitter(deviation=-1), "jitter's deviation must lie in 0..inf, got -1"),
        (lambda: Scale(largest=0.5), "scale's largest factor must lie in 1..inf, got 0.5"),
        (lambda: Crop(shortest=1.5), "crop's shortest part must lie in 0..1, got 1.5"),
        (lambda: TimeMask(share=2), "time mask's share must lie in 0..1, got 2"),
        (lambda: TimeMask(segments=0), "time mask's segments must lie in 1..inf, got 0"),
        (lambda: LeadDrop(probability=2), "lead drop's probability must lie in 0..1, got 2"),
        (lambda: BandStop(highest=0.7), "band stop's highest frequency must lie in 0..0.5, got 0.7"),
        (lambda: BandStop(width=0.3), "band stop's width must lie in 0..0.2, got 0.3"),
        (lambda: Augment([]), "give at least one"),
        (lambda: Augment(ALL, probability=-1), "probability of an augmentation must lie in 0..1, got -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(build: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build()
