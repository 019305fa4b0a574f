"""Batches of prepared volumes against MONAI's plain Dataset: milliseconds per batch of 4 with masks, one thread.

    python tests/benchmarks/medical_loading.py [--batches 12]

The volumes are simulated (24 of about 64 voxels a side, NIfTI, gzip), boxes of 48 voxels a side from the middle. The
contender reads and decompresses each volume and its mask, turns them to RAS, scales by percentiles and cuts the
box anew each time; both read from the page cache. What the first preparation takes is printed too: an epoch of
the contender takes about as long.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measuring import milliseconds
from monai.data import Dataset
from monai.transforms import (
    CenterSpatialCropd,
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    Orientationd,
    ScaleIntensityRangePercentilesd,
)
from numpy.typing import NDArray

from diptych.data.identity import Split
from diptych_medical.simulate import simulate
from diptych_medical.source import Imaging, Masks, Prepared, Source, prepare

BATCH = 4
BOX = 48  # voxels of 2 mm
Arrays = tuple[NDArray[np.float32], NDArray[np.int64]]


def prepared_volumes(folder: Path) -> tuple[Prepared, float]:
    """The data set, and the seconds that its preparation took in this process."""
    start = time.perf_counter()
    data = prepare(
        Source(path=str(folder), include=["images/*"]),
        Imaging(intensity="mr", crop=(2.0 * BOX,) * 3, precision="float32"),
        Masks(files="masks/{record}.nii.gz", classes={"core": 1, "pocket": 2}),
        {},
        Split(),
        cache=folder.parent / "cache",
        workers=1,
    )
    return data, time.perf_counter() - start


def with_monai(folder: Path) -> Callable[[NDArray[np.int64]], Arrays]:
    """Reads the same boxes anew each time."""
    files = [
        {"image": str(path), "mask": str(folder / "masks" / path.name)}
        for path in sorted((folder / "images").iterdir())
    ]
    both = ["image", "mask"]
    with warnings.catch_warnings():  # MONAI makes readers of every kind, one of which misses its codec
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        load = LoadImaged(both, reader="NibabelReader")
    steps: list[Any] = [
        load,
        EnsureChannelFirstd(both),
        Orientationd(both, axcodes="RAS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
        ScaleIntensityRangePercentilesd("image", lower=0.5, upper=99.5, b_min=0, b_max=1, clip=True),
        CenterSpatialCropd(both, roi_size=(BOX,) * 3),
    ]
    data = Dataset(files, Compose(steps))

    def batch(indices: NDArray[np.int64]) -> Arrays:
        read = [data[int(index)] for index in indices]
        images = np.stack([np.asarray(each["image"], np.float32) for each in read])
        return images, np.stack([np.asarray(each["mask"][0], np.int64) for each in read])

    return batch


def main() -> None:
    """Print both medians with their ranges and the ratio; fail where the boxes differ."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, default=12, help="batches to time (default: %(default)s)")
    count = parser.parse_args().batches
    with tempfile.TemporaryDirectory() as place:
        folder = simulate(Path(place) / "simulated", patients=24, side=64, workers=1)
        data, first = prepared_volumes(folder)
        _, again = prepared_volumes(folder)
        plain = with_monai(folder)
        draw = np.random.default_rng(0)
        batches = [draw.choice(len(data), BATCH, replace=False) for _ in range(count)]
        (images, masks), (read, read_masks) = data.batch(batches[0]), plain(batches[0])
        np.testing.assert_allclose(images, read, atol=1e-5)
        np.testing.assert_equal(masks, read_masks)
        print(f"preparation of 24 volumes: {first:.2f} s, from the cache {again:.2f} s")
        medians = {}
        for name, work in (("prepared", data.batch), ("MONAI", plain)):
            times = milliseconds(work, batches)
            medians[name] = statistics.median(times)
            print(f"{name:>10}: {medians[name]:9.3f} ms a batch ({min(times):.3f} to {max(times):.3f})")
        print(f"MONAI's plain Dataset takes {medians['MONAI'] / medians['prepared']:.0f} times as long")


if __name__ == "__main__":
    main()
