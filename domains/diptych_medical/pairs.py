"""Pairs of test patients, and what flows between their images are worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from diptych.errors import ConfigError, DataError
from diptych.study import Indices
from diptych_medical.agreement import dice
from diptych_medical.evaluated import Images, patients_at
from diptych_medical.jacobian import folding, round_trip
from diptych_medical.warp import Convention, warp

# two images (1, c, *space) -> flows (1, d, *space): the first image onto the second, and back
Flows = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def draw_pairs(images: Images, test: Indices, count: int, same: Sequence[str] = ()) -> list[tuple[int, int]]:
    """Pairs of different patients, one image each, every patient in as many pairs as the others.

    Patients stand in a circle, in an order drawn once; pairs are neighbours, then those two apart, and so on.

    Raises:
        ConfigError: a label that is not there or is missing for a test image.
        DataError: no two patients share the labels.
    """
    groups = _groups(images, test, same)
    circles = []
    for group in dict.fromkeys(groups):
        members = test[[each == group for each in groups]]
        _, first = np.unique(patients_at(images, members), return_index=True)
        circles.append(np.random.default_rng(0).permutation(members[first]).tolist())
    found: list[tuple[int, int]] = []
    for step in range(1, max(len(circle) for circle in circles) // 2 + 1):
        for circle in circles:
            turns = len(circle) if 2 * step < len(circle) else len(circle) // 2 * (2 * step == len(circle))
            found += [(circle[place], circle[(place + step) % len(circle)]) for place in range(turns)]
    if not found:
        raise DataError(
            f"no two test patients share {', '.join(same) or 'anything'}; test more patients, or leave out same"
        )
    return found[:count]


def load_pair(images: Images, pair: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Both images (2, c, *space) and their classes (2, *space), cut or padded as a training batch is."""
    x, masks = images.batch(np.array(pair, dtype=np.int64))
    if masks is None:
        raise ValueError("the images have masks, and their batches have none")
    return torch.from_numpy(x).to(device), torch.from_numpy(masks).to(device)


def pair_scores(
    images: Images, pair: tuple[int, int], flows: Flows, convention: Convention, device: torch.device
) -> dict[str, float]:
    """Every metric of one pair, the mean of both directions."""
    x, masks = load_pair(images, pair, device)
    with torch.no_grad():  # not inference mode: the affine registration takes gradients
        there, back = flows(x[:1], x[1:])
        both = []
        for moving, fixed, flow, undo in ((0, 1, there, back), (1, 0, back, there)):
            known = masks[moving].clamp_min(0)[None, None]
            moved = warp(known, flow, mode="nearest", convention=convention)[0, 0]
            folds = folding(flow)
            both.append(
                {
                    **dice(moved.cpu().numpy(), masks[fixed].cpu().numpy(), images.classes),
                    "folded, corners (%)": 100 * float(folds.corner[0]),
                    "folded, central (%)": 100 * float(folds.central[0]),
                    "lowest determinant": float(folds.lowest[0]),
                    "SD log determinant": float(folds.sd_log[0]),
                    "round trip (voxels)": float(round_trip(flow, undo)[0]),
                }
            )
    return {name: _mean([each[name] for each in both]) for name in both[0]}


def _groups(images: Images, test: Indices, same: Sequence[str]) -> list[tuple[str, ...]]:
    """What each test image's partner must share with it."""
    labels = images.samples.labels
    columns = []
    for name in same:
        if name not in labels.columns:
            known = ", ".join(map(str, labels.columns)) or "none"
            raise ConfigError(f"same: there is no label {name!r}; labels: {known}")
        column = labels[name].iloc[test]
        if column.isna().any():
            raise ConfigError(
                f"same: the label {name!r} is missing for {int(column.isna().sum())} test images"
            )
        columns.append(column.astype(str).tolist())
    return list(zip(*columns, strict=True)) if columns else [()] * len(test)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
