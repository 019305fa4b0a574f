"""Fine-tuning of biosignal encoders: as it should be and, on request, with what the released COMET code does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.evaluation.finetune import finetune as finetune_encoder
from diptych.evaluation.table import Table
from diptych.evaluation.target import Task
from diptych.evaluation.tuning import Mode
from diptych.study import Study
from diptych.types import Encoded
from diptych_biosignals.encoder import DilatedEncoder
from diptych_biosignals.masks import Shape, draw_mask

RELEASED_HEAD = "diptych_biosignals.finetune.ReleasedHead"


class ReleasedHead(nn.Module):
    """The head of the released code: linear, batch norm, ReLU, linear, dropout on the outputs, for two
    classes the sigmoid of the sigmoid.

    The outputs for two classes thus lie between 0.5 and 0.731, and the softmax that follows between 0.443 and
    0.557: the order of the windows is kept, gradients shrink to a sixteenth and less.
    """

    def __init__(self, width: int, outputs: int, hidden: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, outputs)
        )
        self.dropout = nn.Dropout(dropout)
        self.squash = outputs == 2

    def forward(self, rows: Tensor) -> Tensor:
        """(n, width) to (n, outputs)."""
        outputs: Tensor = self.dropout(self.layers(rows))
        return outputs.sigmoid().sigmoid() if self.squash else outputs


class HiddenMasking(nn.Module):
    """An encoder that hides each time step with probability 1/2 in training mode, as the released one does."""

    def __init__(self, encoder: DilatedEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.width = encoder.width

    def forward(self, x: Tensor) -> Encoded:
        """x (n, T, C) -> whole (n, width), grid (n, width, T)."""
        if not self.training:
            encoded: Encoded = self.encoder(x)
            return encoded
        shape = Shape(x.shape[0], x.shape[1], self.encoder.input_fc.out_features, x.device)
        masked: Encoded = self.encoder(x, draw_mask("binomial", shape))
        return masked

    def layers(self) -> list[nn.Module]:
        """The encoder's parts from input to output."""
        return self.encoder.layers()


def hidden_masking(encoder: nn.Module) -> HiddenMasking:
    """Wrap an encoder. Raises ConfigError when it is not a DilatedEncoder."""
    if not isinstance(encoder, DilatedEncoder):
        raise ConfigError(
            f"as_released is how COMET's code fine-tunes a DilatedEncoder, got a {type(encoder).__name__}; leave "
            "as_released out"
        )
    return HiddenMasking(encoder)


def finetune(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    label: str,
    as_released: bool = False,
    task: Task = "auto",
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    draws: int = 2000,
    mode: Mode = "whole",
    head: str = "torch.nn.Linear",
    epochs: int = 30,
    rate: float = 1e-4,
    head_rate: float = 1e-3,
    decay: float = 0.75,
    weight_decay: float = 0.01,
    class_weights: bool = False,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Train the encoder and a head on the labels; the same budget for the encoder from scratch.

    The epoch with the best score of the validation patients (macro F1, or MAE) is kept; of these, too, only
    the label fraction is used. Rows: pretrained, from scratch (random weights; the encoder stays so with mode
    frozen), a random forest and a linear model on hand-made features, and the majority class or mean.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        label: Name of the label to predict.
        as_released: Repeat the released COMET code: its head (batch norm, dropout on the outputs, for two
            classes two sigmoids before the softmax), half of the time steps hidden in training, and one rate
            for encoder and head. This replaces head and head_rate.
        task: classification, regression, or auto: text is classes, numbers are regression.
        fractions: Shares of the labelled training and validation patients to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of patients.
        draws: Number of bootstrap resamples of the test patients.
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
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to train: auto, cpu, cuda.
    """
    if as_released:
        encoder = (
            hidden_masking(encoder)
            if isinstance(encoder, nn.Module)
            else [hidden_masking(each) for each in encoder]
        )
        fresh = study.new_encoder
        study = replace(study, new_encoder=lambda: hidden_masking(fresh()))
        head, head_rate = RELEASED_HEAD, rate
    return finetune_encoder(
        study,
        encoder,
        label=label,
        task=task,
        fractions=fractions,
        seeds=seeds,
        draws=draws,
        mode=mode,
        head=head,
        epochs=epochs,
        rate=rate,
        head_rate=head_rate,
        decay=decay,
        weight_decay=weight_decay,
        class_weights=class_weights,
        run_splits=run_splits,
        device=device,
    )
