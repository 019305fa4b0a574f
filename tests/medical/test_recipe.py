"""The recipe: batches as methods want them, the same after an interruption, and sections that fit each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from diptych.data.identity import Split
from diptych.data.loading import Draw, uniform_of_keys
from diptych.errors import ConfigError
from diptych.method import Method, OptimizerFactory, ScheduleFactory
from diptych.types import Encoded, Views
from diptych_medical.recipe import (
    Crops,
    ImageStudy,
    Loading,
    RandomCrops,
    Simulation,
    build,
    labelled_images,
)
from diptych_medical.simulate import CLASSES, simulate
from diptych_medical.source import Imaging, Label, Masks, Source

IMAGE = Imaging(intensity="mr", crop=(24.0, 20.0, 28.0))  # 12 x 10 x 14 voxels of 2 mm
MASKS = Masks(files="masks/{record}.nii.gz", classes=CLASSES)
LABELS = {"lesion": Label(column="lesion"), "contrast": Label(column="contrast")}


class Mean(nn.Module):
    """An encoder that averages an image."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.width, self.dims = channels, dims
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, view: torch.Tensor) -> Encoded:
        return Encoded(view.flatten(2).mean(dim=2) * self.scale)


@dataclass(frozen=True, kw_only=True)
class Wants:
    """A method of no phases, which says what batches it wants."""

    pairs: bool = False
    labelled: bool = False

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None
    ) -> Method:
        return Method({"encoder": encoder}, [], encoder)


class Batch(NamedTuple):
    """What a loader gave, for comparison."""

    samples: list[int]
    values: torch.Tensor
    mask: torch.Tensor


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "data", patients=16, side=16, workers=1)


def study(folder: Path, **changes: Any) -> ImageStudy:
    loader = {
        "batch_size": 3,
        "cache": str(folder.parent / "cache"),
        "readers": 1,
        **changes.pop("loader", {}),
    }
    settings: dict[str, Any] = {
        "data": Source(path=str(folder), include=["images/*"], table="simulated.csv", table_id="patient"),
        "image": IMAGE,
        "masks": MASKS,
        "labels": LABELS,
        "split": Split(train=0.8, validation=0.1, test=0.1),
        "loader": Loading(**loader),
        "encoder": Mean,
        "method": Wants(),
        "optimizer": torch.optim.AdamW,
        **changes,
    }
    return build(**settings)


def loaded(batches: Any) -> list[Batch]:
    out = []
    for views in batches:
        assert isinstance(views, Views)
        out.append(
            Batch(views.groups["sample"].tolist(), views.views[0].clone(), views.groups["mask"].clone())
        )
    return out


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert [each.samples for each in one] == [each.samples for each in other]
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.values, b.values, rtol=0, atol=0)
        torch.testing.assert_close(a.mask, b.mask, rtol=0, atol=0)


def test_a_batch_holds_an_image_its_mask_and_every_id(phantoms: Path) -> None:
    made = study(phantoms)
    train = made.samples.where("train")
    (views, *_) = made.training(train, 0)
    (x,) = views.views
    assert x.shape == (3, 1, 12, 10, 14)
    assert x.dtype == torch.float32
    assert set(views.groups) == {"sample", "patient", "lesion", "contrast", "mask"}
    assert views.groups["mask"].shape == (3, 12, 10, 14)
    assert {ids.dtype for ids in views.groups.values()} == {torch.int64}
    samples = views.groups["sample"].numpy()
    for name, ids in made.images.groups.items():
        np.testing.assert_array_equal(views.groups[name], ids[samples])


def test_without_masks_there_is_no_such_group(phantoms: Path) -> None:
    made = study(phantoms, masks=None)
    (views, *_) = made.plain(np.arange(2))
    assert "mask" not in views.groups


def test_every_training_image_comes_once_an_epoch_at_a_new_place(phantoms: Path) -> None:
    made = study(phantoms)
    train = made.samples.where("train")
    loader = made.training(train, 5)
    first, second = loaded(loader), loaded(made.training(train, 6))
    assert sorted(i for each in first for i in each.samples) == train.tolist()
    assert [each.samples for each in first] != [each.samples for each in second]
    places = []
    for epoch in range(4):
        loader.start(epoch)
        by_sample = {i: x for each in loaded(loader) for i, x in zip(each.samples, each.values, strict=True)}
        places.append(by_sample[int(train[0])])
    assert len({tuple(x.flatten().tolist()) for x in places}) > 1


@pytest.mark.parametrize("method", [Wants(), Wants(pairs=True), Wants(pairs=True, labelled=True)])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_that_starts_in_the_middle_gives_what_it_would_have_given(
    phantoms: Path, method: Wants, workers: int
) -> None:
    made = study(phantoms, method=method, loader={"workers": workers})
    train = made.samples.where("train")
    whole = made.training(train, 3)
    whole.start(2)
    rest = study(phantoms, method=method).training(train, 3)
    rest.start(2, 2)
    assert_equal(loaded(whole)[2:], loaded(rest))


def test_pairs_are_of_two_patients_and_cut_at_one_relative_place(phantoms: Path) -> None:
    made = study(phantoms, method=Wants(pairs=True), loader={"same": ["contrast"]})
    images, train = made.images, made.samples.where("train")
    loader = made.training(train, 0)
    for number, each in enumerate(loaded(loader)):
        a, b = np.array(each.samples).reshape(-1, 2).T
        assert (images.groups["patient"][a] != images.groups["patient"][b]).all()
        assert (images.groups["contrast"][a] == images.groups["contrast"][b]).all()
        draw = Draw(0, 0, number, np.array(each.samples))
        places = RandomCrops(images, 2).places(draw)
        assert len(np.unique(places[::2, 0])) == len(a)
        np.testing.assert_array_equal(places[::2], places[1::2])
        x, mask = images.batch(draw.indices, images.corners(draw.indices, places))
        np.testing.assert_array_equal(each.values, x)
        assert mask is not None
        np.testing.assert_array_equal(each.mask, mask)


def test_a_labelled_image_has_a_place_of_its_own(phantoms: Path) -> None:
    images = study(phantoms).images
    places = RandomCrops(images, 3).places(Draw(0, 0, 0, np.array([0, 1, 2, 3, 4, 5])))
    np.testing.assert_array_equal(places[[0, 3]], places[[1, 4]])
    assert not (places[[2, 5]] == places[[0, 3]]).any()


def test_a_share_that_parts_a_pair_is_refused(phantoms: Path) -> None:
    crops = RandomCrops(study(phantoms).images, 2)
    with pytest.raises(ConfigError, match=r"a process's share of 3 images .* loader.drop_last: true"):
        crops.fetch(Draw(0, 0, 0, np.array([0, 1, 2])))


def test_labelled_images_are_those_of_so_many_patients(phantoms: Path) -> None:
    def labelled(count: int | None) -> set[int]:
        made = study(phantoms, method=Wants(pairs=True, labelled=True), loader={"labelled_patients": count})
        batches = loaded(made.training(made.samples.where("train"), 0))
        return {i for each in batches for i in each.samples[2::3]}

    train = set(study(phantoms).samples.where("train").tolist())
    assert labelled(None) == train
    few, more = labelled(2), labelled(4)
    assert (len(few), len(more)) == (2, 4)
    assert few < more < train
    with pytest.raises(ConfigError, match=r"loader.labelled_patients: 99 wanted, "):
        labelled(99)


def test_all_slices_of_the_labelled_patients_are_used(phantoms: Path) -> None:
    flat = Imaging(dims=2, slices="axial", crop=(20.0, 20.0))
    images = study(phantoms, image=flat, masks=replace(MASKS, empty="keep")).images
    train = images.samples.where("train")
    chosen = labelled_images(images, train, 3)
    owners = images.groups["patient"]
    assert len(np.unique(owners[chosen])) == 3
    np.testing.assert_array_equal(chosen, train[np.isin(owners[train], owners[chosen])])


def test_plain_batches_are_in_order_and_cut_from_the_middle(phantoms: Path) -> None:
    made = study(phantoms)
    indices = np.array([7, 2, 2, 11])
    (views,) = made.plain(indices)
    assert views.groups["sample"].tolist() == indices.tolist()
    np.testing.assert_array_equal(views.views[0], made.images.batch(indices)[0])
    assert not made.plain(indices).position.shared  # type: ignore[attr-defined]  # every process embeds all
    assert_equal(loaded(made.plain(indices)), [Batch(indices.tolist(), views.views[0], views.groups["mask"])])


def test_the_encoder_is_told_channels_and_dimensions(phantoms: Path) -> None:
    encoder = study(phantoms).new_encoder()
    assert isinstance(encoder, Mean)
    assert (encoder.width, encoder.dims) == (1, 3)
    flat = study(
        phantoms,
        image=Imaging(dims=2, slices="axial", crop=(20.0, 20.0)),
        masks=replace(MASKS, empty="keep"),
    ).new_encoder()
    assert isinstance(flat, Mean)
    assert flat.dims == 2


def test_intensities_are_the_classical_features(phantoms: Path) -> None:
    assert study(phantoms).baseline is None
    made = study(phantoms, features="intensity")
    assert made.baseline is not None
    assert len(made.baseline(np.arange(3)).values) == 3


def test_a_simulation_is_written_before_it_is_read(tmp_path: Path) -> None:
    made = study(tmp_path / "new", simulation=Simulation(patients=4, side=16))
    assert len(made.samples) == 4


def test_uniform_numbers_are_functions_of_their_key() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63, 4000).astype(np.uint64)
    drawn = uniform_of_keys(keys, 3)
    np.testing.assert_array_equal(uniform_of_keys(keys[:5], 3), drawn[:5])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    for column in drawn.T:  # Kolmogorov-Smirnov at 1e-4
        distance = np.abs(np.sort(column) - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 2.23 / 4000**0.5
    assert np.abs(np.corrcoef(drawn.T) - np.eye(3)).max() < 0.07


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loader": {"same": ["view"]}, "method": Wants(pairs=True)}, "'view' is no text label of this config"),
        ({"loader": {"same": ["lesion"]}}, "loader.same is for methods that learn from pairs"),
    ],
)  # fmt: skip
def test_sections_that_do_not_fit_each_other(phantoms: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study(phantoms, **changes)


def test_a_label_that_pairs_share_must_be_known(phantoms: Path) -> None:
    labels = {"lesion": Label(column="lesion", classes=["present"])}
    made = study(phantoms, labels=labels, method=Wants(pairs=True), loader={"same": ["lesion"]})
    with pytest.raises(ConfigError, match=r"the label 'lesion' is missing for \d+ of \d+ training images"):
        made.training(made.samples.where("train"), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "loader.batch_size is at least 1"),
        ({"labelled_patients": 0}, "loader.labelled_patients"),
    ],
)
def test_faults_of_the_loader_section(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Loading(**settings)


@pytest.mark.parametrize("settings", [{"patients": 0}, {"side": 8}, {"side": 65}])
def test_faults_of_the_simulation_section(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="simulation: at least 1 patient and sides of 16 to 64 voxels"):
        Simulation(**settings)


def test_crops_without_randomness_are_no_random_crops(phantoms: Path) -> None:
    assert not hasattr(Crops(study(phantoms).images), "fetch")
