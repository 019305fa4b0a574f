"""Training a network on targets, and what it predicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diptych.errors import ConfigError, UserError
from diptych.evaluation.metrics import Floats
from diptych.study import Indices
from diptych_circuits.balanced.losses import HeadLoss
from diptych_circuits.heads import Encoding, Network, Portion
from diptych_circuits.scored import class_scores, confusion_of

# positions of targets and a generator that shuffles them (None keeps their order) -> portions
Portions = Callable[[Indices, np.random.Generator | None], Iterator[Portion]]


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """How networks are trained: AdamW, cosine to 0, the epoch of the best validation score kept."""

    epochs: int
    rate: float  # of all that is new
    encoder_rate: float  # of a pretrained encoder that is trained too
    weight_decay: float = 1e-4

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"epochs: expected at least 1; got {self.epochs}")
        if not (self.rate > 0 and self.encoder_rate > 0):
            raise ConfigError(
                f"learning rates are above 0; got rate {self.rate:g} and encoder_rate {self.encoder_rate:g}"
            )


def fit(
    network: Network,
    loss: HeadLoss,
    portions: Portions,
    labels: Tensor,
    train: Indices,
    validation: Indices,
    fitting: Fitting,
    seed: int,
) -> Network:
    """Trains a network in place. Draws dropout from torch's global generator: seed it.

    A portion of a single target is left out, for it has no variance to standardise by.

    Args:
        network: Gives (b, outputs).
        loss: Takes (b,) numbers, or (b, classes) logits, with the labels; its parameters are trained too.
        portions: Makes the steps of an epoch.
        labels: (n,) of all targets: float numbers, or int64 classes.
        train: Positions to train on.
        validation: Positions that choose the epoch; without any the last is kept.
        fitting: The options.
        seed: Of the order.
    """
    generator = np.random.default_rng(seed)
    encoder = list(network.rows.encoder.parameters()) if isinstance(network.rows, Encoding) else []
    pretrained = set(encoder)
    fresh = [each for each in (*network.parameters(), *loss.parameters()) if each not in pretrained]
    groups = [{"params": fresh, "lr": fitting.rate}]
    if encoder:
        groups.append({"params": encoder, "lr": fitting.encoder_rate})
    optimizer = torch.optim.AdamW(groups, weight_decay=fitting.weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fitting.epochs)
    best, kept = -np.inf, None
    for _ in range(fitting.epochs):
        network.train()
        for portion in portions(train, generator):
            if len(portion.positions) == 1:
                continue
            optimizer.zero_grad(set_to_none=True)
            outputs = network(portion)
            wanted = labels[portion.positions]
            value = loss(outputs if wanted.dtype == torch.int64 else outputs[:, 0], wanted)
            torch.autograd.backward(value)
            optimizer.step()
        schedule.step()
        if len(validation):
            score = _score(predict(network, portions, validation), labels[validation].numpy())
            if score > best:
                best, kept = score, deepcopy(network.state_dict())
    if kept is not None:
        network.load_state_dict(kept)
    return network


def predict(network: Network, portions: Portions, positions: Indices) -> Floats:
    """(n,) numbers, or (n, classes) probabilities, for the targets at ``positions``, in their order.

    Raises UserError when they are not finite.
    """
    network.eval()
    with torch.inference_mode():
        found = [(portion.positions, network(portion)) for portion in portions(positions, None)]
    order = torch.cat([places for places, _ in found]).numpy()
    outputs = torch.cat([each for _, each in found]).double()
    if not bool(outputs.isfinite().all()):
        raise UserError(
            "predictions are not finite: the training diverged or the encoder's weights are damaged; lower the "
            "learning rates, or take an earlier checkpoint"
        )
    rows = (outputs[:, 0] if outputs.shape[1] == 1 else outputs.softmax(dim=1)).numpy()
    sorter = np.argsort(order)
    return np.asarray(rows[sorter[np.searchsorted(order, positions, sorter=sorter)]])


def _score(predicted: Floats, labels: NDArray[Any]) -> float:
    """Macro F1 of classes, or minus the mean squared error: the higher the better."""
    if predicted.ndim == 1:
        return -float(np.mean((predicted - labels) ** 2))
    confusion = confusion_of(labels, predicted.argmax(axis=1), predicted.shape[1])
    return float(class_scores(confusion.sum(axis=0, keepdims=True))["macro F1"][0])
