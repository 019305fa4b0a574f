"""From encoded views and ids to rows: which embeddings a level contrasts, and under which ids.

A row's id is ``view + number of views * id of what was viewed``, so it is unique over the views of a batch
and stays so when rows of other processes or of earlier batches (a queue) join them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.types import Encoded, Rows

Level = Literal["whole", "grid", "parts"]
GridScope = Literal["sample", "position"]


def whole_rows(
    encoded: Sequence[Encoded],
    groups: Mapping[str, Tensor],
    group: str = "sample",
    *,
    scope: str | None = None,
) -> Rows:
    """One row per sample and view: z (views * n, width), grouped by ``groups[group]`` (n,).

    ``groups[scope]`` (n,), when named, says which samples are compared, such as those of one patient.
    """
    z = torch.cat([each.whole for each in encoded])
    n = len(encoded[0].whole)
    scopes = None if scope is None else _group(groups, scope, n).repeat(len(encoded))
    return Rows(z, *_ids(encoded, groups, group, "sample", n), scopes)


def parts_rows(
    encoded: Sequence[Encoded],
    groups: Mapping[str, Tensor],
    group: str = "point",
    *,
    part: str = "part",
    scope: str | None = None,
) -> Rows:
    """One row per part and view: z (views * m, width), grouped by ``groups[group]`` (m,).

    ``groups[part]`` (m,) identifies the parts over the whole data set; ``groups[scope]`` (m,), when named,
    says which parts are compared, such as those of one sample.
    """
    parts = [_given(each.parts, "parts") for each in encoded]
    m = len(parts[0])
    scopes = None if scope is None else _group(groups, scope, m).repeat(len(encoded))
    return Rows(torch.cat(parts), *_ids(encoded, groups, group, part, m), scopes)


def grid_rows(
    encoded: Sequence[Encoded],
    groups: Mapping[str, Tensor],
    *,
    scope: GridScope,
    group: str = "sample",
) -> Rows:
    """One row per position of a dense map and view, from grids (n, width, *space) with p positions.

    Scope "sample" compares the positions of one sample; the same position in another view is the positive:
    z (n, views * p, width). Scope "position" compares samples at one position, grouped by ``groups[group]``
    (n,): z (p, views * n, width), a transposed view of contiguous rows.
    """
    grids = [_given(each.grid, "grid").flatten(2).transpose(1, 2) for each in encoded]  # (n, p, width)
    n, positions, _ = grids[0].shape
    if scope == "position":
        return Rows(torch.cat(grids).transpose(0, 1), *_ids(encoded, groups, group, "sample", n))
    position = torch.arange(positions, device=grids[0].device)
    row = torch.cat([view + len(grids) * position for view in range(len(grids))])
    return Rows(torch.cat(grids, dim=1), position.repeat(len(grids)), row)


def _ids(
    encoded: Sequence[Encoded], groups: Mapping[str, Tensor], group: str, identity: str, n: int
) -> tuple[Tensor, Tensor]:
    """Group and row ids of every view's n rows, one view after the other."""
    views = len(encoded)
    own = _group(groups, identity, n)
    row = torch.cat([view + views * own for view in range(views)])
    return _group(groups, group, n).repeat(views), row


def _group(groups: Mapping[str, Tensor], name: str, n: int) -> Tensor:
    if name not in groups:
        raise ConfigError(
            f"the batch has no ids named {name!r}; it has {', '.join(sorted(groups)) or 'none'}"
        )
    ids = groups[name]
    if tuple(ids.shape) != (n,):
        raise ValueError(f"the ids {name!r} must be one per row, ({n},), got {tuple(ids.shape)}")
    return ids


def _given(values: Tensor | None, name: Level) -> Tensor:
    if values is None:
        raise ConfigError(
            f"the objective contrasts {name}, but the encoder returns none; choose another level"
        )
    return values
