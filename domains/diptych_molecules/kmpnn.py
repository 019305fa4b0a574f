"""KMPNN, the encoder of KCL's view with the element knowledge graph (Fang et al. 2022, equations 3 to 8).

The view has the atoms, one node per attribute value that any of a molecule's elements has, and a directed edge from
an attribute value to every atom whose element has it. Nothing leads to an attribute value, and an atom's attribute
values depend on its atomic number alone. So the view is never built. The states of attribute values are one table for
the whole batch, known for all steps before the atoms' first; the neighbourhoods of atoms are rows of a constant table;
the matrix of an edge, which depends on its type alone, is computed once per type, and is applied to the sum of the
neighbours over bonds of one kind, being linear. The result is that of the explicit graph.

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


class Bonds(NamedTuple):
    """The bonds of a batch in p groups, those of one kind into one atom; groups are in the order of their kinds."""

    sources: Tensor  # (e,) atoms
    targets: Tensor  # (e,) atoms
    group: Tensor  # (e,) the group of a bond
    atoms: Tensor  # (p,) the atom that a group leads to
    kinds: list[int]  # that have groups
    sizes: list[int]  # how many groups each of these kinds has


class Told(NamedTuple):
    """What the attribute values tell atoms in one step; the last row is what tells nothing."""

    scores: Tensor  # (a + 1,): their part of the attention score
    messages: Tensor  # (a + 1, d): states that went through the matrix of their relation


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
    has: Tensor  # (120, a + 1) bool: the same as marks; the last one is of an atomic number that has none
    relation_of: Tensor  # (a,): the relation that an attribute value belongs to

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
        has = torch.zeros(len(slots), len(graph.attributes) + 1, dtype=torch.bool).scatter(
            1, self.slots, True
        )
        has[:, -1] = ~has[:, :-1].any(1)
        self.register_buffer("has", has, persistent=False)
        self.register_buffer("relation_of", torch.from_numpy(graph.relation_of), persistent=False)
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
        x, shared, values, _ = self._run(batch, keep=False)
        present = self.present(batch).index_select(1, values)
        return Encoded(self.readout(x, batch.graph, batch.graphs, shared, present), x)

    def attend(self, batch: GraphBatch) -> list[Attention]:
        """What every atom listens to, step by step."""
        return self._run(batch, keep=True)[3]

    def present(self, batch: GraphBatch) -> Tensor:
        """(n, a) bool: which attribute values a molecule's elements have."""
        elements = batch.nodes[:, ATOMIC_NUMBER]
        cells = batch.graph * len(self.has) + elements
        found = torch.zeros(batch.graphs * len(self.has), dtype=torch.float32, device=cells.device)
        found = found.index_fill(0, cells, 1.0).view(batch.graphs, -1)
        return found @ self.has[:, :-1].float() > 0

    def _run(self, batch: GraphBatch, *, keep: bool) -> tuple[Tensor, Tensor, Tensor, list[Attention]]:
        """All steps.

        Returns the states of atoms (m, d) and of attribute values (a, d), which attribute values these are, and the
        attention of each step if it is kept.
        """
        if batch.edge_features is None:
            raise DataError("KMPNN sees kinds of bonds, but the batch has no edge features")
        columns = batch.nodes[:, ATOMIC_NUMBER : ATOMIC_NUMBER + 1]
        has, values = self._neighbourhoods(columns[:, 0])
        absent = torch.zeros(has.shape, device=has.device).masked_fill(~has, -torch.inf)
        bonds = _grouped(batch.edges, batch.edge_features[:, KIND], len(columns), self.bonds.num_embeddings)
        matrices = self.bond_matrix(self.bonds.weight[bonds.kinds])
        rows = None if self.bond_rows is None else self.bond_rows(batch.edge_features[:, KIND + 1 :])
        atoms = self.atoms(columns if self.features == "element" else batch.nodes)
        # attribute values go through the same layer as atoms
        states = F.relu(self.input(torch.cat([atoms, self.attributes.weight.index_select(0, values)])))
        x, shared = torch.split_with_sizes(states, [len(atoms), len(values)])
        told, shared = self._tell(shared, values)
        kept = []
        for each in told:
            # a . [x_u || x_v] is the source's part and the target's part added
            source, target = (x @ self.attention.weight.view(2, -1).T).unbind(1)
            shares = self._attention(source, target, bonds)
            of_values = (F.leaky_relu(each.scores + target[:, None], SLOPE) + absent).softmax(1)
            messages = torch.addmm(self.bias, of_values, each.messages)
            messages = messages.index_add(0, bonds.atoms, self._from_bonds(x, shares, bonds, matrices))
            if rows is not None:
                messages = messages + segment_sum(shares[:, None] * rows, bonds.targets, len(x))
            x = self.cell(F.relu(messages), x)
            if keep:
                kept.append(Attention(shares, self._by_relation(of_values, values)))
        return x, shared, values, kept

    def _neighbourhoods(self, elements: Tensor) -> tuple[Tensor, Tensor]:
        """(m, a + 1) bool, which attribute values an atom listens to, and (a,), which attribute values these are."""
        has = self.has.index_select(0, elements)
        if not _may_wait(elements):
            return has, torch.arange(len(self.relation_of), device=elements.device)
        # most batches have a few elements and a third of the attribute values
        values = has[:, :-1].any(0).nonzero()[:, 0]
        return has.index_select(1, F.pad(values, (0, 1), value=len(self.relation_of))), values

    def _tell(self, shared: Tensor, values: Tensor) -> tuple[list[Told], Tensor]:
        """What attribute values (a, d) tell in every step, and their states after the last."""
        states = [shared]
        for _ in range(self.steps):
            # they hear nothing, so their message is the bias alone
            states.append(self.cell(F.relu(self.bias).expand_as(shared), states[-1]))
        told = torch.stack(states[:-1], dim=1)
        matrices = self.relation_matrix(self.relations.weight)
        messages = torch.bmm(told, matrices.index_select(0, self.relation_of.index_select(0, values)))
        scores = told @ self.attention.weight[0, : self.hidden]
        # what tells nothing is there for atoms without attribute values, whose softmax needs something to run over
        by_step = zip(
            F.pad(scores, (0, 0, 0, 1)).unbind(1), F.pad(messages, (0, 0, 0, 0, 0, 1)).unbind(1), strict=True
        )
        return [Told(*each) for each in by_step], states[-1]

    @staticmethod
    def _attention(source: Tensor, target: Tensor, bonds: Bonds) -> Tensor:
        """(e,): the softmax over the bonds into an atom, from the parts of the score of both its ends."""
        scores = source.index_select(0, bonds.sources) + target.index_select(0, bonds.targets)
        return segment_softmax(F.leaky_relu(scores, SLOPE), bonds.targets, len(target))

    @staticmethod
    def _from_bonds(x: Tensor, shares: Tensor, bonds: Bonds, matrices: Tensor) -> Tensor:
        """(p, d): neighbours are summed in each group before the matrix of its kind is applied."""
        weighed = shares[:, None] * x.index_select(0, bonds.sources)
        summed = segment_sum(weighed, bonds.group, len(bonds.atoms))
        by_kind = zip(torch.split_with_sizes(summed, bonds.sizes), matrices.unbind(), strict=True)
        return torch.cat([rows @ matrix for rows, matrix in by_kind]) if bonds.sizes else summed

    def _by_relation(self, shares: Tensor, values: Tensor) -> Tensor:
        """(m, r): the shares (m, a + 1) of attribute values by their relation; 0 where an element has none."""
        relations = shares.new_zeros(len(shares), self.slots.shape[1])
        return relations.index_add(1, self.relation_of.index_select(0, values), shares[:, :-1])


def _may_wait(tensor: Tensor) -> bool:
    """Whether sizes may depend on what a tensor holds: a GPU would have to wait, an exported program cannot."""
    return tensor.device.type == "cpu" and not torch.compiler.is_exporting()


def _grouped(edges: Tensor, kinds: Tensor, m: int, count: int) -> Bonds:
    """The bonds of ``count`` kinds in groups: those that occur, or as many as there can be."""
    sources, targets = edges
    group, found, sizes = kinds * m + targets, torch.arange(m * count, device=kinds.device), [m] * count
    if _may_wait(kinds):
        found, group = torch.unique(group, return_inverse=True)
        sizes = torch.bincount(found // max(m, 1), minlength=count).tolist()
    used = [kind for kind, size in enumerate(sizes) if size]
    sizes = [sizes[kind] for kind in used]
    return Bonds(sources, targets, group, found % max(m, 1), used, sizes)
