"""One view of each sample against the other views of all: contrasts that compare nothing within a view."""

from __future__ import annotations

import torch
from torch import Tensor

from diptych.losses.contrast import contrast
from diptych.losses.similarity import unit_rows
from diptych.types import Rows


def across_views(
    anchors: Tensor,
    positives: Tensor,
    ids: Tensor,
    keys: Tensor | None = None,
    key_ids: Tensor | None = None,
    *,
    temperature: float | Tensor = 0.1,
    positive_among: bool = True,
    block: int | None = None,
) -> Tensor:
    """Each anchor's positive against the keys of other samples, unreduced: (n,).

    With s cosines / temperature, a of one view and b of the other: log sum_j exp s(a_i, b_j) - s(a_i, b_i), where j
    runs over all samples (``positive_among``: Li et al. 2022, gCooL, its node term; one side of CLIP) or
    over all but i (You et al. 2020, GraphCL, which can be negative). An anchor without another sample
    to compare with gives 0.

    Args:
        anchors: (n, width).
        positives: (n, width), the other views of the same samples; gradient flows into them too.
        ids: (n,) of the samples, int64.
        keys: (m, width), what anchors are compared with; the positives by default.
        key_ids: (m,) of the keys' samples.
        temperature: above 0.
        positive_among: whether the positive is among what is summed.
        block: rows and columns of a tile; chosen from a memory budget when None.

    Raises:
        ValueError: shapes that do not fit.
    """
    if anchors.shape != positives.shape:
        raise ValueError(
            f"every anchor needs one positive, got anchors {tuple(anchors.shape)} and {tuple(positives.shape)}"
        )
    if keys is None or key_ids is None:
        keys, key_ids = positives, ids
    own = (unit_rows(anchors) * unit_rows(positives)).sum(-1) / temperature
    nobody = torch.full_like(ids, -1)
    # A key under the anchor's own row id is left out, so the positive is not among these.
    others = contrast(
        Rows(anchors, nobody, ids),
        Rows(keys, torch.full_like(key_ids, -1), key_ids),
        temperature=temperature,
        block=block,
    ).candidates
    some = others > -torch.inf
    safe = torch.where(some, others, 0.0)
    loss = torch.logaddexp(safe, own) - own if positive_among else safe - own
    return torch.where(some, loss, 0.0)
