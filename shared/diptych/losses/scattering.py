"""Representation scattering: push rows away from their common centre."""

from __future__ import annotations

import torch
from torch import Tensor

from diptych.distributed import mean_over_processes, sum_over_processes
from diptych.losses.similarity import unit_rows


def batch_centre(z: Tensor) -> Tensor:
    """Mean of the unit rows of ``z`` (n, width) over all processes, with gradient, not normalised again."""
    rows = sum_over_processes(torch.tensor(float(len(z)), device=z.device))
    return sum_over_processes(unit_rows(z).sum(0)) / rows.clamp(min=1)


def scattering(z: Tensor, centre: Tensor | None = None) -> Tensor:
    """L = - mean_i ||z_i / |z_i| - c||^2, a scalar; c is ``centre`` (width,) or the batch's own.

    With the batch's centre this is |c|^2 - 1: -1 for a cloud centred on the sphere, 0 when all rows point one
    way (He et al., Exploitation of a Latent Mechanism in Graph Contrastive Learning: Representation
    Scattering, 2024). Gradient flows through the centre. Over several processes the rows are those of all.

    Raises:
        ValueError: z is not (n, width), or the centre is not (width,).
    """
    if z.ndim != 2:
        raise ValueError(f"scattering needs rows (n, width), got {tuple(z.shape)}")
    if centre is not None and centre.shape != z.shape[1:]:
        raise ValueError(
            f"the centre must be ({z.shape[1]},) for rows {tuple(z.shape)}, got {tuple(centre.shape)}"
        )
    unit = unit_rows(z)
    if centre is None:
        centre = batch_centre(z)
    total = -(unit - centre).square().sum()
    return mean_over_processes(total, torch.tensor(len(z), device=z.device))
