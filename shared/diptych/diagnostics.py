"""Numbers that tell whether embeddings are healthy: pure functions of a matrix with one row per sample.

All are computed in float64. Compare them only at equal n: rank is bounded by n and falls with an offset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

RANKME_EPSILON = 1e-7


def alignment(z: Tensor, other: Tensor, alpha: float = 2.0) -> float:
    """Mean distance of positive pairs on the sphere (Wang and Isola 2020, eq. of L_align): lower is closer.

    mean_i |z_i / |z_i| - z'_i / |z'_i||^alpha for z and z' of shape (n, width).
    """
    if z.shape != other.shape:
        raise ValueError(f"pairs have equal shapes; got {tuple(z.shape)} and {tuple(other.shape)}")
    _check_rows(z, 1)
    return float((_unit(z) - _unit(other)).norm(dim=1).pow(alpha).mean())


def uniformity(z: Tensor, t: float = 2.0) -> float:
    """How evenly rows lie on the sphere (Wang and Isola 2020, L_uniform): about -4 is even, 0 is one point.

    log mean_{i<j} exp(-t |z_i / |z_i| - z_j / |z_j||^2) for z of shape (n, width); n (n - 1) / 2 distances.
    """
    _check_rows(z, 2)
    unit = _unit(z)
    squares = torch.pdist(unit).square()
    return float(torch.logsumexp(-t * squares, 0) - math.log(len(squares)))


def rankme(z: Tensor) -> float:
    """Effective rank (Garrido et al. 2023, eq. 1): exp of the entropy of the singular values' shares.

    p_k = s_k / sum(s) + 1e-7 over the singular values of the uncentred matrix (n, width); between 1 and
    min(n, width). 0 for a matrix of zeros, which has no direction at all.
    """
    _check_rows(z, 1)
    return _effective_rank(z.double())


def centred_rank(z: Tensor) -> float:
    """:func:`rankme` after the mean row is taken off; far from it, an offset common to all rows leads."""
    _check_rows(z, 2)
    z = z.double()
    return _effective_rank(z - z.mean(0))


def _effective_rank(z: Tensor) -> float:
    singular = torch.linalg.svdvals(z)
    total = singular.sum()
    if not total > 0:
        return 0.0
    shares = singular / total + RANKME_EPSILON
    return float(torch.exp(-(shares * shares.log()).sum()))


def spread(z: Tensor) -> Tensor:
    """Standard deviation of every dimension of the unit rows, times sqrt(width), (width,).

    An even distribution on the sphere has 1 everywhere, a single point 0.
    """
    _check_rows(z, 2)
    return _unit(z).std(0, correction=0) * math.sqrt(z.shape[1])


def dead_share(z: Tensor, below: float = 0.01) -> float:
    """Share of dimensions whose :func:`spread` is below a hundredth of an even distribution's."""
    return float((spread(z) < below).double().mean())


@dataclass(frozen=True, kw_only=True)
class Collapse:
    """Statistics of one set of embeddings that tell a collapse; see :func:`collapse_signs` for the rule."""

    spread: float  # mean of spread(): 1 even, 0 one point
    dead: float  # share of dead dimensions
    uniformity: float
    rank: float  # RankMe


def collapse_statistics(z: Tensor) -> Collapse:
    """The collapse statistics of z, (n, width) with n >= 2."""
    return Collapse(
        spread=float(spread(z).mean()), dead=dead_share(z), uniformity=uniformity(z), rank=rankme(z)
    )


def collapse_signs(now: Collapse, start: Collapse) -> list[str]:
    """What speaks for a collapse, in words, compared with the same samples under the random start weights.

    A random network already squeezes its input, so that each rule is relative to the start: the spread below
    a fifth of an even distribution's and half of the start's; a fifth more of the dimensions dead;
    uniformity above -1 and half as far from 0 as at the start; effective rank below half of the start's.
    """
    signs = []
    if now.spread < 0.2 and now.spread < 0.5 * start.spread:
        signs.append(f"the embeddings' spread fell from {start.spread:.3g} to {now.spread:.3g}")
    if now.dead - start.dead > 0.2:
        signs.append(f"dead dimensions rose from {start.dead:.0%} to {now.dead:.0%}")
    if now.uniformity > -1.0 and now.uniformity > 0.5 * start.uniformity:
        signs.append(f"uniformity rose from {start.uniformity:.3g} to {now.uniformity:.3g}")
    if now.rank < 0.5 * start.rank:
        signs.append(f"the effective rank fell from {start.rank:.3g} to {now.rank:.3g}")
    return signs


def _unit(z: Tensor) -> Tensor:
    """Rows of length 1 in float64; a row of zeros stays one."""
    return torch.nn.functional.normalize(z.double(), dim=1)


def _check_rows(z: Tensor, least: int) -> None:
    if z.ndim != 2 or z.shape[0] < least or z.shape[1] < 1:
        raise ValueError(f"expected a matrix (n, width) of at least {least} rows, got shape {tuple(z.shape)}")
