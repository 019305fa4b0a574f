"""Pretraining from a study to a run's folder: the one way in, for the command line and for notebooks."""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import nn

from diptych.checkpoints import AtomicCheckpoints, Checkpoints
from diptych.data.loading import Indices, ResumableLoader, process_of
from diptych.errors import ConfigError, DataError, UserError
from diptych.metrics_file import MetricsFile
from diptych.pretrainer import Pretrainer
from diptych.progress import Progress
from diptych.runs import Run, data_facts, leads
from diptych.study import Study
from diptych.weights import save_encoder


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """How long and on what to train. What is named in Lightning's words is passed on to its Trainer.

    Args:
        max_epochs: passes over the training samples; 100 when neither this nor max_steps is given.
        max_steps: optimiser steps; training ends at whichever of the two comes first.
        accelerator: "auto", "cpu", "gpu" or another of Lightning's.
        devices: how many, "auto", or a list of device numbers.
        num_nodes: machines.
        strategy: "auto" takes distributed data parallel on several devices; or one of Lightning's.
        precision: "32-true", "bf16-mixed", "16-mixed" or another of Lightning's.
        accumulate: batches per optimiser step.
        gradient_clip: the largest norm of a phase's gradient; none by default.
        checkpoint_every: steps between checkpoints; by default one at the end of every epoch.
        keep_every: epochs whose checkpoint is kept under its own name; by default only the last is kept.
        log_every: steps between rows of metrics.csv; each row holds the means since the last.
        progress: "auto" draws a bar on a terminal and writes a line an epoch elsewhere (stderr), or "off".
        deterministic: refuse operations that give other numbers each time (on GPUs).
    """

    max_epochs: int | None = None
    max_steps: int | None = None
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    accumulate: int = 1
    gradient_clip: float | None = None
    checkpoint_every: int | None = None
    keep_every: int | None = None
    log_every: int = 10
    progress: Literal["auto", "off"] = "auto"
    deterministic: bool = False

    def __post_init__(self) -> None:
        wrong = [
            f"{name} must be at least 1, got {value}"
            for name, value in asdict(self).items()
            if name in _COUNTS and value is not None and value < 1
        ]
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            wrong.append(f"gradient_clip must be above 0, got {self.gradient_clip}")
        if wrong:
            raise ConfigError("; ".join(wrong))

    def total_steps(self, batches_per_epoch: int) -> int:
        """Optimiser steps of the whole training; an epoch ends with a step, of fewer batches if need be."""
        each = -(-batches_per_epoch // self.accumulate)
        epochs = 100 if self.max_epochs is None and self.max_steps is None else self.max_epochs
        bounds = [] if epochs is None else [epochs * each]
        return min([*bounds, *([] if self.max_steps is None else [self.max_steps])])


LIMITS_FOR_PATIENTS = {
    "not measured here": "any downstream task, any other population, device or site",
    "not for": "diagnosis or any decision about a patient",
}
LIMITS = {"not measured here": "any downstream task, and any data of another kind or source"}

_COUNTS = (
    "max_epochs",
    "max_steps",
    "num_nodes",
    "accumulate",
    "checkpoint_every",
    "keep_every",
    "log_every",
)


@dataclass(frozen=True, kw_only=True)
class PretrainResult:
    """What a training ended with: the kept encoder in evaluation mode, its run, and the last metrics."""

    encoder: nn.Module
    run: Run
    steps: int
    epochs: int
    metrics: Mapping[str, float]


def pretrain(
    study: Study,
    run: Run,
    *,
    trainer: TrainerOptions,
    seed: int,
    resume: bool = False,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] = (),
    choose: Callable[[nn.Module], Mapping[str, str]] | None = None,
) -> PretrainResult:
    """Trains a study's method on its training split and fills the run's folder.

    Args:
        study: data, encoder and method.
        run: its folder, fresh, or of an interrupted run with ``resume``.
        trainer: how long and on what.
        seed: of weights, batches and everything random; the same seed gives the same numbers.
        resume: go on from the run's last checkpoint; the numbers are those of an uninterrupted run.
        callbacks: monitors and others; checkpoints are written after their work at an epoch's end.
        loggers: beside metrics.csv.
        choose: puts other weights than the last into the encoder before it is exported
            (:meth:`diptych.monitors.OnlineProbe.choose`), and says which in words.

    Raises:
        DataError: there are no training samples, or a resumption meets other data than the checkpoint's.
        UserError: the run's folder or disk, a loss that is not finite, :class:`Preempted`.
    """
    indices = _check_beginning(study, run, resume)
    seed_everything(seed)
    method = study.method(study.new_encoder())
    loader = study.training(indices, seed)
    if not isinstance(loader, ResumableLoader):
        raise TypeError(
            f"a study's training loader is a ResumableLoader, which can start in the middle of an epoch; "
            f"got {type(loader).__name__}"
        )
    pretrainer = Pretrainer(
        method,
        total_steps=trainer.total_steps(len(loader)),
        batches_per_epoch=len(loader),
        accumulate=trainer.accumulate,
        clip=trainer.gradient_clip,
        log_every=trainer.log_every,
    )
    checkpoints = Checkpoints(
        run.checkpoints,
        loader,
        study.samples.manifest.digest,
        every=trainer.checkpoint_every,
        keep_every=trainer.keep_every,
    )
    file = MetricsFile(run.metrics)
    progress = [Progress()] if trainer.progress == "auto" else []
    hooks = [_OwnSeed(seed), *callbacks, *progress, _MetricsRows(file), checkpoints]
    with quiet_lightning():
        engine = _engine(trainer, run, hooks, [file, *loggers])
        engine.fit(pretrainer, loader, ckpt_path=run.last_checkpoint if resume else None, weights_only=True)
    chosen = dict(choose(method.encoder)) if choose is not None else {"weights": "of the last step"}
    encoder = method.encoder.eval()
    if leads():
        with run.writing():
            _export(study, run, pretrainer, encoder, seed, chosen)
    return PretrainResult(
        encoder=encoder,
        run=run,
        steps=pretrainer.step,
        epochs=pretrainer.epoch,
        metrics=dict(pretrainer.latest),
    )


def _check_beginning(study: Study, run: Run, resume: bool) -> Indices:
    """The training samples, once it is clear that the run can begin; notes its facts if it is new."""
    if resume:
        run.clean()
    elif run.last_checkpoint.exists() or run.metrics.exists():
        raise UserError(f"{run.path} holds a run already; resume it, or create another")
    indices = study.samples.where("train")
    if len(indices) == 0:
        words = study.samples.words
        raise DataError(
            f"none of the {len(study.samples)} {words.samples} is in the training split; "
            f"give more {words.units}, or a larger share of them to training"
        )
    if not resume:
        with run.writing():
            run.write_facts(study)
    return indices


def _engine(
    options: TrainerOptions, run: Run, hooks: Sequence[Callback], loggers: Sequence[Logger]
) -> Trainer:
    """Lightning's Trainer, with what it would do by itself and the Pretrainer does switched off."""
    return Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=choose_strategy(options),
        precision=options.precision,  # type: ignore[arg-type]  # a text, checked by Lightning
        max_epochs=-1,  # the Pretrainer ends the training, by steps
        deterministic=options.deterministic,
        logger=list(loggers),
        callbacks=list(hooks),
        plugins=[AtomicCheckpoints()],
        default_root_dir=run.path,
        log_every_n_steps=1,  # the Pretrainer decides; larger values make Lightning warn of short epochs
        use_distributed_sampler=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _export(
    study: Study, run: Run, pretrainer: Pretrainer, encoder: nn.Module, seed: int, chosen: Mapping[str, str]
) -> None:
    facts = data_facts(study.samples, study.summary)
    words = study.samples.words
    training = facts["splits"]["train"]
    width = getattr(encoder, "width", None)
    known = {"digest": facts["digest"], "seed": str(seed), "steps": str(pretrainer.step), **chosen}
    save_encoder(encoder, run.encoder, known)
    weights = sum(parameter.numel() for parameter in encoder.parameters())
    run.write_card(
        {
            "What it is": {
                "encoder": f"{type(encoder).__name__}, {weights:,} weights"
                + (f", embeddings of width {width}" if width else ""),
                "pretrained by": ", ".join(phase.name for phase in pretrainer.method.phases),
                **chosen,
            },
            "Data it was pretrained on": {
                "digest": facts["digest"],
                **training,
                "quarantined files": facts["quarantined"],
                **facts["summary"],
            },
            "Settings": {
                "steps": pretrainer.step,
                "epochs": pretrainer.epoch,
                "seed": seed,
                "all others": "config.yaml of this run",
            },
            "Measured during pretraining": {
                name: f"{value:.5g}" for name, value in pretrainer.latest.items()
            },
            "Intended use and limits": {
                "use": f"embedding {words.recordings} like those it was pretrained on, and as a start for fine-tuning",
                **(LIMITS_FOR_PATIENTS if words.unit == "patient" else LIMITS),
            },
        }
    )


def seed_everything(seed: int) -> None:
    """Seeds the global generators of torch, NumPy and Python."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  (modules of others may use it)
    torch.manual_seed(seed)


def choose_strategy(options: TrainerOptions) -> str:
    """Lightning's strategy; with several processes one that lets a phase leave weights unused."""
    if options.strategy != "auto":
        return options.strategy
    devices = options.devices
    many = {
        int: lambda: int(devices) > 1 or int(devices) == -1,  # type: ignore[arg-type]
        list: lambda: len(devices) > 1,  # type: ignore[arg-type]
        str: lambda: devices not in ("auto", "1", "0") or torch.cuda.device_count() > 1,
    }[type(devices)]()
    on_gpu = options.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    if devices in ("auto", -1) and not on_gpu:
        many = False
    return "ddp_find_unused_parameters_true" if many or options.num_nodes > 1 else "auto"


class _OwnSeed(Callback):
    """Gives every process of a distributed run its own random numbers, once the weights are alike."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rank, world = process_of()
        if world > 1:
            seed_everything(self.seed + 1_000_003 * rank)


class _MetricsRows(Callback):
    """Notes in each checkpoint how many rows metrics.csv has, and drops later ones at a resumption."""

    def __init__(self, file: MetricsFile) -> None:
        self.file = file

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.file.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.file.rewind(state_dict["rows"])


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silences Lightning's banners and the few warnings that do not apply here, and nothing else."""
    parts = ("pytorch", "pytorch.utilities.rank_zero", "fabric", "fabric.utilities.rank_zero")
    names = [f"lightning.{part}" for part in parts]
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.WARNING)
        with warnings.catch_warnings():
            # workers are the user's choice, and a memory-mapped data set needs none
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # a teacher or a frozen branch is in evaluation mode on purpose
            warnings.filterwarnings("ignore", message="Found .* module\\(s\\) in eval mode.*")
            # our loader is: Checkpoints tells it where to start
            warnings.filterwarnings("ignore", message=".*your dataloader is not resumable.*")
            # Lightning 2.6 calls what torch 2.13 deprecates
            warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated", category=FutureWarning)
            # which weights a phase leaves unused is the method's affair
            warnings.filterwarnings("ignore", message=".*find_unused_parameters=True was specified.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
