from __future__ import annotations

import numpy as np
import pytest
import torch
from references_training import naive_alignment, naive_rankme, naive_uniformity

from diptych.diagnostics import (
    alignment,
    centred_rank,
    collapse_signs,
    collapse_statistics,
    dead_share,
    rankme,
    spread,
    uniformity,
)


def rows(n: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, width)))


@pytest.mark.parametrize(("n", "width"), [(2, 1), (7, 3), (20, 6), (5, 12)])
def test_equal_the_formulas_written_as_loops(n: int, width: int) -> None:
    z, other = rows(n, width, 1), rows(n, width, 2)
    assert alignment(z, other) == pytest.approx(naive_alignment(z.numpy(), other.numpy(), 2), rel=1e-12)
    assert alignment(z, other, 1.0) == pytest.approx(naive_alignment(z.numpy(), other.numpy(), 1), rel=1e-12)
    assert uniformity(z) == pytest.approx(naive_uniformity(z.numpy(), 2), rel=1e-10, abs=1e-12)
    assert rankme(z) == pytest.approx(naive_rankme(z.numpy()), rel=1e-6)
    assert centred_rank(z) == pytest.approx(naive_rankme((z - z.mean(0)).numpy()), rel=2e-2)


def test_white_noise_has_the_published_effective_ranks() -> None:
    for n, published in ((64, 62), (256, 206), (1024, 247)):
        assert rankme(rows(n, 256)) == pytest.approx(published, abs=1)


def test_rank_counts_equal_directions_and_an_offset_lowers_only_the_uncentred_one() -> None:
    assert rankme(torch.eye(5).repeat(3, 1)) == pytest.approx(5, rel=1e-5)
    z = rows(400, 32)
    assert rankme(z + 5) < 0.7 * rankme(z)
    assert centred_rank(z + 5) == pytest.approx(centred_rank(z), rel=1e-9)
    assert rankme(torch.zeros(4, 3)) == 0.0


def test_do_not_depend_on_scale_order_or_rotation() -> None:
    z, other = rows(30, 8, 1), rows(30, 8, 2)
    turn, _ = torch.linalg.qr(rows(8, 8, 3))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    for changed, partner in ((3 * z, 3 * other), (z[order], other[order]), (z @ turn, other @ turn)):
        assert alignment(changed, partner) == pytest.approx(alignment(z, other))
        assert uniformity(changed) == pytest.approx(uniformity(z))
        assert rankme(changed) == pytest.approx(rankme(z))


def test_limits_of_one_point_and_of_an_even_sphere() -> None:
    point = torch.ones(10, 6) + 1e-9 * rows(10, 6)
    assert uniformity(point) == pytest.approx(0, abs=1e-6)
    assert dead_share(point) == 1.0
    assert alignment(point, point) == 0.0
    even = rows(4000, 64)
    assert uniformity(even) == pytest.approx(-4, abs=0.15)
    assert spread(even).mean() == pytest.approx(1, abs=0.02)
    assert dead_share(even) == 0.0


def test_dead_dimensions_are_counted_one_by_one() -> None:
    z = rows(50, 8)
    assert dead_share(z) == 0.0
    z[:, 0] = 0
    assert dead_share(z) == pytest.approx(1 / 8)
    z[:, 5] = 1e-4 * z[:, 5]
    assert dead_share(z) == pytest.approx(2 / 8)


def test_signs_of_collapse_compare_with_the_start() -> None:
    start = collapse_statistics(rows(100, 16))
    assert collapse_signs(start, start) == []
    collapsed = collapse_statistics(torch.ones(100, 16) + 1e-4 * rows(100, 16))
    signs = collapse_signs(collapsed, start)
    assert len(signs) == 4
    assert "spread fell from" in signs[0]
    assert "dead dimensions rose from 0% to 100%" in signs[1]
    assert collapse_signs(collapsed, collapsed) == [], "a network that begins there has not collapsed"


def test_refuses_what_is_no_matrix_of_rows() -> None:
    with pytest.raises(
        ValueError, match=r"expected a matrix \(n, width\) of at least 2 rows, got shape \(1, 4\)"
    ):
        uniformity(torch.ones(1, 4))
    with pytest.raises(ValueError, match=r"got shape \(2, 3, 4\)"):
        rankme(torch.ones(2, 3, 4))
    with pytest.raises(ValueError, match=r"pairs have equal shapes; got \(2, 4\) and \(3, 4\)"):
        alignment(torch.ones(2, 4), torch.ones(3, 4))
