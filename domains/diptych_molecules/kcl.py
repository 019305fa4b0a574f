"""KCL: a molecule is contrasted with its own view augmented by the element knowledge graph.

Source: Fang et al. 2022, "Molecular Contrastive Learning with Chemical Element Knowledge Graph" (AAAI). Each view has
an encoder of its own, the projector is shared, and readouts are trained with the encoders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from diptych.branch import Branch
from diptych.errors import ConfigError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.views import GraphAugmentation
from diptych.heads import Projector
from diptych.method import Method, OptimizerFactory, Pass, Phase, ScheduleFactory, Term
from diptych.objectives import InfoNCE
from diptych.recipes import Augmented, Averaging, averaged, width_of
from diptych.types import Encoded
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


class BothViews(nn.Module):
    """The two views of a batch: what follows encodes each in its own way, after each one's random changes."""

    def __init__(self, changes: Sequence[GraphAugmentation]) -> None:
        super().__init__()
        self.changes = tuple(changes)

    @torch.no_grad()
    def forward(self, batch: GraphBatch) -> tuple[GraphBatch, GraphBatch]:
        """Two batches, the same where there are no changes."""
        views = []
        for _ in range(2):
            view = batch
            for change in self.changes:
                view = change.apply(view, change.draw(view))
            views.append(view)
        return views[0], views[1]


@dataclass(frozen=True, kw_only=True)
class KCL:
    """Contrast a molecule's original view with the one augmented by the element knowledge graph, by NT-Xent.

    What is kept is the recipe's encoder. A :class:`Pair` holds the encoders of both views and keeps both. Any other
    encoder sees one of the views, and the other view's encoder is thrown away after pretraining.

    Args:
        other: Makes the encoder of the other view; by default a KMPNN, or a GCN where the recipe's encoder is a KMPNN.
        temperature: Divides the cosines. The paper's; the released code computes with 0.05 whatever is set.
        hidden: Units of the shared projector's hidden layer.
        width: Of the projection.
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

        Raises ConfigError when a Pair comes with another encoder, or widths differ, since the projector is shared.
        """
        first, second = self._views_of(encoder)
        if width_of(first) != width_of(second):
            raise ConfigError(
                f"both views share a projector, so their encoders are equally wide; got {type(first).__name__} "
                f"with {width_of(first)} and {type(second).__name__} with {width_of(second)}"
            )
        projector = Projector(width_of(first), self.hidden, self.width, normalize=False)
        online = Augmented(BothViews(self.changes), Branch([first, second], projector))
        kept, parts, after = averaged(encoder, self.averaging, self.decay)
        parts["projector"] = projector
        if encoder is first:
            parts["other"] = second
        objective = InfoNCE(temperature=self.temperature)
        phase = Phase(
            name="kcl",
            passes=[Pass(online=online, terms=[Term(name="sample", objective=objective)])],
            trains=[first, second, projector],
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
