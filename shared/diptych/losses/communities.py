"""Communities of nodes: how dense they are, and nodes against the communities of another view (Li et al. 2022, gCooL).

Letters: n nodes, k communities, e edges. Nothing of size n x n is made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diptych.graphs.segments import segment_count, segment_mean
from diptych.losses.similarity import full_precision, unit_rows


def assignments(h: Tensor, centres: Tensor, *, temperature: float = 0.4) -> Tensor:
    """How much each node belongs to each community, (n, k): softmax of cosines / temperature.

    Args:
        h: rows of nodes, (n, width); no gradient flows into them, for it is the centres that look for communities.
        centres: (k, width).
        temperature: above 0.
    """
    return (unit_rows(h.detach()) @ unit_rows(centres).T / temperature).softmax(-1)


def density(belongs: Tensor, edges: Tensor, *, between: float = 1.0) -> Tensor:
    """Few edges between communities, many within, and communities of like size: a scalar (DeCA).

    With R = ``belongs``, F = R^T A R, l = ``between``: [l sum F - (n - 1 + l) tr F] / (n (n - 1)) + tr(R^T R) / (2 n).
    A row of R sums to 1, and tr F is the sum over edges of the inner product of its ends' rows.

    Args:
        belongs: (n, k), rows that sum to 1.
        edges: (2, e), an undirected edge in both directions.
        between: weight of the edges between communities.
    """
    n = len(belongs)
    within = (belongs[edges[0]] * belongs[edges[1]]).sum()
    total = torch.tensor(float(edges.shape[1]), device=belongs.device, dtype=belongs.dtype)
    pairs = max(1, n * (n - 1))
    sizes = belongs.square().sum() / (2 * max(1, n))
    return (between * total - (n - 1 + between) * within) / pairs + sizes


def against_communities(
    h: Tensor,
    other: Tensor,
    community: Tensor,
    communities: int,
    *,
    temperature: float = 0.4,
    nearness: float,
) -> Tensor:
    """Each node of one view against the communities of the other, unreduced: (n,) (ReSC).

    With c_a the mean of the other view's unit rows of community a (no gradient, not of unit length), s = h c /
    temperature and w_ab = exp(-nearness |c_a - c_b|^2): log(exp s_a + sum over b != a of w_ab exp s_b) - s_a, where a
    is the node's community in the other view. Communities without nodes are left out.

    Args:
        h: (n, width) of one view; compared as unit rows.
        other: (n, width) of the other view.
        community: (n,) int64: the community of each node in the other view.
        communities: k.
        temperature: above 0.
        nearness: not negative; how much less distant communities repel. The released code of gCooL has it, but leaves
            it out with cosines.

    Raises:
        ValueError: shapes that do not fit.
    """
    if h.shape != other.shape or community.shape != h.shape[:1]:
        raise ValueError(
            f"nodes need rows in both views and a community, got {tuple(h.shape)}, {tuple(other.shape)} "
            f"and {tuple(community.shape)}"
        )
    centres = segment_mean(unit_rows(other.detach()), community, communities)
    empty = segment_count(community, communities) == 0
    # Without cdist: squares of small differences keep their digits, and k is small.
    apart = (centres[:, None] - centres[None]).square().sum(-1)
    logits = full_precision(unit_rows(h) @ centres.to(h.dtype).T) / temperature
    weighed = (logits - nearness * apart[community]).masked_fill(empty, -torch.inf)
    own = logits.gather(1, community[:, None])[:, 0]
    return weighed.logsumexp(1) - own
