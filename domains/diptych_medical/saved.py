"""Label maps in files, in the space of the images they were predicted from."""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np

from diptych.data.atomic import replacing
from diptych_medical.evaluated import Images, Labels
from diptych_medical.prepare import write_prediction

INDEX = "index.csv"


class Saved:
    """Writes one file an image, and one a volume where images are its slices, once the last slice is there.

    Beside them ``index.csv`` says which image each belongs to. It holds paths, as the manifest does: keep the folder
    where the data are kept.

    Args:
        folder: Where to; made where it is not there. Files are called by the salted key of the recording.
        images: The data set.
        expected: The images that will come.
    """

    def __init__(self, folder: Path, images: Images, expected: list[int]) -> None:
        self.folder = folder
        self.images = images
        recordings = images.samples.ids["recording"].to_numpy(dtype=np.str_)
        self._recording = {index: str(recordings[index]) for index in expected}
        self._missing: dict[str, set[int]] = defaultdict(set)
        for index, recording in self._recording.items():
            self._missing[recording].add(index)
        self._kept: dict[str, dict[int, Labels]] = defaultdict(dict)
        self._written = False

    def add(self, index: int, predicted: Labels) -> None:
        """Take one image's labels, (*space) numbers of classes."""
        recording = self._recording[index]
        self._kept[recording][index] = predicted
        self._missing[recording].discard(index)
        if not self._missing[recording]:
            self._write(recording, self._kept.pop(recording))

    def _write(self, recording: str, kept: dict[int, Labels]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._written:
            self._written = True
            self._write_index()
        indices = sorted(kept)
        if "slice" in self.images.stored(indices[0]).facts:
            stacked = np.stack([kept[index] for index in indices])
            write_prediction(self.folder / f"{recording}.nii.gz", stacked, self.images, indices)
            return
        suffix = ".nii.gz" if self.images.dims == 3 else ".png"
        for place, index in enumerate(indices):
            stem = recording if len(indices) == 1 else f"{recording}-{place:04d}"
            write_prediction(self.folder / f"{stem}{suffix}", kept[index], self.images, index)

    def _write_index(self) -> None:
        """The key of every recording that is predicted, which its files are called by, and its path below the data."""
        paths: dict[str, str] = {}
        for entry in self.images.samples.manifest.entries:
            if not entry.facts.get("sidecar"):
                paths.setdefault(entry.recording, entry.path)
        with (
            replacing(self.folder / INDEX) as partial,
            partial.open("w", encoding="utf-8", newline="") as file,
        ):
            rows = [
                [recording, paths.get(recording, "")] for recording in dict.fromkeys(self._recording.values())
            ]
            csv.writer(file).writerows([["recording", "image"], *rows])
