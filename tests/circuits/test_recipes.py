"""Scattering by kind equals its loop; the recipes train an encoder, keep what a node is, and do not collapse."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from random_circuits import random_circuits
from torch import Tensor
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.graphs import recipes as core
from diptych.losses.scattering import scattering
from diptych.method import Method
from diptych.types import Encoded, Views
from diptych_circuits.encoder import CircuitEncoder
from diptych_circuits.recipes import (
    BGRL,
    GRACE,
    CircuitGCL,
    MaskStatistics,
    ScatteringByKind,
    scattering_by_group,
)
from diptych_circuits.schema import CODES, COLUMN, WIDTH, Kind

GRAPHS = random_circuits(6)
ROOTS = torch.arange(0, len(GRAPHS.nodes), 5)
BATCH = Views((GRAPHS._replace(roots=ROOTS),), {"part": torch.arange(len(GRAPHS.nodes)), "sample": ROOTS})
METHODS: dict[str, Any] = {
    "scattering over directions": CircuitGCL(),
    "scattering by kind": CircuitGCL(scatter="by_kind"),
    "scattering together": CircuitGCL(scatter="together", hops=0),
    "running centre": CircuitGCL(scatter="together", centre="running", target_rate=1e-4),
    "over roots, moved each epoch": CircuitGCL(nodes="roots", update="epoch"),
    "grace": GRACE(),
    "bgrl": BGRL(hidden=16),
}
CODE_COLUMNS = [COLUMN[name] for name in CODES]


def small(seed: int = 0) -> CircuitEncoder:
    torch.manual_seed(seed)
    return CircuitEncoder(width=16, layers=2, dropout=0.0)


def adam(rate: float) -> Any:
    return partial(torch.optim.Adam, lr=rate)


def train(method: Method, steps: int) -> dict[str, list[float]]:
    """Every step is an epoch of one batch."""
    optimizers = [phase.optimizer(list(phase.parameters())) for phase in method.phases]
    losses: dict[str, list[float]] = {}
    for _ in range(steps):
        for phase, optimizer in zip(method.phases, optimizers, strict=True):
            for each in phase.passes:
                with torch.no_grad():
                    target = () if each.target is None else each.target(BATCH)
                online = each.online(BATCH)
                for term in each.terms:
                    loss = term.objective(online, target, BATCH)
                    losses.setdefault(term.name, []).append(loss.item())
                    loss.backward()
            optimizer.step()
            for parameter in method.parameters():
                parameter.grad = None
            for call in (*phase.after, *phase.after_epoch):
                call()
    return losses


def rows_of(encoder: torch.nn.Module) -> Tensor:
    with torch.no_grad():
        parts: Tensor = encoder.eval()(GRAPHS).parts
    return parts


@pytest.mark.parametrize("directions", [False, True])
def test_scattering_by_group_equals_its_loop_over_pairs(directions: bool) -> None:
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = torch.tensor([0, 3, 0, 1, 3, 3, 0, 1, 1])  # none of group 2
    values = []
    for number in (0, 1, 3):
        unit = [row / row.norm() for row, own in zip(z, group, strict=True) if own == number]
        cosines = [(one @ other).item() for one in unit for other in unit]
        values.append(sum(s + s**2 * directions for s in cosines) / len(cosines) - 1)
    ours = scattering_by_group(z, group, 5, directions=directions)
    assert ours.item() == pytest.approx(sum(values) / 3, rel=1e-12)
    assert scattering_by_group(3 * z, group, 5, directions=directions).item() == pytest.approx(ours.item())


def test_opposite_points_are_scattered_but_not_over_directions() -> None:
    group = torch.zeros(8, dtype=torch.int64)
    opposite = torch.tensor([[1.0, 0.0, 0.0, 0.0], [-1.0, 0.0, 0.0, 0.0]]).repeat(4, 1)
    even = torch.cat([torch.eye(4), -torch.eye(4)])
    for rows, expected in ((opposite, 0.0), (even, -0.75)):
        assert scattering_by_group(rows, group, 1).item() == pytest.approx(-1.0, abs=1e-6)
        assert scattering_by_group(rows, group, 1, directions=True).item() == pytest.approx(
            expected, abs=1e-6
        )


def test_scattering_by_group_is_that_of_centres() -> None:
    z = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    group = torch.tensor([0, 3, 0, 1, 3, 3, 0, 1, 1])  # none of group 2
    values = []
    for number in (0, 1, 3):
        unit = [row / row.norm() for row, own in zip(z, group, strict=True) if own == number]
        centre = sum(unit) / len(unit)
        values.append(-sum(((row - centre) ** 2).sum().item() for row in unit) / len(unit))
    assert scattering_by_group(z, group, 5).item() == pytest.approx(sum(values) / 3, rel=1e-12)
    assert scattering_by_group(z * 7, group, 5).item() == pytest.approx(sum(values) / 3, rel=1e-12)
    torch.testing.assert_close(scattering_by_group(z, torch.zeros(9).long(), 1), scattering(z))


def test_setting_kinds_apart_is_enough_for_one_centre_but_not_for_one_each() -> None:
    corners = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    kind = torch.arange(30) % 3
    collapsed = corners[kind]
    assert scattering(collapsed).item() == pytest.approx(-1.0, abs=1e-6)
    assert scattering_by_group(collapsed, kind, 3).item() == pytest.approx(0.0, abs=1e-6)


def test_kinds_are_those_of_the_rows_that_are_scattered() -> None:
    kind = GRAPHS.nodes[:, COLUMN["kind"]].long()
    rows = torch.randn(len(kind), 4, generator=torch.Generator().manual_seed(0))
    everything = ScatteringByKind("all")((Encoded(rows[ROOTS], rows),), (), BATCH)
    torch.testing.assert_close(everything, scattering_by_group(rows, kind, len(Kind)))
    of_roots = ScatteringByKind("roots")((Encoded(rows[ROOTS]),), (), BATCH)
    torch.testing.assert_close(of_roots, scattering_by_group(rows[ROOTS], kind[ROOTS], len(Kind)))


@pytest.mark.parametrize("what", ["columns", "nodes"])
def test_masking_leaves_what_a_node_is(what: Any) -> None:
    numbers = [column for column in range(WIDTH) if column not in CODE_COLUMNS]
    everything = MaskStatistics(fraction=1.0, what=what)
    view = everything.apply(GRAPHS, everything.draw(GRAPHS))
    assert view.nodes[:, numbers].eq(0).all()
    assert torch.equal(view.nodes[:, CODE_COLUMNS], GRAPHS.nodes[:, CODE_COLUMNS])
    some = MaskStatistics(fraction=0.5, what=what)
    drawn = some.draw(GRAPHS, torch.Generator().manual_seed(0))[:, numbers]
    assert drawn.shape[0] == (1 if what == "columns" else len(GRAPHS.nodes))
    assert 0.2 < drawn.float().mean() < 0.8
    if what == "nodes":
        assert (drawn.all(1) | ~drawn.any(1)).all()


def test_together_is_the_scattering_of_the_core() -> None:
    ours = train(CircuitGCL(scatter="together", target_rate=1e-3)(small(), adam(1e-3)), 5)
    theirs = train(core.SGRL(nodes="all", target_rate=1e-3)(small(), adam(1e-3)), 5)
    assert ours == theirs


@pytest.mark.parametrize("name", METHODS)
def test_a_recipe_trains_its_encoder_and_does_not_collapse(name: str) -> None:
    encoder = small()
    before = rows_of(encoder)
    encoder.train()
    torch.manual_seed(1)
    method = METHODS[name](encoder, adam(3e-3))
    losses = train(method, 40)
    assert method.encoder is encoder
    after = rows_of(encoder)
    for term in ("alignment", "sample"):
        if term in losses:
            assert sum(losses[term][-8:]) < sum(losses[term][:8])
    assert not torch.allclose(before, after, atol=1e-2)
    nets = F.normalize(after[GRAPHS.nodes[:, 0] == Kind.NET])
    assert nets.mean(0).square().sum() < 0.98  # 1 where all nets have one row


def test_the_rates_of_the_release_leave_an_encoder_as_it_was_drawn() -> None:
    encoder = small()
    before = rows_of(encoder)
    release = CircuitGCL(hops=0, scatter="together", update="epoch", target_rate=2e-7)
    train(release(encoder, adam(1e-6)), 40)
    assert (rows_of(encoder) - before).abs().max() < 0.01


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="scatter must be together, by_kind or directions, got 'kinds'"):
        CircuitGCL(scatter="kinds")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a running centre is one of all nodes; set scatter: together"):
        CircuitGCL(centre="running")
    with pytest.raises(ConfigError, match="hops must be at least 0"):
        CircuitGCL(hops=-1)(small(), adam(1e-3))
    with pytest.raises(ConfigError, match="fraction of statistics that are masked"):
        MaskStatistics(fraction=2.0)
