"""One panel of the diptych: encoders and the heads that follow them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from diptych.types import Encoded, Views


class Branch(nn.Module):
    """Encodes every view of a batch, then projects and predicts.

    ``encoder`` is one for all views or a sequence with one per view (two kinds of graph, one projector).
    Heads take (n, width) and apply to ``whole``; with ``dense`` to every position of ``grid`` and every part
    too.
    """

    def __init__(
        self,
        encoder: nn.Module | Sequence[nn.Module],
        projector: nn.Module | None = None,
        predictor: nn.Module | None = None,
        *,
        dense: bool = False,
    ) -> None:
        super().__init__()
        several = not isinstance(encoder, nn.Module) or isinstance(encoder, nn.ModuleList)
        self.encoders = nn.ModuleList(encoder if several else [encoder])  # type: ignore[arg-type, list-item]
        self.shared = not several
        self.projector = projector
        self.predictor = predictor
        self.dense = dense

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        """One :class:`Encoded` per view.

        Raises:
            ValueError: the batch has another number of views than the branch has encoders.
        """
        encoders = [self.encoders[0]] * len(batch.views) if self.shared else list(self.encoders)
        if len(encoders) != len(batch.views):
            raise ValueError(
                f"the branch has {len(encoders)} encoders, one per view; got {len(batch.views)} views"
            )
        return tuple(self._headed(encode(view)) for encode, view in zip(encoders, batch.views, strict=True))

    def _headed(self, encoded: Encoded) -> Encoded:
        for head in (self.projector, self.predictor):
            if head is not None:
                parts, grid = encoded.parts, encoded.grid
                if self.dense:
                    parts = None if parts is None else head(parts)
                    grid = None if grid is None else _on_grid(head, grid)
                encoded = Encoded(head(encoded.whole), parts, grid)
        return encoded


def _on_grid(head: nn.Module, grid: Tensor) -> Tensor:
    """Apply a head to every position of (n, width, *space)."""
    rows = grid.movedim(1, -1)
    projected: Tensor = head(rows.flatten(0, -2))
    return projected.view(*rows.shape[:-1], -1).movedim(-1, 1)
