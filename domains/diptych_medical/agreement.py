"""How well a predicted label map agrees with the true one: Dice, HD95 and surface Dice, through MONAI.

The last two come from the same distances between surfaces, which MONAI finds; its own functions of these names
would find them twice (and are compared in the tests).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from monai.metrics.meandice import compute_dice
from monai.metrics.utils import get_edge_surface_distance
from numpy.typing import NDArray
from torch import Tensor

Labels = NDArray[np.int64]

MEASURES = ("Dice", "HD95", "surface Dice")
PERCENTILE = 95.0


def agreement(
    predicted: Labels,
    truth: Labels,
    classes: Sequence[str],
    spacing: Sequence[float],
    tolerance: float = 1.0,
) -> dict[str, float]:
    """Each measure as the mean over the classes that the truth has, and by class ("Dice anterior").

    A class that the truth lacks has no score (NaN), for its Dice could only be 0 or undefined. A class that
    the prediction alone lacks has Dice 0, surface Dice 0, and as HD95 the diagonal of the image: the distance
    is infinite, and leaving it out would reward an empty prediction.

    Args:
        predicted: (*space) numbers of classes.
        truth: (*space) likewise; -1 where it is unknown, which no measure sees.
        classes: Names by number, the background first.
        spacing: Distance of neighbouring voxels along each axis, in mm (or pixels).
        tolerance: Distance up to which a surface counts as found, in the unit of ``spacing`` (Nikolov et al.
            2021, surface Dice at a tolerance).
    """
    known = truth >= 0
    found = {
        name: _of_class((predicted == number) & known, truth == number, spacing, tolerance)
        for number, name in enumerate(classes)
        if number > 0
    }
    scores = {measure: _mean([each[measure] for each in found.values()]) for measure in MEASURES}
    for measure in MEASURES:
        scores |= {f"{measure} {name}": each[measure] for name, each in found.items()}
    return scores


def dice(predicted: Labels, truth: Labels, classes: Sequence[str]) -> dict[str, float]:
    """Dice alone, as in :func:`agreement`."""
    known = truth >= 0
    by_class = {
        name: _dice((predicted == number) & known, truth == number)
        for number, name in enumerate(classes)
        if number > 0
    }
    return {"Dice": _mean(list(by_class.values())), **{f"Dice {name}": by_class[name] for name in by_class}}


def measure_names(classes: Sequence[str], measures: Sequence[str] = MEASURES) -> list[str]:
    """The names of all scores, means first."""
    by_class = [f"{measure} {name}" for measure in measures for name in classes[1:]]
    return [*measures, *(by_class if len(classes) > 2 else [])]


def _of_class(
    predicted: NDArray[np.bool_], truth: NDArray[np.bool_], spacing: Sequence[float], tolerance: float
) -> Mapping[str, float]:
    if not truth.any():
        return dict.fromkeys(MEASURES, float("nan"))
    if not predicted.any():
        diagonal = float(np.linalg.norm([n * step for n, step in zip(truth.shape, spacing, strict=True)]))
        return {"Dice": 0.0, "HD95": diagonal, "surface Dice": 0.0}
    box = _box(predicted | truth)  # beyond it both are empty, and MONAI takes what is beyond for empty
    one, other = (torch.from_numpy(np.ascontiguousarray(mask[box])) for mask in (predicted, truth))
    with warnings.catch_warnings():  # MONAI 1.5 and 1.6 pass an argument to themselves that they deprecate
        warnings.filterwarnings("ignore", ".*always_return_as_numpy", FutureWarning)
        _, both, _ = get_edge_surface_distance(
            one, other, spacing=tuple(float(step) for step in spacing), symmetric=True
        )
    there, back = (np.asarray(distances) for distances in both)
    close = np.count_nonzero(there <= tolerance) + np.count_nonzero(back <= tolerance)
    return {
        "Dice": _dice(predicted, truth),
        "HD95": float(max(np.percentile(each, PERCENTILE) for each in (there, back))),
        "surface Dice": close / (len(there) + len(back)),
    }


def _dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """NaN where the truth is empty."""
    return float(compute_dice(_batch(predicted), _batch(truth), include_background=True)[0, 0])


def _batch(mask: NDArray[np.bool_]) -> Tensor:
    """(*space) to MONAI's one-hot (1, 1, *space)."""
    return torch.from_numpy(np.ascontiguousarray(mask)).float()[None, None]


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box around all that is set."""
    axes = range(mask.ndim)
    filled = [np.flatnonzero(mask.any(axis=tuple(other for other in axes if other != axis))) for axis in axes]
    return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in filled)


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")
