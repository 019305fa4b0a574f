"""COMET: contrast of time series at the observation, sample, trial and patient level.

Source: Wang, Han, Wang and Zhang 2023, "Contrast Everything: A Hierarchical Contrastive Framework for Medical
Time-Series" (NeurIPS), as the released code computes it. The losses act on the encoder's output at every time
step; there is no projector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.recipes import Averaging, averaged
from diptych.types import Encoded, Views
from diptych_biosignals.encoder import DilatedEncoder
from diptych_biosignals.levels import IdLevel, ObservationLevel, Order, SampleLevel
from diptych_biosignals.masks import MASKS, MaskName, Shape, draw_mask


class DroppedViews(nn.Module):
    """``count`` views of a batch that differ by the encoder's dropout alone, from one pass of its trunk."""

    def __init__(self, encoder: DilatedEncoder, count: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.count = count

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """Encode ``batch.views[0]`` (n, T, C) without a mask."""
        z = self.encoder.trunk(batch.views[0])
        return tuple(self.encoder.encoded(self.encoder.dropout(z)) for _ in range(self.count))


class MaskedViews(nn.Module):
    """Two views of a batch under independent masks, each a pass of its own."""

    def __init__(self, encoder: DilatedEncoder, mask: MaskName, segments: int, share: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask: MaskName = mask
        self.segments, self.share = segments, share

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """Encode ``batch.views[0]`` (n, T, C) under two masks."""
        x: Tensor = batch.views[0]
        shape = Shape(x.shape[0], x.shape[1], self.encoder.input_fc.out_features, x.device)
        masks = [draw_mask(self.mask, shape, segments=self.segments, share=self.share) for _ in range(2)]
        return tuple(self.encoder(x, mask) for mask in masks)


@dataclass(frozen=True, kw_only=True)
class Comet:
    """Pretrain a :class:`DilatedEncoder` with COMET's four levels.

    Every level is encoded and backpropagated before the next, so one level's activations live at a time. The
    patient and trial views are dropouts of one pass through the trunk, which leaves the value of the loss as
    it is.

    Args:
        weights: of the patient, trial, sample and observation level, in this order; 0 leaves a level out. The
            paper's code has 0.25 four times for EEG and 0.1, 0.7, 0.1, 0.1 for the ECG of PTB.
        weighting: "as_released" gives the patient and trial levels weight 1 unless theirs is 0, as the
            released code does in effect; "as_written" uses the weights given.
        order: which windows are anchors of the patient and trial levels: "as_released" only the earlier one
            of a pair, so that the loss depends on the order of the batch, or both ("order_free").
        temperature: divides the cosines of the patient and trial levels.
        mask: how the views of the sample and observation levels are masked.
        segments: runs of time steps that a "continuous" mask hides.
        segment_share: length of such a run as a share of the window.
        views: "own" draws two views for every level, as the paper does; "shared" lets the sample and
            observation levels see the same two masked views, and patient and trial the same two dropouts: the
            same expectation at about two thirds of the time.
        averaging: which weights are kept: the "uniform" mean of all iterates with the initial ones among them
            (COMET), an exponential moving average ("ema"), or the last ones ("none").
        decay: of the exponential moving average.

    Raises:
        ConfigError: a negative weight, no weight above 0, or an unknown mask.
    """

    weights: tuple[float, float, float, float] = (0.25, 0.25, 0.25, 0.25)
    weighting: Literal["as_released", "as_written"] = "as_released"
    order: Order = "as_released"
    temperature: float = 0.1
    mask: MaskName = "continuous"
    segments: int = 5
    segment_share: float = 0.1
    views: Literal["own", "shared"] = "own"
    averaging: Averaging = "uniform"
    decay: float = 0.999

    def __post_init__(self) -> None:
        if len(self.weights) != 4 or min(self.weights) < 0 or max(self.weights) <= 0:
            raise ConfigError(
                "weights are four numbers, of the patient, trial, sample and observation level, none below 0 "
                f"and at least one above; got {list(self.weights)}"
            )
        if not self.temperature > 0:
            raise ConfigError(f"temperature must be above 0, got {self.temperature}")
        if self.mask not in MASKS:
            raise ConfigError(f"mask must be one of {', '.join(MASKS)}, got {self.mask!r}")
        if self.segments < 1 or not 0 < self.segment_share <= 1:
            raise ConfigError(
                "a mask needs at least 1 segment of a length above 0 and up to 1 (the whole window), got "
                f"segments {self.segments} and segment_share {self.segment_share}"
            )

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder``: one phase, whose passes are the levels' encodings.

        Raises ConfigError when the encoder is not a DilatedEncoder, whose hidden units COMET masks.
        """
        if not isinstance(encoder, DilatedEncoder):
            raise ConfigError(
                f"COMET masks the hidden units of a DilatedEncoder, got a {type(encoder).__name__}; set "
                "encoder to diptych_biosignals.encoder.DilatedEncoder or choose another method, such as NTXent"
            )
        kept, parts, after = averaged(encoder, self.averaging, self.decay)
        phase = Phase(
            name="comet",
            passes=self.passes(encoder),
            trains=[encoder],
            optimizer=optimizer,
            schedule=schedule,
            after=after,
        )
        return Method(parts, [phase], kept)

    def passes(self, encoder: DilatedEncoder) -> list[Pass]:
        """The encodings of a batch with the levels computed from each; levels of weight 0 are left out."""
        shared = self.views == "shared"
        ids = [
            (level, self._weight(weight))
            for level, weight in zip(("patient", "trial"), self.weights[:2], strict=True)
            if weight > 0
        ]
        passes = []
        if ids:
            pairs = [(0, 1) if shared else (2 * i, 2 * i + 1) for i in range(len(ids))]
            terms = [
                Term(name=level, objective=self._id_level(level, pair), weight=weight)
                for (level, weight), pair in zip(ids, pairs, strict=True)
            ]
            passes.append(Pass(online=DroppedViews(encoder, 2 if shared else 2 * len(ids)), terms=terms))
        timed = [
            Term(name=name, objective=objective, weight=weight)
            for name, objective, weight in (
                ("sample", SampleLevel(), self.weights[2]),
                ("observation", ObservationLevel(), self.weights[3]),
            )
            if weight > 0
        ]
        # The observation level holds less for the backward pass, so it goes before the sample level.
        for terms in [timed[::-1]] if shared and timed else [[term] for term in timed]:
            masked = MaskedViews(encoder, self.mask, self.segments, self.segment_share)
            passes.append(Pass(online=masked, terms=terms))
        return passes

    def _weight(self, weight: float) -> float:
        return 1.0 if self.weighting == "as_released" else weight

    def _id_level(self, level: str, pair: tuple[int, int]) -> IdLevel:
        return IdLevel(level=level, temperature=self.temperature, order=self.order, pair=pair)
