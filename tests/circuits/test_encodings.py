"""Distances to anchors equal breadth-first searches, subgraph by subgraph, and do not leak between subgraphs."""

from __future__ import annotations

import itertools

import pytest
import references_encodings as reference
import torch

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch, join
from diptych_circuits.encodings import DRNL, DSPD, anchors_of, drnl, drnl_label, dspd


def subgraph(seed: int, nodes: int, edges: int, anchors: int) -> GraphBatch:
    """A random undirected graph with different anchors."""
    generator = torch.Generator().manual_seed(seed)
    one_way = torch.randint(nodes, (2, edges), generator=generator)
    return GraphBatch(
        nodes=torch.zeros(nodes, 1),
        edges=torch.cat([one_way, one_way.flip(0)], dim=1),
        edge_features=None,
        graph=torch.zeros(nodes, dtype=torch.int64),
        graphs=1,
        roots=torch.randperm(nodes, generator=generator)[:anchors],
    )


def subgraphs(anchors: int) -> list[GraphBatch]:
    """Sparse ones fall into pieces, so that much is out of reach; dense ones have short ways."""
    sizes = [(2, 0), (2, 1), (9, 6), (12, 12), (12, 40), (30, 29), (30, 33), (1 + anchors, 5)]
    return [subgraph(seed, *size, anchors) for seed, size in enumerate(sizes)]


def pairs(batch: GraphBatch) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in batch.edges.t()]


@pytest.mark.parametrize("anchors", [1, 2])
@pytest.mark.parametrize("farthest", [1, 2, 4, 50])
def test_distances_equal_breadth_first_searches(anchors: int, farthest: int) -> None:
    each = subgraphs(anchors)
    expected = [
        reference.dspd(pairs(one), len(one.nodes), one.roots.tolist(), farthest)  # type: ignore[union-attr]
        for one in each
    ]
    assert dspd(join(each), farthest).tolist() == list(itertools.chain(*expected))


@pytest.mark.parametrize("farthest", [1, 2, 4, 50])
def test_roles_equal_breadth_first_searches_with_the_other_anchor_deleted(farthest: int) -> None:
    each = subgraphs(2)
    expected = [
        reference.drnl(pairs(one), len(one.nodes), *one.roots.tolist(), farthest)  # type: ignore[union-attr]
        for one in each
    ]
    assert drnl(join(each), farthest).tolist() == list(itertools.chain(*expected))
    assert len(set(itertools.chain(*expected))) > (1 if farthest == 1 else 2)


def test_roles_do_not_depend_on_which_end_comes_first() -> None:
    for one in subgraphs(2):
        assert one.roots is not None
        assert torch.equal(drnl(one, 9), drnl(one._replace(roots=one.roots.flip(0)), 9))


def test_unordered_pairs_of_distances_have_numbers_of_their_own() -> None:
    numbers = [
        int(drnl_label(torch.tensor([a, b]))) for a in range(1, 12) for b in range(a, 12) if a + b <= 12
    ]
    assert sorted(numbers) == list(range(2, 2 + len(numbers)))


def test_an_anchor_blocks_the_way() -> None:
    """On the path 0-1-2-3 with the anchors 0 and 1, nodes 2 and 3 cannot reach 0 but over 1."""
    path = torch.tensor([[0, 1, 2], [1, 2, 3]])
    batch = GraphBatch(
        nodes=torch.zeros(4, 1),
        edges=torch.cat([path, path.flip(0)], dim=1),
        edge_features=None,
        graph=torch.zeros(4, dtype=torch.int64),
        graphs=1,
        roots=torch.tensor([0, 1]),
    )
    assert drnl(batch, 9).tolist() == [1, 1, 0, 0]
    assert dspd(batch, 9).tolist() == [[0, 1], [1, 0], [2, 1], [3, 2]]


def test_anchors_are_those_of_their_subgraph_whatever_the_order_of_the_roots() -> None:
    """First all sources and then all destinations, or link by link."""
    batch = join(subgraphs(2))
    assert batch.roots is not None
    columns = batch.roots.view(-1, 2)
    blocks = batch._replace(roots=columns.t().flatten())
    assert torch.equal(anchors_of(batch), columns)
    assert torch.equal(anchors_of(blocks), columns)


@pytest.mark.parametrize("kind", [DSPD, DRNL])
def test_embedded_encodings_tell_what_the_numbers_tell(kind: type[DSPD | DRNL]) -> None:
    batch = join(subgraphs(2))
    torch.manual_seed(0)
    embedded = kind(8, farthest=5)(batch)
    numbers = dspd(batch, 5) if kind is DSPD else drnl(batch, 5)[:, None]
    assert embedded.shape == (len(batch.nodes), 8)
    same = (embedded[:, None] == embedded[None]).all(-1)
    assert torch.equal(same, (numbers[:, None] == numbers[None]).all(-1))


def test_subgraphs_without_anchors_and_impossible_settings_are_refused() -> None:
    batch = join(subgraphs(1))
    with pytest.raises(
        DataError, match=r"need 1 or 2 roots in each of the 8 subgraphs, got none; sample a subgraph"
    ):
        dspd(batch._replace(roots=None), 4)
    with pytest.raises(DataError, match="in each of the 8 subgraphs, got 3"):
        dspd(batch._replace(roots=torch.arange(3)), 4)
    with pytest.raises(DataError, match="DRNL describes links: it needs 2 roots in each subgraph, got 1"):
        drnl(batch, 4)
    with pytest.raises(ConfigError, match="must be even, got 7"):
        DSPD(7)
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        DRNL(8, farthest=0)
