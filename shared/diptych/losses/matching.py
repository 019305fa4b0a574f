"""What ids say about two sets of rows: which are compared, which are positives, and how many.

Nothing here holds an n x n table: what is quadratic is made one tile at a time, and sums over positives go
through sums per group. Ids are (scopes, n) or, where all scopes share them, (1, n).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

Positives = Literal["others", "later"]


class Tile(NamedTuple):
    """A rectangle of the logits: some scopes, some anchors, some keys."""

    scopes: slice
    rows: slice
    columns: slice

    @property
    def above_diagonal(self) -> bool:
        """Tiles of symmetric logits are cut alike in both directions, so they start on it, above or below."""
        return bool(self.columns.start > self.rows.start)

    @property
    def below_diagonal(self) -> bool:
        """See :attr:`above_diagonal`."""
        return bool(self.columns.start < self.rows.start)


class Ids(NamedTuple):
    """The ids of one set of rows, each (scopes, n) or (1, n)."""

    group: Tensor
    row: Tensor
    scope: Tensor | None


def dense_rank(*ids: Tensor) -> Tensor:
    """Number the distinct tuples of ids along the last dimension from 0, without waiting for the device.

    Each of ``ids`` is (*, n) int64; two positions get one number exactly when they agree in every id.
    """
    n = ids[0].shape[-1]
    rank = _rank(ids[0])
    for column in ids[1:]:
        rank = _rank(rank * n + _rank(column))
    return rank


def _rank(ids: Tensor) -> Tensor:
    ordered, order = ids.sort(dim=-1)
    steps = torch.zeros_like(ids)
    steps[..., 1:] = ordered[..., 1:] != ordered[..., :-1]
    return torch.empty_like(ids).scatter_(-1, order, steps.cumsum(-1))


class Pairs:
    """Pairs (i, j) of an anchor and a key that all scopes share, looked up by tile.

    For pairs that are few: a mask over a tile costs as much as the tile's matrix product. ``i`` is ascending.
    Where they are many or counting them would make a device wait, masks or sums per group serve instead.
    """

    def __init__(self, i: Tensor, j: Tensor) -> None:
        self._i, self._j = i, j
        self._by_tile: dict[tuple[int, int, int, int], tuple[Tensor, Tensor, Tensor]] = {}

    def inside(self, tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        """The tile's pairs: their places in a flattened scope of the tile, their anchors, their keys."""
        rows, columns = tile.rows, tile.columns
        at = (rows.start, rows.stop, columns.start, columns.stop)
        if at not in self._by_tile:
            low, high = torch.searchsorted(self._i, torch.tensor([rows.start, rows.stop])).tolist()
            i, j = self._i[low:high], self._j[low:high]
            inside = (j >= columns.start) & (j < columns.stop)
            i, j = i[inside], j[inside]
            places = (i - rows.start) * (columns.stop - columns.start) + (j - columns.start)
            self._by_tile[at] = places, i, j
        return self._by_tile[at]


def equal_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All (i, j) with left[i] == right[j], ordered by i."""
    ordered, order = right.sort()
    first = torch.searchsorted(ordered, left)
    times = torch.searchsorted(ordered, left, right=True) - first
    i = torch.arange(len(left)).repeat_interleave(times)
    nth = torch.arange(len(i)) - (times.cumsum(0) - times).repeat_interleave(times)
    return i, order[first.repeat_interleave(times) + nth]


class Exclusions:
    """Sets the logits of pairs that are never compared to -inf: same row id, or another scope id."""

    def __init__(self, anchors: Ids, keys: Ids, *, keep_self: bool, listed: bool) -> None:
        self._anchors, self._keys, self._keep_self = anchors, keys, keep_self
        self._pairs = None
        if (
            listed
            and not keep_self
            and anchors.scope is None
            and anchors.row.shape[0] == keys.row.shape[0] == 1
        ):
            self._pairs = Pairs(*equal_pairs(anchors.row[0], keys.row[0]))

    def apply(self, logits: Tensor, tile: Tile) -> None:
        """Fill ``logits`` (scopes, rows, columns) of one tile in place."""
        if self._pairs is not None:
            places, _, _ = self._pairs.inside(tile)
            if len(places):
                logits.flatten(1).index_fill_(1, places, -torch.inf)
            return
        if not self._keep_self:
            logits.masked_fill_(_across(torch.eq, self._anchors.row, self._keys.row, tile), -torch.inf)
        if self._anchors.scope is not None and self._keys.scope is not None:
            logits.masked_fill_(_across(torch.ne, self._anchors.scope, self._keys.scope, tile), -torch.inf)


def _across(compare: object, left: Tensor, right: Tensor, tile: Tile) -> Tensor:
    """Compare every anchor id of a tile with every key id: (scopes or 1, rows, columns), bool."""
    left = (left if left.shape[0] == 1 else left[tile.scopes])[:, tile.rows, None]
    right = (right if right.shape[0] == 1 else right[tile.scopes])[:, None, tile.columns]
    result: Tensor = compare(left, right)  # type: ignore[operator]
    return result


class MaskedPositives:
    """The positives of a tile as a mask: for forms whose positives are weighed or ordered one by one."""

    def __init__(self, anchors: Ids, keys: Ids, which: Positives) -> None:
        self._anchors, self._keys, self._which = anchors, keys, which

    def mask(self, tile: Tile) -> Tensor:
        """True where the key is a positive of the anchor: (scopes or 1, rows, columns)."""
        anchors, keys = self._anchors, self._keys
        same = _across(torch.eq, anchors.group, keys.group, tile)
        same = same & _across(lambda i, j: (i >= 0) & (j >= 0), anchors.group, keys.group, tile)
        order = torch.lt if self._which == "later" else torch.ne
        same = same & _across(order, anchors.row, keys.row, tile)
        if anchors.scope is not None and keys.scope is not None:
            same = same & _across(torch.eq, anchors.scope, keys.scope, tile)
        return same


class GroupedPositives:
    """Sums over each row's positives as (sum of its group) - (sum of its group under its own row id).

    ``count`` (scopes or 1, n) is how many positives each anchor has; 0 for group -1. ``pairs`` lists them
    where they are few.
    """

    def __init__(self, anchors: Ids, keys: Ids | None, *, listed: bool) -> None:
        both = anchors if keys is None else _joined(anchors, keys)
        scope = [] if both.scope is None else [both.scope]
        group, row = torch.broadcast_tensors(both.group, both.row)  # type: ignore[no-untyped-call]
        n = anchors.group.shape[-1]
        self._ranks = group.shape[-1]
        ranks = dense_rank(group, *scope), dense_rank(group, *scope, row)
        self._anchor_ranks = ranks[0][:, :n], ranks[1][:, :n]
        self._key_ranks = self._anchor_ranks if keys is None else (ranks[0][:, n:], ranks[1][:, n:])
        of_group, of_row = (
            torch.zeros_like(rank).scatter_add_(-1, of, torch.ones_like(of)).gather(-1, own)
            for rank, of, own in zip(ranks, self._key_ranks, self._anchor_ranks, strict=True)
        )
        self.count = torch.where(group[:, :n] >= 0, of_group - of_row, 0)
        self.pairs: Pairs | None = None
        if listed and len(group) == 1:
            has = self.count[0] > 0
            if int(of_group[0][has].sum()) <= 8 * self._ranks:
                self.pairs = self._listed(has.nonzero()[:, 0])

    def _listed(self, anchors: Tensor) -> Pairs:
        """The pairs of these anchors, which have positives."""
        groups, rows = self._anchor_ranks[0][0, anchors], self._anchor_ranks[1][0, anchors]
        i, j = equal_pairs(groups, self._key_ranks[0][0])
        positive = rows[i] != self._key_ranks[1][0, j]
        return Pairs(anchors[i[positive]], j[positive])

    def key_sums(self, keys: Tensor, scopes: slice) -> Tensor:
        """For every anchor the sum of its positive keys: (scopes, m, width) to (scopes, n, width)."""
        return self._sums(keys, scopes, self._key_ranks, self._anchor_ranks)

    def anchor_sums(self, anchors: Tensor, scopes: slice) -> Tensor:
        """For every key the sum of the anchors it is a positive of; rows of group -1 must come as zeros."""
        return self._sums(anchors, scopes, self._anchor_ranks, self._key_ranks)

    def _sums(
        self, values: Tensor, scopes: slice, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]
    ) -> Tensor:
        many, _, width = values.shape
        offset = torch.arange(many, device=values.device)[:, None] * self._ranks
        flat = values.reshape(-1, width)
        sums, result = values.new_zeros(many * self._ranks, width), None
        for source_rank, target_rank in zip(source, target, strict=True):
            here, there = (
                ((rank if rank.shape[0] == 1 else rank[scopes]) + offset).flatten()
                for rank in (source_rank, target_rank)
            )
            sums.index_add_(0, here, flat)
            if result is None:
                result = sums.index_select(0, there)
                sums.zero_()
            else:
                result.sub_(sums.index_select(0, there))
        assert result is not None
        return result.view(many, -1, width)


def _joined(anchors: Ids, keys: Ids) -> Ids:
    """Anchors and keys after each other, so that their ids can be numbered together."""

    def join(left: Tensor, right: Tensor) -> Tensor:
        scopes = max(left.shape[0], right.shape[0])
        return torch.cat([left.expand(scopes, -1), right.expand(scopes, -1)], dim=-1)

    scope = None
    if anchors.scope is not None and keys.scope is not None:
        scope = join(anchors.scope, keys.scope)
    return Ids(join(anchors.group, keys.group), join(anchors.row, keys.row), scope)
