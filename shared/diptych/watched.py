"""What monitors look at: fixed samples, their embeddings, and the best encoder so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from diptych.data.loading import Indices, seeded
from diptych.errors import ConfigError
from diptych.evaluation.embeddings import embed
from diptych.pretrainer import Pretrainer
from diptych.runs import Run
from diptych.study import Samples, Study
from diptych.weights import load_encoder, save_encoder


class FixedSamples:
    """Training samples drawn once, in pairs that belong together, and their embeddings at a step.

    Pairs come from one trial, else one recording, else one patient: the finest of these that has pairs.
    """

    def __init__(self, study: Study, count: int = 512, seed: int = 0) -> None:
        self.study = study
        self.indices, self.pairs, self.paired_by = draw_pairs(study.samples, count, seed)
        self._step = -1
        self._z = torch.empty(0)

    def embed(self, pretrainer: Pretrainer) -> torch.Tensor:
        """The kept encoder's embeddings, (count, width) float32 on the CPU; computed once a step."""
        if self._step != pretrainer.step:
            self._z = torch.from_numpy(embed_kept(self.study, pretrainer, self.indices))
            self._step = pretrainer.step
        return self._z


def draw_pairs(samples: Samples, count: int, seed: int) -> tuple[Indices, NDArray[np.int64], str]:
    """Up to ``count`` training samples, pairs as rows of positions in them, and the id that pairs share.

    The pairs are of different ids, drawn at random; other samples fill up the count.
    """
    train = samples.where("train")
    if len(train) < 2:
        raise ConfigError(f"watching a training needs at least 2 training samples, got {len(train)}")
    draws = np.random.default_rng(seed)
    order = draws.permutation(train)
    chosen: list[int] = []
    used = "no id"
    for column in ("trial", "recording", "patient"):
        ids = pd.Series(samples.ids[column].to_numpy()[order])
        place = ids.groupby(ids).cumcount().to_numpy()
        size = ids.map(ids.value_counts()).to_numpy()
        first = np.flatnonzero((place < 2) & (size >= 2))
        if len(first):
            first = first[np.argsort(ids.iloc[first].factorize()[0], kind="stable")]  # partners side by side
            chosen = list(order[first][: count - count % 2])
            used = column
            break
    pairs = np.arange(len(chosen), dtype=np.int64).reshape(-1, 2)
    rest = order[~np.isin(order, np.array(chosen, dtype=np.int64))][: count - len(chosen)]
    return np.concatenate([np.array(chosen, dtype=np.int64), rest]), pairs, used


def embed_kept(study: Study, pretrainer: Pretrainer, indices: Indices) -> NDArray[np.float32]:
    """The kept encoder's embeddings (n, width), drawing nothing from the training's generators."""
    with seeded(0, [pretrainer.device]):
        return embed(pretrainer.method.encoder, study.plain(indices), device=str(pretrainer.device))


class BestEncoder:
    """Keeps the weights of the encoder with the highest score so far in a file."""

    def __init__(self, run: Run, name: str, what: str) -> None:
        self.run = run
        self.path = run.checkpoints / f"{name}.safetensors"
        self.what = what
        self.score = float("-inf")
        self.step = 0

    def offer(self, score: float, pretrainer: Pretrainer) -> None:
        """Writes the present weights if the score is above all before."""
        if score > self.score:
            self.score, self.step = score, pretrainer.step
            with self.run.writing():
                save_encoder(pretrainer.method.encoder, self.path)

    def restore(self, encoder: nn.Module) -> Mapping[str, str]:
        """Loads the kept weights, and says of which step they are."""
        load_encoder(encoder, self.path)
        return {"weights": f"of step {self.step}, with {self.what} ({self.score:.4g})"}

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {"score": self.score, "step": self.step}

    def take(self, state: Mapping[str, Any]) -> None:
        """From the checkpoint."""
        self.score, self.step = state["score"], state["step"]
