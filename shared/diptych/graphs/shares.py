"""Shares of the items of every graph, chosen by random numbers for all graphs at once.

Letter: n segments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diptych.graphs.segments import segment_count, segment_sum


def _ordered(numbers: Tensor, segment: Tensor) -> Tensor:
    """The items by segment, and by number within a segment."""
    order = numbers.argsort(stable=True)
    return order[segment[order].argsort(stable=True)]


def least_in_segments(numbers: Tensor, segment: Tensor, quota: Tensor) -> Tensor:
    """Which items have one of the ``quota`` (n,) least numbers of their segment, (items,) bool."""
    order = _ordered(numbers, segment)
    count = segment_count(segment, len(quota))
    start = count.cumsum(0) - count
    own = segment[order]
    rank = torch.arange(len(order), device=order.device) - start[own]
    return torch.empty_like(rank, dtype=torch.bool).index_copy(0, order, rank < quota[own])


def tied_least_in_segments(numbers: Tensor, segment: Tensor, size: int, fraction: float) -> Tensor:
    """Which items have one of the floor(fraction k) least of the k different numbers of their segment."""
    order = _ordered(numbers, segment)
    own, value = segment[order], numbers[order]
    new = torch.ones_like(own)
    new[1:] = ((value[1:] != value[:-1]) | (own[1:] != own[:-1])).long()
    different = segment_sum(new, own, size)
    before = different.cumsum(0) - different
    rank = new.cumsum(0) - 1 - before[own]
    least = rank < (different.double() * fraction).floor().long()[own]
    return torch.empty_like(least).index_copy(0, order, least)


def pair_numbers(edges: Tensor, nodes: int, generator: torch.Generator | None) -> Tensor:
    """Uniform random numbers (e,) in float64 that edges between the same two nodes have in common.

    Every node has a random 62-bit number; that of an edge is a hash of the sum of its ends', so no pairs need be
    looked for (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
    """
    own = torch.randint(2**62, (nodes,), device=edges.device, generator=generator)
    mixed = own[edges].sum(0)
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):
        logical = (mixed >> shift) & ((1 << (64 - shift)) - 1)  # a shift that brings in no sign
        mixed = (mixed ^ logical) * factor
    return ((mixed >> 11) & ((1 << 53) - 1)).double() / 2.0**53
