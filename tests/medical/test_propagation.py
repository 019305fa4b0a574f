"""Labels carried by likeness: against a plain loop, laws of it, and the table on synthetic volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references_masks as naive
import synthetic_images as synthetic
import torch
from phantoms import phantoms
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych.evaluation.table import Table
from diptych_medical.carry import Labelled, carry
from diptych_medical.evaluated import labelled_images
from diptych_medical.propagation import propagation
from diptych_medical.stacks import stacks_of

FAST: dict[str, Any] = {"seeds": 2, "draws": 100, "distances": (1, 3), "radius": 3, "device": "cpu"}


def random_slice(seed: int, shape: tuple[int, int] = (6, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, *shape, generator=generator)
    classes = torch.randint(3, shape, generator=generator)
    return features, F.one_hot(classes, 3).movedim(-1, 0).float()


@pytest.mark.parametrize(("radius", "neighbours", "temperature"), [(1, 3, 0.1), (2, 5, 0.5), (9, 1, 1.0)])
def test_votes_equal_a_plain_loop(radius: int, neighbours: int, temperature: float) -> None:
    source, labels = random_slice(0)
    target, _ = random_slice(1)
    found = carry(
        [Labelled(source, labels)], target, radius=radius, neighbours=neighbours, temperature=temperature
    )
    expected = naive.propagated(
        source.double().numpy(),
        target.double().numpy(),
        labels.double().numpy(),
        radius,
        neighbours,
        temperature,
    )
    assert found.numpy() == pytest.approx(expected, abs=1e-5)


def test_a_slice_gives_itself_its_own_labels() -> None:
    features, labels = random_slice(2)
    found = carry([Labelled(features, labels)], features, radius=2, neighbours=1, temperature=0.1)
    torch.testing.assert_close(found, labels)


def test_labels_follow_a_shift_within_the_radius() -> None:
    features, labels = random_slice(3, (12, 12))
    moved, wanted = features.roll(2, 1), labels.roll(2, 1)
    source = [Labelled(features, labels)]
    far = carry(source, moved, radius=2, neighbours=1, temperature=0.1)
    assert (far[:, 2:] == wanted[:, 2:]).all()
    near = carry(source, moved, radius=1, neighbours=1, temperature=0.1)
    assert (near[:, 2:] != wanted[:, 2:]).any()


def test_the_length_of_features_does_not_matter() -> None:
    source, labels = random_slice(4)
    target, _ = random_slice(5)
    options: dict[str, Any] = {"radius": 2, "neighbours": 4, "temperature": 0.2}
    one = carry([Labelled(source, labels)], target, **options)
    other = carry([Labelled(source * 7, labels)], target * torch.rand(6, 7).add(0.5), **options)
    torch.testing.assert_close(one, other)


def test_shares_add_up_to_one_and_two_equal_sources_change_nothing() -> None:
    source, labels = random_slice(6)
    target, _ = random_slice(7)
    one = carry([Labelled(source, labels)], target, radius=2, neighbours=25, temperature=0.3)
    torch.testing.assert_close(one.sum(0), torch.ones(6, 7))
    two = carry([Labelled(source, labels)] * 2, target, radius=2, neighbours=50, temperature=0.3)
    torch.testing.assert_close(one, two)


@pytest.fixture(scope="module")
def table() -> Table:
    study = synthetic.study(synthetic.images(shape=(16, 15, 14)))
    return propagation(study, synthetic.Knowing(), plane="axial", **FAST)


def test_the_table_has_every_row_and_distance(table: Table) -> None:
    names = ["pretrained", "random weights", "intensities", "copied mask"]
    assert [row.name for row in table.rows if not row.difference] == names
    assert [row.repeats for row in table.rows][:4] == [1, 2, 1, 1]
    assert list(table.metrics) == ["Dice", "Dice at 1", "Dice at 3"]
    assert (table.test_patients, table.test_samples) == (4, 4)


def test_features_that_know_the_classes_beat_a_copied_mask(table: Table) -> None:
    gap = table.score("pretrained - copied mask", "Dice at 1")
    assert gap.low is not None
    assert gap.low > 0.02


def test_a_copied_mask_is_the_first_slice_everywhere(table: Table) -> None:
    images = synthetic.images(shape=(16, 15, 14))
    expected = []
    for stack in stacks_of(images, labelled_images(images, "test", None), "axial"):
        start = max(range(14), key=lambda place: ((stack.labels[place] > 0).sum(), -place))
        both = []
        for place in (start - 1, start + 1):
            values = [
                naive.dice(stack.labels[start] == k, stack.labels[place] == k)
                for k in (1, 2)
                if (stack.labels[place] == k).any()
            ]
            both.append(np.mean(values))
        expected.append(np.mean(both))
    assert table.score("copied mask", "Dice at 1").value == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_slices_follow_on_along_the_axis_of_their_plane(plane: Any, axis: int) -> None:
    images = synthetic.images(shape=(9, 10, 11))
    test = labelled_images(images, "test", None)
    for index, stack in zip(test.tolist(), stacks_of(images, test, plane), strict=True):
        mask = images.mask(index)
        assert len(stack.labels) == mask.shape[axis]
        assert (stack.labels[3] == mask.take(3, axis=axis)).all()
        voxels = stack.voxels(3)
        assert (mask[tuple(voxels.T)] == stack.labels[3].ravel()).all()
        assert (
            stack.slice_of(images.image(index), 3)[0].ravel() == images.image(index)[0][tuple(voxels.T)]
        ).all()


def test_slices_of_one_volume_are_a_stack_in_order(tmp_path: Path) -> None:
    _, study = phantoms(tmp_path, "coronal")
    images = study.images
    test = labelled_images(images, "test", None)
    stacks = stacks_of(images, test, "axial")
    assert len(stacks) == len(set(images.samples.ids["recording"].iloc[test]))
    assert sorted(index for stack in stacks for index in stack.indices) == sorted(test.tolist())
    for stack in stacks:
        places = [images.stored(index).facts["slice"] for index in stack.indices]
        assert places == sorted(places)
        assert (stack.labels[1] == images.mask(stack.indices[1])).all()
    table = propagation(study, synthetic.Plain(2), **{**FAST, "distances": (1,)})
    assert table.test_samples == len(stacks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distances": ()}, "distances are whole numbers from 1 on, got none"),
        ({"distances": (0, 1)}, "got 0, 1"),
        ({"radius": 0}, "radius, neighbours and seeds are at least 1"),
        ({"temperature": 0.0}, "temperature is above 0"),
        ({"overlap": 1.5}, "overlap is from 0 to below 1"),
        ({"stages": "all"}, "Knowing has no columns"),
        ({"stages": "first"}, "stages is last or all; got 'first'"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: dict[str, Any], message: str) -> None:
    study = synthetic.study(synthetic.images(shape=(9, 9, 9)))
    with pytest.raises(ConfigError, match=message):
        propagation(study, synthetic.Knowing(), **{**FAST, **options})


def test_single_pictures_have_no_next_slice() -> None:
    with pytest.raises(ConfigError, match="single pictures"):
        propagation(synthetic.study(synthetic.images()), synthetic.Knowing(), **FAST)
