"""Objectives pick the rows, ids and averages they say they do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.core import references_contrast as reference
from torch import Tensor
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.losses.alignment import alignment
from diptych.losses.scattering import scattering
from diptych.objectives import Alignment, InfoNCE, Scattering
from diptych.queue import Queue
from diptych.types import Encoded, Rows, Views

N, P, M, WIDTH = 5, 4, 8, 3
SAMPLE = torch.tensor([11, 4, 9, 2, 30])
GROUPS = {
    "sample": SAMPLE,
    "patient": torch.tensor([0, 0, 1, -1, 1]),
    "point": torch.tensor([0, 1, 0, 1, 2, -1, 2, 3]),
    "part": torch.arange(50, 58),
    "sample_of_part": torch.tensor([0, 0, 0, 0, 1, 1, 1, 1]),
}
BATCH = Views((), GROUPS)


def views(seed: int = 0, count: int = 2) -> tuple[Encoded, ...]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()

    return tuple(Encoded(draw(N, WIDTH), draw(M, WIDTH), draw(N, WIDTH, P)) for _ in range(count))


def whole(encoded: tuple[Encoded, ...], group: str = "sample") -> Rows:
    """The whole rows of all views, built by hand."""
    z = torch.cat([each.whole for each in encoded])
    row = torch.cat([v + len(encoded) * SAMPLE for v in range(len(encoded))])
    return Rows(z, GROUPS[group].repeat(len(encoded)), row)


def test_nt_xent() -> None:
    online = views()
    loss = InfoNCE(temperature=0.5)(online, (), BATCH)
    z = F.normalize(torch.cat([each.whole for each in online]))
    logits = (z @ z.T / 0.5).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(loss, F.cross_entropy(logits, (torch.arange(2 * N) + N) % (2 * N)))


@pytest.mark.parametrize(
    "options",
    [
        {"form": "out"},
        {"form": "in"},
        {"positives": "later"},
        {"similarity": "dot", "temperature": 2.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("targeted", [False, True])
def test_supervised_contrast(options: dict[str, Any], targeted: bool) -> None:
    online, target = views(), views(seed=1) if targeted else ()
    keys = whole(target, "patient") if targeted else None
    expected = reference.mean_over_anchors(*reference.contrast(whole(online, "patient"), keys, **options))
    loss = InfoNCE(group="patient", **options)(online, target, BATCH)
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-10)


def test_pairs_weigh_alike() -> None:
    online = views()
    expected = reference.mean_over_pairs(*reference.contrast(whole(online, "patient")))
    torch.testing.assert_close(InfoNCE(group="patient", average="pairs")(online, (), BATCH), expected)


def test_time_steps_are_contrasted_within_each_sample() -> None:
    online = views()
    per_sample = []
    for i in range(N):
        z = torch.cat([each.grid[i].T for each in online])  # type: ignore[index]
        rows = Rows(z, torch.arange(P).repeat(2), torch.arange(2 * P))
        per_sample.append(reference.mean_over_anchors(*reference.contrast(rows)))
    loss = InfoNCE(level="grid", scope="sample")(online, (), BATCH)
    torch.testing.assert_close(loss, torch.stack(per_sample).mean())


def test_samples_are_contrasted_at_each_position() -> None:
    online = views()
    per_position = []
    for p in range(P):
        z = torch.cat([each.grid[:, :, p] for each in online])  # type: ignore[index]
        per_position.append(reference.mean_over_anchors(*reference.contrast(whole(online)._replace(z=z))))
    loss = InfoNCE(level="grid", scope="position")(online, (), BATCH)
    torch.testing.assert_close(loss, torch.stack(per_position).mean())


@pytest.mark.parametrize("scope", [None, "sample_of_part"])
def test_parts(scope: str | None) -> None:
    online = views()
    z = torch.cat([each.parts for each in online])  # type: ignore[misc]
    row = torch.cat([2 * GROUPS["part"], 2 * GROUPS["part"] + 1])
    scopes = None if scope is None else GROUPS[scope].repeat(2)
    rows = Rows(z, GROUPS["point"].repeat(2), row, scopes)
    loss = InfoNCE(level="parts", group="point", scope=scope)(online, (), BATCH)
    torch.testing.assert_close(loss, reference.mean_over_anchors(*reference.contrast(rows)))


def test_a_queue_adds_earlier_keys_and_takes_the_new_ones() -> None:
    queue = Queue(16, WIDTH).double()
    objective = InfoNCE(queue=queue)
    first, second = views(seed=2), views(seed=3)
    online = views(seed=4)
    objective(online, first, BATCH)
    earlier = whole(first)
    torch.testing.assert_close(queue.rows().z, earlier.z)
    new = whole(second)
    # The second batch is of other samples; only then are the queue's rows negatives.
    other = Views((), {**GROUPS, "sample": SAMPLE + 100})
    shift = 2 * 100
    keys = Rows(
        torch.cat([new.z, earlier.z]),
        torch.cat([new.group + 100, earlier.group]),
        torch.cat([new.row + shift, earlier.row]),
    )
    anchors = whole(online)
    anchors = anchors._replace(group=anchors.group + 100, row=anchors.row + shift)
    expected = reference.mean_over_anchors(*reference.contrast(anchors, keys))
    torch.testing.assert_close(objective(online, second, other), expected)
    assert len(queue.rows().z) == 16


def test_a_queue_is_not_filled_in_evaluation() -> None:
    objective = InfoNCE(queue=Queue(16, WIDTH).double()).eval()
    objective(views(), views(1), BATCH)
    assert objective.queue is not None
    assert len(objective.queue.rows().z) == 0


def test_a_learned_temperature_learns_and_stays_above_its_floor() -> None:
    objective = InfoNCE(temperature=0.2, learned=True)
    assert float(torch.as_tensor(objective.temperature).detach()) == pytest.approx(0.2)
    objective(views(), (), BATCH).backward()
    assert objective.log_temperature is not None
    assert objective.log_temperature.grad is not None
    assert objective.log_temperature.grad.abs() > 1e-3
    with torch.no_grad():
        objective.log_temperature.fill_(-50)
    assert float(torch.as_tensor(objective.temperature).detach()) == pytest.approx(0.01)
    assert list(InfoNCE().parameters()) == []


def test_alignment_across_views() -> None:
    online, target = views(count=3), views(1, count=3)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    expected = sum(alignment(online[i].whole, target[j].whole).mean() for i, j in pairs) / len(pairs)
    torch.testing.assert_close(Alignment()(online, target, BATCH), expected)


@pytest.mark.parametrize("level", ["whole", "grid", "parts"])
def test_alignment_of_a_view_with_itself(level: Any) -> None:
    online, target = views(count=1), views(1, count=1)

    def rows(encoded: Encoded) -> Tensor:
        if level == "grid":
            return encoded.grid.movedim(1, -1).reshape(-1, WIDTH)  # type: ignore[union-attr]
        return encoded.whole if level == "whole" else encoded.parts  # type: ignore[return-value]

    loss = Alignment(pairs="same", form="cosine", level=level)(online, target, BATCH)
    torch.testing.assert_close(loss, alignment(rows(online[0]), rows(target[0]), form="cosine").mean())


def test_alignment_does_not_train_its_target() -> None:
    online, target = views(), views(1)
    loss = Alignment()(online, target, BATCH)
    online_gradient, target_gradient = torch.autograd.grad(
        loss, [online[0].whole, target[1].whole], allow_unused=True
    )
    assert online_gradient.abs().max() > 0
    assert target_gradient is None


def test_scattering_is_averaged_over_views() -> None:
    online = views()
    expected = (scattering(online[0].whole) + scattering(online[1].whole)) / 2
    torch.testing.assert_close(Scattering()(online, (), BATCH), expected)


def test_a_scope_compares_the_samples_of_one_patient_alone() -> None:
    online = views()
    patients = torch.tensor([7, 7, 3, 7, 3])
    batch = Views((), GROUPS | {"patient": patients})
    loss = InfoNCE(scope="patient")(online, (), batch)
    apart = []
    for patient in (7, 3):
        own = patients == patient
        part = tuple(Encoded(each.whole[own]) for each in online)
        apart += [InfoNCE()(part, (), Views((), {"sample": SAMPLE[own]}))] * int(own.sum())
    torch.testing.assert_close(loss, torch.stack(apart).mean())
    everyone = InfoNCE()(online, (), batch)
    assert loss < everyone  # fewer candidates


@pytest.mark.parametrize("width", [WIDTH, 8])
def test_a_batch_of_one_sample_gives_zero_not_nan(width: int) -> None:
    one = tuple(Encoded(torch.randn(1, width, requires_grad=True)) for _ in range(1))
    loss = InfoNCE()(one, (), Views((), {"sample": torch.tensor([3])}))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(one[0].whole.grad, torch.zeros(1, width))  # type: ignore[arg-type]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0}, "the temperature must be above 0, got 0; 0.05 to 0.5 is usual for cosines"),
    ({"temperature": -0.1, "learned": True}, "the temperature must be above 0, got -0.1"),
    ({"temperature": math.nan}, "the temperature must be above 0, got nan"),
    ({"level": "grid"}, "level grid needs scope sample or position, got None"),
    ({"level": "grid", "scope": "time"}, "level grid needs scope sample or position, got 'time'"),
    (
        {"scope": "patient", "queue": Queue(4, 3)},
        "a queue is compared with every anchor; leave out the scope",
    ),
    ({"level": "parts", "queue": Queue(4, 3)}, "a queue holds whole samples, but the level is parts"),
    ({"average": "pairs", "form": "in"}, "average pairs needs form out"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InfoNCE(**options)


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ConfigError, match="alignment needs a target branch"):
        Alignment()(views(), (), BATCH)
    with pytest.raises(ConfigError, match="alignment across views needs at least 2 views, got 1"):
        Alignment()(views(count=1), views(count=1), BATCH)
    with pytest.raises(ConfigError, match="the batch has no ids named 'trial'; it has part, patient, point"):
        InfoNCE(group="trial")(views(), (), BATCH)
    with pytest.raises(ConfigError, match="reads grid, but the encoder returns none"):
        Scattering(level="grid")((Encoded(torch.randn(2, 3)),), (), BATCH)
    with pytest.raises(ValueError, match="anchors are 3 wide and keys 7; they need one width"):
        InfoNCE()(views(), tuple(Encoded(torch.randn(N, 7)) for _ in range(2)), BATCH)
    with pytest.raises(ValueError, match=r"the queue holds rows \(n, 7\), got \(10, 3\)"):
        InfoNCE(queue=Queue(4, 7))(views(), (), BATCH)
