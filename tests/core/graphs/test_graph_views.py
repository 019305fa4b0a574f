"""Views change what they say, as often as they say, and nothing else."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from small import pairs_of, random_batch

from diptych.errors import ConfigError
from diptych.graphs.shares import pair_numbers
from diptych.graphs.views import DropEdges, DropNodes, GraphViews, MaskFeatures, OneOf, Subgraph, keep_nodes

SIZES = (5, 8, 1, 6, 20)


def batch_with_names(sizes=SIZES, **options):
    """Nodes and edges whose features are their own numbers, so that they can be followed."""
    batch = random_batch(sizes, **options)
    return batch._replace(
        nodes=torch.arange(len(batch.nodes))[:, None],
        edge_features=torch.arange(batch.edges.shape[1])[:, None],
    )


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def edges_by_name(view):
    return {
        int(name): (int(view.nodes[a]), int(view.nodes[b]))
        for name, (a, b) in zip(view.edge_features[:, 0], view.edges.T, strict=True)
    }


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("view", [DropNodes(fraction=0.3), Subgraph(fraction=0.6)])
def test_a_view_of_fewer_nodes_is_the_induced_subgraph(view, seed):
    batch = batch_with_names()
    seen = view.apply(batch, view.draw(batch, generator(seed)))
    kept = seen.nodes[:, 0].tolist()
    assert kept == sorted(kept)
    assert seen.graph.tolist() == batch.graph[kept].tolist()
    assert seen.graphs == batch.graphs
    expected = {i: pair for i, pair in enumerate(pairs_of(batch)) if set(pair) <= set(kept)}
    assert edges_by_name(seen) == expected


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.29, 0.7])
def test_dropping_nodes_drops_the_floor_of_each_graph(fraction):
    batch = random_batch(SIZES)
    kept = DropNodes(fraction=fraction).draw(batch, generator())
    counts = Counter(batch.graph[kept].tolist())
    assert [counts[g] for g in range(len(SIZES))] == [n - math.floor(fraction * n) for n in SIZES]


def test_every_node_is_dropped_as_often():
    batch = random_batch((5,) * 500, density=0.0)
    kept = Counter()
    for seed in range(6):
        kept.update((DropNodes(fraction=0.4).draw(batch, generator(seed)) % 5).tolist())
    deviation = math.sqrt(3000 * 0.6 * 0.4)
    assert all(abs(kept[node] - 1800) < 4 * deviation for node in range(5))


def test_roots_are_never_dropped():
    batch = batch_with_names()._replace(roots=torch.tensor([7, 2, 13, 6]))
    for seed in range(20):
        for view in (DropNodes(fraction=0.9), Subgraph(fraction=0.1)):
            seen = view.apply(batch, view.draw(batch, generator(seed)))
            assert seen.nodes[seen.roots, 0].tolist() == [7, 2, 13, 6]


def test_keep_nodes_of_all_is_the_batch():
    batch = batch_with_names()._replace(roots=torch.tensor([1]))
    same = keep_nodes(batch, torch.arange(len(batch.nodes)))
    assert all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(same, batch, strict=True))


def connected(kept, pairs):
    reached = {kept[0]}
    for _ in kept:
        reached |= {b for a, b in pairs if a in reached and b in kept}
    return reached == set(kept)


def test_a_subgraph_is_connected_and_of_the_asked_size_where_the_graph_is_connected():
    batch = random_batch((12, 9), density=0.5)
    assert connected(list(range(12)), pairs_of(batch))
    for seed in range(20):
        kept = Subgraph(fraction=0.5).draw(batch, generator(seed))
        for graph, size in ((0, 6), (1, 5)):
            own = kept[batch.graph[kept] == graph].tolist()
            assert len(own) == size
            assert connected(own, pairs_of(batch))


def test_a_subgraph_stays_within_its_component():
    batch = random_batch((4, 4), density=2.0)
    joined = batch._replace(graph=torch.zeros(8, dtype=torch.int64), graphs=1)  # one graph of two cliques
    kept = Subgraph(fraction=0.9).draw(joined, generator()).tolist()
    assert kept in ([0, 1, 2, 3], [4, 5, 6, 7])


def grown(neighbours, size):
    """The probability of each set that one-at-a-time growth from a uniform node ends with."""
    chances = {frozenset([node]): 1 / len(neighbours) for node in neighbours}
    for _ in range(size - 1):
        after = Counter()
        for part, chance in chances.items():
            border = {v for u in part for v in neighbours[u]} - part
            for node in border:
                after[part | {node}] += chance / len(border)
        chances = after
    return chances


def test_a_subgraph_grows_by_a_uniform_neighbour():
    one_way = [
        (0, 1),
        (1, 2),
        (2, 0),
        (2, 3),
        (3, 4),
        (4, 5),
        (4, 2),
    ]  # by edges it would be another distribution
    pairs = [*one_way, *((b, a) for a, b in one_way)]
    copies = 500
    edges = torch.cat([torch.tensor(pairs).T + 6 * copy for copy in range(copies)], 1)
    batch = random_batch((6,) * copies, density=0.0)._replace(edges=edges)
    expected = grown({u: {b for a, b in pairs if a == u} for u in range(6)}, 3)
    draws, found = 16 * copies, Counter()
    for seed in range(16):
        kept = Subgraph(fraction=0.5).draw(batch, generator(seed)).view(copies, 3) % 6
        found.update(map(frozenset, kept.tolist()))
    assert set(found) == set(expected)
    for part, chance in expected.items():
        assert abs(found[part] - draws * chance) < 4 * math.sqrt(draws * chance * (1 - chance))


@pytest.mark.parametrize("exact", [True, False])
def test_the_directions_of_an_edge_go_together(exact):
    batch = batch_with_names()
    view = DropEdges(fraction=0.4, exact=exact)
    seen = view.apply(batch, view.draw(batch, generator()))
    left = set(edges_by_name(seen).values())
    assert left == {(b, a) for a, b in left}
    assert 0 < len(left) < batch.edges.shape[1]
    assert torch.equal(seen.nodes, batch.nodes)
    assert edges_by_name(seen).items() <= dict(enumerate(pairs_of(batch))).items()


def test_exact_drops_the_floor_of_the_pairs_of_each_graph():
    batch = random_batch(SIZES)
    graph = batch.graph[batch.edges[0]]
    pairs = [int((graph == g).sum()) // 2 for g in range(len(SIZES))]
    for paired, of in ((True, pairs), (False, [2 * each for each in pairs])):
        kept = graph[DropEdges(fraction=0.3, exact=True, paired=paired).draw(batch, generator())]
        expected = [each - math.floor(0.3 * each) for each in of]
        assert [int((kept == g).sum()) // (2 if paired else 1) for g in range(len(SIZES))] == expected


def test_pair_numbers_are_uniform_and_shared_by_pairs_alone():
    edges = torch.combinations(torch.arange(200)).T
    numbers = pair_numbers(edges, 200, generator())
    assert torch.equal(numbers, pair_numbers(edges.flip(0), 200, generator()))
    assert len(numbers.unique()) == len(numbers)
    counts = torch.histc(numbers, 50, 0, 1)
    expected = len(numbers) / 50
    assert float(((counts - expected) ** 2 / expected).sum()) < 85.4  # 0.999 quantile of chi squared, 49
    around = numbers[(edges == 0).any(0)]  # edges of one node are as independent as others
    assert abs(float(around.mean()) - 0.5) < 4 * math.sqrt(1 / 12 / len(around))


def test_edges_of_central_nodes_are_spared():
    star = torch.tensor([[0, 0, 0, 0, 5], [1, 2, 3, 4, 6]])
    edges = torch.cat([star, star.flip(0)], 1)
    batch = random_batch((7,))._replace(edges=edges)
    kept = Counter()
    for seed in range(300):
        kept.update(DropEdges(fraction=0.4, spare="degree", most=0.9).draw(batch, generator(seed)).tolist())
    spoke, lonely = kept[0] + kept[5], kept[4] + kept[9]
    assert kept[0] == kept[5]
    assert spoke > 1.5 * lonely


def test_masked_columns_are_those_of_all_nodes():
    batch = random_batch(features=40)
    view = MaskFeatures(fraction=0.3, fill=-7.0)
    seen = view.apply(batch, view.draw(batch, generator()))
    masked = (seen.nodes == -7).all(0)
    assert 0 < int(masked.sum()) < 40
    assert torch.equal(seen.nodes[:, ~masked], batch.nodes[:, ~masked])
    shares = [float(view.draw(batch, generator(seed)).double().mean()) for seed in range(200)]
    assert abs(sum(shares) / 200 - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 40 / 200)


def test_masked_nodes_have_the_code_of_their_columns():
    batch = random_batch(SIZES, codes=(5, 3))
    view = MaskFeatures(fraction=0.25, what="nodes", least=1, fill=(118, 9))
    seen = view.apply(batch, view.draw(batch, generator()))
    assert seen.nodes.dtype == torch.int64
    masked = (seen.nodes == torch.tensor([118, 9])).all(1)
    counts = [int(masked[batch.graph == g].sum()) for g in range(len(SIZES))]
    assert counts == [max(1, math.floor(0.25 * n)) for n in SIZES]
    assert torch.equal(seen.nodes[~masked], batch.nodes[~masked])


def test_the_mean_as_fill():
    batch = random_batch()
    view = MaskFeatures(fraction=0.5, what="nodes", fill="mean")
    mask = view.draw(batch, generator())
    seen = view.apply(batch, mask)
    torch.testing.assert_close(seen.nodes[mask[:, 0]], batch.nodes.mean(0).expand(int(mask.sum()), -1))


def test_columns_of_central_nodes_are_spared():
    batch = random_batch((30,), density=0.2)
    central = centrality_order(batch)
    nodes = torch.zeros(30, 2)
    nodes[central[-3:], 0], nodes[central[:3], 1] = 1.0, 1.0
    batch = batch._replace(nodes=nodes)
    drawn = torch.stack(
        [MaskFeatures(fraction=0.3, spare="degree").draw(batch, generator(s))[0] for s in range(300)]
    )
    assert int(drawn[:, 0].sum()) == 0  # the highest score is never masked
    assert abs(float(drawn[:, 1].double().mean()) - 0.6) < 0.12  # (max - min) / (max - mean) of two is 2


def centrality_order(batch):
    return batch.edges[1].bincount(minlength=len(batch.nodes)).argsort()


def test_two_views_are_drawn_apart_and_replayed_by_a_generator():
    batch = batch_with_names()
    views = GraphViews([OneOf([DropNodes(), Subgraph()])], [DropEdges()])
    one, two = views(batch, generator(5))
    again, _ = views(batch, generator(5))
    assert torch.equal(one.nodes, again.nodes)
    assert torch.equal(two.nodes, batch.nodes)
    assert not views.keeps_nodes
    assert GraphViews([], [DropEdges(), MaskFeatures()]).keeps_nodes
    same = GraphViews([], [DropEdges()])(batch, generator())[0]
    assert same is batch


def test_graphs_without_nodes_or_edges():
    empty = random_batch((0, 3, 0), density=0.0)
    for view in (
        DropNodes(),
        Subgraph(),
        DropEdges(exact=True),
        DropEdges(spare="pagerank"),
        MaskFeatures(what="nodes"),
    ):
        seen = view.apply(empty, view.draw(empty, generator()))
        assert seen.graphs == 3
        assert seen.edges.shape == (2, 0)


def test_bad_settings_are_named():
    with pytest.raises(ConfigError, match=r"fraction to leave out must lie in .* below 1, got 1"):
        DropNodes(fraction=1.0)
    with pytest.raises(ConfigError, match="leave exact or spare out"):
        DropEdges(exact=True, spare="degree")
    with pytest.raises(ConfigError, match="columns or nodes, got 'rows'"):
        MaskFeatures(what="rows")
    with pytest.raises(ConfigError, match="only columns are spared"):
        MaskFeatures(what="nodes", spare="degree")
    with pytest.raises(ConfigError, match="both views are the same"):
        GraphViews([])
    with pytest.raises(ConfigError, match="at least one"):
        OneOf([])
    batch = random_batch(features=3)
    view = MaskFeatures(fill=(1.0, 2.0))
    with pytest.raises(ConfigError, match="fill has 2 values, but nodes have 3 features"):
        view.apply(batch, view.draw(batch))
