"""Networks that predict several properties at once; a label that is not known counts in no loss.

Labels of numbers are standardised by the training molecules' mean and SD. The head sees standardised features and,
where it is linear, may start as the linear probe (Kumar et al., Fine-tuning can distort pretrained features, 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, UserError
from diptych.evaluation.linear_model import fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.target import Target
from diptych.study import Indices

Start = Literal["probe", "random"]
# rows of the study -> what the network takes of them
Inputs = Callable[[Indices], Any]


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained; the options of the evaluators ``mlp`` and ``finetune``."""

    epochs: int
    patience: int
    batch_size: int
    rate: float
    head_rate: float
    weight_decay: float
    hidden: int
    dropout: float

    def __post_init__(self) -> None:
        if min(self.epochs, self.patience) < 1 or self.batch_size < 2 or self.hidden < 0:
            raise ConfigError(
                "epochs and patience are at least 1, batch_size at least 2 and hidden at least 0; got "
                f"{self.epochs}, {self.patience}, {self.batch_size} and {self.hidden}"
            )
        if self.rate <= 0 or self.head_rate <= 0 or self.weight_decay < 0 or not 0 <= self.dropout < 1:
            raise ConfigError(
                "learning rates are above 0, weight_decay is at least 0, dropout at least 0 and below 1; got "
                f"rate {self.rate:g}, head_rate {self.head_rate:g}, weight_decay {self.weight_decay:g}, "
                f"dropout {self.dropout:g}"
            )


class Wanted(NamedTuple):
    """The labels of several tasks side by side: n molecules, T tasks."""

    rows: Indices  # (n,) of the study
    values: Floats  # (n, T): class codes or standardised numbers, NaN where unknown


class Scale(NamedTuple):
    """Mean and SD of each task's training labels; 0 and 1 for classes. (T,) each."""

    centre: Floats
    width: Floats


class Head(nn.Module):
    """Standardised features to one output a task: a line, or with ``hidden`` above 0 one hidden layer.

    The hidden form is dropout, linear, GELU, batch norm, linear, as KCL's is (Fang et al. 2022).
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Tensor, outputs: int, hidden: int, dropout: float) -> None:
        """``features`` (n, width) are the training molecules', by which all are standardised."""
        super().__init__()
        width = features.shape[1]
        scale = features.std(dim=0, correction=0)
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("scale", torch.where(scale > 1e-6 * scale.max().clamp(min=1e-12), scale, 1.0))
        last = [nn.Linear(hidden or width, outputs)]
        first: list[nn.Module] = (
            [nn.Linear(width, hidden), nn.GELU(), nn.BatchNorm1d(hidden)] if hidden else []
        )
        self.layers = nn.Sequential(nn.Dropout(dropout), *first, *last)

    def forward(self, features: Tensor) -> Tensor:
        """(n, width) to (n, outputs)."""
        outputs: Tensor = self.layers((features - self.mean) / self.scale)
        return outputs


class Network(nn.Module):
    """An encoder with a head on its ``whole`` rows."""

    def __init__(self, encoder: nn.Module, head: Head) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, view: Any) -> Tensor:
        """One output a task, (n, outputs)."""
        outputs: Tensor = self.head(self.encoder(view).whole)
        return outputs


def side_by_side(targets: Sequence[Target], positions: Sequence[Indices], scale: Scale) -> Wanted:
    """The labels at these positions of each target, as one table of the study's rows, ascending."""
    rows = np.unique(
        np.concatenate([target.rows[where] for target, where in zip(targets, positions, strict=True)])
    )
    values = np.full((len(rows), len(targets)), np.nan)
    for place, (target, where) in enumerate(zip(targets, positions, strict=True)):
        numbers = (target.values[where] - scale.centre[place]) / scale.width[place]
        values[np.searchsorted(rows, target.rows[where]), place] = numbers
    return Wanted(rows.astype(np.int64), values)


def scale_of(targets: Sequence[Target], trains: Sequence[Indices]) -> Scale:
    """What the labels are standardised by."""
    if targets[0].classes:
        return Scale(np.zeros(len(targets)), np.ones(len(targets)))
    labels = [target.values[train] for target, train in zip(targets, trains, strict=True)]
    return Scale(
        np.array([each.mean() for each in labels]), np.array([float(each.std()) or 1.0 for each in labels])
    )


def check_two_classes(targets: Sequence[Target]) -> None:
    """Raise ConfigError where a task has more classes than a single output can tell apart."""
    for target in targets:
        if len(target.classes) > 2:
            raise ConfigError(
                f"{target.label!r} has {len(target.classes)} classes; networks are trained on two classes or numbers: "
                "evaluate it with linear or knn"
            )


def start_as_probe(
    head: Head, features: Floats, targets: Sequence[Target], trains: Sequence[Indices], seed: int
) -> None:
    """Set a linear head to the linear probe of each task. ``features`` (N, width) are those of the study's rows."""
    line = head.layers[-1]
    assert isinstance(line, nn.Linear)
    scale = scale_of(targets, trains)
    mean, width = head.mean.double().cpu().numpy(), head.scale.double().cpu().numpy()
    for place, (target, train) in enumerate(zip(targets, trains, strict=True)):
        fit = fit_linear(features[target.rows], target, train, seed=seed)
        own = fit.steps[0]  # standardises by this task's training molecules
        weight = np.ravel(fit.model.coef_) / own.scale_
        bias = float(np.ravel(fit.model.intercept_)[0]) - float(weight @ own.mean_) + float(weight @ mean)
        weight = weight * width
        if not target.classes:
            weight, bias = weight / scale.width[place], (bias - scale.centre[place]) / scale.width[place]
        with torch.no_grad():
            line.weight[place] = torch.from_numpy(weight)
            line.bias[place] = bias


def masked_loss(outputs: Tensor, wanted: Tensor, classes: bool) -> Tensor:
    """Mean binary cross-entropy (outputs are logits) or squared error over the known entries, (n, T) each.

    Entries of ``wanted`` that are NaN are unknown; without any known one the loss is 0.
    """
    known = ~wanted.isnan()
    truth = torch.where(known, wanted, torch.zeros_like(wanted))
    each = (
        F.binary_cross_entropy_with_logits(outputs, truth, reduction="none")
        if classes
        else F.mse_loss(outputs, truth, reduction="none")
    )
    return (each * known).sum() / known.sum().clamp(min=1)


def train(
    network: nn.Module,
    inputs: Inputs,
    learnt: Wanted,
    validation: Wanted,
    training: Training,
    classes: bool,
    device: torch.device,
) -> nn.Module:
    """Train in place and return the network of the best validation epoch, the start included; else the last.

    Stops where the validation score has not risen for ``patience`` epochs. Draws from torch's global generator.
    """
    optimizer = torch.optim.AdamW(_groups(network, training), weight_decay=training.weight_decay)
    wanted = torch.from_numpy(learnt.values).float()
    best, kept, since = -np.inf, None, 0
    for epoch in range(training.epochs + 1):
        if epoch:
            network.train()
            for chosen in _chunks(torch.randperm(len(learnt.rows)), training.batch_size):
                optimizer.zero_grad(set_to_none=True)
                outputs = network(inputs(learnt.rows[chosen.numpy()]))
                torch.autograd.backward(masked_loss(outputs, wanted[chosen].to(device), classes))
                optimizer.step()
        if not len(validation.rows):
            continue
        score = _score(outputs_of(network, inputs, validation.rows), validation, classes)
        since += 1
        if score > best:
            best, since = score, 0
            kept = {name: value.clone() for name, value in network.state_dict().items()}
        if since >= training.patience:
            break
    if kept is not None:
        network.load_state_dict(kept)
    return network


def outputs_of(network: nn.Module, inputs: Inputs, rows: Indices, batch_size: int = 256) -> Floats:
    """Outputs of a network in evaluation mode, (n, T). Raises UserError where they are not finite."""
    network.eval()
    with torch.inference_mode():
        found = [
            network(inputs(rows[start : start + batch_size])).double().cpu()
            for start in range(0, len(rows), batch_size)
        ]
    outputs: Floats = torch.cat(found).numpy()
    if not np.isfinite(outputs).all():
        raise UserError("the training diverged: predictions are not finite; lower the learning rates")
    return outputs


def predictions(
    network: nn.Module, inputs: Inputs, targets: Sequence[Target], scale: Scale
) -> tuple[Floats, ...]:
    """For each task its test molecules' (n, 2) probabilities or (n,) numbers."""
    rows = np.unique(np.concatenate([target.rows[target.test] for target in targets]))
    outputs = outputs_of(network, inputs, rows)
    found: list[Floats] = []
    for place, target in enumerate(targets):
        own = outputs[np.searchsorted(rows, target.rows[target.test]), place]
        if target.classes:
            chance = 1.0 / (1.0 + np.exp(-np.clip(own, -500, 500)))
            found.append(np.stack([1.0 - chance, chance], axis=1))
        else:
            found.append(own * scale.width[place] + scale.centre[place])
    return tuple(found)


def _groups(network: nn.Module, training: Training) -> list[dict[str, Any]]:
    """The encoder's parameters at their own rate, all others at the head's."""
    if not isinstance(network, Network):
        return [{"params": list(network.parameters()), "lr": training.head_rate}]
    return [
        {"params": list(network.head.parameters()), "lr": training.head_rate},
        {"params": list(network.encoder.parameters()), "lr": training.rate},
    ]


def _chunks(order: Tensor, size: int) -> Iterator[Tensor]:
    """Batches; a last one of a single molecule joins the one before, for batch norm has no variance there."""
    pieces = list(torch.split(order, size))
    if len(pieces) > 1 and len(pieces[-1]) == 1:
        pieces[-2:] = [torch.cat(pieces[-2:])]
    return iter(pieces)


def _score(outputs: Floats, wanted: Wanted, classes: bool) -> float:
    """Mean AUROC over the tasks that have both classes here, or minus the loss."""
    known = ~np.isnan(wanted.values)
    if classes:
        two = [
            roc_auc_score(wanted.values[known[:, task], task], outputs[known[:, task], task])
            for task in range(outputs.shape[1])
            if len(np.unique(wanted.values[known[:, task], task])) == 2
        ]
        if two:
            return float(np.mean(two))
    loss = masked_loss(torch.from_numpy(outputs), torch.from_numpy(wanted.values), classes)
    return -float(loss)
