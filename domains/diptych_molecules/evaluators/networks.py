"""Networks that predict all tasks at once: a hidden layer on frozen embeddings, and fine-tuning of the encoder."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch import nn

from diptych.errors import ConfigError
from diptych.evaluation.embeddings import choose_device, embed
from diptych.evaluation.frozen import Encoders, encoders_of, random_encoder, torch_seed
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.study import Indices
from diptych_molecules.evaluators.frozen import frozen_rows
from diptych_molecules.evaluators.property_evaluation import Prepared, PropertyEvaluation
from diptych_molecules.property import (
    Head,
    Inputs,
    Network,
    Start,
    Training,
    check_two_classes,
    predictions,
    scale_of,
    side_by_side,
    start_as_probe,
    train,
)
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.trials import FitAll, Labelled, over_trials


@dataclass(frozen=True, kw_only=True)
class NetworkEvaluation(PropertyEvaluation):
    """What evaluators that train a network are told too.

    Args:
        targets: The tasks, of two classes or of numbers; by default all labels of the study.
        fractions: Shares of the labelled training and validation scaffolds (or molecules) to use.
        seeds: Number of trainings of each row on every split, each with its own draw; of forests too.
        hidden: Width of the hidden layer.
        dropout: Share of the head's features that are hidden in training.
        epochs: At most so many passes over the labelled training molecules.
        patience: Stop after so many epochs without a better validation score.
        batch_size: Molecules in a step.
        rate: Learning rate (AdamW).
        weight_decay: Of AdamW.
    """

    hidden: int = 64
    dropout: float = 0.1
    epochs: int = 200
    patience: int = 30
    batch_size: int = 64
    rate: float = 1e-3
    weight_decay: float = 1e-4

    def training(self, head_rate: float) -> Training:
        """How the network is trained. Raises ConfigError for what cannot be run."""
        return Training(
            epochs=self.epochs,
            patience=self.patience,
            batch_size=self.batch_size,
            rate=self.rate,
            head_rate=head_rate,
            weight_decay=self.weight_decay,
            hidden=self.hidden,
            dropout=self.dropout,
        )

    def prepared(self, study: MoleculeStudy) -> Prepared:
        """The tasks, checked. Raises ConfigError for one of three classes or more, too."""
        prepared = super().prepared(study)
        check_two_classes(prepared.tasks.targets[0])
        return prepared


@dataclass(frozen=True, kw_only=True)
class MLP(NetworkEvaluation):
    """One hidden layer on standardised frozen embeddings, for all tasks at once.

    The loss is the mean over known labels. The epoch with the best validation score (mean AUROC, or the loss of
    standardised numbers) is kept. Rows as in the linear probe.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1:
            raise ConfigError(f"an mlp has at least 1 hidden unit; got {self.hidden}")
        self.training(self.rate)

    def __call__(self, study: MoleculeStudy, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed."""
        prepared, training = self.prepared(study), self.training(self.rate)

        def of(features: Floats) -> FitAll:
            tensor = torch.from_numpy(features).float()

            def fit(seen: Labelled) -> tuple[Floats, ...]:
                def make(rows: Indices) -> nn.Module:
                    return Head(tensor[rows], len(seen.targets), self.hidden, self.dropout)

                return _trained(make, lambda rows: tensor[rows], seen, training, torch.device("cpu"))

            return fit

        rows = frozen_rows(self, prepared, encoder, of, repeats=self.seeds)
        return self.table(prepared, f"mlp of {self.hidden} hidden units", rows)


@dataclass(frozen=True, kw_only=True)
class FineTuning(NetworkEvaluation):
    """Train the encoder, its readouts too, and a head for all tasks at once; the same budget from random weights.

    The loss is the mean over known labels. The epoch with the best validation score (mean AUROC, or the loss of
    standardised numbers) is kept, the start included. Rows: pretrained, from scratch, and the baselines.

    Args:
        hidden: Width of a hidden layer of the head, which starts at random; 0 for a linear head.
        rate: Learning rate (AdamW) of the encoder.
        head_rate: Learning rate of the head.
        start: What a linear head starts from: the linear probe on the frozen encoder, or random weights.
    """

    hidden: int = 0
    epochs: int = 60
    patience: int = 15
    batch_size: int = 32
    rate: float = 1e-4
    head_rate: float = 1e-3
    start: Start = "probe"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.training(self.head_rate)

    def __call__(self, study: MoleculeStudy, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed. It is copied."""
        prepared, encoders = self.prepared(study), encoders_of(encoder)
        pretrained = self._fit(study, lambda repeat: deepcopy(encoders[repeat % len(encoders)]))
        scratch = self._fit(study, lambda repeat: random_encoder(study, repeat))
        rows = [
            over_trials(name, prepared.tasks, share, max(self.seeds, number), self.seeds, fit)
            for share in self.shares
            for name, fit, number in (
                ("pretrained", pretrained, len(encoders)),
                ("from scratch", scratch, 1),
            )
        ]
        return self.table(prepared, "fine-tuning", rows)

    def _fit(self, study: MoleculeStudy, begin: Callable[[int], nn.Module]) -> FitAll:
        """How an encoder that ``begin`` gives is trained with the head."""
        where, training = choose_device(self.device), self.training(self.head_rate)
        everything = np.arange(len(study.samples), dtype=np.int64)

        def inputs(rows: Indices) -> object:
            return move_data_to_device(next(iter(study.plain(rows))).views[0], where)

        def fit(seen: Labelled) -> tuple[Floats, ...]:
            model = begin(seen.repeat)
            features = embed(model, study.plain(everything), self.device)

            def make(rows: Indices) -> nn.Module:
                head = Head(torch.from_numpy(features[rows]), len(seen.targets), self.hidden, self.dropout)
                if self.start == "probe" and not self.hidden:
                    start_as_probe(head, features.astype(np.float64), seen.targets, seen.train, seen.repeat)
                return Network(model, head).requires_grad_(True)

            return _trained(make, inputs, seen, training, where)

        return fit


def _trained(
    make: Callable[[Indices], nn.Module],
    inputs: Inputs,
    seen: Labelled,
    training: Training,
    device: torch.device,
) -> tuple[Floats, ...]:
    """Predictions of the network that ``make`` makes for the training rows, trained on all tasks."""
    scale = scale_of(seen.targets, seen.train)
    learnt, validation = (
        side_by_side(seen.targets, positions, scale) for positions in (seen.train, seen.validation)
    )
    with torch_seed(seen.repeat):
        network = make(learnt.rows).to(device)
        train(network, inputs, learnt, validation, training, bool(seen.targets[0].classes), device)
        return predictions(network, inputs, seen.targets, scale)
