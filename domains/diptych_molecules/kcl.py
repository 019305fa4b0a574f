"""KCL: a molecule is contrasted with its own view augmented by the element knowledge graph.

Source: Fang et al. 2022, "Molecular Contrastive Learning with Chemical Element Knowledge Graph" (AAAI). Each view has
an encoder of its own, the projector is shared, and readouts are trained with the encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.views import GraphAugmentation
from diptych.heads import Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.objectives import InfoNCE
from diptych.recipes import Averaging, averaged, width_of
from diptych.types import Encoded, Views
from diptych_molecules.gcn import GCN
from diptych_molecules.kmpnn import KMPNN


class Pair(nn.Module):
    """The encoders of both views as one that is kept: their rows side by side.

    Args:
        original: makes the encoder of the original view; by default a GCN.
        augmented: makes the encoder of the view with the element knowledge graph; by default a KMPNN.
    """

    def __init__(
        self,
        original: Callable[[], nn.Module] | None = None,
        augmented: Callable[[], nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.original = GCN() if original is None else original()
        self.augmented = KMPNN() if augmented is None else augmented()
        self.width = width_of(self.original) + width_of(self.augmented)
        self.parts_width = sum(
            getattr(each, "parts_width", width_of(each)) for each in (self.original, self.augmented)
        )

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of molecules with both."""
        first, second = self.original(batch), self.augmented(batch)
        parts = None
        if first.parts is not None and second.parts is not None:
            parts = torch.cat([first.parts, second.parts], dim=1)
        return Encoded(torch.cat([first.whole, second.whole], dim=1), parts)


class TwoViews(nn.Module):
    """A batch of molecules seen by the encoders of both views, after random changes that each view has of its own.

    Args:
        encoders: of the original and of the augmented view.
        projectors: one that both share, or one for each.
        changes: random changes of each view; none where both see the molecules as they are.
    """

    def __init__(
        self,
        encoders: Sequence[nn.Module],
        projectors: Sequence[nn.Module],
        changes: Sequence[GraphAugmentation] = (),
    ) -> None:
        super().__init__()
        self.encoders, self.projectors = nn.ModuleList(encoders), nn.ModuleList(projectors)
        self.changes = tuple(changes)

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """The projected rows of the molecules of ``batch.views[0]`` in both views."""
        encoded = [encode(self._changed(batch.views[0])) for encode in self.encoders]
        projectors = list(self.projectors) * (len(encoded) // len(self.projectors))
        return tuple(Encoded(head(each.whole)) for head, each in zip(projectors, encoded, strict=True))

    @torch.no_grad()
    def _changed(self, molecules: GraphBatch) -> GraphBatch:
        for change in self.changes:
            molecules = change.apply(molecules, change.draw(molecules))
        return molecules


@dataclass(frozen=True, kw_only=True)
class KCL:
    """Contrast a molecule's original view with the one augmented by the element knowledge graph, by NT-Xent.

    What is kept is the recipe's encoder. A :class:`Pair` holds the encoders of both views and keeps both. Any other
    encoder sees one of the views, and the other view's encoder is thrown away after pretraining.

    Args:
        other: Makes the encoder of the other view; by default a KMPNN, or a GCN where the recipe's encoder is a KMPNN.
        temperature: Divides the cosines. The paper's; the released code computes with 0.05 whatever is set.
        hidden: Units of the projector's hidden layer. Both views share the projector where their encoders are
            equally wide, as in KCL.
        width: Of the projection.
        normalize: Batch norm in the projector. KCL has none, but without it wide encoders at high rates may make all
            of the projector's hidden units 0, and the loss stays at the logarithm of the number of negatives.
        changes: Random changes to the molecule before each view is encoded (diptych.graphs.views), for instance
            masked atoms and bonds left out; none in KCL.
        averaging: Which weights are kept: the last ones ("none"), their mean ("uniform") or moving mean ("ema").
        decay: Of the moving mean.

    Raises:
        ConfigError: a temperature not above 0.
    """

    other: Callable[[], nn.Module] | None = None
    temperature: float = 0.1
    hidden: int = 64
    width: int = 128
    normalize: bool = False
    changes: Sequence[GraphAugmentation] = ()
    averaging: Averaging = "none"
    decay: float = 0.999

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ConfigError(f"the temperature must be above 0, got {self.temperature:g}")

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None = None
    ) -> Method:
        """The method that trains ``encoder`` and the encoder of the other view.

        Raises ConfigError when a Pair comes with an encoder of the other view.
        """
        encoders = self._views_of(encoder)
        widths = [width_of(each) for each in encoders]
        # a shared projector needs rows of one width
        projectors = [
            Projector(width, self.hidden, self.width, normalize=self.normalize)
            for width in (widths[:1] if widths[0] == widths[1] else widths)
        ]
        kept, parts, after = averaged(encoder, self.averaging, self.decay)
        parts["projector"] = nn.ModuleList(projectors)
        if not isinstance(encoder, Pair):
            parts["other"] = encoders[1]
        objective = InfoNCE(temperature=self.temperature)
        phase = Phase(
            name="kcl",
            passes=[
                Pass(
                    online=TwoViews(encoders, projectors, self.changes),
                    terms=[Term(name="sample", objective=objective)],
                )
            ],
            trains=[*encoders, *projectors],
            optimizer=optimizer,
            schedule=schedule,
            after=after,
        )
        return Method(parts, [phase], kept)

    def _views_of(self, encoder: nn.Module) -> tuple[nn.Module, nn.Module]:
        if isinstance(encoder, Pair):
            if self.other is not None:
                raise ConfigError(
                    "a Pair holds the encoders of both views; leave method.other out, or give one encoder"
                )
            return encoder.original, encoder.augmented
        if self.other is not None:
            return encoder, self.other()
        return encoder, GCN() if isinstance(encoder, KMPNN) else KMPNN()
