"""The training loop of fine-tuning: which parameters at which rate, which loss, which epoch is kept."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, UserError
from diptych.evaluation import metrics
from diptych.evaluation.embeddings import whole
from diptych.evaluation.metrics import Floats
from diptych.evaluation.target import Target
from diptych.study import Indices, Study

Mode = Literal["whole", "frozen", "layerwise"]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How an encoder is fine-tuned.

    Args:
        mode: whole trains everything at one rate, frozen the head alone, layerwise at rates that fall from
            the last layer to the first.
        head: Class path of a module made as Class(width, outputs), such as torch.nn.Linear or
            diptych.evaluation.tuning.MLP.
        epochs: Passes over the labelled training samples.
        rate: Learning rate (AdamW) of the encoder, of its last layer with layerwise.
        head_rate: Learning rate of the head.
        decay: With layerwise, each layer's rate is this times that of the layer after it.
        weight_decay: Of AdamW.
        class_weights: Weigh each class by the inverse of its share in the training samples.

    Raises:
        ConfigError: options that cannot be run.
    """

    mode: Mode = "whole"
    head: str = "torch.nn.Linear"
    epochs: int = 30
    rate: float = 1e-4
    head_rate: float = 1e-3
    decay: float = 0.75
    weight_decay: float = 0.01
    class_weights: bool = False

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ConfigError(f"fine-tuning takes at least 1 epoch; got {self.epochs}")
        if self.rate <= 0 or self.head_rate <= 0 or not 0 < self.decay <= 1 or self.weight_decay < 0:
            raise ConfigError(
                "learning rates are above 0, decay is above 0 and at most 1, weight_decay at least 0; got "
                f"rate {self.rate:g}, head_rate {self.head_rate:g}, decay {self.decay:g}, "
                f"weight_decay {self.weight_decay:g}"
            )


class MLP(nn.Module):
    """A head with one hidden layer: linear, batch norm, ReLU, linear."""

    def __init__(self, width: int, outputs: int, hidden: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) to (n, outputs)."""
        outputs: Tensor = self.layers(rows)
        return outputs


class Tuned(nn.Module):
    """An encoder with a head; ``centre`` and ``scale`` are the training labels' mean and SD in regression."""

    def __init__(self, encoder: nn.Module, head: nn.Module, centre: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.centre = centre
        self.scale = scale


def tune(
    study: Study,
    target: Target,
    encoder: nn.Module,
    train: Indices,
    validation: Indices,
    tuning: Tuning,
    device: torch.device,
) -> Tuned:
    """Fine-tune in place and return the model of the best validation epoch (the last without validation).

    Classification minimises softmax cross-entropy; regression the squared error of the standardised label.
    Draws from torch's global generator: seed it for a repeatable result. Samples are shuffled every epoch; a
    last batch of a single sample is left out, for batch norm has no variance there.

    Args:
        study: Gives the samples.
        target: The label.
        encoder: Is changed.
        train: Positions of the labelled training samples.
        validation: Positions of the labelled validation samples, possibly none.
        tuning: The options.
        device: Where to train.
    """
    model = _model(target, encoder, train, tuning).to(device)
    optimizer = torch.optim.AdamW(parameter_groups(model, tuning), weight_decay=tuning.weight_decay)
    weights = _class_weights(target, train).to(device) if tuning.class_weights and target.classes else None
    best, kept = -np.inf, None
    for _ in range(tuning.epochs):
        model.train()
        if tuning.mode == "frozen":
            model.encoder.eval()
        order = train[torch.randperm(len(train)).numpy()]
        values = torch.from_numpy(target.values[order]).to(device)
        for rows, wanted in _batches(study, target, model, order, values, device):
            if len(rows) == 1 and len(train) > 1:
                continue
            optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(_loss(model, rows, wanted, weights, target))
            optimizer.step()
        if len(validation):
            score = _validation_score(study, target, model, validation, device)
            if score > best:
                best, kept = score, {name: value.clone() for name, value in model.state_dict().items()}
    if kept is not None:
        model.load_state_dict(kept)
    return model


def predict(study: Study, target: Target, model: Tuned, positions: Indices, device: torch.device) -> Floats:
    """(n, classes) probabilities or (n,) numbers for the samples at ``positions``."""
    model.eval()
    with torch.inference_mode():
        outputs = [
            model.head(whole(model.encoder, batch, device)).float().cpu()
            for batch in study.plain(target.rows[positions])
        ]
    joined = torch.cat(outputs).double()
    if not bool(joined.isfinite().all()):
        raise UserError("fine-tuning diverged: predictions are not finite; lower the learning rates")
    if target.classes:
        return np.asarray(joined.softmax(dim=1).numpy())
    return np.asarray((joined[:, 0] * model.scale + model.centre).numpy())


def parameter_groups(model: Tuned, tuning: Tuning) -> list[dict[str, Any]]:
    """Parameters with their rates: the head, and the encoder's as the mode says.

    With layerwise, layer d before the last has ``rate * decay**d``. Layers are what the encoder's
    ``layers()`` lists from input to output, or else its children; parameters in none of them get the first
    layer's rate.
    """
    groups = [{"params": list(model.head.parameters()), "lr": tuning.head_rate}]
    if tuning.mode == "frozen":
        return groups
    if tuning.mode == "whole":
        return [*groups, {"params": list(model.encoder.parameters()), "lr": tuning.rate}]
    layers = _layers(model.encoder)
    seen: set[nn.Parameter] = set()
    for depth, layer in enumerate(reversed(layers)):
        parameters = [each for each in layer.parameters() if each not in seen]
        seen.update(parameters)
        if parameters:
            groups.append({"params": parameters, "lr": tuning.rate * tuning.decay**depth})
    rest = [each for each in model.encoder.parameters() if each not in seen]
    if rest:
        groups.append({"params": rest, "lr": tuning.rate * tuning.decay ** max(0, len(layers) - 1)})
    return groups


def make_head(path: str, width: int, outputs: int) -> nn.Module:
    """An instance of the class at a class path. Raises ConfigError where there is none."""
    module, _, name = path.rpartition(".")
    try:
        made = getattr(importlib.import_module(module), name)(width, outputs)
    except (ImportError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"the head {path!r} cannot be made: {error}; expected the path of a class that takes (width, "
            "outputs), such as torch.nn.Linear or diptych.evaluation.tuning.MLP"
        ) from error
    if not isinstance(made, nn.Module):
        raise ConfigError(f"the head {path!r} is a {type(made).__name__}; expected a torch.nn.Module")
    return made


def _model(target: Target, encoder: nn.Module, train: Indices, tuning: Tuning) -> Tuned:
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        raise TypeError(f"{type(encoder).__name__} has no width; an encoder says how wide its rows are")
    head = make_head(tuning.head, width, max(1, len(target.classes)))
    encoder.requires_grad_(tuning.mode != "frozen")
    if target.classes:
        return Tuned(encoder, head)
    values = target.values[train]
    return Tuned(encoder, head, float(values.mean()), float(values.std()) or 1.0)


def _layers(encoder: nn.Module) -> list[nn.Module]:
    offered = getattr(encoder, "layers", None)
    if callable(offered) and not isinstance(offered, nn.Module):
        return list(offered())
    return list(encoder.children())


def _class_weights(target: Target, train: Indices) -> Tensor:
    counts = np.bincount(target.codes[train], minlength=len(target.classes))
    known = np.count_nonzero(counts)
    return torch.tensor([len(train) / (known * count) if count else 0.0 for count in counts]).float()


def _batches(
    study: Study, target: Target, model: Tuned, order: Indices, values: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor]]:
    """(embeddings, labels) of each batch, the encoder's with gradient unless it is frozen."""
    start = 0
    for batch in study.plain(target.rows[order]):
        rows = whole(model.encoder, batch, device)
        yield rows, values[start : start + len(rows)]
        start += len(rows)


def _loss(model: Tuned, rows: Tensor, wanted: Tensor, weights: Tensor | None, target: Target) -> Tensor:
    outputs = model.head(rows)
    if target.classes:
        return F.cross_entropy(outputs, wanted.long(), weight=weights)
    return F.mse_loss(outputs[:, 0], ((wanted - model.centre) / model.scale).to(outputs.dtype))


def _validation_score(
    study: Study, target: Target, model: Tuned, validation: Indices, device: torch.device
) -> float:
    """Macro F1, or minus MAE: the higher the better."""
    predicted = predict(study, target, model, validation, device)
    if target.classes:
        return metrics.classification_scores(target.codes[validation], predicted)["macro F1"]
    return -metrics.regression_scores(target.values[validation], predicted)["MAE"]
