"""DenseCL's and PixPro's losses position by position: equations as loops over single pairs."""

from __future__ import annotations

import torch
from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of two rows (w,)."""
    found: Tensor = (a @ b) / (a.norm() * b.norm())
    return found


def match(anchors: Tensor, keys: Tensor) -> list[int]:
    """For each row of one sample's map the most similar row of its other map (DenseCL, equation 2)."""
    return [
        max(range(len(keys)), key=lambda j, a=anchor: cosine(a, keys[j]).item())  # type: ignore[misc]
        for anchor in anchors
    ]


def densecl(
    dense: Tensor,
    dense_keys: Tensor,
    features: Tensor,
    key_features: Tensor,
    queue: Tensor,
    temperature: float,
) -> Tensor:
    """DenseCL's dense loss of one sample, (DenseCL, equation 3): p positions against partner and queue.

    dense (p, w), dense_keys (q, w), their encoder's features (p, v) and (q, v), queue (any, w).
    """
    partners = match(features, key_features)
    losses = []
    for i, row in enumerate(dense):
        positive = cosine(row, dense_keys[partners[i]]) / temperature
        negatives = [cosine(row, key) / temperature for key in queue]
        total = torch.stack([positive, *negatives]).exp().sum()
        losses.append(-(positive.exp() / total).log())
    return torch.stack(losses).mean()


def propagated(projected: Tensor, transformed: Tensor, power: float) -> Tensor:
    """PixPro's propagation of one sample, p rows (PixPro, equations 4 and 5, values normalised)."""
    rows = []
    for own in projected:
        total = torch.zeros(transformed.shape[1], dtype=transformed.dtype)
        for other, value in zip(projected, transformed, strict=True):
            similar = cosine(own, other).clamp(min=0)
            total = total + (similar + (1e-6 if power < 1 else 0)) ** power * value / value.norm()
        rows.append(total)
    return torch.stack(rows)


def pixpro(predicted: Tensor, target: Tensor, places: Tensor, target_places: Tensor, limit: float) -> Tensor:
    """Minus twice the mean cosine over one sample's pairs of nearby positions; 0 without any."""
    cosines = [
        cosine(x, y)
        for x, place in zip(predicted, places, strict=True)
        for y, other in zip(target, target_places, strict=True)
        if (place - other).square().sum().sqrt() < limit
    ]
    return -2 * torch.stack(cosines).mean() if cosines else (predicted * 0).sum()
