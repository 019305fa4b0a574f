"""Corruption of images: what is drawn is applied as loops over blocks and boxes would, and small images too."""

from __future__ import annotations

import numpy as np
import pytest
import references_corruption as reference
import torch

from diptych.errors import ConfigError, DataError
from diptych_medical.corruption import Corruption, bent, block_sides, covered, shuffled

CPU = torch.device("cpu")
SHAPES = [(3, 2, 40, 66), (2, 1, 21, 47, 30), (2, 2, 6, 4, 9), (2, 1, 5, 5)]


def drawn(
    shape: tuple[int, ...], seed: int = 0, **settings: float
) -> tuple[torch.Tensor, Corruption, object]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(*shape, generator=generator, dtype=torch.float64)
    corruption = Corruption(**settings)  # type: ignore[arg-type]
    return x, corruption, corruption.draw(shape, CPU, generator)


@pytest.mark.parametrize("shape", SHAPES)
def test_each_step_equals_its_loop(shape: tuple[int, ...]) -> None:
    x, _, found = drawn(shape, blocks=60)
    space = list(shape[2:])
    blocks = shuffled(x, found.block_starts, found.block_order).numpy()
    curves = bent(x, found.curves.double()).numpy()
    boxes = torch.where(covered(found.box_starts, found.box_sides, space)[:, None], found.noise.double(), x)
    for i, image in enumerate(x.numpy()):
        starts, order = found.block_starts[i].numpy(), found.block_order[i].numpy()
        assert np.array_equal(blocks[i], reference.shuffled(image, starts, order, block_sides(space)))
        expected = reference.bent(image, found.curves[i].double().numpy())
        np.testing.assert_allclose(curves[i], expected, atol=1e-9)
        sides = found.box_sides[i].numpy()
        filled = reference.filled(image, found.box_starts[i].numpy(), sides, found.noise[i].double().numpy())
        assert np.array_equal(boxes[i].numpy(), filled)


@pytest.mark.parametrize("shape", SHAPES)
def test_all_steps_come_in_order(shape: tuple[int, ...]) -> None:
    x, corruption, found = drawn(shape, shuffle=1.0, bend=1.0)
    by_hand = bent(shuffled(x, found.block_starts, found.block_order), found.curves)
    by_hand = torch.where(
        covered(found.box_starts, found.box_sides, shape[2:])[:, None], found.noise.double(), by_hand
    )
    assert torch.equal(corruption.apply(x, found), by_hand)


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_and_boxes_lie_inside_and_none_is_empty(shape: tuple[int, ...]) -> None:
    _, _, found = drawn((64, *shape[1:]), further=1.0)
    space = torch.tensor(shape[2:])
    sides = torch.tensor(block_sides(shape[2:]))
    assert sides.min() >= 2
    assert found.block_starts.min() >= 0
    assert (found.block_starts + sides <= space).all()
    assert found.box_sides.min() >= 2
    border = ((space - found.box_sides) // 2).clamp(max=3)
    assert (found.box_starts >= border).all()
    assert (found.box_starts + found.box_sides <= space - border).all()
    assert torch.equal(found.block_order.sort(1).values, torch.arange(int(sides.prod())).expand(64, -1))


def test_sizes_are_the_released_ones_where_images_are_large() -> None:
    assert block_sides([64, 80, 128]) == [3, 4, 6]
    assert block_sides([512, 512]) == [17, 17]
    found = Corruption().draw((1, 1, 64, 64, 64), CPU)
    assert found.block_starts.shape == (1, 5000, 3)
    boxes = Corruption(further=1.0).draw((50, 1, 60, 60, 60), CPU)
    assert boxes.box_sides.shape[1] == 30
    assert set(boxes.box_sides.flatten().tolist()) == set(range(6, 13))
    assert Corruption(further=1.0).draw((1, 1, 60, 60), CPU).box_sides.shape[1] == 10


@pytest.mark.parametrize("shape", [(8, 1, 8, 8, 8), (8, 1, 16, 16)])
def test_small_images_are_shuffled_but_not_everywhere(shape: tuple[int, ...]) -> None:
    x, corruption, found = drawn(shape, shuffle=1.0, bend=0.0, further=0.0)
    moved = (corruption.apply(x, found) != x).flatten(1).double().mean(1)
    assert moved.min() > 0.3
    assert moved.max() < 0.9


def test_curves_go_up_from_0_to_1() -> None:
    curves = Corruption().draw((20, 3, 8, 8), CPU).curves
    assert curves.diff(dim=-1).min() >= 0
    assert torch.equal(curves[..., 0], torch.zeros(20, 3, 2))
    torch.testing.assert_close(curves[..., -1], torch.ones(20, 3, 2))
    assert curves.flatten(0, 1).std(0).max() > 0.1


def test_probabilities_are_kept() -> None:
    found = Corruption(shuffle=0.25, bend=0.5, further=0.5, boxes=6).draw((4000, 1, 4, 4), CPU)
    assert found.shuffled.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert found.bent.float().mean().item() == pytest.approx(0.5, abs=0.03)
    boxes = (found.box_sides[..., 0] > 0).sum(1)
    for count in range(4):
        share = (boxes == count).float().mean().item()
        assert share == pytest.approx(0.5 ** (count + 1), abs=0.03)


def test_nothing_is_changed_where_nothing_is_asked_for() -> None:
    x, corruption, found = drawn((2, 1, 9, 9, 9), shuffle=0.0, bend=0.0, further=0.0)
    assert torch.equal(corruption.apply(x, found), x)


def test_one_generator_draws_the_same_again_and_images_differ() -> None:
    x, corruption, first = drawn((2, 1, 24, 24), seed=3, shuffle=1.0)
    _, _, second = drawn((2, 1, 24, 24), seed=3, shuffle=1.0)
    assert torch.equal(corruption.apply(x, first), corruption.apply(x, second))
    assert not torch.equal(first.block_order[0], first.block_order[1])


def test_images_without_room_for_a_block_are_refused() -> None:
    with pytest.raises(DataError, match="at least 4 voxels along every axis, got 16 x 3; use larger crops"):
        Corruption().draw((1, 1, 16, 3), CPU)


def test_settings_out_of_range() -> None:
    with pytest.raises(ConfigError, match=r"corruption's bend must lie in 0\.\.1, got 1.5"):
        Corruption(bend=1.5)
    with pytest.raises(ConfigError, match="at least 0, got -1 and 0"):
        Corruption(blocks=-1)
