"""Whatever bytes of a file are damaged, it is read or rejected with a reason; nothing else is raised."""

from __future__ import annotations

from pathlib import Path

import nrrd
import numpy as np
import pytest
from image_files import noise, write_nifti, write_slice
from PIL import Image as Pillow

from diptych.data.readable import Unreadable
from diptych_medical import readers
from diptych_medical.image import Reading

VOLUME = noise((6, 7, 8))


def write(path: Path) -> Path:
    """A sound file of the format that the suffix names."""
    if path.suffix == ".dcm":
        write_slice(path, VOLUME[0])
    elif path.suffix == ".nrrd":
        header = {
            "space": "RAS",
            "space directions": np.eye(3),
            "space origin": np.zeros(3),
            "encoding": "raw",
        }
        nrrd.write(str(path), VOLUME, header)
    elif path.suffix in (".nii", ".gz"):
        write_nifti(path, VOLUME)
    elif path.suffix == ".npy":
        np.save(path, VOLUME)
    elif path.suffix == ".npz":
        np.savez(path, image=VOLUME)
    else:
        Pillow.fromarray(np.abs(VOLUME[0]).astype(np.uint8)).save(path)
    return path


@pytest.mark.parametrize(
    "name", ["a.nii", "a.nii.gz", "a.nrrd", "a.dcm", "a.png", "a.tif", "a.jpg", "a.bmp", "a.npy", "a.npz"]
)
def test_damage_is_a_reason_and_no_crash(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name)
    reading = Reading(dims=2 if name[2:] in ("dcm", "png", "tif", "jpg", "bmp") else 3)
    sound = path.read_bytes()
    draw = np.random.default_rng(0)
    reasons = []
    for trial in range(60):
        damaged = bytearray(sound)
        end = len(sound) if trial % 2 else min(len(sound), 400)  # headers more often than their share
        for place in draw.integers(0, end, 1 + trial % 7):
            damaged[place] = draw.integers(0, 256)
        path.write_bytes(bytes(damaged))
        for kind, item in readers.find([path], tmp_path, reading=reading).items:
            try:
                image = readers.read(kind, item, reading)
                assert image.data.shape == (1, *image.header.shape)
            except Unreadable as error:
                reasons.append(str(error))
    assert reasons
    assert not any("Secret" in reason for reason in reasons)
