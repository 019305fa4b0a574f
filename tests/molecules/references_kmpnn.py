"""KMPNN word for word: the yardstick of ``tests/benchmarks/kmpnn.py``, and a text to learn the encoder from.

Fang et al. 2022, "Molecular Contrastive Learning with Chemical Element Knowledge Graph". The augmented graph of every
molecule is built: its atoms, then one node for each attribute value of its elements, bonds in both directions and an
edge from every attribute value to every atom whose element has it. In every step every edge gets a matrix of its own
from its type's network, and scores are normalised node by node. Set2Set reads one molecule at a time. Nothing is left
out and nothing is shared between edges that are alike.

Letters: d hidden width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diptych.graphs.batch import GraphBatch
from diptych_molecules.elements import knowledge
from diptych_molecules.kmpnn import KMPNN


class AugmentedGraph(NamedTuple):
    """One molecule with the attribute values of its elements."""

    elements: Tensor  # (atoms,) atomic numbers
    attributes: Tensor  # (attribute nodes,) which attribute values they are
    bonds: Tensor  # (2, bonds) sources and targets among the atoms
    kinds: Tensor  # (bonds,)
    relation_edges: Tensor  # (2, relation edges) from an attribute node to an atom
    relations: Tensor  # (relation edges,)


def augmented_graphs(batch: GraphBatch) -> list[AugmentedGraph]:
    """The explicit graph of every molecule of a batch."""
    known = knowledge()
    attribute_of = {}
    for triple in known.triples:
        pair = (known.attributes.index(triple.attribute), known.relations.index(triple.relation))
        attribute_of.setdefault(known.numbers[triple.element], []).append(pair)
    graphs = []
    for molecule in range(batch.graphs):
        atoms = [v for v in range(len(batch.nodes)) if batch.graph[v] == molecule]
        elements = [int(batch.nodes[v, 0]) for v in atoms]
        pairs = {pair for z in elements for pair in attribute_of.get(z, [])}
        attributes = sorted(attribute for attribute, _ in pairs)
        edges, relations = [], []
        for v, z in enumerate(elements):
            for attribute, relation in attribute_of.get(z, []):
                edges.append((len(atoms) + attributes.index(attribute), v))
                relations.append(relation)
        inside = [k for k in range(batch.edges.shape[1]) if int(batch.edges[0, k]) in set(atoms)]
        first = atoms[0] if atoms else 0
        graphs.append(
            AugmentedGraph(
                torch.tensor(elements, dtype=torch.int64),
                torch.tensor(attributes, dtype=torch.int64),
                batch.edges[:, inside] - first,
                batch.edge_features[inside, 0],
                torch.tensor(edges, dtype=torch.int64).reshape(-1, 2).T,
                torch.tensor(relations, dtype=torch.int64),
            )
        )
    return graphs


class LiteralKMPNN(nn.Module):
    """The encoder with the parameters of a :class:`KMPNN`, which it borrows.

    ``both`` makes matrices as the released code does, with the networks of both types for every edge of either; those
    of the other type are multiplied by 0.
    """

    def __init__(self, weights: KMPNN, both: bool = False) -> None:
        super().__init__()
        self.weights = weights
        self.both = both

    def forward(self, graphs: list[AugmentedGraph]) -> tuple[Tensor, Tensor]:
        """Rows of molecules (n, 2 d) and of their atoms (m, d)."""
        states = [self.pass_messages(graph) for graph in graphs]
        whole = torch.stack([self.set2set(x) for x in states])
        return whole, torch.cat([x[: len(g.elements)] for x, g in zip(states, graphs, strict=True)])

    def pass_messages(self, graph: AugmentedGraph) -> Tensor:
        """States of all nodes of one graph after all steps."""
        w = self.weights
        embedded = [w.atoms.tables[0](graph.elements), w.attributes(graph.attributes)]
        x = torch.relu(w.input(torch.cat(embedded)))
        h = x
        for _ in range(w.steps):
            bonds, relations = w.bonds(graph.kinds), w.relations(graph.relations)
            m = w.bias.expand(len(x), -1)
            m = m + self.aggregate(x, graph.bonds, bonds, w.bond_matrix)
            m = m + self.aggregate(x, graph.relation_edges, relations, w.relation_matrix)
            if self.both:
                m = m + 0 * self.aggregate(x, graph.bonds, bonds, w.relation_matrix)
                m = m + 0 * self.aggregate(x, graph.relation_edges, relations, w.bond_matrix)
            h = w.cell(torch.relu(m), h)
            x = h
        return x

    def aggregate(self, x: Tensor, edges: Tensor, types: Tensor, network: nn.Module) -> Tensor:
        """sum over edges into v of alpha_uv x_u Theta(e_uv), with a Theta for every edge."""
        sources, targets = edges
        scores = self.weights.attention(torch.cat([x[sources], x[targets]], dim=1))[:, 0]
        scores = torch.nn.functional.leaky_relu(scores, 0.01)
        alpha = torch.zeros_like(scores)
        for v in targets.unique():
            into = targets == v
            alpha[into] = scores[into].softmax(0)
        theta = network.layers(types).view(len(types), x.shape[1], x.shape[1])
        messages = alpha[:, None] * torch.einsum("ed,edk->ek", x[sources], theta)
        return torch.zeros_like(x).index_add(0, targets, messages)

    def set2set(self, x: Tensor) -> Tensor:
        """The readout of one molecule, (2 d,)."""
        readout, d = self.weights.readout, x.shape[1]
        q_star = x.new_zeros(2 * d)
        state = (x.new_zeros(readout.layers, 1, d), x.new_zeros(readout.layers, 1, d))
        for _ in range(readout.iterations):
            q, state = readout.lstm(q_star[None, None], state)
            q = q[0, 0]
            r = ((x @ q).softmax(0)[:, None] * x).sum(0) if len(x) else torch.zeros_like(q)
            q_star = torch.cat([q, r])
        return q_star
