"""The contrast, row by row: equations as loops over the logits of single pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diptych.types import Rows


def logit(a: Tensor, k: Tensor, similarity: str, temperature: float | Tensor) -> Tensor:
    """Dot product or cosine of two rows, divided by the temperature."""
    product = (a * k).sum()
    if similarity == "cosine":
        product = product / (a.norm() * k.norm())
    return product / temperature


def contrast(
    anchors: Rows,
    keys: Rows | None = None,
    *,
    temperature: float | Tensor = 0.1,
    similarity: str = "cosine",
    form: str = "out",
    positives: str = "others",
    keep_self: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates, positives and count of every anchor; options as in ``diptych.losses.contrast.contrast``."""
    others = anchors if keys is None else keys
    lead = anchors.z.shape[:-2]
    scopes = [()] if not lead else [(s,) for s in range(lead[0])]
    found = [
        _one_scope(_scope(anchors, s), _scope(others, s), temperature, similarity, form, positives, keep_self)
        for s in scopes
    ]
    shape = anchors.z.shape[:-1]
    candidates, positive, count = (
        torch.stack(column) for column in zip(*(r for f in found for r in f), strict=True)
    )
    return candidates.view(shape), positive.view(shape), count.view(shape)


def _scope(rows: Rows, scope: tuple[int, ...]) -> Rows:
    if not scope:
        return rows
    s = scope[0]
    group = rows.group[s] if rows.group.ndim > 1 else rows.group
    row = rows.row[s] if rows.row.ndim > 1 else rows.row
    return Rows(rows.z[s], group, row, rows.scope)


def _one_scope(
    anchors: Rows,
    keys: Rows,
    temperature: float | Tensor,
    similarity: str,
    form: str,
    positives: str,
    keep_self: bool,
) -> list[tuple[Tensor, Tensor, Tensor]]:
    results = []
    for i in range(len(anchors.z)):
        compared, positive = [], []
        for j in range(len(keys.z)):
            if anchors.scope is not None and anchors.scope[i] != keys.scope[j]:
                continue
            same_row = bool(anchors.row[i] == keys.row[j])
            if same_row and not keep_self:
                continue
            s = logit(anchors.z[i], keys.z[j], similarity, temperature)
            compared.append(s)
            same_group = bool(anchors.group[i] == keys.group[j]) and int(anchors.group[i]) >= 0
            eligible = bool(keys.row[j] > anchors.row[i]) if positives == "later" else not same_row
            if same_group and eligible:
                positive.append(s)
        zero = anchors.z[i].sum() * 0
        candidates = torch.stack(compared).logsumexp(0) if compared else zero - torch.inf
        if not positive:
            mean = zero
        elif form == "out":
            mean = sum(positive[1:], positive[0]) / len(positive)
        else:
            mean = torch.stack(positive).logsumexp(0) - math.log(len(positive))
        results.append((candidates, mean, torch.tensor(len(positive))))
    return results


def mean_over_anchors(candidates: Tensor, positives: Tensor, count: Tensor) -> Tensor:
    """Mean over anchors that have a positive."""
    terms = [
        c - p for c, p, k in zip(*map(torch.flatten, (candidates, positives, count)), strict=True) if k > 0
    ]
    return sum(terms[1:], terms[0]) / len(terms)


def mean_over_pairs(candidates: Tensor, positives: Tensor, count: Tensor) -> Tensor:
    """Mean over pairs of an anchor and a positive (``positives`` are means, form "out")."""
    pairs, total = 0, torch.zeros((), dtype=candidates.dtype)
    for c, p, k in zip(*map(torch.flatten, (candidates, positives, count)), strict=True):
        if k > 0:
            total = total + k * (c - p)
            pairs += int(k)
    return total / pairs
