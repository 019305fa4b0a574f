"""What a domain's recipe builds from a config: data with ids, an encoder, and how it is pretrained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from diptych.data.loading import ResumableLoader
from diptych.data.manifest import Manifest
from diptych.data.quarantine import Quarantine
from diptych.method import Method
from diptych.words import PATIENTS, Words

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """All samples of a data set, one row each, in a fixed order; index i means row i everywhere.

    ``ids`` has the text columns "patient" (salted key), "recording" and "trial", and "split" with one of
    "train", "validation", "test". ``labels`` has one column per configured label, aligned with ``ids``:
    text classes or numbers, missing where unknown. Neither holds a name, date or record number. ``words`` says
    what "patient", "recording" and sample stand for in a domain without patients.
    """

    ids: pd.DataFrame
    labels: pd.DataFrame
    manifest: Manifest
    quarantine: Quarantine
    words: Words = PATIENTS

    def __post_init__(self) -> None:
        missing = {"patient", "recording", "trial", "split"} - set(self.ids.columns)
        if missing:
            raise ValueError(f"samples need the id columns {sorted(missing)}")
        if len(self.labels) != len(self.ids):
            raise ValueError(f"{len(self.labels)} label rows for {len(self.ids)} samples")

    def __len__(self) -> int:
        return len(self.ids)

    def where(self, split: str) -> Indices:
        """The indices of one split's samples, in order."""
        return np.flatnonzero(self.ids["split"].to_numpy() == split).astype(np.int64)


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Hand-made features that a classical model is fitted on, aligned with the samples' rows."""

    name: str  # as the table prints it: "HRV, QRS and band power"
    values: NDArray[np.float64]  # (n, features); NaN where a feature could not be computed


@dataclass(frozen=True, kw_only=True)
class Study:
    """One config, made real. The core and the command line run it without knowing the domain."""

    samples: Samples
    # fresh weights from torch's current random state
    new_encoder: Callable[[], nn.Module]
    # how that encoder is pretrained
    method: Callable[[nn.Module], Method]
    # (indices, seed) to a loader of Views with ids, drawn anew each epoch, that can start in its middle
    training: Callable[[Indices, int], ResumableLoader]
    # indices to a loader of Views in that order, with one clean view: for embedding
    plain: Callable[[Indices], DataLoader[Any]]
    baseline: Callable[[Indices], Baseline] | None = None
    # what samples are, as columns that embed adds to its file: a row's number, a SMILES; nothing about persons
    described: Callable[[Indices], pd.DataFrame] | None = None
    # lines for inspect, the report and the model card
    summary: Mapping[str, str] = field(default_factory=dict)
