"""Tanimoto similarity of packed fingerprints, and clusters without a list of pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Packed = NDArray[np.uint8]
Words = NDArray[np.uint64]
Integers = NDArray[np.int64]
Floats = NDArray[np.float32]

_BLOCK = 1 << 22  # pairs whose similarity is in memory at a time


def words_of(packed: Packed) -> Words:
    """(n, bytes) packed bits as (n, bytes / 8) machine words."""
    return np.ascontiguousarray(packed).view(np.uint64)


def tanimoto(one: Words, other: Words) -> Floats:
    """|a and b| / |a or b| of all pairs, (n, k); 0 where both are empty."""
    common = np.zeros((len(one), len(other)), np.uint16)
    for word in range(one.shape[1]):
        common += np.bitwise_count(one[:, word, None] & other[None, :, word])
    sizes, other_sizes = (np.bitwise_count(each).sum(1, dtype=np.int32) for each in (one, other))
    union = sizes[:, None] + other_sizes[None] - common
    return np.asarray(common / np.maximum(union, 1), np.float32)


def nearest_of(points: Words, leaders: Words) -> Integers:
    """For each point the most similar leader, the first of equal ones, (n,)."""
    rows = max(1, _BLOCK // max(1, len(leaders)))
    return np.concatenate(
        [np.zeros(0, np.int64)]
        + [tanimoto(points[start : start + rows], leaders).argmax(1) for start in range(0, len(points), rows)]
    )


def alike(packed: Packed, size: int, seed: int = 0) -> Integers:
    """Clusters of about ``size`` molecules with like fingerprints, (n,) codes; n * sqrt(n / size) pairs in all.

    Molecules drawn at random lead: first the square root of the number of clusters, then within each group as
    many as its size asks for. Every molecule joins the most similar leader.
    """
    words = words_of(packed)
    n = len(words)
    generator = np.random.default_rng(seed)
    wanted = max(1, round(n / size))
    coarse = nearest_of(words, words[generator.choice(n, max(1, round(wanted**0.5)), replace=False)])
    codes, taken = np.zeros(n, np.int64), 0
    order = np.argsort(coarse, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(coarse[order])) + 1):
        count = max(1, round(len(members) / size))
        leaders = generator.choice(members, count, replace=False)
        codes[members] = taken + nearest_of(words[members], words[leaders])
        taken += count
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)


def butina(packed: Packed, similarity: float, exact: int = 20_000) -> Integers:
    """Clusters by sphere exclusion, (n,) codes of falling size of neighbourhood (Butina 1999, Taylor 1995).

    The molecule with most neighbours (Tanimoto at least ``similarity``) takes all of them that are free, then
    the next. Neighbours are counted in blocks and found again when a molecule leads, so that memory grows with n
    and not with the number of pairs. Above ``exact`` molecules they are counted among that many, drawn at random.
    """
    words = words_of(packed)
    n = len(words)
    among = words
    if n > exact:
        among = words[np.random.default_rng(0).choice(n, exact, replace=False)]
    rows = max(1, _BLOCK // max(1, len(among)))
    counts = np.concatenate(
        [np.zeros(0, np.int64)]
        + [(tanimoto(words[start : start + rows], among) >= similarity).sum(1) for start in range(0, n, rows)]
    )
    codes = np.full(n, -1, np.int64)
    free, taken = np.arange(n), 0
    for leader in np.argsort(-counts, kind="stable"):
        if codes[leader] >= 0:
            continue
        near = tanimoto(words[leader : leader + 1], words[free])[0] >= similarity
        near |= free == leader  # an empty fingerprint is unlike itself
        codes[free[near]] = taken
        free, taken = free[~near], taken + 1
    return codes
