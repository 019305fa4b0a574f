"""Few labels: a fraction of the labelled training patients, never of their windows.

Which patients are drawn depends on their keys, their labels and the seed alone, so every rival sees the same
ones, and a smaller fraction is always part of a larger one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping

from diptych.errors import ConfigError


def draw_patients(
    strata: Mapping[str, Hashable], fraction: float, seed: int = 0, minimum: int = 1
) -> frozenset[str]:
    """Keys of a share of patients, drawn within each stratum.

    Args:
        strata: Stratum (the patient's class, or set of classes) by patient key.
        fraction: Share of patients in (0, 1].
        seed: Number of the draw. With one seed, the patients of a fraction are among those of any larger one.
        minimum: At least so many of each stratum, where it has them: rare classes then stay, and the drawn
            share is larger than asked.
    """
    if not 0.0 < fraction <= 1.0:
        raise ConfigError(f"a fraction of patients is above 0 and at most 1; got {fraction:g}")
    members: dict[Hashable, list[str]] = {}
    for patient, stratum in strata.items():
        members.setdefault(stratum, []).append(patient)
    chosen: set[str] = set()
    for patients in members.values():
        ordered = sorted(patients, key=lambda patient: (_place(patient, seed), patient))
        chosen.update(ordered[: max(minimum, int(fraction * len(patients) + 0.5))])
    return frozenset(chosen)


def _place(patient: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\x1f{patient}".encode()).digest()
