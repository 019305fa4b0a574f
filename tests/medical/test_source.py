"""A folder of images becomes a data set: masks, channels, labels and patients found, prepared once, served in boxes."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from image_files import noise, write_nifti, write_series
from numpy.typing import NDArray
from PIL import Image as Pillow

from diptych.data.identity import Split
from diptych.errors import ConfigError, DataError
from diptych_medical import geometry, pieces
from diptych_medical.simulate import CLASSES, simulate
from diptych_medical.source import Imaging, Label, Masks, Prepared, Source, prepare

RAW = Imaging(intensity="none", precision="float32")


def run(
    folder: Path,
    imaging: Imaging = RAW,
    masks: Masks | None = None,
    labels: dict[str, Label] | None = None,
    **settings: Any,
) -> Prepared:
    source = Source(path=str(folder), **settings)
    return prepare(source, imaging, masks, labels or {}, Split(), cache=folder.parent / "cache", workers=1)


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "data", patients=8, side=16, workers=1)


def simulated(folder: Path, imaging: Imaging = RAW, **settings: Any) -> Prepared:
    return run(
        folder,
        imaging,
        Masks(files="masks/{record}.nii.gz", classes=CLASSES),
        {"lesion": Label(column="lesion"), "contrast": Label(column="contrast")},
        include=["images/*"],
        table="simulated.csv",
        table_id="patient",
        **settings,
    )


def box_by_loops(
    image: NDArray[Any], corner: tuple[int, ...], shape: tuple[int, ...], fill: float
) -> NDArray[np.float64]:
    """A box of (*space), voxel by voxel."""
    out = np.full(shape, fill, float)
    for place in np.ndindex(*shape):
        at = tuple(c + p for c, p in zip(corner, place, strict=True))
        if all(0 <= a < s for a, s in zip(at, image.shape, strict=True)):
            out[place] = image[at]
    return out


def test_images_masks_and_labels_of_a_folder_are_found(phantoms: Path) -> None:
    data = simulated(phantoms)
    assert (len(data), data.channels, data.dims) == (8, 1, 3)
    assert data.classes == ("background", "core", "pocket")
    assert data.labelled.all()
    assert data.names == {"lesion": ("none", "present"), "contrast": ("bright", "dark")}
    for name, classes in data.names.items():
        texts = data.samples.labels[name].tolist()
        assert [classes[i] for i in data.groups[name]] == texts
    assert len(np.unique(data.groups["patient"])) == 8
    assert data.report["masks"] == "8 of 8 images (core, pocket)"
    assert data.report["quarantine"] == "none"
    for i in range(8):
        mask = data.mask(i)
        assert mask is not None
        assert mask.dtype == np.int64
        assert mask.shape == data.shape(i) == data.image(i).shape[1:]
        assert data.spacing(i) == (2.0, 2.0, 2.0)
        core, pocket = data.image(i)[0][mask == 1].mean(), data.image(i)[0][mask == 2].mean()
        assert (core > pocket) == (data.samples.labels["contrast"][i] == "bright")
    side = {entry.path: entry.facts.get("sidecar") for entry in data.samples.manifest.entries}
    assert len(side) == 16
    assert all(bool(flag) == path.startswith("masks/") for path, flag in side.items())


def test_boxes_are_cut_and_padded_as_by_hand(tmp_path: Path) -> None:
    for seed, shape in enumerate([(9, 8, 12), (13, 20, 16), (16, 24, 11)]):
        write_nifti(tmp_path / "data" / f"{seed}.nii", noise(shape, seed), np.diag([2.0, 2, 2, 1]))
        write_nifti(
            tmp_path / "data" / f"{seed}_m.nii", noise(shape, seed + 9) // 1001 + 1, np.diag([2.0, 2, 2, 1])
        )
    masks = Masks(files="{record}_m.nii")
    data = run(tmp_path / "data", replace(RAW, crop=(28.0, 44.0, 24.0)), masks)
    assert data.crop_shape == (14, 22, 12)  # voxels of 2 mm
    indices = np.array([2, 0, 1, 2])
    corners = np.array([[1, -3, 2], [-2, 0, 4], [-2, -7, 0], [3, -1, -2]])
    x, maps = data.batch(indices, corners)
    assert maps is not None
    assert (x.dtype, maps.dtype) == (np.float32, np.int64)
    for row, index in enumerate(indices.tolist()):
        image, mask = data.image(index), data.mask(index)
        assert mask is not None
        corner = tuple(corners[row].tolist())
        low = float(image.min())  # unscaled images go on with their lowest value
        assert low < -900
        np.testing.assert_array_equal(x[row, 0], box_by_loops(image[0], corner, data.crop_shape, low))
        np.testing.assert_array_equal(maps[row], box_by_loops(mask, corner, data.crop_shape, -1))


def test_boxes_lie_in_the_middle_or_at_relative_places(phantoms: Path) -> None:
    data = simulated(phantoms, replace(RAW, crop=(20.0, 20.0, 60.0)))
    indices = np.arange(8)
    spare = np.array([data.shape(i) for i in range(8)]) - np.array(data.crop_shape)
    assert (spare[:, 2] < 0).all()
    for places, expected in (
        (None, [[n // 2 for n in row] for row in spare.tolist()]),
        (np.zeros((8, 3)), [[0, 0, z // 2] for _, _, z in spare.tolist()]),
        (np.full((8, 3), 1 - 2**-53), [[x, y, z // 2] for x, y, z in spare.tolist()]),
    ):
        assert data.corners(indices, places).tolist() == expected
    draw = np.random.default_rng(0).random((8 * 500, 3))
    corners = data.corners(np.repeat(indices, 500), draw)[:, 0].reshape(8, 500)
    for row, room in zip(corners, spare[:, 0].tolist(), strict=True):
        assert set(row.tolist()) == set(range(room + 1))


def test_without_a_crop_a_batch_holds_the_largest_image(phantoms: Path) -> None:
    data = simulated(phantoms)
    largest = np.array([data.shape(i) for i in range(8)]).max(axis=0)
    assert data.crop_shape == tuple(largest.tolist())


def test_without_masks_a_batch_has_none(phantoms: Path) -> None:
    data = run(phantoms, include=["images/*"])
    assert data.classes == ()
    assert not data.labelled.any()
    assert data.mask(0) is None
    assert data.batch(np.arange(2))[1] is None


def test_an_image_without_mask_is_unlabelled(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_nifti(tmp_path / "data" / f"{name}.nii.gz", noise((6, 6, 6), seed=ord(name)))
    write_nifti(tmp_path / "data" / "a_seg.nii.gz", np.ones((6, 6, 6), np.uint8))
    data = run(tmp_path / "data", masks=Masks(files="{record}_seg.nii.gz"))
    assert len(data) == 2  # the mask is not an image, although it lies among them
    assert data.labelled.tolist() == [True, False]
    masks = data.batch(np.arange(2))[1]
    assert masks is not None
    assert [np.unique(each).tolist() for each in masks] == [[1], [-1]]
    assert data.report["masks"] == "1 of 2 images (foreground)"


@pytest.mark.parametrize("codes", ["LPS", "SRA"])
def test_a_mask_may_have_other_array_axes_than_its_image(tmp_path: Path, codes: str) -> None:
    data = noise((5, 6, 7))
    labels = (data > 300).astype(np.uint8)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    write_nifti(tmp_path / "data" / "a.nii", data, affine)
    turn = geometry.orientation_of(geometry.from_codes(codes, (1, 1, 1)))
    turned = geometry.turn_back(labels, turn)
    to_ras = geometry.turned_affine(np.eye(4), turned.shape, turn)
    write_nifti(tmp_path / "data" / "a_mask.nii", turned, affine @ np.linalg.inv(to_ras))
    prepared = run(tmp_path / "data", masks=Masks(files="{record}_mask.nii"))
    np.testing.assert_array_equal(prepared.mask(0), labels)


def test_further_channels_are_stacked_in_order(tmp_path: Path) -> None:
    parts = [noise((5, 6, 7), seed) for seed in range(6)]
    for case in range(2):
        for channel, name in enumerate(("t1", "t2", "flair")):
            write_nifti(tmp_path / "data" / f"case{case}_{name}.nii.gz", parts[3 * case + channel])
    data = run(
        tmp_path / "data",
        replace(RAW, channels=3),
        names="(?P<case>case[0-9])_t1",
        patient="name:case",
        channel_files=["{case}_t2.nii.gz", "{case}_flair.nii.gz"],
    )
    assert len(data) == 2
    for case in range(2):
        np.testing.assert_array_equal(data.image(case), parts[3 * case : 3 * case + 3])
    assert len(data.samples.manifest) == 6


def test_the_header_names_patients_and_labels_and_nothing_of_it_is_written(tmp_path: Path) -> None:
    for case, patient in enumerate(("Miller7", "Miller7", "Jones8")):
        folder = tmp_path / "data" / f"study{case}"
        write_series(
            folder, noise((6, 8, 8), case), patient=patient, series=f"s{case}", PatientSex="FM"[case % 2]
        )
    data = run(tmp_path / "data", patient="header", labels={"sex": Label(rule="header:PatientSex")})
    ids = data.samples.ids
    assert ids["patient"].nunique() == 2
    assert ids["recording"].nunique() == 3
    assert data.samples.labels["sex"].tolist() == ["F", "M", "F"]
    written = [file.read_bytes() for file in (tmp_path / "cache").rglob("*") if file.is_file()]
    data.samples.manifest.write_public(tmp_path / "manifest.json")
    said = [str(data.report), ids.to_csv(), (tmp_path / "manifest.json").read_text()]
    for name in ("Miller", "Jones", "Secret"):
        assert not any(name in text for text in said)
        assert not any(name.encode() in content for content in written)


def test_patients_of_the_header_that_a_rule_parts_are_counted(tmp_path: Path) -> None:
    for case in range(3):
        write_series(
            tmp_path / "data" / str(case), noise((6, 8, 8), case), series=f"s{case}", patient=f"P{case // 2}"
        )
    assert (
        "1 of 2 stand under several ids"
        in run(tmp_path / "data", patient="path").report["patient ids of headers"]
    )
    assert "patient ids of headers" not in run(tmp_path / "data", patient="header").report


def test_slices_of_volumes_are_samples_of_their_recording(phantoms: Path) -> None:
    whole = simulated(phantoms)
    masks = Masks(files="masks/{record}.nii.gz", classes=CLASSES, empty="keep")
    imaging = Imaging(dims=2, slices="coronal", every=3, intensity="none", precision="float32")
    data = run(phantoms, imaging, masks, include=["images/*"])
    expected = []
    for i in range(8):
        image, mask = whole.image(i), whole.mask(i)
        assert mask is not None
        expected += [(image[:, :, k], mask[:, k], i, k) for k in range(0, image.shape[2], 3)]
    assert len(data) == len(expected)
    for row, (image, mask, recording, _) in enumerate(expected):
        np.testing.assert_array_equal(data.image(row), image)
        np.testing.assert_array_equal(data.mask(row), mask)
        assert data.samples.ids["recording"][row] == whole.samples.ids["recording"][recording]
    assert data.groups["place"].tolist() == [10 * k // whole.shape(i)[1] for _, _, i, k in expected]
    assert data.report["slices"] == f"{len(expected)} coronal; 0 constant ones left out"


def test_arrays_with_labels_beside_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    images, labels = noise((5, 8, 8)), np.array([[0], [1], [1], [0], [1]])
    np.savez(tmp_path / "data" / "set.npz", images=images, labels=labels)
    data = run(
        tmp_path / "data",
        replace(RAW, dims=2),
        labels={"finding": Label(rule="header:labels", classes=["normal=^0$", "ill=^1$"])},
    )
    np.testing.assert_array_equal(np.stack([data.image(i)[0] for i in range(5)]), images)
    assert data.samples.labels["finding"].tolist() == ["normal", "ill", "ill", "normal", "ill"]


def test_pictures_with_instances_as_masks(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    maps = {}
    for seed, shape in enumerate([(8, 9), (12, 7)]):
        grey = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
        maps[seed] = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint16) * 300
        Pillow.fromarray(grey).save(tmp_path / "data" / "images" / f"{seed}.png")
        Pillow.fromarray(maps[seed]).save(tmp_path / "data" / "labels" / f"{seed}.png")
    data = run(
        tmp_path / "data",
        Imaging(dims=2, crop=(8, 8)),
        Masks(files="labels/{record}.png"),
        include=["images/*"],
    )
    for i in range(2):
        np.testing.assert_array_equal(data.mask(i), maps[i] > 0)
        assert (data.image(i).min(), data.image(i).max()) == (0, 1)
    assert data.crop_shape == (8, 8)  # pixels: pictures carry no spacing


def stamps(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in cache.rglob("*") if path.is_file()}


def test_prepared_images_are_found_again_and_only_what_changed_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diptych_medical.assemble._VOXELS_PER_JOB", 1)  # every image is a piece of its own
    for seed in range(4):
        write_nifti(tmp_path / "data" / f"{seed}.nii.gz", noise((6, 6, 6), seed))
    first = run(tmp_path / "data")
    made = stamps(tmp_path / "cache")
    assert len(made) == 8
    again = run(tmp_path / "data")
    assert stamps(tmp_path / "cache") == made
    np.testing.assert_array_equal(again.batch(np.arange(4))[0], first.batch(np.arange(4))[0])
    write_nifti(tmp_path / "data" / "2.nii.gz", noise((6, 6, 6), 9))
    changed = run(tmp_path / "data")
    now = stamps(tmp_path / "cache")
    assert {name: now[name] for name in made} == made
    assert len(now) == 10
    np.testing.assert_array_equal(changed.image(2)[0], noise((6, 6, 6), 9))
    run(tmp_path / "data", replace(RAW, crop=(4, 4, 4), small="reject", max_quarantined=0.1))
    assert stamps(tmp_path / "cache") == now  # these act on prepared images
    run(tmp_path / "data", Imaging(intensity="mr"))
    assert len(stamps(tmp_path / "cache")) == 18


def test_a_preparation_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych_medical.assemble._VOXELS_PER_JOB", 1)
    for seed in range(4):
        write_nifti(tmp_path / "data" / f"{seed}.nii.gz", noise((6, 6, 6), seed))
        write_nifti(tmp_path / "data" / f"{seed}_m.nii.gz", (noise((6, 6, 6), seed) > 0).astype(np.uint8))
    masks = Masks(files="{record}_m.nii.gz")
    whole = run(tmp_path / "data", masks=masks)
    left = stamps(tmp_path / "cache")
    targets = sorted(path.with_suffix("") for path in (tmp_path / "cache").rglob("*.npz"))
    targets[0].with_suffix(".npz").unlink()
    targets[1].with_suffix(".npz").write_bytes(b"PK cut")
    pieces.mask_path(targets[2]).unlink()
    again = run(tmp_path / "data", masks=masks)
    now = stamps(tmp_path / "cache")
    kept = {name for name in now if left.get(name) == now[name]}
    assert len(now) == 12
    assert {name.split(".")[0] for name in kept} == {targets[3].name}
    for one, other in zip(whole.batch(np.arange(4)), again.batch(np.arange(4)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_cache_holds_half_precision_where_asked(phantoms: Path) -> None:
    half = simulated(phantoms, Imaging(intensity="mr", precision="float16"))
    full = simulated(phantoms, Imaging(intensity="mr", precision="float32"))
    assert half.image(0).dtype == np.float32
    np.testing.assert_allclose(half.image(0), full.image(0), rtol=2**-11, atol=1e-7)
    assert not np.array_equal(half.image(0), full.image(0))


def test_a_worker_gets_paths_and_no_maps(phantoms: Path) -> None:
    data = simulated(phantoms)
    batch, masks = data.batch(np.arange(8))
    sent = pickle.dumps(data.store)
    assert len(sent) < batch.nbytes / 8
    images, maps = pickle.loads(sent).crops(
        np.arange(8), data.corners(np.arange(8)), data.crop_shape, masks=True
    )
    np.testing.assert_array_equal(images, batch)
    np.testing.assert_array_equal(maps, masks)


def test_a_manifest_gives_the_same_data_and_is_checked(phantoms: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    for path in phantoms.rglob("*.*"):
        target = folder / path.relative_to(phantoms)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    first = simulated(folder)
    first.samples.manifest.write(tmp_path / "manifest.csv")
    settings: dict[str, Any] = {
        "imaging": RAW,
        "masks": Masks(files="masks/{record}.nii.gz", classes=CLASSES),
    }
    again = prepare(
        Source(path=str(tmp_path / "manifest.csv")),
        labels={},
        split=Split(),
        cache=tmp_path / "c",
        **settings,
    )
    assert again.samples.manifest.digest == first.samples.manifest.digest
    assert again.labelled.all()
    mask = folder / "masks" / "simulated_03.nii.gz"
    mask.write_bytes(mask.read_bytes() + b"\0")
    with pytest.raises(DataError, match="1 of 16 files are not what the manifest says"):
        prepare(
            Source(path=str(tmp_path / "manifest.csv")),
            labels={},
            split=Split(),
            cache=tmp_path / "c",
            **settings,
        )


def test_spacings_that_differ_need_a_word_in_the_config(tmp_path: Path) -> None:
    for seed, spacing in enumerate([1.0, 1.005, 1.0, 2.0]):
        write_nifti(tmp_path / "data" / f"{seed}.nii.gz", noise((8, 8, 8), seed), np.diag([spacing, 1, 1, 1]))
    with pytest.raises(
        ConfigError, match=r"different spacings: 1 x 1 x 1 mm \(3\), 2 x 1 x 1 mm \(1\); set image.spacing"
    ):
        run(tmp_path / "data")
    assert run(tmp_path / "data", replace(RAW, mixed_spacing=True)).spacing(3) == (2, 1, 1)
    even = run(tmp_path / "data", replace(RAW, spacing=(1.0, 1.0, 1.0), crop=(8, 8, 8)))
    assert [even.shape(i) for i in range(4)] == [(8, 8, 8)] * 3 + [(16, 8, 8)]
    assert run(tmp_path / "data", exclude=["3.*"]).crop_shape == (8, 8, 8)


def test_the_spacing_is_compared_after_the_turn(tmp_path: Path) -> None:
    write_nifti(tmp_path / "data" / "0.nii", noise((8, 6, 4)), np.diag([1.0, 2.0, 3.0, 1]))
    write_nifti(tmp_path / "data" / "1.nii", noise((4, 6, 8)), geometry.from_codes("SPL", (3.0, 2.0, 1.0)))
    data = run(tmp_path / "data", replace(RAW, crop=(4.0, 8.0, 6.0)))
    assert [data.shape(i) for i in range(2)] == [(8, 6, 4)] * 2
    assert data.crop_shape == (4, 4, 2)


def test_trials_join_images_of_a_patient(tmp_path: Path) -> None:
    for seed, name in enumerate(("p1_v1_a", "p1_v1_b", "p1_v2_a", "p2_v1_a")):
        write_nifti(tmp_path / "data" / f"{name}.nii", noise((6, 6, 6), seed))
    names = "(?P<patient>p[0-9])_(?P<visit>v[0-9])"
    ids = run(tmp_path / "data", names=names, patient="name:patient", trial="name:visit").samples.ids
    assert ids["trial"].nunique() == 3
    assert ids["trial"][0] == ids["trial"][1] != ids["trial"][2]
    assert ids["trial"][0] != ids["trial"][3]


def test_simulated_volumes_are_the_same_every_time(phantoms: Path, tmp_path: Path) -> None:
    other = simulate(tmp_path / "again", patients=8, side=16, workers=1)
    for path in phantoms.rglob("*.*"):
        assert (other / path.relative_to(phantoms)).read_bytes() == path.read_bytes()
    codes = [nibabel.aff2axcodes(nibabel.load(path).affine) for path in sorted((other / "images").iterdir())]
    assert codes == [tuple("RAS"), tuple("LPS")] * 4
    assert simulate(other, patients=8, side=16, workers=1) == other
    with pytest.raises(DataError, match="holds other files than this simulation"):
        simulate(other, patients=4, side=16, workers=1)


def test_the_manifest_states_what_the_files_are(phantoms: Path) -> None:
    entry = next(
        each for each in simulated(phantoms).samples.manifest.entries if each.path.startswith("images/")
    )
    assert entry.facts["format"] == "nifti"
    assert entry.facts["spacing"] == [2.0, 2.0, 2.0]
    assert entry.facts["channels"] == 1
    assert len(entry.facts["shape"]) == 3
    assert len(entry.facts["content"]) == 64
    assert json.dumps(entry.facts)
