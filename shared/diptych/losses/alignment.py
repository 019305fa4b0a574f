"""Alignment of two views without negatives."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diptych.losses.similarity import unit_rows

AlignmentForm = Literal["distance", "cosine"]


def alignment(predicted: Tensor, target: Tensor, *, form: AlignmentForm = "distance") -> Tensor:
    """How far each row of ``predicted`` (*, width) points from its row of ``target``, unreduced: (*).

    "distance" is 2 - 2 cos, the squared distance of unit rows (BYOL, Grill et al. 2020, equation 2); "cosine"
    is -cos (SimSiam, Chen & He 2021, equation 1; the alignment of representation scattering). Gradient flows
    into both: stop it in ``target`` where the method does.

    Raises:
        ValueError: the shapes differ.
    """
    if predicted.shape != target.shape:
        raise ValueError(
            f"alignment needs rows in pairs, got predicted {tuple(predicted.shape)} "
            f"and target {tuple(target.shape)}"
        )
    cosine = (unit_rows(predicted) * unit_rows(target)).sum(-1)
    return 2 - 2 * cosine if form == "distance" else -cosine
