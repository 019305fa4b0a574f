"""Dense losses equal loops over pairs of positions, in value and gradient, whatever the tile."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from tests.core import references_dense as reference
from torch import Tensor, nn

from diptych.dense import Dense, DenseBranch, MomentumContrast, PixelConsistency, Propagation
from diptych.errors import ConfigError
from diptych.losses.dense import consistency, match, paired_contrast, propagate
from diptych.places import (
    Located,
    cell_diagonal,
    cells_at,
    common_points,
    moved,
    places,
    places_of,
    random_cells,
    rows_of,
    take,
    within,
)
from diptych.queue import Queue
from diptych.types import Encoded, Rows, Views

N, P, Q, WIDTH = 3, 7, 5, 4
BLOCKS = [1, 3, 100, None]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=generator(seed)).requires_grad_()


def weighed(values: Tensor) -> Tensor:
    """A sum in which no entry can stand in for another."""
    return (values * torch.linspace(0.5, 1.5, values.numel(), dtype=values.dtype).view(values.shape)).sum()


def assert_same_gradients(ours: Tensor, theirs: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    pairs = zip(
        torch.autograd.grad(weighed(ours), inputs), torch.autograd.grad(weighed(theirs), inputs), strict=True
    )
    for our, their in pairs:
        torch.testing.assert_close(our, their, rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", BLOCKS)
def test_partners_are_the_most_similar_keys(block: int | None) -> None:
    anchors, keys = rows(N, P, WIDTH), rows(N, Q, WIDTH, seed=1)
    expected = [reference.match(a, k) for a, k in zip(anchors, keys, strict=True)]
    assert match(anchors, keys, block=block).tolist() == expected
    assert match(3 * anchors, keys * torch.rand(N, Q, 1), block=block).tolist() == expected


def test_of_equal_keys_the_first_is_the_partner() -> None:
    keys = torch.ones(1, 6, 2)
    assert match(torch.ones(1, 2, 2), keys, block=2).tolist() == [[0, 0]]


@pytest.mark.parametrize("block", BLOCKS)
def test_the_dense_loss_equals_its_loop(block: int | None) -> None:
    dense, aims, features, key_features = (rows(P, WIDTH, seed=seed) for seed in range(4))
    queue = rows(6, WIDTH, seed=5)
    partners = match(features[None], key_features[None])[0]
    ours = paired_contrast(
        Rows(dense, *torch.zeros(2, P, dtype=torch.int64)),
        aims[partners],
        Rows(queue, *torch.arange(1, 7).expand(2, 6)),
        temperature=0.2,
        block=block,
    )
    theirs = reference.densecl(dense, aims, features, key_features, queue, 0.2)
    assert_same_gradients(ours.mean(), theirs, [dense, aims, queue])


def test_negatives_under_the_anchors_own_id_are_left_out() -> None:
    anchors, positives, negatives = rows(2, WIDTH), rows(2, WIDTH, seed=1), rows(3, WIDTH, seed=2)
    ids = torch.tensor([7, 8])
    found = paired_contrast(
        Rows(anchors, ids, ids), positives, Rows(negatives, *torch.tensor([[7, 8, 9]] * 2))
    )
    for i, allowed in enumerate(([1, 2], [0, 2])):
        own = torch.tensor([7 + i])
        ids_of_others = torch.tensor([1, 2])
        alone = paired_contrast(
            Rows(anchors[i : i + 1], own, own),
            positives[i : i + 1],
            Rows(negatives[allowed], ids_of_others, ids_of_others),
        )
        torch.testing.assert_close(found[i : i + 1], alone)


def test_without_negatives_there_is_nothing_to_learn() -> None:
    z, nothing = rows(2, WIDTH), torch.zeros(0, dtype=torch.int64)
    ids = torch.tensor([1, 1])
    for negatives in (Rows(torch.zeros(0, WIDTH), nothing, nothing), Rows(rows(2, WIDTH, seed=3), ids, ids)):
        loss = paired_contrast(Rows(z, ids, ids), rows(2, WIDTH, seed=2), negatives).sum()
        assert loss.item() == 0
        assert torch.equal(torch.autograd.grad(loss, z)[0], torch.zeros_like(z))


def test_a_cold_contrast_stays_finite() -> None:
    z = rows(4, WIDTH)
    ids = torch.arange(4)
    loss = paired_contrast(Rows(z, ids, ids), -z.detach(), Rows(z.detach(), ids, ids), temperature=0.005)
    assert loss.isfinite().all()
    assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0, 3.0])
def test_propagation_equals_its_loop(power: float, block: int | None) -> None:
    projected, transformed = rows(N, P, WIDTH), rows(N, P, WIDTH, seed=1)
    ours = propagate(projected, projected, transformed, power=power, block=block)
    theirs = torch.stack(
        [reference.propagated(x, g, power) for x, g in zip(projected, transformed, strict=True)]
    )
    assert_same_gradients(ours, theirs, [projected, transformed])


def test_propagation_is_differentiated_once_and_in_full_precision() -> None:
    z = rows(1, 3, WIDTH)
    smooth = propagate(z, z, z)
    with pytest.raises(RuntimeError, match="differentiated once"):
        torch.autograd.grad(smooth.square().sum(), z, create_graph=True)
    x = z.detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = propagate(x, x, x)
    torch.testing.assert_close(mixed, smooth.detach().float())


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("dims", [2, 3])
def test_consistency_equals_its_loop(dims: int, block: int | None) -> None:
    predicted, target = rows(N, P, WIDTH), rows(N, Q, WIDTH, seed=1)
    at, other = rows(N, P, dims, seed=2).detach(), rows(N, Q, dims, seed=3).detach()
    at[0] += 100  # no overlap
    at[1, 2] = torch.inf
    other[1, 3] = torch.inf
    limit = torch.tensor([1.0, 1.3, 2.0])
    mean, count = consistency(predicted, target, at, other, limit, block=block)
    theirs = torch.stack(
        [reference.pixpro(*each) for each in zip(predicted, target, at, other, limit, strict=True)]
    )
    assert count[0] == 0
    assert count[1:].min() > 1
    assert_same_gradients(-2 * mean, theirs, [predicted])


def test_nearness_is_exact_far_from_the_origin() -> None:
    at = torch.tensor([[[4000.0, 4000.0, 4000.0]]])
    other = at + torch.tensor([[[0.0, 0.0, 1.0]], [[0.0, 0.0, 0.999]]]).transpose(0, 1)
    _, count = consistency(torch.ones(1, 1, 2), torch.ones(1, 2, 2), at, other, torch.tensor([1.0]))
    assert count.tolist() == [1]


def test_memory_does_not_grow_with_the_square() -> None:
    p = 6000  # a table of all pairs would take 144 MB in float32
    saved = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    z = torch.randn(1, p, 8, generator=generator(), requires_grad=True)
    at = torch.rand(1, p, 3, generator=generator()) * 30
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        mean, _ = consistency(z, z, at, at, torch.tensor([1.0]))
        smooth = propagate(z[:, :2000], z[:, :2000], z[:, :2000])
    assert saved < p * 8 * 40 + 2000 * 2000 / 2
    (mean.sum() + smooth.sum()).backward()
    assert z.grad is not None
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: match(torch.ones(2, 3, 4), torch.ones(2, 3, 5)), "of the same n and w"),
        (lambda: match(torch.ones(2, 3, 4), torch.ones(2, 0, 4)), "q at least 1"),
        (lambda: propagate(*[torch.ones(1, 2, 3)] * 3, power=0), "power must be above 0, got 0"),
        (lambda: propagate(*[torch.ones(1, 2, 3)] * 2, torch.ones(1, 3, 3)), "every key needs a value"),
        (
            lambda: consistency(*[torch.ones(1, 2, 3)] * 2, *[torch.ones(1, 3, 2)] * 2, torch.ones(1)),
            "every position needs a place",
        ),
        (
            lambda: paired_contrast(
                Rows(torch.ones(2, 3), *torch.zeros(2, 2, dtype=torch.int64)),
                torch.ones(3, 3),
                Rows(torch.ones(2, 3), *torch.zeros(2, 2, dtype=torch.int64)),
            ),
            "every anchor needs one positive",
        ),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


# Places.

SPACE, CELLS = (8, 12), (4, 3)


def matrices(n: int = 2, d: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(n, d, d + 1, generator=generator(seed))


def test_cells_lie_in_the_middle_of_their_voxels() -> None:
    matrix = matrices()
    found = places(matrix, SPACE, CELLS)
    steps = [size // count for size, count in zip(SPACE, CELLS, strict=True)]
    for i, j in itertools.product(range(CELLS[0]), range(CELLS[1])):
        voxels = torch.tensor(
            [
                [float(a), float(b)]
                for a in range(i * steps[0], (i + 1) * steps[0])
                for b in range(j * steps[1], (j + 1) * steps[1])
            ]
        )
        middle = moved(matrix, voxels.expand(2, -1, -1)).mean(1)
        torch.testing.assert_close(found[:, :, i, j], middle, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("space", "cells"), [(SPACE, CELLS), ((6, 4, 5), (3, 4, 2))])
def test_places_of_some_cells_are_those_of_all(space: tuple[int, ...], cells: tuple[int, ...]) -> None:
    matrix = matrices(2, len(space))
    index = random_cells(2, math.prod(cells), 5, torch.device("cpu"), generator())
    everything = rows_of(places(matrix, space, cells))
    torch.testing.assert_close(
        places_of(matrix, space, cells, index),
        everything.gather(1, index[..., None].expand(-1, -1, len(space))),
    )
    maps = torch.arange(float(math.prod(cells))).view(1, 1, *cells).expand(2, 1, *cells)
    assert torch.equal(take(maps, index)[..., 0].long(), index)


def test_random_cells_are_different_and_all_are_drawn() -> None:
    index = random_cells(500, 12, 5, torch.device("cpu"), generator())
    assert all(len(set(each)) == 5 for each in index.tolist())
    counts = torch.bincount(index.flatten(), minlength=12)
    assert (counts - 500 * 5 / 12).abs().max() < 60


def test_the_cell_of_a_point_is_the_one_whose_middle_is_closest() -> None:
    still = torch.eye(2)[None].expand(1, 2, 2)
    matrix = torch.cat([still, torch.zeros(1, 2, 1)], dim=2)
    middles = rows_of(places(matrix, SPACE, CELLS))[0]
    points = torch.rand(1, 200, 2, generator=generator()) * torch.tensor(SPACE) - 0.5
    found = cells_at(points, SPACE, CELLS)[0]
    steps = torch.tensor([size / count for size, count in zip(SPACE, CELLS, strict=True)])
    # Nearest in units of cells.
    nearest = torch.cdist(points[0] / steps, middles / steps).argmin(1)
    assert torch.equal(found, nearest)
    assert cells_at(torch.tensor([[[-9.0, 99.0]]]), SPACE, CELLS).tolist() == [[2]]


def test_a_cells_diagonal() -> None:
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    matrix = torch.cat([turn @ torch.diag(torch.tensor([1.5, 2.0])), torch.ones(2, 1)], dim=1)[None]
    # A cell of 2 x 4 voxels, 3 x 8 voxels of the original.
    assert cell_diagonal(matrix, SPACE, CELLS).item() == pytest.approx(math.hypot(3, 8), rel=1e-6)


def test_common_points_are_one_place_of_the_original() -> None:
    first = torch.tensor([[[0.5, 0.0, 0.0], [0.0, 0.5, 0.0]]])  # the corner near the origin
    second = torch.tensor([[[0.5, 0.1, 2.0], [-0.1, 0.5, 4.0]]])
    one, two = common_points([first, second], (8, 12), (8, 12), 20, generator(), tries=16)
    torch.testing.assert_close(moved(first, one), moved(second, two), atol=1e-4, rtol=0)
    assert within(one.transpose(1, 2), (8, 12)).all()
    assert within(two.transpose(1, 2), (8, 12)).all()
    assert len({tuple(point) for point in one[0].tolist()}) == 20


def test_where_views_do_not_overlap_points_lie_outside() -> None:
    first = torch.tensor([[[0.1, 0.0, 0.0], [0.0, 0.1, 0.0]]])
    one, two = common_points([first, first + torch.tensor([0.0, 0.0, 6.0])], (8, 12), (8, 12), 5, generator())
    assert one.shape == two.shape == (1, 5, 2)
    assert not within(two.transpose(1, 2), (8, 12)).any()


# Branch and objectives.


class Grid(nn.Module):
    """An encoder whose map is a fixed convolution of the view, coarser by 2."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.width = self.grid_width = width
        self.layer = nn.Conv2d(1, width, 2, stride=2).double()

    def forward(self, x: Tensor) -> Encoded:
        grid = self.layer(x)
        return Encoded(grid.flatten(2).mean(2), None, grid)


def located(n: int = 3, seed: int = 0, points: Tensor | None = None) -> Located:
    x = torch.rand(n, 1, *SPACE, dtype=torch.float64, generator=generator(seed))
    offset = torch.rand(n, 2, 1, generator=generator(seed + 1))
    matrix = torch.cat([0.7 * torch.eye(2).expand(n, 2, 2), offset], dim=2)
    return Located(x, SPACE, matrix, SPACE, points)


def batch(*views: Located, **ids: Tensor) -> Views:
    return Views(views, {"sample": torch.arange(len(views[0].view)) + 10, **ids})


def branch(**options: object) -> DenseBranch:
    torch.manual_seed(0)
    return DenseBranch(Grid(), None, nn.Linear(6, WIDTH).double(), **options)  # type: ignore[arg-type]


def test_a_branch_gives_all_positions_of_small_maps_with_their_places() -> None:
    made = branch(points=24)
    view = located()
    (dense,) = made(batch(view))
    grid = made.encoder(view.view).grid
    torch.testing.assert_close(dense.features, rows_of(grid))
    torch.testing.assert_close(dense.rows, made.dense_projector(rows_of(grid)))
    torch.testing.assert_close(dense.places, rows_of(places(view.matrix, SPACE, (4, 6))))
    torch.testing.assert_close(dense.diagonal, torch.full((3,), 0.7 * math.hypot(2, 2)))


def test_of_large_maps_points_are_taken() -> None:
    made = branch(points=5)
    view = located()
    (dense,) = made(batch(view))
    grid = rows_of(made.encoder(view.view).grid)
    assert dense.rows.shape == (3, 5, WIDTH)
    every = rows_of(places(view.matrix, SPACE, (4, 6)))
    for sample, feature, at in zip(range(3), dense.features, dense.places, strict=True):
        index = torch.cdist(at, every[sample]).argmin(1)
        torch.testing.assert_close(at, every[sample][index])
        torch.testing.assert_close(feature, grid[sample][index])
    named = torch.tensor([[[0.0, 0.0], [7.0, 11.0]]]).expand(3, 2, 2)
    (dense,) = made(batch(located(points=named)))
    torch.testing.assert_close(dense.features, grid[:, [0, -1]])


def test_positions_outside_of_the_original_are_near_nothing() -> None:
    view = located()
    far = view._replace(matrix=view.matrix + torch.tensor([0.0, 0.0, 4.0]))
    (dense,) = branch()(batch(far))
    inside = within(places(far.matrix, SPACE, (4, 6)), SPACE).flatten(1)
    assert 0 < inside.sum() < inside.numel()
    assert torch.equal(dense.places.isfinite().all(2), inside)


def test_a_branch_encodes_the_views_it_is_asked_for_in_order() -> None:
    views = located(seed=0), located(seed=1)
    both, turned, second = (branch(views=which)(batch(*views)) for which in (None, (1, 0), (1,)))
    assert torch.equal(both[0].rows, turned[1].rows)
    assert torch.equal(both[1].rows, turned[0].rows)
    assert len(second) == 1
    assert torch.equal(second[0].rows, both[1].rows)


def pair(seed: int = 0, points: int | None = None) -> tuple[Dense, Dense]:
    online, target = branch(points=points)(batch(located(seed=seed), located(seed=seed + 5)))
    return online, Dense(*(each.detach() for each in target))


@pytest.mark.parametrize("level", ["whole", "grid"])
def test_momentum_contrast_equals_its_loop_over_samples(level: str) -> None:
    online, target = pair()
    queue = Queue(4, 6 if level == "whole" else WIDTH).double()
    earlier = torch.randn(4, queue.z.shape[1], dtype=torch.float64, generator=generator(9))
    queue.push(
        Rows(earlier, *torch.tensor([[11, 50, 51, 52]] * 2))
    )  # the first is an earlier key of sample 11
    expected = []
    for i in range(3):
        others = [j for j in range(3) if j != i]
        kept = earlier[1:] if i == 1 else earlier
        if level == "whole":
            negatives = torch.cat([target.whole[others], kept])
            row, aim = online.whole[i : i + 1], target.whole[i : i + 1]
            expected.append(reference.densecl(row, aim, row, aim, negatives, 0.3))
        else:
            negatives = torch.cat([target.rows[others].mean(1), kept])
            maps = online.rows[i], target.rows[i], online.features[i], target.features[i]
            expected.append(reference.densecl(*maps, negatives, 0.3))
    objective = MomentumContrast(level=level, temperature=0.3, queue=queue)  # type: ignore[arg-type]
    loss = objective((online,), (target,), batch(located()))
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=0, atol=1e-10)


def test_a_queue_takes_the_mean_keys_and_wraps() -> None:
    queue = Queue(4, WIDTH).double()
    objective = MomentumContrast(level="grid", queue=queue)
    online, target = pair()
    first = batch(located())
    objective((online,), (target,), first)
    torch.testing.assert_close(queue.rows().z, target.rows.mean(1))
    assert queue.rows().row.tolist() == [10, 11, 12]
    objective((online,), (target,), first._replace(groups={"sample": torch.tensor([20, 21, 22])}))
    assert queue.rows().row.tolist() == [21, 22, 12, 20]
    objective.eval()((online,), (target,), first)
    assert queue.rows().row.tolist() == [21, 22, 12, 20]


def test_samples_of_one_patient_are_no_negatives() -> None:
    online, target = pair()
    three = batch(located(), patient=torch.tensor([4, 4, 9]))
    loss = MomentumContrast(level="whole", group="patient")((online,), (target,), three)
    expected = []
    for i, others in enumerate(([2], [2], [0, 1])):
        row, aim = online.whole[i : i + 1], target.whole[i : i + 1]
        expected.append(reference.densecl(row, aim, row, aim, target.whole[others], 0.2))
    torch.testing.assert_close(loss, torch.stack(expected).mean())
    unknown = batch(located(), patient=torch.tensor([-1, -1, -1]))
    by_patient = MomentumContrast(group="patient")((online,), (target,), unknown)
    by_sample = MomentumContrast()((online,), (target,), unknown)
    torch.testing.assert_close(by_patient, by_sample)


@pytest.mark.parametrize("points", [None, 9])
def test_pixel_consistency_equals_its_loop(points: int | None) -> None:
    torch.manual_seed(3)
    online, target = pair(points=points)
    other = pair(seed=2, points=points)
    loss = PixelConsistency(distance=0.7)((online, other[0]), (target, other[1]), batch(located()))
    limit = 0.7 * 0.7 * math.hypot(2, 2)
    expected = sum(
        reference.pixpro(x.rows[i], y.rows[i], x.places[i], y.places[i], limit)
        for x, y in ((online, target), other)
        for i in range(3)
    )
    torch.testing.assert_close(loss, expected / 3)
    assert -4 <= loss.item() < 0


def test_the_larger_cells_say_what_is_near() -> None:
    z = torch.ones(1, 2, 3)
    at, other = torch.tensor([[[0.0], [50.0]]]), torch.tensor([[[1.0], [90.0]]])
    small, large = torch.ones(1), torch.full((1,), 2.0)
    for one, two in ((small, large), (large, small)):
        views = (Dense(z[:, 0], z, z, at, one),), (Dense(z[:, 0], z, z, other, two),)
        assert PixelConsistency(distance=0.7)(*views, batch(located(1))).item() == pytest.approx(-2)
    views = (Dense(z[:, 0], z, z, at, small),), (Dense(z[:, 0], z, z, other, small),)
    assert PixelConsistency(distance=0.7)(*views, batch(located(1))).item() == 0


def test_propagation_is_a_predictor_with_gradient_to_its_rows() -> None:
    torch.manual_seed(0)
    propagation = Propagation(WIDTH).double()
    z = rows(N, P, WIDTH)
    theirs = torch.stack([reference.propagated(x, propagation.transform(x), 2.0) for x in z])
    assert_same_gradients(propagation(z), theirs, [z, *propagation.parameters()])


def test_what_cannot_work_is_refused() -> None:
    class NoGrid(Grid):
        def forward(self, x: Tensor) -> Encoded:
            return Encoded(x.flatten(1))

    online, target = pair()
    with pytest.raises(ConfigError, match="NoGrid returns none"):
        DenseBranch(NoGrid(), None, nn.Identity())(batch(located()))
    with pytest.raises(ConfigError, match="at least 2 points of a map are needed, got 1"):
        branch(points=1)
    for objective in (MomentumContrast(), PixelConsistency()):
        with pytest.raises(
            ConfigError, match="every online view needs a target view of its own, got 1 online and 0"
        ):
            objective((online,), (), batch(located()))
    with pytest.raises(ConfigError, match="no ids named 'patients'; it has patient, sample"):
        MomentumContrast(group="patients")(
            (online,), (target,), batch(located(), patient=torch.zeros(3).long())
        )
    for build, message in (
        (lambda: MomentumContrast(temperature=0), "temperature must be above 0, got 0"),
        (lambda: PixelConsistency(distance=-1), "distance must be above 0, got -1"),
        (lambda: Propagation(3, power=0), "power must be above 0, got 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            build()
