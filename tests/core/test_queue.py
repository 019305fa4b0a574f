"""The queue is a list that forgets its oldest rows, however it is filled, and survives a checkpoint."""

from __future__ import annotations

import io

import pytest
import torch

from diptych.errors import ConfigError
from diptych.queue import Queue
from diptych.types import Rows


def batch(first: int, n: int) -> Rows:
    """Rows that say which they are: number ``first + i`` in every field."""
    numbers = torch.arange(first, first + n)
    return Rows(numbers[:, None].float().expand(n, 3), numbers * 10, numbers * 100)


def contents(queue: Queue) -> list[int]:
    rows = queue.rows()
    assert torch.equal(rows.group, rows.z[:, 0].long() * 10)
    assert torch.equal(rows.row, rows.z[:, 0].long() * 100)
    assert torch.equal(rows.z, rows.z[:, :1].expand(-1, 3))
    return sorted(rows.z[:, 0].long().tolist())


@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize(
    "batches",
    [[1] * 20, [3] * 9, [4] * 5, [2, 5, 1, 7, 3], [30], [6, 19, 2], [0, 2, 0, 9], [7, 7], [8, 1, 8]],
)
def test_it_holds_the_latest_rows(size: int, batches: list[int]) -> None:
    queue, pushed = Queue(size, 3), 0
    for n in batches:
        queue.push(batch(pushed, n))
        pushed += n
        assert contents(queue) == list(range(max(0, pushed - size), pushed))


@pytest.mark.parametrize("batches", [[2, 5, 1], [11, 3], [4, 9, 4]])
def test_slots_are_overwritten_in_turn(batches: list[int]) -> None:
    queue, pushed = Queue(5, 3), 0
    for n in batches:
        queue.push(batch(pushed, n))
        pushed += n
    assert [int(number) % 5 for number in queue.rows().z[:, 0]] == list(range(5))


def test_a_checkpoint_continues_it() -> None:
    whole, before = Queue(5, 3), Queue(5, 3)
    for queue in (whole, before):
        queue.push(batch(0, 3))
    file = io.BytesIO()
    torch.save(before.state_dict(), file)
    file.seek(0)
    after = Queue(5, 3)
    after.load_state_dict(torch.load(file, weights_only=True))
    assert contents(after) == [0, 1, 2]
    for queue in (whole, after):
        queue.push(batch(3, 4))
    assert contents(after) == contents(whole) == [2, 3, 4, 5, 6]
    assert torch.equal(after.z, whole.z)


def test_an_empty_queue_has_no_rows() -> None:
    rows = Queue(5, 3).rows()
    assert rows.z.shape == (0, 3)
    assert rows.group.shape == rows.row.shape == (0,)


def test_it_keeps_no_graph() -> None:
    queue = Queue(5, 3)
    rows = batch(0, 2)
    queue.push(rows._replace(z=rows.z.clone().requires_grad_() * 2))
    assert not queue.rows().z.requires_grad


def test_bad_sizes_are_named() -> None:
    with pytest.raises(ConfigError, match="a size and a width of at least 1, got size 0 and width 3"):
        Queue(0, 3)
    with pytest.raises(ConfigError, match="a size and a width of at least 1, got size 4 and width -1"):
        Queue(4, -1)
    with pytest.raises(ValueError, match=r"the queue holds rows \(n, 3\), got \(2, 4\)"):
        Queue(5, 3).push(Rows(torch.zeros(2, 4), torch.zeros(2).long(), torch.zeros(2).long()))
