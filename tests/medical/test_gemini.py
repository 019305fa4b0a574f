"""GEMINI: its step is the literal one, its flows are what they claim to be, and its settings fit together."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, DataError, UserError
from diptych.method import Method, Phase
from diptych.types import Encoded, Views
from diptych_medical.corruption import Corruption
from diptych_medical.gemini import GEMINI
from diptych_medical.registered import Registered, Registration, halves_of, partners
from diptych_medical.spatial import Spatial
from diptych_medical.unet import UNet
from diptych_medical.velocity import compose
from diptych_medical.warp import inside, warp

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from medical_step_literal import WEIGHTS, LiteralGemini

WIDTHS = (8, 16)
SPACES = {2: (22, 18), 3: (12, 14, 10)}
ADAM = partial(torch.optim.Adam, lr=1e-3)
UNTOUCHED = Corruption(shuffle=0.0, bend=0.0, further=0.0)
RELEASED: dict[str, Any] = {"convention": "official", "integrate": 0, "smooth": 0.4, "spatial": None}


def blobs(n: int, dims: int, seed: int = 0) -> Tensor:
    """Smooth random images (n, 1, *space) in 0..1 with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, 1, *[5] * dims, generator=generator)
    mode = "trilinear" if dims == 3 else "bilinear"
    smooth = nn.functional.interpolate(coarse, size=SPACES[dims], mode=mode)
    return (0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)).double()


def batch(dims: int, groups: int = 1, size: int = 2, classes: int = 3) -> Views:
    """(a0, b0, a1, b1, ...), or with labelled images in between and masks for all."""
    x = blobs(groups * size, dims)
    mask = (x[:, 0] * classes).long().clamp(max=classes - 1)
    return Views((x,), {"sample": torch.arange(len(x)), "mask": mask})


def made(dims: int, *, checkpointing: bool = False, **settings: Any) -> Method:
    torch.manual_seed(0)
    encoder = UNet(1, dims, widths=WIDTHS, checkpointing=checkpointing)
    method = GEMINI(checkpointing=checkpointing, **settings)(encoder, ADAM, None)
    return method.double()


def terms_of(phase: Phase, views: Views) -> tuple[dict[str, Tensor], Tensor]:
    """Every term of a phase without its weight, and the weighted total."""
    (each,) = phase.passes
    online: Any = each.online(views)
    values = {term.name: term.objective(online, (), views) for term in each.terms}
    return values, torch.stack([term.weight * values[term.name] for term in each.terms]).sum()


def moving(method: Method, amount: float = 0.05) -> Method:
    """The method with a deformer that moves voxels, as a new one hardly does."""
    torch.manual_seed(5)
    nn.init.normal_(method.parts["registration"].deformer.flow.weight, std=amount)
    return method


def gradients(module: nn.Module) -> list[Tensor]:
    found = [each.grad for each in module.parameters()]
    assert all(each is not None for each in found)
    return [each.clone() for each in found if each is not None]


def literal_like(method: Method, dims: int, outputs: int = 1) -> LiteralGemini:
    literal = LiteralGemini(1, dims, outputs, WIDTHS).double()
    head = method.parts["restorer"] if "restorer" in method.parts else method.parts["segmenter"]
    deformer = method.parts["registration"].deformer
    pairs = ((method.parts["encoder"], literal.unet), (deformer, literal.deformer), (head, literal.restorer))
    with torch.no_grad():
        for ours, theirs in pairs:
            for source, target in zip(ours.parameters(), theirs.parameters(), strict=True):
                target.copy_(source)
    return literal


def assert_equal_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    largest = max(float(each.abs().max()) for each in gradients(theirs))
    for one, other in zip(gradients(ours), gradients(theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * largest)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_align_phase_is_the_literal_one(dims: int) -> None:
    method = made(dims, **RELEASED)
    literal = literal_like(method, dims)
    views = batch(dims, groups=2)
    images = halves_of(views, 2)
    expected = literal.align(images[:2], images[2:])
    torch.stack([WEIGHTS[name] * value for name, value in expected.items()]).sum().backward()
    found, total = terms_of(method.phases[0], views)
    assert method.phases[0].name == "align"
    assert set(found) == {*expected, "outside"}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7, msg=name)
    total.backward()
    assert_equal_gradients(method.parts["encoder"], literal.unet)
    assert_equal_gradients(method.parts["registration"].deformer, literal.deformer)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_restore_phase_is_the_literal_one(dims: int) -> None:
    method = made(dims, corruption=UNTOUCHED, **RELEASED)
    literal = literal_like(method, dims)
    views = batch(dims, groups=2)
    a = halves_of(views, 2)[:2]
    expected = literal.restore(a, a)
    (100 * expected).backward()
    found, total = terms_of(method.phases[1], views)
    assert method.phases[1].name == "restore"
    assert list(found) == ["restoration"]
    torch.testing.assert_close(found["restoration"], expected, rtol=1e-9, atol=0)
    total.backward()
    assert_equal_gradients(method.parts["encoder"], literal.unet)
    assert_equal_gradients(method.parts["restorer"], literal.restorer)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_segment_phase_is_the_literal_one(dims: int) -> None:
    """3D: a softmax over all classes; 2D: a sigmoid for each but the background."""
    output = "softmax" if dims == 3 else "sigmoid"
    method = made(dims, variant="semi", classes=3, output=output, **RELEASED)
    views = batch(dims, groups=2, size=3)
    image, mask = views.views[0][2::3], views.groups["mask"][2::3]
    onehot = nn.functional.one_hot(mask, 3).movedim(-1, 1).double()
    if dims == 2:
        onehot = onehot[:, 1:]
    literal = literal_like(method, dims, outputs=onehot.shape[1])
    expected = literal.segment(image, onehot)
    (100 * expected).backward()
    found, total = terms_of(method.phases[1], views)
    assert list(found) == ["cross_entropy", "dice"]
    torch.testing.assert_close(total, 100 * expected, rtol=1e-5, atol=0)
    total.backward()
    assert_equal_gradients(method.parts["encoder"], literal.unet)
    assert_equal_gradients(method.parts["segmenter"], literal.restorer)
    aligned, _ = terms_of(method.phases[0], views)
    others = views.views[0][[0, 3, 1, 4]]
    same = literal.align(others[:2], others[2:])
    torch.testing.assert_close(aligned["image"], same["image"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("settings", [RELEASED, {"integrate": 5}, {"integrate": 5, "affine": True}])
def test_checkpointing_changes_no_gradient(settings: dict[str, Any]) -> None:
    results = []
    for checkpointing in (False, True):
        method = moving(made(3, checkpointing=checkpointing, **{"spatial": None, **settings}))
        _, total = terms_of(method.phases[0], batch(3))
        total.backward()
        results.append([total.detach(), *gradients(method.parts["encoder"])])
        results[-1] += gradients(method.parts["registration"])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"integrate": 0}, {"affine": True}])
def test_pairs_of_a_batch_do_not_see_each_other(dims: int, settings: dict[str, Any]) -> None:
    registration = moving(made(dims, **settings)).parts["registration"]
    a, b = blobs(3, dims, 1), blobs(3, dims, 2)
    together = registration.flows(a, b)
    for i in range(3):
        alone = registration.flows(a[i : i + 1], b[i : i + 1])
        swapped = registration.flows(b[i : i + 1], a[i : i + 1])
        for flow, one, other in zip(together, alone, swapped[::-1], strict=True):
            torch.testing.assert_close(flow[i : i + 1], one, rtol=1e-6, atol=1e-8)
            torch.testing.assert_close(flow[i : i + 1], other, rtol=1e-6, atol=1e-8)


def test_alike_features_are_told_apart_from_unlike_ones_by_what_gets_their_gradient() -> None:
    """With similarity alone: features get its gradient with their weight, the deformer whole."""
    results = {}
    for weight in (0.0, 0.1, 0.2):
        only = {"smooth": 0.0, "image": 0.0, "feature_weight": weight}
        method = moving(made(3, spatial=None, integrate=0, **only))
        registered = method.parts["registration"](halves_of(batch(3), 2))
        leaf = registered.features.detach().requires_grad_()
        flows = registered.flows.detach().requires_grad_()
        (term, _) = method.phases[0].passes[0].terms
        value = term.objective(registered._replace(features=leaf, flows=flows), (), batch(3))
        results[weight] = torch.autograd.grad(value, (leaf, flows))
    assert torch.equal(results[0.0][0], torch.zeros_like(results[0.0][0]))
    torch.testing.assert_close(results[0.2][0], 2 * results[0.1][0])
    torch.testing.assert_close(results[0.2][1], results[0.0][1])
    assert results[0.0][1].abs().max() > 0


@pytest.mark.parametrize("settings", [{}, {"affine": True, "inverse": 0.1, "folding": 0.1}])
def test_every_weight_of_a_phase_gets_a_gradient(settings: dict[str, Any]) -> None:
    method = moving(made(3, **settings))
    for phase in method.phases:
        method.zero_grad()
        _, total = terms_of(phase, batch(3))
        total.backward()
        assert all(parameter.grad is not None for parameter in phase.parameters()), phase.name
        assert all(parameter.grad.isfinite().all() for parameter in phase.parameters())
    if "affine" in settings:
        terms_of(method.phases[0], batch(3))[1].backward()
        affine = method.parts["registration"].affine
        assert all(parameter.grad.abs().max() > 0 for parameter in affine.parameters())


def test_phases_train_what_they_say() -> None:
    method = made(3)
    parts = method.parts
    align, restore = (set(phase.parameters()) for phase in method.phases)
    assert align == {*parts["encoder"].parameters(), *parts["registration"].parameters()}
    assert restore == {*parts["encoder"].parameters(), *parts["restorer"].parameters()}
    assert set(parts) == {"encoder", "registration", "restorer"}
    assert not any("encoder" in name for name in parts["registration"].state_dict())
    (joint,) = made(3, joint=True).phases
    assert [term.name for each in joint.passes for term in each.terms] == [
        "smoothness",
        "similarity",
        "image",
        "outside",
        "restoration",
    ]


def test_terms_without_weight_are_left_out_and_those_with_one_are_named() -> None:
    method = moving(made(3, smooth=0.0, inverse=0.5, folding=2.0, spatial=None))
    values, total = terms_of(method.phases[0], batch(3))
    assert list(values) == ["similarity", "image", "inverse", "folding", "outside"]
    weighted = 0.8 * values["similarity"] + values["image"] + 0.5 * values["inverse"] + 2 * values["folding"]
    torch.testing.assert_close(total, weighted)
    registered = method.parts["registration"](halves_of(batch(3), 2))
    torch.testing.assert_close(values["outside"], 1 - inside(registered.flows).mean())
    assert values["outside"] > 0


def test_a_still_deformer_leaves_images_where_they_are() -> None:
    method = made(3)
    nn.init.zeros_(method.parts["registration"].deformer.flow.weight)
    a, b = blobs(1, 3, 1), blobs(1, 3, 2)
    flows = method.parts["registration"].flows(a, b)
    assert all(torch.equal(flow, torch.zeros_like(flow)) for flow in flows)
    torch.testing.assert_close(warp(a, flows[0]), a, rtol=0, atol=1e-12)


def test_symmetric_velocities_make_flows_that_undo_each_other() -> None:
    a, b = blobs(1, 3, 1), blobs(1, 3, 2)
    errors = {}
    for name, settings in {
        "plain": {"integrate": 0},
        "velocity": {"symmetric": False},
        "symmetric": {},
    }.items():
        registration = moving(made(3, **settings)).parts["registration"]
        forth, back = registration.flows(a, b)
        middle = (slice(None), slice(None), *[slice(3, -3)] * 3)
        errors[name] = compose(back, forth)[middle].abs().mean() / forth[middle].abs().mean()
        assert forth[middle].abs().mean() > 0.05
    assert min(errors["plain"], errors["velocity"]) > 0.3
    assert errors["symmetric"] < 0.1 * min(errors["plain"], errors["velocity"])


def test_symmetric_velocities_cannot_shift_all_images_alike() -> None:
    a, b = blobs(1, 3, 1), blobs(1, 3, 2)
    for symmetric in (False, True):
        registration = made(3, symmetric=symmetric).parts["registration"]
        nn.init.constant_(registration.deformer.flow.bias, 0.5)
        moved = max(flow.abs().max().item() for flow in registration.flows(a, b))
        assert (moved < 0.1) if symmetric else (moved > 0.4)


def test_the_affine_stage_moves_before_the_deformation() -> None:
    registration = made(3, affine=True).parts["registration"]
    nn.init.zeros_(registration.deformer.flow.weight)
    with torch.no_grad():
        registration.affine.parameters_of.bias[-3:] = torch.tensor([0.3, -0.2, 0.1])
    a, b = blobs(1, 3, 1), blobs(1, 3, 2)
    forth, _ = registration.flows(a, b)
    constant = forth.flatten(2).mean(2)[..., None, None, None].expand_as(forth)
    torch.testing.assert_close(forth, constant, rtol=0, atol=1e-3)
    assert forth.abs().amin((0, 2, 3, 4)).min() > 0.1


def test_features_may_be_projected_before_they_are_compared() -> None:
    method = made(3, similarity_width=4, spatial=None)
    registered: Registered = method.parts["registration"](halves_of(batch(3), 2))
    assert registered.features.shape[1] == 4
    assert registered.fields.shape == (2, 3, *SPACES[3])


def test_both_images_of_a_pair_are_moved_alike() -> None:
    method = made(3, integrate=0, spatial=Spatial(rotation=(90.0,)))
    x = blobs(2, 3)
    torch.manual_seed(0)
    images = method.phases[0].passes[0].online(Views((x[[0, 0, 1, 1]],), {})).images
    assert torch.equal(images[:2], images[2:])
    assert not torch.allclose(images[:2], x)
    assert not torch.allclose(images[0], images[1])


def test_what_moves_in_from_outside_is_unlabelled() -> None:
    turned = Spatial(rotation=(0.0,), scale=(0.5, 0.5))
    method = made(3, variant="semi", classes=3, spatial=turned)
    views = batch(3, size=3)
    views.groups["mask"].fill_(2)
    labels = method.phases[1].passes[0].online(views).labels
    assert labels.unique().tolist() == [-1, 2]
    assert 0.05 < (labels == 2).double().mean() < 0.3


def test_unlabelled_voxels_do_not_count() -> None:
    method = made(3, variant="semi", classes=3, spatial=None)
    views = batch(3, size=3)
    before, _ = terms_of(method.phases[1], views)
    views.groups["mask"][2] = torch.where(views.groups["mask"][2] == 1, -1, views.groups["mask"][2])
    after, _ = terms_of(method.phases[1], views)
    segmented = method.phases[1].passes[0].online(views)
    known = segmented.labels >= 0
    scores = segmented.scores.movedim(1, -1)[known].log_softmax(1)
    expected = -scores.gather(1, segmented.labels[known][:, None]).mean() / 3
    torch.testing.assert_close(after["cross_entropy"], expected)
    assert not torch.equal(after["dice"], before["dice"])
    views.groups["mask"].fill_(-1)
    nothing, total = terms_of(method.phases[1], views)
    assert nothing["cross_entropy"] == 0
    total.backward()
    assert all(each.isfinite().all() for each in gradients(method.parts["segmenter"]))


def test_training_under_autocast_keeps_flows_and_losses_exact() -> None:
    method = made(3).float()
    views = batch(3)
    views = views._replace(views=(views.views[0].float(),))
    with torch.autocast("cpu", torch.bfloat16):
        registered = method.phases[0].passes[0].online(views)
        values, total = terms_of(method.phases[0], views)
    assert registered.flows.dtype == registered.features.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in values.values())
    total.backward()
    assert all(each.isfinite().all() for each in gradients(method.parts["encoder"]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "full"}, "variant must be mip or semi, got 'full'"),
        ({"variant": "semi"}, "at least 2 for variant semi.* got 0 for semi"),
        ({"classes": 3}, "0 for variant mip, which sees none; got 3 for mip"),
        ({"convention": "official"}, "set integrate: 0, or convention: aligned"),
        ({"convention": "official", "integrate": 0, "affine": True}, "set affine: 0"),
        ({"symmetric": True, "integrate": 0}, "symmetric is for velocities alone"),
        ({"symmetric": True, "affine": True}, "symmetric is for velocities alone"),
        ({"smooth": -1.0}, "GEMINI's weight smooth must lie in"),
        ({"window": 4}, "window is an odd number of voxels, got 4"),
        ({"integrate": -1}, "at least 0, got -1"),
        ({"output": "argmax"}, "output must be softmax or sigmoid"),
        ({"convention": "corners"}, "convention must be aligned or official"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GEMINI(**settings)


class Half(nn.Module):
    """An encoder whose map is half the size of its images."""

    width, grid_width, dims, channels = 8, 8, 2, 1

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 2, stride=2)

    def forward(self, x: Tensor) -> Encoded:
        grid = self.conv(x)
        return Encoded(grid.flatten(2).mean(2), None, grid)


def test_encoders_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="Linear has no dims"):
        GEMINI()(nn.Linear(2, 2), ADAM, None)
    method = GEMINI()(Half(), ADAM, None)
    with pytest.raises(ConfigError, match="the size of the image, 8 x 6; Half gives 4 x 3"):
        method.parts["registration"].flows(torch.rand(1, 1, 8, 6), torch.rand(1, 1, 8, 6))


def test_batches_that_do_not_fit() -> None:
    three = Views((blobs(3, 2),), {})
    with pytest.raises(DataError, match="pairs, batches of a multiple of 2 images, got 3"):
        made(2).phases[0].passes[0].online(three)
    semi = made(2, variant="semi", classes=2)
    with pytest.raises(DataError, match="learns from masks, but the batches have none"):
        semi.phases[1].passes[0].online(three)
    with pytest.raises(UserError, match="a mask has class 2, counted from 0, but GEMINI has classes: 2"):
        semi.phases[1].passes[0].online(batch(2, size=3))


def test_the_method_says_what_batches_it_wants() -> None:
    assert GEMINI().pairs
    assert not GEMINI().labelled
    assert GEMINI(variant="semi", classes=2).labelled
    halves = halves_of(Views((torch.arange(6.0).view(6, 1),), {}), 3)
    assert halves[:, 0].tolist() == [0, 3, 1, 4]
    assert partners(halves)[:, 0].tolist() == [1, 4, 0, 3]
    assert isinstance(made(2).parts["registration"], Registration)
