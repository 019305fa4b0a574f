"""Prepared signals on disk, memory-mapped: an epoch is slicing only."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_OPEN = 8192  # files mapped at a time; the kernel allows some 65,000 maps a process


class Store:
    """Windows of equal length out of many memory-mapped files.

    Sent to another process it carries paths and tables only; files are mapped when first used.
    """

    def __init__(
        self, files: list[Path], file: NDArray[np.int64], start: NDArray[np.int64], window: int, leads: int
    ) -> None:
        """``file`` and ``start``, both (n,): in which file and at which row window i starts."""
        self.files, self.file, self.start = files, file, start
        self.window, self.leads = window, leads
        self._open: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def batch(self, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        """Windows as float32 (n, time, leads): a copy, which may be changed."""
        out = np.empty((len(indices), self.window, self.leads), np.float32)
        for row, (file, start) in enumerate(
            zip(self.file[indices].tolist(), self.start[indices].tolist(), strict=True)
        ):
            out[row] = self._map(file)[start : start + self.window]
        return out

    def rows(self, file: int, first: int, last: int) -> NDArray[np.float32]:
        """Rows first to last (exclusive) of one file, (time, leads)."""
        return np.array(self._map(file)[first:last])

    def _map(self, file: int) -> NDArray[np.float32]:
        mapped = self._open.get(file)
        if mapped is None:
            if len(self._open) >= _MOST_OPEN:
                self._open.popitem(last=False)
            mapped = np.asarray(np.load(self.files[file].with_suffix(".npy"), mmap_mode="r"))
            self._open[file] = mapped
        return mapped

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}
