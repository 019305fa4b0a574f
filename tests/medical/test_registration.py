"""Pairs of test patients, scores of flows that are known, and the registration table of a real method."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import references_masks as naive
import synthetic_images as synthetic
import torch
from phantoms import phantoms
from torch import Tensor

from diptych.errors import ConfigError, DataError, UserError
from diptych.evaluation.table import Table
from diptych_medical.evaluated import labelled_images, patients_at
from diptych_medical.gemini import GEMINI
from diptych_medical.pairs import draw_pairs, pair_scores
from diptych_medical.recipe import ImageStudy
from diptych_medical.registration import registration
from diptych_medical.unet import UNet

CPU = torch.device("cpu")
FAST: dict[str, Any] = {"pairs": 2, "seeds": 2, "draws": 50, "affine_steps": 5, "device": "cpu"}


def still(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    flow = torch.zeros(len(a), a.ndim - 2, *a.shape[2:])
    return flow, flow


def test_without_motion_the_scores_are_those_of_the_masks() -> None:
    images = synthetic.images(shape=(14, 15, 12))
    found = pair_scores(images, (8, 10), still, "aligned", CPU)
    _, (one, other) = images.batch(np.array([8, 10]))
    expected = []
    for moving, fixed in ((one, other), (other, one)):
        known = fixed >= 0
        expected.append(np.mean([naive.dice((moving == k) & known, fixed == k) for k in (1, 2)]))
    assert found["Dice"] == pytest.approx(np.mean(expected), abs=1e-6)
    assert (found["folded, corners (%)"], found["folded, central (%)"]) == (0, 0)
    assert (found["lowest determinant"], found["SD log determinant"]) == (1, 0)
    assert found["round trip (voxels)"] == 0


@pytest.mark.parametrize("space", [(20, 22), (22, 15, 16)])
def test_flows_that_undo_a_shift_score_best(space: tuple[int, ...]) -> None:
    """The partner is the image moved by 2 voxels: the first flow carries the first image into its frame."""
    images = synthetic.images(shape=space)
    value, mask = synthetic.blobs(space, np.random.default_rng(0))
    images.values[0], images.masks[0] = value, mask
    images.values[1], images.masks[1] = np.roll(value, 2, axis=1), np.roll(mask, 2, axis=0)

    def shift(voxels: float) -> Any:
        def flows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
            there, back = (each.clone() for each in still(a, b))
            there[:, 0], back[:, 0] = -voxels, voxels
            return there, back

        return flows

    right = pair_scores(images, (0, 1), shift(2), "aligned", CPU)
    wrong = pair_scores(images, (0, 1), shift(-2), "aligned", CPU)
    assert right["Dice"] == pytest.approx(1.0)
    assert right["round trip (voxels)"] == pytest.approx(0, abs=1e-5)
    assert wrong["Dice"] < pair_scores(images, (0, 1), still, "aligned", CPU)["Dice"] < 1


def test_a_flow_that_turns_space_inside_out_folds_everywhere() -> None:
    images = synthetic.images(shape=(12, 13))

    def mirrored(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        there, back = still(a, b)
        flow = there.clone()
        flow[:, 0] = (a.shape[2] - 1) - 2 * torch.arange(a.shape[2], dtype=torch.float32)[:, None]
        return flow, back

    found = pair_scores(images, (0, 1), mirrored, "aligned", CPU)
    assert found["folded, central (%)"] == pytest.approx(50)  # one direction of two
    assert found["folded, corners (%)"] == pytest.approx(50)
    assert found["lowest determinant"] == pytest.approx(0)  # the mean of -1 and 1
    assert found["round trip (voxels)"] > 2


@pytest.mark.parametrize(("patients", "count"), [(12, 4), (15, 5), (18, 6), (30, 10), (30, 1000)])
def test_every_patient_is_in_as_many_pairs_as_the_others(patients: int, count: int) -> None:
    images = synthetic.images(patients=patients, each=2)
    test = labelled_images(images, "test", None)
    pairs = draw_pairs(images, test, count)
    owners = [tuple(patients_at(images, np.array(pair))) for pair in pairs]
    assert all(one != other for one, other in owners)
    assert len({frozenset(each) for each in owners}) == len(pairs)
    number = len(set(patients_at(images, test)))
    assert len(pairs) == min(count, number * (number - 1) // 2)
    times = Counter(name for each in owners for name in each)
    assert max(times.values()) - min(times.values(), default=0) <= (
        0 if count % number == 0 or count > 100 else 1
    )
    assert draw_pairs(images, test, count) == pairs


def test_both_of_a_pair_share_a_label() -> None:
    images = synthetic.images(patients=24)
    test = labelled_images(images, "test", None)
    sex = images.samples.labels["sex"]
    pairs = draw_pairs(images, test, 100, ("sex",))
    assert len(pairs) == 12
    assert all(sex[one] == sex[other] for one, other in pairs)


def test_labels_that_no_pair_can_share_are_refused() -> None:
    images = synthetic.images()
    test = labelled_images(images, "test", None)
    with pytest.raises(ConfigError, match="no label 'view'; labels: sex"):
        draw_pairs(images, test, 3, ("view",))
    images.samples.labels["own"] = [str(k) for k in range(12)]
    with pytest.raises(DataError, match="no two test patients share own"):
        draw_pairs(images, test, 3, ("own",))
    images.samples.labels.loc[11, "own"] = None
    with pytest.raises(ConfigError, match="'own' is missing for 1 test images"):
        draw_pairs(images, test, 3, ("own",))


class Run:
    """A run of GEMINI on phantoms, untrained; its checkpoints are as a run writes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        _, self.study = phantoms(
            folder, encoder=lambda c, d: UNet(c, d, widths=(8, 16)), method=GEMINI(integrate=5)
        )

    def checkpoint(self, name: str, seed: int, scale: float) -> str:
        torch.manual_seed(seed)
        method = self.study.method(self.study.new_encoder())
        state = {f"method.{key}": value for key, value in method.state_dict().items()}
        last = [key for key in state if "registration.deformer" in key][-2:]
        for key in last:  # at the start its flows are nearly 0
            state[key] = scale * torch.randn_like(state[key])
        torch.save({"state_dict": state}, self.folder / name)
        return str(self.folder / name)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def study(run: Run) -> ImageStudy:
    return run.study


@pytest.fixture(scope="module")
def table(run: Run, study: ImageStudy) -> Table:
    return registration(
        study,
        study.new_encoder(),
        run_checkpoint=run.checkpoint("last.ckpt", 1, 0.4),
        displacement_checkpoint=run.checkpoint("plain.ckpt", 2, 0.4),
        pictures=str(run.folder / "pictures"),
        pictured=1,
        **FAST,
    )


def test_the_table_has_every_row(table: Table) -> None:
    names = [
        "pretrained",
        "pretrained, not integrated",
        "trained on displacements",
        "random weights",
        "affine only",
        "no registration",
    ]
    assert [row.name for row in table.rows if not row.difference] == names
    assert [row.repeats for row in table.rows][:6] == [1, 1, 1, 2, 1, 1]
    assert table.levels == ["pair"]
    assert list(table.metrics) == [
        "Dice", "folded, corners (%)", "round trip (voxels)", "folded, central (%)", "lowest determinant",
        "SD log determinant", "Dice core", "Dice pocket",
    ]  # fmt: skip


def test_integration_folds_less_and_random_weights_hardly_move(table: Table) -> None:
    folds = {
        name: table.score(name, "folded, corners (%)").value
        for name in ("pretrained", "pretrained, not integrated", "trained on displacements")
    }
    assert folds["pretrained"] < folds["pretrained, not integrated"]
    assert folds["trained on displacements"] > 0
    assert table.score("random weights", "Dice").value == pytest.approx(
        table.score("no registration", "Dice").value, abs=0.05
    )


def test_pictures_of_the_first_pair_are_there(table: Table, run: Run, study: ImageStudy) -> None:
    names = sorted(path.name for path in (run.folder / "pictures").iterdir())
    keys = set(study.samples.ids["recording"])
    assert len(names) == 2
    for name, kind in zip(names, ("likeness", "warped"), strict=True):
        one, other, last = name.removesuffix(".png").split("-")
        assert {one, other} <= keys
        assert last == kind


def test_a_checkpoint_of_another_network_is_refused(run: Run, study: ImageStudy, tmp_path: Path) -> None:
    state = torch.load(run.checkpoint("whole.ckpt", 1, 0.4), weights_only=True)["state_dict"]
    state.pop(next(iter(state)))
    torch.save({"state_dict": state}, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="of another method"):
        registration(study, study.new_encoder(), run_checkpoint=tmp_path / "other.ckpt", **FAST)


def test_what_cannot_register_is_refused(run: Run, study: ImageStudy, tmp_path: Path) -> None:
    encoder = study.new_encoder()
    with pytest.raises(ConfigError, match="needs run_checkpoint"):
        registration(study, encoder, **FAST)
    with pytest.raises(ConfigError, match="flows of one run"):
        registration(study, [encoder, encoder], run_checkpoint="x", **FAST)
    with pytest.raises(ConfigError, match="at least 1"):
        registration(study, encoder, run_checkpoint="x", **{**FAST, "pairs": 0})
    with pytest.raises(ConfigError, match=r"point: \(99, 0, 0\) lies outside"):
        registration(
            study,
            encoder,
            run_checkpoint=run.checkpoint("point.ckpt", 1, 0.4),
            pictures=str(tmp_path),
            point=(99, 0, 0),
            **FAST,
        )
