"""The contrast equals its row-by-row definition, in value and gradient, for every option and tile size."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.core import references_contrast as reference
from torch import Tensor
from torch.nn import functional as F

from diptych.losses.contrast import Contrast, contrast, mean_over_anchors, mean_over_pairs
from diptych.losses.matching import Exclusions, GroupedPositives, Ids, Tile, dense_rank
from diptych.types import Rows

OPTIONS: dict[str, dict[str, Any]] = {
    "cosine": {"temperature": 0.1},
    "cold cosine": {"temperature": 0.01},
    "dot": {"temperature": 1.0, "similarity": "dot"},
    "in": {"form": "in"},
    "in, dot": {"form": "in", "similarity": "dot", "temperature": 0.7},
    "later": {"positives": "later"},
    "later, self kept": {"positives": "later", "keep_self": True, "temperature": 0.3},
    "later, in": {"positives": "later", "form": "in"},
    "self kept": {"keep_self": True},
}
N = 11


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ids(n: int, seed: int = 0, most: int = 4) -> Tensor:
    """Group ids from -1, so that some anchors have several positives, some one, some none."""
    return torch.randint(-1, most, (n,), generator=generator(seed))


def rows(
    n: int = N, width: int = 6, seed: int = 0, *, distinct: bool = True, scopes: int | None = None
) -> Rows:
    shape = (n, width) if scopes is None else (scopes, n, width)
    z = torch.randn(*shape, dtype=torch.float64, generator=generator(seed))
    row = torch.randperm(n, generator=generator(seed + 1)) * 7
    if not distinct:
        row = torch.randint(0, n // 2, (n,), generator=generator(seed + 1))
    return Rows(z.requires_grad_(), ids(n, seed), row)


def gradients(c: Contrast | tuple[Tensor, ...], inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of a sum that weighs every anchor differently, so that none can stand in for another."""
    weight = torch.linspace(0.5, 1.5, c[0].numel(), dtype=torch.float64).view(c[0].shape)
    finite = torch.where(torch.isinf(c[0]), 0.0, c[0])
    return list(torch.autograd.grad((finite * weight - c[1] * weight.flip(-1)).sum(), inputs))


def assert_equals_reference(
    anchors: Rows, keys: Rows | None, block: int | None = None, **options: Any
) -> None:
    ours = contrast(anchors, keys, block=block, **options)
    theirs = reference.contrast(anchors, keys, **options)
    assert torch.equal(ours.count, theirs[2])
    torch.testing.assert_close(ours.candidates, theirs[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(ours.positives, theirs[1], rtol=0, atol=1e-10)
    inputs = [anchors.z] if keys is None else [anchors.z, keys.z]
    for our, their in zip(gradients(ours, inputs), gradients(theirs, inputs), strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-10)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("block", [1, 5, N, N + 1, None])
def test_rows_against_each_other(options: dict[str, Any], block: int | None) -> None:
    assert_equals_reference(rows(), None, block, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("block", [1, 5, N, None])
def test_anchors_against_keys(options: dict[str, Any], block: int | None) -> None:
    assert_equals_reference(rows(seed=1), rows(8, seed=2), block, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_rows_that_come_twice_are_not_compared_with_their_copies(options: dict[str, Any]) -> None:
    assert_equals_reference(rows(seed=3, distinct=False), None, 4, **options)
    assert_equals_reference(rows(seed=3, distinct=False), rows(9, seed=4, distinct=False), 4, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("block", [2, None])
def test_ragged_scopes(options: dict[str, Any], block: int | None) -> None:
    anchors = rows(seed=5)._replace(scope=ids(N, 6, most=2))
    assert_equals_reference(anchors, None, block, **options)
    assert_equals_reference(anchors, rows(7, seed=7)._replace(scope=ids(7, 8, most=2)), block, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("block", [3, None])
def test_leading_dimensions_are_scopes(options: dict[str, Any], block: int | None) -> None:
    shared = rows(7, seed=9, scopes=3)
    assert_equals_reference(shared, None, block, **options)
    own = shared._replace(group=torch.stack([ids(7, seed) for seed in (1, 2, 3)]))
    assert_equals_reference(own, None, block, **options)
    assert_equals_reference(own, rows(4, seed=10, scopes=3), block, **options)
    assert_equals_reference(own._replace(row=torch.arange(21).view(3, 7) % 5), None, block, **options)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_many_positives_are_summed_by_group(similarity: Any) -> None:
    z = torch.randn(60, 4, dtype=torch.float64, generator=generator(0), requires_grad=True)
    one_group = Rows(z, torch.zeros(60, dtype=torch.int64), torch.arange(60))
    listed = GroupedPositives(Ids(one_group.group[None], one_group.row[None], None), None, listed=True)
    assert listed.pairs is None  # 60 x 59 pairs are too many to list: this test must not take the other path
    assert_equals_reference(one_group, None, 16, similarity=similarity)


@pytest.mark.parametrize("options", list(OPTIONS.values())[:3], ids=list(OPTIONS)[:3])
@pytest.mark.parametrize("distinct", [True, False])
def test_devices_that_must_not_wait_list_nothing(
    options: dict[str, Any], distinct: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An accelerator masks and sums where a CPU lists pairs; here the same path runs on the CPU.
    from diptych.losses import contrast as module

    for name in ("Exclusions", "GroupedPositives"):
        original = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, _make=original, listed, **k: _make(*a, listed=False, **k)
        )
    assert_equals_reference(rows(seed=3, distinct=distinct), None, 4, **options)
    assert_equals_reference(rows(seed=3, distinct=distinct), rows(9, seed=4), 4, **options)
    assert_equals_reference(rows(7, seed=9, scopes=3), rows(4, seed=10, scopes=3), None, **options)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("block", [4, None])
def test_float32_is_right_to_five_digits(options: dict[str, Any], block: int | None) -> None:
    exact = rows(33, 16, seed=11)
    single = exact._replace(z=exact.z.detach().float().requires_grad_())
    ours = contrast(single, block=block, **options)
    theirs = reference.contrast(exact, **options)
    assert ours.candidates.dtype == torch.float32
    value = mean_over_anchors(ours)
    expected = reference.mean_over_anchors(*theirs)
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    (our,) = torch.autograd.grad(value, single.z)
    (their,) = torch.autograd.grad(expected, exact.z)
    torch.testing.assert_close(our.double(), their, rtol=0, atol=1e-5 * their.abs().max().item())


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_gradcheck(options: dict[str, Any]) -> None:
    anchors, keys = rows(6, 3, seed=12), rows(5, 3, seed=13)

    def value(*z: Tensor) -> tuple[Tensor, Tensor]:
        c = contrast(
            anchors._replace(z=z[0]), keys._replace(z=z[1]) if len(z) > 1 else None, block=4, **options
        )
        return torch.where(c.count > 0, c.candidates, 0.0), c.positives

    assert torch.autograd.gradcheck(value, (anchors.z,))
    assert torch.autograd.gradcheck(value, (anchors.z, keys.z))


@pytest.mark.parametrize("keyed", [False, True])
def test_a_learned_temperature_gets_its_gradient(keyed: bool) -> None:
    temperature = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    anchors, keys = rows(seed=14), rows(5, seed=15) if keyed else None
    ours = gradients(contrast(anchors, keys, temperature=temperature), [anchors.z, temperature])
    theirs = gradients(reference.contrast(anchors, keys, temperature=temperature), [anchors.z, temperature])
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=0, atol=1e-10)


def test_reductions() -> None:
    c = contrast(rows(seed=16))
    assert (c.count == 0).any()
    assert c.count.max() > 1
    theirs = reference.contrast(rows(seed=16))
    torch.testing.assert_close(mean_over_anchors(c), reference.mean_over_anchors(*theirs))
    torch.testing.assert_close(mean_over_pairs(c), reference.mean_over_pairs(*theirs))
    assert not math.isclose(mean_over_pairs(c).item(), mean_over_anchors(c).item())


def test_nt_xent_is_cross_entropy_with_the_diagonal_left_out() -> None:
    z = torch.randn(2 * 9, 5, generator=generator(17))
    sample = torch.arange(9).repeat(2)
    unit = F.normalize(z)
    logits = (unit @ unit.T / 0.5).fill_diagonal_(-torch.inf)
    expected = F.cross_entropy(logits, (torch.arange(18) + 9) % 18)
    ours = mean_over_anchors(contrast(Rows(z, sample, torch.arange(18)), temperature=0.5))
    torch.testing.assert_close(ours, expected)


def test_form_in_never_exceeds_form_out() -> None:
    anchors = rows(seed=18)
    out, inside = contrast(anchors), contrast(anchors, form="in")
    assert (inside.positives >= out.positives - 1e-12).all()  # Jensen
    several = out.count > 1
    assert several.any()
    assert (inside.positives > out.positives)[several].all()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_order_of_rows_does_not_matter(options: dict[str, Any]) -> None:
    anchors = rows(seed=19)
    order = torch.randperm(N, generator=generator(20))
    shuffled = contrast(Rows(*(each[order] for each in anchors[:3])), block=4, **options)
    for ours, theirs in zip(shuffled, contrast(anchors, block=4, **options), strict=True):
        torch.testing.assert_close(ours, theirs[order])


def test_lengths_do_not_matter_to_cosines_and_do_to_dot_products() -> None:
    anchors = rows(seed=21)
    scale = torch.rand(N, 1, dtype=torch.float64, generator=generator(22)) * 10 + 0.1
    stretched = anchors._replace(z=anchors.z * scale)
    torch.testing.assert_close(contrast(stretched).candidates, contrast(anchors).candidates)
    assert not torch.allclose(
        contrast(stretched, similarity="dot").candidates, contrast(anchors, similarity="dot").candidates
    )


@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("form", ["out", "in"])
def test_finite_and_right_at_temperature_0_005(keyed: bool, form: Any) -> None:
    exact = rows(40, 8, seed=23)
    single = exact._replace(z=exact.z.detach().float().requires_grad_())
    c = contrast(single, single if keyed else None, temperature=0.005, form=form, block=16)
    loss = mean_over_anchors(c)
    expected = reference.mean_over_anchors(*reference.contrast(exact, temperature=0.005, form=form))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, single.z)
    (their,) = torch.autograd.grad(expected, exact.z)
    torch.testing.assert_close(gradient.double(), their, rtol=0, atol=1e-4 * their.abs().max().item())


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_logits_as_large_as_float32_exp_cannot_hold(similarity: Any) -> None:
    z = torch.randn(24, 6, generator=generator(24)) * 40  # dot products in the thousands
    anchors = Rows(z.requires_grad_(), ids(24, 25), torch.arange(24))
    loss = mean_over_anchors(contrast(anchors, temperature=0.02, similarity=similarity, block=7))
    assert torch.isfinite(loss)
    assert torch.isfinite(torch.autograd.grad(loss, z)[0]).all()


@pytest.mark.parametrize("options", list(OPTIONS.values())[:4], ids=list(OPTIONS)[:4])
@pytest.mark.parametrize("keyed", [False, True])
def test_bfloat16_autocast_changes_nothing(options: dict[str, Any], keyed: bool) -> None:
    def run(autocast: bool) -> tuple[Tensor, Tensor]:
        z = torch.randn(24, 8, generator=generator(26), requires_grad=True)
        anchors = Rows(z, ids(24, 27), torch.arange(24))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = mean_over_anchors(contrast(anchors, anchors if keyed else None, **options))
            assert loss.dtype == torch.float32
            return loss, torch.autograd.grad(loss, z)[0]

    for inside, outside in zip(run(True), run(False), strict=True):
        assert torch.equal(inside, outside)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_contrasted_in_float32(dtype: torch.dtype) -> None:
    z = torch.randn(24, 8, generator=generator(28)).to(dtype).requires_grad_()
    group, row = ids(24, 29), torch.arange(24)
    loss = mean_over_anchors(contrast(Rows(z, group, row)))
    (gradient,) = torch.autograd.grad(loss, z)
    expected = mean_over_anchors(contrast(Rows(z.detach().float(), group, row)))
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert torch.equal(loss.detach(), expected)


def test_transposed_views_give_what_contiguous_rows_give() -> None:
    z = torch.randn(6, 5, 4, dtype=torch.float64, generator=generator(30), requires_grad=True)
    group, row = ids(6, 31), torch.arange(6)
    view = contrast(Rows(z.transpose(0, 1), group, row))
    copy = contrast(Rows(z.transpose(0, 1).contiguous(), group, row))
    torch.testing.assert_close(view.candidates, copy.candidates)
    torch.testing.assert_close(
        *(torch.autograd.grad((c.candidates - c.positives).sum(), z)[0] for c in (view, copy))
    )


@pytest.mark.parametrize("form", ["out", "in"])
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("n", [0, 1, 4])
def test_without_positives_the_loss_is_zero_with_zero_gradient(form: Any, keyed: bool, n: int) -> None:
    z = torch.randn(n, 3, generator=generator(32), requires_grad=True)
    for group in (torch.arange(n), torch.full((n,), -1)):
        anchors = Rows(z, group, torch.arange(n))
        c = contrast(anchors, anchors if keyed else None, form=form)
        assert c.count.tolist() == [0] * n
        for loss in (mean_over_anchors(c), mean_over_pairs(c)):
            assert loss.item() == 0
            assert torch.equal(torch.autograd.grad(loss, z, retain_graph=True)[0], torch.zeros_like(z))


def test_an_anchor_with_nothing_to_compare_has_no_candidates() -> None:
    c = contrast(Rows(torch.randn(3, 2), torch.zeros(3, dtype=torch.int64), torch.arange(3), torch.arange(3)))
    assert c.candidates.tolist() == [-math.inf] * 3
    assert c.count.tolist() == [0, 0, 0]


def test_a_row_of_zeros_has_a_finite_gradient() -> None:
    z = torch.randn(6, 3, generator=generator(33))
    z[2] = 0
    loss = mean_over_anchors(contrast(Rows(z.requires_grad_(), torch.arange(3).repeat(2), torch.arange(6))))
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(loss)
    assert gradient.abs().max() < 100


def test_a_nan_is_not_hidden() -> None:
    z = torch.randn(6, 3, generator=generator(34))
    z[2, 1] = torch.nan
    for options in OPTIONS.values():
        assert mean_over_anchors(
            contrast(Rows(z, torch.zeros(6, dtype=torch.int64), torch.arange(6)), **options)
        ).isnan()


def test_keys_that_need_no_gradient_get_none() -> None:
    anchors, keys = rows(seed=35), rows(5, seed=36)
    keys = keys._replace(z=keys.z.detach())
    loss = mean_over_anchors(contrast(anchors, keys))
    assert torch.isfinite(torch.autograd.grad(loss, anchors.z)[0]).all()


@pytest.mark.parametrize("options", [OPTIONS["cosine"], OPTIONS["in"]], ids=["cosine", "in"])
@pytest.mark.parametrize("keyed", [False, True])
def test_a_second_derivative_is_refused_rather_than_wrong(options: dict[str, Any], keyed: bool) -> None:
    anchors = rows(seed=37)
    loss = mean_over_anchors(contrast(anchors, anchors if keyed else None, **options))
    with pytest.raises(RuntimeError, match="a contrast can be differentiated once"):
        torch.autograd.grad(loss, anchors.z, create_graph=True)


def test_dense_rank_numbers_distinct_tuples() -> None:
    first = torch.tensor([[5, 5, -1, 9, 5], [2, 2, 2, 2, 3]])
    second = torch.tensor([[1, 2, 1, 1, 1], [0, 1, 0, 2, 0]])
    assert dense_rank(first).tolist() == [[1, 1, 0, 2, 1], [0, 0, 0, 0, 1]]
    assert dense_rank(first, second).tolist() == [[1, 2, 0, 3, 1], [0, 1, 0, 2, 3]]


def test_ids_of_any_size_are_told_apart() -> None:
    far = torch.tensor([2**62, 2**62 + 1, 2**62, -(2**62), 2**62 + 1])
    own = Ids(far[None].clamp(min=-1), torch.arange(5)[None], None)
    assert GroupedPositives(own, None, listed=False).count.tolist() == [[1, 1, 1, 0, 1]]


def test_exclusions_are_the_same_listed_and_masked() -> None:
    left, right = rows(9, seed=38, distinct=False), rows(7, seed=39, distinct=False)
    pair = [Ids(each.group[None], each.row[None], None) for each in (left, right)]
    for tile in (Tile(slice(0, 2), slice(0, 9), slice(0, 7)), Tile(slice(0, 2), slice(3, 6), slice(2, 7))):
        shape = (2, tile.rows.stop - tile.rows.start, tile.columns.stop - tile.columns.start)
        masked, listed = torch.zeros(shape), torch.zeros(shape)
        Exclusions(*pair, keep_self=False, listed=False).apply(masked, tile)
        Exclusions(*pair, keep_self=False, listed=True).apply(listed, tile)
        assert torch.equal(masked, listed)
        assert masked.isinf().any()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
    ({"temperature": -1.0}, "temperature must be above 0, got -1.0"),
    ({"temperature": math.nan}, "temperature must be above 0, got nan"),
    ({"similarity": "euclid"}, "similarity must be one of cosine, dot, got 'euclid'"),
    ({"form": "both"}, "form must be one of out, in, got 'both'"),
    ({"positives": "all"}, "positives must be one of others, later, got 'all'"),
    ({"block": 0}, "block must be at least 1 row, got 0"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        contrast(rows(), **options)


def test_bad_shapes_are_named() -> None:
    good = rows()
    with pytest.raises(ValueError, match=r"anchors.z must be \(\*scopes, n, width\), got \(6,\)"):
        contrast(good._replace(z=good.z[0]))
    with pytest.raises(
        ValueError, match=r"anchors.group must have shape \(11,\) for z \(11, 6\), got \(10,\)"
    ):
        contrast(good._replace(group=good.group[1:]))
    with pytest.raises(
        ValueError, match=r"keys.row must have shape \(4,\) or \(2, 4\) for z .*, got \(2, 3\)"
    ):
        contrast(rows(5, scopes=2), rows(4, scopes=2)._replace(row=torch.zeros(2, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=r"anchors.row must be int64, got torch.int32"):
        contrast(good._replace(row=good.row.int()))
    with pytest.raises(ValueError, match=r"anchors.z must hold floating-point numbers, got torch.int64"):
        contrast(good._replace(z=torch.ones(11, 6, dtype=torch.int64)))
    with pytest.raises(ValueError, match="anchors are 6 wide and keys 5; they need one width"):
        contrast(good, rows(width=5))
    with pytest.raises(ValueError, match=r"anchors have the leading scopes \(2,\) and keys \(3,\)"):
        contrast(rows(scopes=2), rows(scopes=3))
    with pytest.raises(ValueError, match="give scope ids to both anchors and keys, or to neither"):
        contrast(good._replace(scope=good.row), good)
