"""Scores against plain loops, windows against MONAI, and the segmentation table on synthetic images."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import references_masks as naive
import synthetic_images as synthetic
import torch
from monai.losses.dice import DiceCELoss
from monai.metrics.hausdorff_distance import compute_hausdorff_distance
from monai.metrics.surface_dice import compute_surface_dice
from phantoms import phantoms
from torch.nn import functional as F

from diptych.errors import ConfigError, DataError
from diptych.evaluation.table import Table
from diptych.types import Encoded
from diptych_medical.agreement import agreement, dice, measure_names
from diptych_medical.evaluated import checked_counts, few_images, images_of, labelled_images
from diptych_medical.recipe import ImageStudy
from diptych_medical.saved import Saved
from diptych_medical.segmentation import segmentation
from diptych_medical.sliding import VoxelNetwork, corners, dense, features_at, frozen_copy, resize, slide
from diptych_medical.voxels import Drawn, VoxelClassifier, Voxels, draw_voxels, fit_head, joined, overlap_loss

CPU = torch.device("cpu")
CLASSES = ("background", "bright", "dark")
FAST: dict[str, Any] = {"seeds": 2, "draws": 100, "steps": 60, "voxels": 200, "device": "cpu"}


def random_masks(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    draws = np.random.default_rng(seed)
    return draws.integers(3, size=shape), draws.integers(3, size=shape)


@pytest.mark.parametrize("shape", [(6, 7), (4, 5, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_plain_loops(shape: tuple[int, ...], seed: int) -> None:
    one, other = random_masks(shape, seed)
    spacing = (1.0, 0.7, 2.5)[: len(shape)]
    found = agreement(one, other, CLASSES, spacing, tolerance=1.0)
    for number, name in enumerate(CLASSES[1:], start=1):
        pair = (one == number, other == number)
        assert found[f"Dice {name}"] == pytest.approx(naive.dice(*pair), abs=1e-6)
        assert found[f"HD95 {name}"] == pytest.approx(naive.hd95(*pair, spacing), rel=1e-5)
        assert found[f"surface Dice {name}"] == pytest.approx(
            naive.surface_dice(*pair, spacing, 1.0), abs=1e-6
        )
    assert found["Dice"] == pytest.approx((found["Dice bright"] + found["Dice dark"]) / 2)
    assert dice(one, other, CLASSES)["Dice"] == pytest.approx(found["Dice"])


@pytest.mark.parametrize("shape", [(9, 12), (6, 9, 7)])
def test_scores_are_those_of_monais_own_functions(shape: tuple[int, ...]) -> None:
    one, other = random_masks(shape, 5)
    spacing = (0.9, 1.0, 2.0)[: len(shape)]
    found = agreement(one, other, CLASSES, spacing, tolerance=1.2)
    predicted, truth = (F.one_hot(torch.from_numpy(k), 3).movedim(-1, 0)[None].float() for k in (one, other))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        distance = compute_hausdorff_distance(predicted, truth, percentile=95, spacing=spacing)[0]
        surface = compute_surface_dice(predicted, truth, [1.2, 1.2], spacing=spacing)[0]
    for number, name in enumerate(CLASSES[1:]):
        assert found[f"HD95 {name}"] == pytest.approx(float(distance[number]), rel=1e-5)
        assert found[f"surface Dice {name}"] == pytest.approx(float(surface[number]), abs=1e-6)


def test_scores_of_shapes_apart_within_a_larger_image() -> None:
    """Two cubes two voxels apart: only the box around them is looked at, which must not matter."""
    one, other = np.zeros((2, 30, 30, 30), np.int64)
    one[5:9, 5:9, 5:9] = 1
    other[7:11, 5:9, 5:9] = 1
    found = agreement(one, other, ("background", "cube"), (1.5, 1.0, 1.0), tolerance=1.5)
    assert found["Dice"] == pytest.approx(0.5)
    assert found["HD95"] == pytest.approx(3.0)
    assert found["surface Dice"] == pytest.approx(
        naive.surface_dice(one[3:13, 3:11, 3:11] == 1, other[3:13, 3:11, 3:11] == 1, (1.5, 1, 1), 1.5)
    )


def test_a_perfect_prediction_has_perfect_scores() -> None:
    truth, _ = random_masks((6, 6, 6), 0)
    found = agreement(truth, truth, CLASSES, (1, 1, 1))
    assert (found["Dice"], found["HD95"], found["surface Dice"]) == (1.0, 0.0, 1.0)


def test_an_empty_prediction_is_the_worst_and_an_absent_class_is_left_out() -> None:
    truth = np.zeros((4, 6), np.int64)
    truth[1:3, 2:4] = 1
    found = agreement(np.zeros_like(truth), truth, CLASSES, (3.0, 4.0))
    assert (found["Dice bright"], found["surface Dice bright"]) == (0.0, 0.0)
    assert found["HD95 bright"] == pytest.approx(np.hypot(12, 24))
    assert np.isnan(found["Dice dark"])
    assert found["Dice"] == 0.0
    nothing = agreement(truth, np.zeros_like(truth), CLASSES, (1, 1))
    assert np.isnan(nothing["Dice"])


def test_unlabelled_voxels_are_not_seen() -> None:
    predicted, truth = random_masks((6, 8), 1)
    truth[:, 5:] = -1
    other = predicted.copy()
    other[:, 5:] = 2 - other[:, 5:]
    assert agreement(predicted, truth, CLASSES, (1, 1)) == agreement(other, truth, CLASSES, (1, 1))
    assert dice(predicted, truth, CLASSES)["Dice dark"] == pytest.approx(
        naive.dice(predicted[:, :5] == 2, truth[:, :5] == 2)
    )


def test_one_class_needs_no_scores_by_class() -> None:
    assert measure_names(("background", "cell")) == ["Dice", "HD95", "surface Dice"]
    assert "HD95 dark" in measure_names(CLASSES)


@pytest.mark.parametrize(
    ("shape", "window", "overlap"),
    [
        ((20, 17), (8, 8), 0.5),
        ((20, 17), (8, 32), 0.25),
        ((9, 9, 13), (8, 12, 8), 0.5),
        ((5, 6), (8, 8), 0.0),
    ],
)
@pytest.mark.parametrize("stride", [1, 2])
def test_features_at_voxels_are_those_of_the_blended_windows(
    shape: tuple[int, ...], window: tuple[int, ...], overlap: float, stride: int
) -> None:
    """Single voxels against MONAI's stitching of whole interpolated maps."""
    encoder = frozen_copy(synthetic.Plain(len(shape), stride=stride), CPU)
    image = np.random.default_rng(0).random((1, *shape)).astype(np.float32)

    class Maps(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return resize(dense(encoder, x), x.shape[2:])

    whole = slide(Maps(), image, window, overlap=overlap).numpy()
    every = np.array(list(itertools.product(*map(range, shape))))
    found = features_at(encoder, image, every, window, overlap=overlap).numpy()
    assert found.T.reshape(whole.shape) == pytest.approx(whole, abs=2e-5)


def test_a_head_before_interpolation_equals_one_after_it() -> None:
    network = VoxelNetwork(synthetic.Plain(2, stride=2), 3)
    x = torch.rand(2, 1, 12, 10)
    features = resize(dense(network.encoder, x), (12, 10))
    after = network.head(features.movedim(1, -1)).movedim(-1, 1)
    torch.testing.assert_close(network(x), after)


@pytest.mark.parametrize(
    ("size", "window", "overlap"), [(20, 8, 0.5), (9, 8, 0.5), (8, 8, 0.0), (30, 7, 0.9)]
)
def test_windows_cover_everything_and_end_flush(size: int, window: int, overlap: float) -> None:
    starts = [int(each[0]) for each in corners((size,), (window,), overlap)]
    assert set().union(*(range(start, start + window) for start in starts)) == set(range(size))
    assert starts == sorted(set(starts))


def test_the_encoder_itself_stays_as_it_is() -> None:
    encoder = synthetic.Plain(2).train()
    copy = frozen_copy(encoder, CPU)
    assert encoder.training
    assert not copy.training
    assert all(each.requires_grad for each in encoder.parameters())
    assert not any(each.requires_grad for each in copy.parameters())


@pytest.mark.parametrize("count", [50, 400, 100_000])
def test_drawn_voxels_stand_for_the_whole_image(count: int) -> None:
    _, mask = synthetic.blobs((20, 30, 10), np.random.default_rng(0))
    mask[:3] = -1
    drawn = draw_voxels(mask, count, seed=0)
    assert len(drawn.at) == min(count, int((mask >= 0).sum()))
    assert (mask[tuple(drawn.at.T)] == drawn.labels).all()
    assert len(np.unique(drawn.at, axis=0)) == len(drawn.at)
    for structures in (True, False):
        picked = drawn.weights[(drawn.labels > 0) == structures].sum()
        assert picked == pytest.approx(((mask > 0) if structures else (mask == 0)).sum())


def test_small_structures_are_drawn_whole() -> None:
    mask = np.zeros((50, 50), np.int64)
    mask[3, 4] = 1
    assert 1 in draw_voxels(mask, 10, seed=0).labels


def test_the_loss_is_monais_where_all_is_labelled() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 3, 5, 6), torch.randint(3, (2, 5, 6))
    theirs = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)(
        logits, labels[:, None]
    )
    torch.testing.assert_close(overlap_loss(logits, labels), theirs)


def test_the_loss_does_not_see_unlabelled_voxels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, 6, requires_grad=True)
    labels = torch.randint(3, (1, 4, 6))
    labels[..., 4:] = -1
    loss = overlap_loss(logits, labels)
    torch.testing.assert_close(loss, overlap_loss(logits[..., :4], labels[..., :4]))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[..., 4:] == 0).all()
    assert (gradient[..., :4] != 0).all()


def test_a_head_learns_what_is_linear_whatever_the_units_of_the_features() -> None:
    torch.manual_seed(0)
    features = torch.randn(3000, 3) * torch.tensor([1e-3, 1.0, 200.0]) + torch.tensor([5.0, 0.0, -1e3])
    score = (features[:, 0] - 5.0) * 1e3 + (features[:, 2] + 1e3) / 200
    labels = torch.bucketize(score, torch.tensor([-1.0, 1.0]))
    drawn = Drawn(np.zeros((3000, 2), np.int64), labels.numpy(), np.ones(3000))
    head = fit_head(joined([(features, drawn)]), 3, steps=300, batch=500, rate=0.05, seed=0, device=CPU)
    assert (head(features).argmax(1) == labels).float().mean() > 0.9


def test_the_voxel_classifier_knows_intensities() -> None:
    image, mask = synthetic.blobs((24, 24), np.random.default_rng(0))
    drawn = draw_voxels(mask, 1000, 0)
    features = np.concatenate([image, image**2])
    rows = torch.from_numpy(features[(slice(None), *drawn.at.T)].T.copy())
    classifier = VoxelClassifier(joined([(rows, drawn)]), 3, seed=0)
    assert dice(classifier.predict(features), mask, CLASSES)["Dice"] > 0.95


def test_boosting_does_not_run_away_on_a_rare_structure() -> None:
    """A small ball within another, each brighter by two deviations of the noise; the background weighs 13 times."""
    voxels = [_balls(seed) for seed in (0, 1)]
    classifier = VoxelClassifier(voxels[0], 3, seed=0)
    found, truth = classifier.predict(voxels[1].features.numpy().T.copy()), voxels[1].labels.numpy()
    scores = dice(found, truth, CLASSES)
    assert scores["Dice bright"] > 0.8
    assert scores["Dice dark"] > 0.6


def _balls(seed: int) -> Voxels:
    draws = np.random.default_rng(seed)
    at = draws.random((6000, 3))
    distance = np.linalg.norm(at - 0.5, axis=1)
    labels = (distance < 0.2).astype(np.int64) + (distance < 0.1)
    features = np.concatenate([at, draws.normal(size=(6000, 2)) + 2 * labels[:, None]], axis=1)
    return Voxels(
        torch.from_numpy(features.astype(np.float32)),
        torch.from_numpy(labels),
        torch.from_numpy(np.where(labels > 0, 1.0, 13.0)),
    )


def test_a_classifier_of_one_class_predicts_it() -> None:
    drawn = Drawn(np.zeros((4, 2), np.int64), np.ones(4, np.int64), np.ones(4))
    classifier = VoxelClassifier(joined([(torch.rand(4, 2), drawn)]), 3, seed=0)
    assert (classifier.predict(np.zeros((2, 3, 3), np.float32)) == 1).all()


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    study = synthetic.study(synthetic.images())
    return segmentation(study, synthetic.Knowing(), patients=(0, 2), **FAST)


def test_the_table_has_every_row_at_every_number_of_patients(table: Table) -> None:
    names = ["pretrained", "random weights", "intensities, voxel classifier"]
    for patients in (6, 2):
        rows = [row for row in table.rows if row.patients == patients]
        assert [row.name for row in rows] == names
        assert [row.samples for row in rows] == [patients] * 3
        assert {row.repeats for row in rows} == {2}
    differences = [row.name for row in table.rows if row.difference]
    assert differences == [f"pretrained - {name}" for name in names[1:]] * 2
    assert list(table.metrics[:3]) == ["Dice", "HD95", "surface Dice"]
    assert (table.test_patients, table.test_samples) == (4, 4)


def test_features_that_know_the_classes_segment_them(table: Table) -> None:
    assert table.score("pretrained", "Dice").value > 0.9
    assert table.score("pretrained", "Dice dark", fraction=2 / 6).value > 0.85
    assert table.score("pretrained", "surface Dice").value > 0.9


def test_fine_tuning_keeps_the_encoder_and_gives_the_same_twice() -> None:
    study = synthetic.study(synthetic.images(crop=(12, 16)))
    encoder = synthetic.Plain(2)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    options = {**FAST, "seeds": 1, "steps": 5}
    first, second = (
        segmentation(study, encoder, mode="finetune", patients=(3,), **options) for _ in range(2)
    )
    assert {"pretrained", "from scratch"} < {row.name for row in first.rows}
    assert first.frame().equals(second.frame())
    for name, value in encoder.state_dict().items():
        assert (value == before[name]).all()


def test_a_head_on_all_stages_sees_what_the_last_one_does_not() -> None:
    """The last stage is blind; what the classes are lies in the stage before it."""

    class Blind(synthetic.Knowing):
        columns_width = 3

        def forward(self, x: torch.Tensor) -> Encoded:
            grid = torch.zeros_like(x).expand(-1, 2, *x.shape[2:])
            return Encoded(grid.mean((2, 3)), None, grid)

        def columns(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x, (x - 0.5).abs(), torch.zeros_like(x)], dim=1)

    study = synthetic.study(synthetic.images(), Blind)
    last, every = (
        segmentation(study, Blind(), stages=stages, patients=(0,), **FAST).score("pretrained", "Dice").value
        for stages in ("last", "all")
    )
    assert last < 0.5
    assert every > 0.9


def test_stages_that_an_encoder_has_not_are_refused() -> None:
    study = synthetic.study(synthetic.images())
    with pytest.raises(
        ConfigError, match="stages: all reads every stage of a decoder, and Plain has no columns"
    ):
        segmentation(study, synthetic.Plain(2), stages="all", patients=(0,), **FAST)
    with pytest.raises(ConfigError, match="stages is last or all; got 'first'"):
        segmentation(study, synthetic.Plain(2), stages="first", patients=(0,), **FAST)  # type: ignore[arg-type]


def test_several_pretrained_encoders_are_repeats() -> None:
    study = synthetic.study(synthetic.images())
    encoders = [synthetic.Knowing(), synthetic.Plain(2), synthetic.Plain(2)]
    table = segmentation(study, encoders, patients=(4,), **{**FAST, "steps": 3})
    assert {row.name: row.repeats for row in table.rows}["pretrained"] == 3


def test_fewer_patients_are_among_more_and_depend_on_the_seed() -> None:
    images = synthetic.images(patients=20, each=2)
    labelled = labelled_images(images, "train", None)
    draws = [few_images(images, labelled, count, seed=1) for count in (10, 5, 2)]
    assert [len(each) for each in draws] == [20, 10, 4]
    assert set(draws[2]) < set(draws[1]) < set(draws[0])
    assert set(few_images(images, labelled, 5, seed=2)) != set(draws[1])
    assert checked_counts((2, 0, 5, 2), 10) == [10, 5, 2]


@pytest.mark.parametrize("slices", [None, "coronal"])
def test_predictions_open_over_their_images(slices: Any, tmp_path: Path) -> None:
    """Of a volume turned from left to right, resampled or cut to slices: same shape, place and classes."""
    files, study = phantoms(tmp_path, slices)
    encoder = synthetic.Plain(study.images.dims)
    options = {**FAST, "seeds": 1, "steps": 20, "patients": (2,)}
    table = segmentation(study, encoder, save=str(tmp_path / "predicted"), **options)
    written = sorted((tmp_path / "predicted" / "2_patients").glob("*.nii.gz"))
    test = study.samples.ids[study.samples.ids["split"] == "test"]
    assert [path.name for path in written] == sorted(f"{key}.nii.gz" for key in set(test["recording"]))
    for path in written:
        predicted, affine = voxels_and_affine(path)
        image, wanted = voxels_and_affine(files / path_of(study)[path.name.removesuffix(".nii.gz")])
        assert predicted.shape == image.shape
        assert affine == pytest.approx(wanted, abs=1e-5)
        assert set(np.unique(predicted)) <= {0, 1, 2}
    assert table.test_samples == len(test)


@pytest.mark.parametrize("slices", [None, "coronal"])
def test_what_is_saved_is_the_mask_where_the_prediction_is_the_truth(slices: Any, tmp_path: Path) -> None:
    """Against the mask file itself: nothing is mirrored or moved on the way there and back."""
    files, study = phantoms(tmp_path, slices)
    images = study.images
    saved = Saved(tmp_path / "predicted", images, list(range(len(images))))
    for index in range(len(images)):
        saved.add(index, np.asarray(images.mask(index)))
    written = sorted((tmp_path / "predicted").glob("*.nii.gz"))
    assert len(written) == 8
    index = pd.read_csv(tmp_path / "predicted" / "index.csv").set_index("recording")["image"].to_dict()
    assert index == {key: path for key, path in path_of(study).items() if key in index}
    assert sorted(index) == [path.name.removesuffix(".nii.gz") for path in written]
    for path in written:
        file = files / path_of(study)[path.name.removesuffix(".nii.gz")].replace("images", "masks")
        truth, (predicted, _) = voxels_and_affine(file)[0], voxels_and_affine(path)
        if slices is None:
            assert (predicted == truth).all()
        else:
            whole = [place for place in range(truth.shape[1]) if predicted[:, place].any()]
            assert whole
            assert (predicted[:, whole] == truth[:, whole]).all()


def path_of(study: ImageStudy) -> dict[str, str]:
    """The image file of each recording."""
    entries = study.samples.manifest.entries
    return {entry.recording: entry.path for entry in entries if "images" in entry.path}


def voxels_and_affine(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The file's array and affine, as nibabel reads them."""
    image: Any = nibabel.load(path)
    return np.asanyarray(image.dataobj).astype(np.int64), image.affine


def test_unlabelled_images_are_not_used() -> None:
    images = synthetic.images(unlabelled=(0, 11))
    assert 0 not in labelled_images(images, "train", None)
    assert 11 not in labelled_images(images, "test", None)
    assert all(images.mask(int(index)) is not None for index in labelled_images(images, "test", None))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patients": (7,)}, "numbers from 1 to 6"),
        ({"patients": ()}, "got none"),
        ({"steps": 0}, "steps is at least 1"),
        ({"overlap": 1.0}, "overlap is from 0 to below 1"),
        ({"tolerance": -1.0}, "tolerance is at least 0"),
        ({"rate": 0.0}, "learning rates are above 0"),
        ({"seeds": 0}, "number of seeds"),
        ({"mode": "probe"}, "one of linear, finetune; got 'probe'"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: dict[str, Any], message: str) -> None:
    study = synthetic.study(synthetic.images())
    with pytest.raises(ConfigError, match=message):
        segmentation(study, synthetic.Knowing(), **{**FAST, **options})


def test_masks_and_a_grid_are_needed() -> None:
    images = synthetic.images()
    with pytest.raises(ConfigError, match="has no grid_width"):
        segmentation(synthetic.study(images), synthetic.Whole(), patients=(2,), **FAST)
    images.classes = ()
    with pytest.raises(ConfigError, match="needs masks"):
        images_of(synthetic.study(images))
    bare = synthetic.images(unlabelled=tuple(range(12)))
    with pytest.raises(DataError, match="0 train patients have a mask"):
        segmentation(synthetic.study(bare), synthetic.Knowing(), **FAST)
