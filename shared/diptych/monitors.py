"""What is watched during a training: health of the embeddings, collapse, and a probe of a label.

Monitors embed fixed samples with the kept encoder in evaluation mode, under random generators of their own:
a training gives the same numbers with and without them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import nn

from diptych.data.loading import Indices
from diptych.diagnostics import (
    Collapse,
    alignment,
    centred_rank,
    collapse_signs,
    collapse_statistics,
)
from diptych.errors import ConfigError, UserError
from diptych.pretrainer import Pretrainer
from diptych.probe import probe_score
from diptych.runs import Run
from diptych.study import Study
from diptych.watched import BestEncoder, FixedSamples, embed_kept

log = logging.getLogger("diptych")


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """What is watched, how often, and which encoder is kept.

    Args:
        samples: how many training samples are embedded for the health of the embeddings.
        health_every: epochs between looks at alignment, uniformity, effective rank and dead dimensions.
        alarm_every: steps between looks for a collapse; 0 for none.
        alarm_stops: whether a collapse ends the run; otherwise it is said and logged.
        probe: the label that an online probe is fitted to, scored on validation patients; none by default.
        probe_every: epochs between probes.
        keep: the encoder that is exported: of the last step, of the epoch with the best probe, or with the
            highest effective rank.
    """

    samples: int = 512
    health_every: int = 1
    alarm_every: int = 50
    alarm_stops: bool = False
    probe: str | None = None
    probe_every: int = 1
    keep: Literal["last", "best_probe", "best_rank"] = "last"

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError(f"the health of embeddings needs at least 2 samples, got {self.samples}")
        if min(self.health_every, self.probe_every) < 1 or self.alarm_every < 0:
            raise ConfigError("health_every and probe_every are at least 1, alarm_every at least 0")
        if self.keep == "best_probe" and self.probe is None:
            raise ConfigError(
                "keep: best_probe needs the label to probe; set probe to a column of the labels"
            )


class Monitors:
    """The callbacks of a training and the choice of its encoder, for :func:`diptych.training.pretrain`.

    Raises ConfigError when the probed label is not there or not on training and validation patients.
    """

    def __init__(self, study: Study, run: Run, options: MonitorOptions) -> None:
        fixed = FixedSamples(study, options.samples)
        by_rank = by_probe = None
        if options.keep == "best_rank":
            by_rank = BestEncoder(run, "best-rank", "the highest effective rank")
        if options.keep == "best_probe":
            by_probe = BestEncoder(run, "best-probe", f"the best online probe of {options.probe}")
        self.best = by_rank or by_probe
        self.callbacks: list[Callback] = [Health(fixed, every=options.health_every, best=by_rank)]
        if options.alarm_every:
            self.callbacks.append(CollapseAlarm(fixed, every=options.alarm_every, stops=options.alarm_stops))
        if options.probe is not None:
            self.callbacks.append(OnlineProbe(study, options.probe, every=options.probe_every, best=by_probe))

    def choose(self, encoder: nn.Module) -> Mapping[str, str]:
        """Puts the kept weights into the encoder, and says which they are."""
        return {"weights": "of the last step"} if self.best is None else self.best.restore(encoder)


class Health(Callback):
    """Logs, before the first step and every so many epochs, for the fixed samples:

    ``health/alignment`` of their pairs, ``health/uniformity``, ``health/rank`` (RankMe),
    ``health/rank_centred``, ``health/dead`` (share of dimensions) and ``health/spread``
    (:mod:`diptych.diagnostics`).
    """

    def __init__(self, fixed: FixedSamples, every: int = 1, best: BestEncoder | None = None) -> None:
        self.fixed = fixed
        self.every = every
        self.best = best

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The values under random weights, which all others are compared with."""
        assert isinstance(pl_module, Pretrainer)
        if trainer.is_global_zero and pl_module.step == 0:
            self._look(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The values at an epoch's end."""
        assert isinstance(pl_module, Pretrainer)
        if trainer.is_global_zero and (trainer.current_epoch + 1) % self.every == 0:
            self._look(pl_module)

    def _look(self, pretrainer: Pretrainer) -> None:
        pretrainer.check_losses(together=False)
        row = health(self.fixed.embed(pretrainer), self.fixed.pairs)
        pretrainer.record({f"health/{name}": value for name, value in row.items()})
        if self.best is not None and pretrainer.step > 0:
            self.best.offer(row["rank"], pretrainer)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {} if self.best is None else self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        if self.best is not None and state_dict:
            self.best.take(state_dict)


def health(z: torch.Tensor, pairs: NDArray[np.int64]) -> dict[str, float]:
    """All diagnostics of embeddings (n, width) by name; alignment only where there are pairs."""
    statistics = collapse_statistics(z)
    row = {
        "uniformity": statistics.uniformity,
        "rank": statistics.rank,
        "rank_centred": centred_rank(z),
        "dead": statistics.dead,
        "spread": statistics.spread,
    }
    if len(pairs):
        row = {"alignment": alignment(z[pairs[:, 0]], z[pairs[:, 1]]), **row}
    return row


class CollapseAlarm(Callback):
    """Says loudly when the embeddings collapse: those of the fixed samples, compared with the random start's.

    At least two signs have to agree (:func:`diptych.diagnostics.collapse_signs`). ``alarm/collapse`` in the
    metrics is their number. With ``stops`` the run ends with a UserError.
    """

    def __init__(self, fixed: FixedSamples, every: int = 50, stops: bool = False) -> None:
        self.fixed = fixed
        self.every = every
        self.stops = stops
        self.start: Collapse | None = None
        self.raised_at: int | None = None  # the first step of the present alarm

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the values under random weights."""
        assert isinstance(pl_module, Pretrainer)
        if trainer.is_global_zero and self.start is None:
            self.start = collapse_statistics(self.fixed.embed(pl_module))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks every so many steps."""
        assert isinstance(pl_module, Pretrainer)
        if not trainer.is_global_zero or not pl_module.at_step_end or pl_module.step % self.every:
            return
        assert self.start is not None
        pl_module.check_losses(together=False)
        signs = collapse_signs(collapse_statistics(self.fixed.embed(pl_module)), self.start)
        if len(signs) < 2:
            self.raised_at = None
            return
        pl_module.record({"alarm/collapse": len(signs)})
        text = (
            f"COLLAPSE at step {pl_module.step}: {'; '.join(signs)}. Different samples get the same "
            "embedding; raise the weight of negatives or of uniformity, lower the learning rate, or check "
            "that the batches hold different samples"
        )
        if self.stops:
            raise UserError(f"{text}. The run was stopped (alarm_stops)")
        if self.raised_at is None:
            log.warning(text)
            self.raised_at = pl_module.step

    def state_dict(self) -> dict[str, Any]:
        """The values at the start, and whether the alarm is on."""
        return {"start": None if self.start is None else vars(self.start), "raised_at": self.raised_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes them back."""
        start = state_dict["start"]
        self.start = None if start is None else Collapse(**start)
        self.raised_at = state_dict["raised_at"]


class OnlineProbe(Callback):
    """Fits a small linear model to the training patients' embeddings and scores it on validation patients.

    Logs ``probe/<label>`` every so many epochs: macro F1 of a class label, R squared of a number. It tells
    how a pretraining goes, and may choose the epoch that is kept (quality often peaks early and then falls);
    test patients are never touched.
    """

    def __init__(
        self,
        study: Study,
        label: str,
        *,
        every: int = 1,
        most: int = 2000,
        seed: int = 0,
        best: BestEncoder | None = None,
    ) -> None:
        self.study = study
        self.label = label
        self.every = every
        self.best = best
        samples = study.samples
        if label not in samples.labels.columns:
            near = get_close_matches(label, [str(name) for name in samples.labels.columns], n=1)
            raise ConfigError(
                f"there is no label {label!r} to probe; the labels are "
                f"{', '.join(map(str, samples.labels.columns)) or 'none'}"
                + (f". Did you mean {near[0]!r}?" if near else "")
            )
        self.train = self._labelled("train", most, seed)
        self.validation = self._labelled("validation", most, seed)

    def _labelled(self, split: str, most: int, seed: int) -> Indices:
        samples = self.study.samples
        indices = samples.where(split)
        indices = indices[samples.labels[self.label].notna().to_numpy()[indices]]
        if len(indices) == 0:
            raise ConfigError(
                f"no {split} sample has the label {self.label!r}, so that it cannot be probed; "
                "choose another label, or give more patients to this split"
            )
        return np.sort(np.random.default_rng(seed).permutation(indices)[:most])

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fits and scores."""
        assert isinstance(pl_module, Pretrainer)
        if not trainer.is_global_zero or (trainer.current_epoch + 1) % self.every:
            return
        pl_module.check_losses(together=False)
        labels = self.study.samples.labels[self.label]
        embedded = [embed_kept(self.study, pl_module, indices) for indices in (self.train, self.validation)]
        score = probe_score(embedded[0], labels.iloc[self.train], embedded[1], labels.iloc[self.validation])
        pl_module.record({f"probe/{self.label}": score})
        if self.best is not None:
            self.best.offer(score, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {} if self.best is None else self.best.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes it back."""
        if self.best is not None and state_dict:
            self.best.take(state_dict)
