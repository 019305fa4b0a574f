"""Real images become data sets, and labels find their way back to the files (with DIPTYCH_DATA)."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from diptych.data.identity import Split
from diptych.errors import DataError
from diptych_medical.prepare import write_prediction
from diptych_medical.source import Imaging, Label, Masks, Prepared, Source, prepare

DATA = os.environ.get("DIPTYCH_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="DIPTYCH_DATA is not set: real images are not part of the project"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(cache: Path, imaging: Imaging, masks: Masks | None = None, **settings: Any) -> Prepared:
    labels = settings.pop("labels", {})
    return prepare(Source(**settings), imaging, masks, labels, Split(), cache=cache, workers=1)


def test_hippocampus_masks_come_back_voxel_by_voxel(cache: Path, tmp_path: Path) -> None:
    masks = Masks(files="labelsTr/{record}.nii.gz", classes={"anterior": 1, "posterior": 2})
    data = run(
        cache,
        Imaging(intensity="mr"),
        masks,
        path="$DIPTYCH_DATA/mri3d/msd_hippocampus",
        include=["imagesTr/*"],
    )
    assert (len(data), len(data.samples.quarantine), int(data.labelled.sum())) == (160, 0, 160)
    files = sorted(Path(f"{DATA}/mri3d/msd_hippocampus/labelsTr").glob("*.gz"))
    for index in range(0, 160, 16):
        mask = data.mask(index)
        assert mask is not None
        written = nibabel.load(write_prediction(tmp_path / f"{index}.nii.gz", mask, data, index))
        original = nibabel.load(files[index])
        np.testing.assert_array_equal(np.asarray(written.dataobj), np.asarray(original.dataobj))
        np.testing.assert_allclose(written.affine, original.affine, atol=1e-6)
    x, _ = data.batch(np.arange(160))
    assert x.shape == (160, 1, 39, 59, 45)
    assert (x.min(), x.max()) == (0, 1)


def test_lesions_in_nrrd_keep_their_volume_and_place(cache: Path) -> None:
    def lesions(spacing: tuple[float, ...] | None) -> Prepared:
        return run(
            cache,
            Imaging(intensity="mr", spacing=spacing, mixed_spacing=spacing is None),
            Masks(files="{case}_label.nrrd"),
            path="$DIPTYCH_DATA/mri3d/pyradiomics_lesions",
            names="(?P<case>[a-z]+[0-9])_",
            patient="name:case",
        )

    own, even = lesions(None), lesions((1.0, 1.0, 2.0))
    assert (len(own), len(even)) == (3, 3)
    for i in range(3):
        volumes, centres = [], []
        for data in (own, even):
            mask, spacing = data.mask(i), np.array(data.spacing(i))
            assert mask is not None
            volumes.append((mask == 1).sum() * spacing.prod())
            place = np.argwhere(mask == 1).mean(axis=0)
            affine = data.stored(i).affine
            centres.append(affine[:3, :3] @ place + affine[:3, 3])
        assert abs(volumes[1] / volumes[0] - 1) < 0.15  # the smallest has 143 voxels
        assert np.abs(centres[1] - centres[0]).max() < 0.5  # mm


def test_a_head_ct_of_unequal_gaps_and_tilt_is_refused_or_mended(cache: Path) -> None:
    source = {"path": "$DIPTYCH_DATA/ct3d/ge_head_ct_dicom", "patient": "header"}
    with pytest.raises(DataError, match=r"none of 1 images can be read: unequal gaps: slices lie"):
        run(cache, Imaging(intensity="ct"), **source)
    mended = Imaging(intensity="ct", window=(0, 80), gaps="resample", tilt="correct", spacing=(2, 2, 4))
    data = run(cache, mended, **source)
    assert len(data) == 1
    image = data.image(0)[0]
    assert data.spacing(0) == pytest.approx((2, 2, 4))
    assert 200 < image.shape[0] * 2 < 320  # mm
    middle = image[:, :, image.shape[2] // 2]
    assert (middle == 1).any()  # bone
    assert ((middle > 0.2) & (middle < 0.8)).mean() > 0.05  # brain
    left_right = np.argwhere(image == 1)[:, 0].mean() / image.shape[0]
    assert 0.35 < left_right < 0.65


def test_nuclei_of_every_kind_and_size(cache: Path) -> None:
    data = run(
        cache,
        Imaging(dims=2, colour="grey", crop=(128, 128)),
        Masks(files="labels/{record}.png"),
        path="$DIPTYCH_DATA/img2d/dsb2018_nuclei",
        include=["images/*"],
        table="index.csv",
        table_id="id",
        labels={"kind": Label(column="kind")},
    )
    with Path(f"{DATA}/img2d/dsb2018_nuclei/index.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
    assert len(data) == len(rows) == 324
    assert data.samples.labels["kind"].tolist() == [row["kind"] for row in rows]
    assert [data.shape(i) for i in range(324)] == [(int(row["height"]), int(row["width"])) for row in rows]
    x, masks = data.batch(np.arange(0, 324, 20))
    assert x.shape == (17, 1, 128, 128)
    assert set(np.unique(masks)) == {0, 1}


def test_chest_x_rays_with_the_labels_of_their_archive(cache: Path) -> None:
    data = run(
        cache,
        Imaging(dims=2, intensity="none", precision="float32"),
        path="$DIPTYCH_DATA/img2d/pneumoniamnist_val_test",
        copies="reject",
        labels={"finding": Label(rule="header:labels", classes=["normal=^0$", "pneumonia=^1$"])},
    )
    assert len(data) == 1145
    assert data.samples.quarantine.kinds() == {"copy": 3}
    archive = np.load(f"{DATA}/img2d/pneumoniamnist_val_test/pneumoniamnist_val_test.npz")
    first: dict[bytes, str] = {}
    for name in ("val", "test"):
        for picture, label in zip(archive[f"{name}_images"], archive[f"{name}_labels"].ravel(), strict=True):
            first.setdefault(picture.tobytes(), "pneumonia" if label else "normal")
    served = [data.image(i).astype(np.uint8).tobytes() for i in range(1145)]
    assert served == list(first)
    assert data.samples.labels["finding"].tolist() == list(first.values())
