"""The few types that the core and every domain share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Encoded(NamedTuple):
    """What an encoder returns for n samples."""

    whole: Tensor  # (n, width): one row per sample
    parts: Tensor | None = None  # (m, width): one row per part of a ragged sample (atom, net, pin)
    grid: Tensor | None = None  # (n, grid_width, *space): dense map where parts lie on a grid (time, 2D, 3D)


class Views(NamedTuple):
    """What a loader yields: the domain's own batches, which the core passes on unopened, and ids.

    ``groups["sample"]`` (n,) is always there and is unique over the whole data set, so that ids keep their
    meaning through gather and queue. Others are the domain's: ``"trial"`` (n,), ``"patient"`` (n,),
    ``"point"`` (m,), ``"mask"`` (n, *space) with an id for each position of a dense map. All are int64; -1
    means negative only: such a row is nobody's positive.
    """

    views: tuple[Any, ...]
    groups: Mapping[str, Tensor]


class Rows(NamedTuple):
    """Embeddings with the ids that say how they are contrasted: what losses and queues see.

    Rows of one ``group`` are positives, rows of one ``scope`` are compared, and no two rows with the same
    ``row`` id are ever compared. Leading dimensions of ``z`` are scopes of equal size; ``scope`` is for
    scopes of unequal size.
    """

    z: Tensor  # (*scopes, n, width)
    group: Tensor  # (*scopes, n) or (n,), int64; -1 = negative only
    row: Tensor  # (*scopes, n) or (n,), int64: the identity of the row
    scope: Tensor | None = None  # (n,), int64: compared only with rows of the same scope


class Encoder(Protocol):
    """A network with a ``width`` that turns one view into :class:`Encoded`; an ``nn.Module`` in practice.

    Where its ``grid`` is of another width than its ``whole`` rows it says so as ``grid_width``.
    """

    width: int

    def __call__(self, view: Any, /) -> Encoded: ...
