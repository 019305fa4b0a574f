"""Every mask hides what its definition says, as often as its formula says."""

from __future__ import annotations

import pytest
import torch

from diptych_biosignals.masks import (
    MASKS,
    Segments,
    Shape,
    draw_halves,
    draw_mask,
    draw_segments,
    hide,
    hide_channels,
    keep_fraction,
)

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_segments_hide_their_runs_as_a_plain_loop_does() -> None:
    drawn = draw_segments(20, 33, CPU, generator(), segments=4, share=0.2)
    mask = hide(drawn, 33)
    for window, starts in enumerate(drawn.starts.tolist()):
        expected = [not any(start <= t < start + drawn.length for start in starts) for t in range(33)]
        assert mask[window].tolist() == expected


def test_segments_start_anywhere_they_fit_the_last_place_included() -> None:
    drawn = draw_segments(4000, 20, CPU, generator(), share=0.25)
    assert drawn.length == 5
    assert drawn.starts.unique().tolist() == list(range(16))


@pytest.mark.parametrize(
    ("steps", "count", "length"), [(300, 5, 30), (256, 5, 25), (7, 3, 1), (2, 1, 1), (1, 1, 1), (3, 1, 1)]
)
def test_number_and_length_of_segments(steps: int, count: int, length: int) -> None:
    drawn = draw_segments(3, steps, CPU)
    assert (drawn.starts.shape, drawn.length) == ((3, count), length)


@pytest.mark.parametrize("steps", [2, 9, 40, 256, 300])
def test_keep_fraction_is_the_mean_of_many_draws(steps: int) -> None:
    drawn = draw_mask("continuous", Shape(20_000, steps, 1, CPU), generator(steps))
    assert drawn.double().mean().item() == pytest.approx(keep_fraction(steps), abs=0.004)


def test_keep_fraction_at_the_lengths_of_the_paper() -> None:
    assert keep_fraction(256) == pytest.approx(0.603, abs=5e-4)
    assert keep_fraction(300) == pytest.approx(0.596, abs=5e-4)


def test_edges_are_hidden_less_than_the_middle() -> None:
    kept = draw_mask("continuous", Shape(20_000, 300, 1, CPU), generator()).double().mean(0)
    assert kept[0].item() == pytest.approx((1 - 1 / 271) ** 5, abs=0.01)
    assert kept[150].item() == pytest.approx((1 - 30 / 271) ** 5, abs=0.01)


def test_windows_are_masked_independently() -> None:
    masks = draw_mask("continuous", Shape(50, 300, 1, CPU), generator())
    assert len({tuple(mask.tolist()) for mask in masks}) == 50


def test_plain_masks() -> None:
    shape = Shape(2, 4, 3, CPU)
    assert draw_mask("all_true", shape).tolist() == [[True] * 4] * 2
    assert draw_mask("all_false", shape).tolist() == [[False] * 4] * 2
    assert draw_mask("mask_last", shape).tolist() == [[True, True, True, False]] * 2


def test_binomial_masks_keep_half() -> None:
    shape = Shape(100, 50, 8, CPU)
    per_step, per_channel = (draw_mask(name, shape, generator()) for name in ("binomial", "channel_binomial"))
    assert (per_step.shape, per_channel.shape) == ((100, 50), (100, 50, 8))
    assert per_step.double().mean().item() == pytest.approx(0.5, abs=0.03)
    assert per_channel.double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_channel_continuous_hides_half_of_the_channels_in_a_segment() -> None:
    halves = draw_halves(6, 1, 10, CPU, generator())
    mask = hide_channels(Segments(torch.full((6, 1), 3), 4), halves, 12)
    assert mask[:, 3:7].sum(-1).tolist() == [[5] * 4] * 6
    assert mask[:, :3].all()
    assert mask[:, 7:].all()
    assert len({tuple(half.flatten().tolist()) for half in halves}) > 1


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_every_mask_is_drawn_for_short_windows_and_replays(name: str, steps: int) -> None:
    shape = Shape(5, steps, 4, CPU)
    first, again = (draw_mask(name, shape, generator(7)) for _ in range(2))
    assert first.dtype == torch.bool
    assert first.shape[:2] == (5, steps)
    assert torch.equal(first, again)
