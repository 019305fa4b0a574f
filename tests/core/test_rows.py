"""Rows carry the right embedding under the right ids, for every level."""

from __future__ import annotations

import pytest
import torch

from diptych.errors import ConfigError
from diptych.rows import grid_rows, parts_rows, whole_rows
from diptych.types import Encoded

SAMPLE = torch.tensor([40, 7, 19])
PATIENT = torch.tensor([2, -1, 2])
GROUPS = {"sample": SAMPLE, "patient": PATIENT}


def encoded(views: int = 2, n: int = 3, width: int = 4, space: tuple[int, ...] = (5,)) -> list[Encoded]:
    generator = torch.Generator().manual_seed(0)
    return [
        Encoded(
            torch.randn(n, width, generator=generator),
            torch.randn(6, width, generator=generator),
            torch.randn(n, width, *space, generator=generator),
        )
        for _ in range(views)
    ]


def test_whole_rows() -> None:
    views = encoded(3)
    rows = whole_rows(views, GROUPS, "patient")
    for view in range(3):
        for i in range(3):
            at = view * 3 + i
            assert torch.equal(rows.z[at], views[view].whole[i])
            assert rows.group[at] == PATIENT[i]
            assert rows.row[at] == view + 3 * SAMPLE[i]
    assert whole_rows(views, GROUPS).group.tolist() == SAMPLE.tolist() * 3


@pytest.mark.parametrize("space", [(5,), (2, 3), (2, 2, 2)])
def test_grid_rows_within_samples(space: tuple[int, ...]) -> None:
    views = encoded(2, space=space)
    rows = grid_rows(views, GROUPS, scope="sample")
    positions = views[0].grid.flatten(2).shape[-1]  # type: ignore[union-attr]
    assert rows.z.shape == (3, 2 * positions, 4)
    for view, each in enumerate(views):
        assert each.grid is not None
        for i in range(3):
            for p in range(positions):
                at = view * positions + p
                assert torch.equal(rows.z[i, at], each.grid[i].flatten(1)[:, p])
                assert rows.group[at] == p
    assert rows.row.unique().numel() == 2 * positions


def test_grid_rows_at_positions() -> None:
    views = encoded(2)
    rows = grid_rows(views, GROUPS, scope="position", group="patient")
    assert rows.z.shape == (5, 6, 4)
    for view, each in enumerate(views):
        assert each.grid is not None
        for i in range(3):
            for p in range(5):
                assert torch.equal(rows.z[p, view * 3 + i], each.grid[i, :, p])
    assert rows.group.tolist() == PATIENT.tolist() * 2
    assert rows.row.tolist() == [2 * s for s in SAMPLE] + [1 + 2 * s for s in SAMPLE]


def test_parts_rows() -> None:
    views = encoded(2)
    groups = {
        "point": torch.tensor([0, 1, 2, 0, 1, -1]),
        "part": torch.arange(100, 106),
        "sample_of_part": torch.tensor([7, 7, 7, 9, 9, 9]),
    }
    rows = parts_rows(views, groups, scope="sample_of_part")
    assert torch.equal(rows.z, torch.cat([each.parts for each in views]))  # type: ignore[misc]
    assert rows.group.tolist() == [0, 1, 2, 0, 1, -1] * 2
    assert rows.row.tolist() == [*range(200, 212, 2), *range(201, 213, 2)]
    assert rows.scope is not None
    assert rows.scope.tolist() == [7, 7, 7, 9, 9, 9] * 2
    assert parts_rows(views, groups).scope is None


def test_row_ids_of_other_processes_never_meet() -> None:
    here = whole_rows(encoded(), {"sample": torch.tensor([0, 1, 2])})
    there = whole_rows(encoded(), {"sample": torch.tensor([3, 4, 5])})
    assert not set(here.row.tolist()) & set(there.row.tolist())


def test_what_is_missing_is_named() -> None:
    views = encoded()
    with pytest.raises(ConfigError, match="the batch has no ids named 'trial'; it has patient, sample"):
        whole_rows(views, GROUPS, "trial")
    with pytest.raises(ConfigError, match="the batch has no ids named 'part'; it has point"):
        parts_rows(views, {"point": torch.arange(6)})
    with pytest.raises(ValueError, match=r"the ids 'sample' must be one per row, \(3,\), got \(2,\)"):
        whole_rows(views, {"sample": torch.arange(2)})
    only_whole = [Encoded(torch.randn(3, 4))]
    with pytest.raises(
        ConfigError, match="contrasts grid, but the encoder returns none; choose another level"
    ):
        grid_rows(only_whole, GROUPS, scope="sample")
    with pytest.raises(
        ConfigError, match="contrasts parts, but the encoder returns none; choose another level"
    ):
        parts_rows(only_whole, GROUPS)
