"""KMPNN, the encoder of KCL's view with the element knowledge graph (Fang et al. 2022, equations 3 to 8).

The view has the atoms, one node per attribute value that any of a molecule's elements has, and a directed edge from
an attribute value to every atom whose element has it. Nothing leads to an attribute value, and an atom's attribute
values depend on its atomic number alone. So the view is never built: the states of attribute values are one table
for the whole batch, the neighbourhoods of atoms rows of a constant table, and the matrix of an edge, which depends
on its type alone, is computed once per type. The result is that of the explicit graph.

Letters: m atoms, e directed bonds, n molecules, a attribute values, r relations, d hidden width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diptych.errors import ConfigError, DataError
from diptych.graphs.batch import GraphBatch
from diptych.graphs.features import Inputs
from diptych.graphs.segments import segment_softmax, segment_sum
from diptych.types import Encoded
from diptych_molecules.columns import ATOM_SIZES, ATOMIC_NUMBER, BOND_SIZES, KIND
from diptych_molecules.elements import knowledge
from diptych_molecules.readouts import Set2Set
from diptych_molecules.rotate import shipped

SLOPE = 0.01  # of the leaky ReLU of attention scores


class Matrices(NamedTuple):
    """Theta of every type of edge, computed once for all steps."""

    bonds: Tensor  # (kinds, d, d): of those that the batch has
    relations: Tensor  # (r, d, d)


class Attention(NamedTuple):
    """What an atom listens to in one step."""

    bonds: Tensor  # (e,): shares of the bonds into an atom, 1 together
    relations: Tensor  # (m, r): shares of its element's attribute values, 1 together; 0 where there is none


class EdgeMatrix(nn.Module):
    """Theta: the embedding of an edge type to the matrix that its messages go through."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, hidden * hidden))
        self.hidden = hidden

    def forward(self, types: Tensor) -> Tensor:
        """(types, width) to (types, d, d)."""
        matrices: Tensor = self.layers(types)
        return matrices.view(-1, self.hidden, self.hidden)


class KMPNN(nn.Module):
    """Message passing over bonds and over the relations of elements, with the readout Set2Set.

    In every step, with weights shared by all steps, s_uv = LeakyReLU(a . [x_u || x_v]), alpha its softmax over the
    edges into v of one kind (bonds, relations), m_v = b + sum alpha_uv x_u Theta_1(e_uv) over bonds + the same with
    Theta_2 over relations, and x_v <- GRU(ReLU(m_v), x_v).

    Args:
        elements: whether attribute values and relations start from the shipped RotatE embedding or at random. They
            are trained either way.
        features: "element" sees atomic numbers and kinds of bonds, as KCL does; "all" adds up the tables of all
            columns of atoms, and adds to a bond's message a row of its stereo and ring columns.
        hidden: d.
        steps: of message passing.
        iterations: of Set2Set.

    ``width`` is twice ``hidden``; ``parts`` are the atoms, ``hidden`` wide. A dummy atom and a masked one have no
    attribute values.
    """

    slots: Tensor  # (120, r): the attribute values of an atomic number, by relation
    members: Tensor  # (r, most): the attribute values of a relation, filled up with the first value
    place: Tensor  # (a,): where among all members an attribute value stands

    def __init__(
        self,
        *,
        elements: Literal["rotate", "random"] = "rotate",
        features: Literal["element", "all"] = "element",
        hidden: int = 64,
        steps: int = 6,
        iterations: int = 6,
    ) -> None:
        super().__init__()
        if min(hidden, steps) < 1:
            raise ConfigError(f"KMPNN needs hidden and steps of at least 1, got {hidden} and {steps}")
        if elements not in ("rotate", "random"):
            raise ConfigError(f"elements start from rotate or random, got {elements!r}")
        if features not in ("element", "all"):
            raise ConfigError(f"features are element or all, got {features!r}")
        graph = knowledge()
        slots = torch.full((ATOM_SIZES[ATOMIC_NUMBER], len(graph.relations)), -1)
        slots[: len(graph.slots)] = torch.from_numpy(graph.slots.copy())
        # what has no attribute value points one past the last
        self.register_buffer("slots", slots.where(slots >= 0, len(graph.attributes)), persistent=False)
        members, place = _by_relation(torch.from_numpy(graph.relation_of))
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.features, self.steps, self.hidden = features, steps, hidden
        width, edge_width = 128, 64
        self.atoms = Inputs(ATOM_SIZES[:1] if features == "element" else ATOM_SIZES, width)
        self.attributes = nn.Embedding(len(graph.attributes), width)
        self.bonds = nn.Embedding(BOND_SIZES[KIND], edge_width)
        self.relations = nn.Embedding(len(graph.relations), edge_width)
        if elements == "rotate":
            embedding = shipped()
            with torch.no_grad():
                self.attributes.weight.copy_(embedding.entities[: len(graph.attributes)])
                self.relations.weight.copy_(embedding.relations)
        self.bond_rows = Inputs(BOND_SIZES[KIND + 1 :], hidden) if features == "all" else None
        self.input = nn.Linear(width, hidden)
        self.attention = nn.Linear(2 * hidden, 1, bias=False)
        self.bond_matrix, self.relation_matrix = (
            EdgeMatrix(edge_width, hidden),
            EdgeMatrix(edge_width, hidden),
        )
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.cell = nn.GRUCell(hidden, hidden)
        self.readout = Set2Set(hidden, iterations=iterations)
        self.width, self.parts_width = self.readout.width, hidden

    def forward(self, batch: GraphBatch) -> Encoded:
        """Encode a batch of molecules."""
        x, shared, _ = self._run(batch, keep=False)
        return Encoded(self.readout(x, batch.graph, batch.graphs, shared, self.present(batch)), x)

    def attend(self, batch: GraphBatch) -> list[Attention]:
        """What every atom listens to, step by step."""
        return self._run(batch, keep=True)[2]

    def present(self, batch: GraphBatch) -> Tensor:
        """(n, a) bool: which attribute values a molecule's elements have."""
        slots = self.slots[batch.nodes[:, ATOMIC_NUMBER]]
        cells = batch.graph[:, None] * (len(self.place) + 1) + slots
        found = torch.zeros(
            batch.graphs * (len(self.place) + 1), dtype=torch.bool, device=slots.device
        ).index_fill(0, cells.flatten(), True)
        return found.view(batch.graphs, -1)[:, :-1]

    def _run(self, batch: GraphBatch, *, keep: bool) -> tuple[Tensor, Tensor, list[Attention]]:
        """Atoms (m, d) and attribute values (a, d) after all steps, and the attention of each if it is kept."""
        if batch.edge_features is None:
            raise DataError("KMPNN sees kinds of bonds, but the batch has no edge features")
        columns = batch.nodes[:, ATOMIC_NUMBER : ATOMIC_NUMBER + 1]
        atoms = self.atoms(columns if self.features == "element" else batch.nodes)
        # atoms and, behind them, the attribute values, which go through the same layers
        states = F.relu(self.input(torch.cat([atoms, self.attributes.weight])))
        kinds, used = batch.edge_features[:, KIND], self.bonds.weight
        if kinds.device.type == "cpu":
            # most batches have three kinds of bonds; a GPU would have to wait for the answer
            found, kinds = torch.unique(kinds, return_inverse=True)
            used = used[found]
        matrices = Matrices(self.bond_matrix(used), self.relation_matrix(self.relations.weight))
        rows = None if self.bond_rows is None else self.bond_rows(batch.edge_features[:, KIND + 1 :])
        slots = self.slots[columns[:, 0]]
        m, kept = len(slots), []
        for _ in range(self.steps):
            attention = self._attention(states, batch, slots)
            messages = self._from_bonds(states[:m], attention.bonds, batch.edges, kinds, matrices.bonds)
            if rows is not None:
                messages = messages + segment_sum(attention.bonds[:, None] * rows, batch.edges[1], m)
            messages = messages + self._from_relations(
                states[m:], attention.relations, slots, matrices.relations
            )
            # attribute values hear nothing, so their message is the bias alone
            silent = messages.new_zeros(len(self.place), self.hidden)
            states = self.cell(F.relu(torch.cat([messages, silent]) + self.bias), states)
            if keep:
                kept.append(attention)
        return states[:m], states[m:], kept

    def _attention(self, states: Tensor, batch: GraphBatch, slots: Tensor) -> Attention:
        m, (sources, targets) = len(slots), batch.edges
        # a . [x_u || x_v] is the source's part and the target's part added
        told, heard = (states @ self.attention.weight.view(2, -1).T).unbind(1)
        bonds = F.leaky_relu(told[sources] + heard[targets], SLOPE)
        of_slots = torch.cat([told[m:], told.new_full((1,), -torch.inf)])[slots]
        scores = F.leaky_relu(of_slots + heard[:m, None], SLOPE)
        none = (slots == len(self.place)).all(1, keepdim=True)
        relations = scores.masked_fill(none, 0.0).softmax(1).masked_fill(none, 0.0)
        return Attention(segment_softmax(bonds, targets, m), relations)

    @staticmethod
    def _from_bonds(x: Tensor, shares: Tensor, edges: Tensor, kinds: Tensor, matrices: Tensor) -> Tensor:
        """(m, d): neighbours are summed for each kind of bond before their matrix, being linear, is applied."""
        count, d, _ = matrices.shape
        summed = segment_sum(shares[:, None] * x[edges[0]], edges[1] * count + kinds, len(x) * count)
        return summed.view(len(x), count * d) @ matrices.view(count * d, d)

    def _from_relations(self, shared: Tensor, shares: Tensor, slots: Tensor, matrices: Tensor) -> Tensor:
        """(m, d): the messages of all attribute values, weighed by the shares that each atom gives them."""
        told = torch.bmm(shared[self.members], matrices).flatten(0, 1)[self.place]
        spread = shares.new_zeros(len(slots), len(shared) + 1).scatter(1, slots, shares)
        return spread[:, :-1] @ told


def _by_relation(relation_of: Tensor) -> tuple[Tensor, Tensor]:
    """The attribute values of each relation, as many columns as the largest has, and where each value stands."""
    groups = [(relation_of == relation).nonzero()[:, 0] for relation in range(int(relation_of.max()) + 1)]
    most = max(map(len, groups))
    members = torch.zeros(len(groups), most, dtype=torch.int64)
    place = torch.empty_like(relation_of)
    for relation, values in enumerate(groups):
        members[relation, : len(values)] = values
        place[values] = relation * most + torch.arange(len(values))
    return members, place
