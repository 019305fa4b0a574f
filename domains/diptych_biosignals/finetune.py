"""Fine-tuning of biosignal encoders: as it should be and, on request, with what the released COMET code does."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.evaluation.finetune import FineTuning
from diptych.evaluation.frozen import Encoders, encoders_of
from diptych.evaluation.table import Table
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


@dataclass(frozen=True, kw_only=True)
class SignalFineTuning(FineTuning):
    """Train the encoder and a head on the labels, on request as COMET's release does it; rows as in the core.

    Args:
        as_released: Repeat the released COMET code: its head (batch norm, dropout on the outputs, for two
            classes two sigmoids before the softmax), half of the time steps hidden in training, and one rate
            for encoder and head. This replaces head and head_rate.
    """

    as_released: bool = False

    def __call__(self, study: Study, encoder: Encoders) -> Table:
        """The table of the pretrained encoder, or of one from each pretraining seed. It is copied."""
        if not self.as_released:
            return super().__call__(study, encoder)
        core = replace(self, as_released=False, head=RELEASED_HEAD, head_rate=self.rate)
        fresh = study.new_encoder
        return core(
            replace(study, new_encoder=lambda: hidden_masking(fresh())),
            [hidden_masking(each) for each in encoders_of(encoder)],
        )
