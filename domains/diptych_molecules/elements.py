"""The element knowledge graph as the package ships it, and the command that explains one element.

Triples (attribute value, relation, element) after KCL (Fang et al. 2022); the table and its rules are in
``diptych_molecules.knowledge``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from diptych.errors import UserError
from diptych.nearest import nearest

ATOMIC_NUMBERS = 119  # 0 is a dummy atom, 1 to 118 are the elements


class Triple(NamedTuple):
    """An attribute value of an element, with what it was made from."""

    relation: str
    attribute: str
    element: str
    value: str
    unit: str
    rule: str  # the rule that turned the value into the attribute value
    source: str  # library, version and field; "rule" where the atomic number alone decides


@dataclass(frozen=True, eq=False)
class KnowledgeGraph:
    """All triples, and the numbering of what they link.

    Entities are numbered attribute values first, elements after them in the order of atomic numbers. An element
    has at most one attribute value of a relation, so ``slots`` holds the whole graph.
    """

    triples: tuple[Triple, ...]
    header: tuple[str, ...]  # the table's first lines: what wrote it, from which versions
    names: Mapping[str, str]  # symbol to English name, in the order of atomic numbers
    relations: tuple[str, ...]  # sorted
    attributes: tuple[str, ...]  # sorted
    slots: NDArray[np.int64]  # (119, relations): attribute number by atomic number, -1 where there is none

    @property
    def entities(self) -> int:
        """Attribute values and elements together."""
        return len(self.attributes) + len(self.names)

    @property
    def numbers(self) -> dict[str, int]:
        """Atomic number by symbol."""
        return {symbol: z for z, symbol in enumerate(self.names, start=1)}

    @property
    def relation_of(self) -> NDArray[np.int64]:
        """(attributes,): the relation that an attribute value belongs to."""
        of = {triple.attribute: triple.relation for triple in self.triples}
        return np.array([self.relations.index(of[attribute]) for attribute in self.attributes], np.int64)

    def numbered(self) -> NDArray[np.int64]:
        """(triples, 3): head (attribute value), relation, tail (element), as entity and relation numbers."""
        z, relation = np.nonzero(self.slots >= 0)
        return np.stack([self.slots[z, relation], relation, len(self.attributes) + z - 1], axis=1)

    def of(self, z: int) -> list[Triple]:
        """The triples of an element by its atomic number, in the table's order."""
        symbol = list(self.names)[z - 1]
        return [triple for triple in self.triples if triple.element == symbol]

    def find(self, text: str) -> int:
        """The atomic number of what a symbol, an English name or a number names.

        Raises UserError that names the nearest for a word that is none, and the range for a number that is none.
        """
        word = text.strip()
        if word.lstrip("+-").isdigit():
            z = int(word)
            if not 1 <= z < ATOMIC_NUMBERS:
                raise UserError(f"atomic numbers go from 1 to {ATOMIC_NUMBERS - 1}, got {z}")
            return z
        by_name = {name.lower(): z for z, name in enumerate(self.names.values(), start=1)}
        spellings = {"aluminum": "aluminium", "cesium": "caesium", "sulphur": "sulfur"}
        known = (
            self.numbers
            | by_name
            | {here: by_name[there] for here, there in spellings.items() if there in by_name}
        )
        for form in (word, word.capitalize(), word.lower()):
            if form in known:
                return known[form]
        if len(word) <= 2:
            close = [symbol for symbol in self.names if word and symbol[0] == word[0].upper()]
            hint = f"symbols with that letter: {', '.join(close)}" if close else "no symbol starts so"
        else:
            hint = nearest(word.lower(), list(by_name)).replace("there are:", "elements are")
        raise UserError(f"no element is called {text!r}; {hint}")


@cache
def knowledge() -> KnowledgeGraph:
    """The shipped graph, read once."""
    text = files("diptych_molecules.knowledge").joinpath("elements.tsv").read_text(encoding="utf-8")
    lines = text.splitlines()
    header = tuple(line[2:] for line in lines if line.startswith("# "))
    triples = tuple(Triple(*line.split("\t")) for line in lines[len(header) + 1 :])
    listed = next(line for line in header if line.startswith("elements: ")).removeprefix("elements: ")
    names = dict(pair.split("=", 1) for pair in listed.split())
    relations = tuple(sorted({triple.relation for triple in triples}))
    attributes = tuple(sorted({triple.attribute for triple in triples}))
    number = {symbol: z for z, symbol in enumerate(names, start=1)}
    slots = np.full((ATOMIC_NUMBERS, len(relations)), -1, np.int64)
    for triple in triples:
        slots[number[triple.element], relations.index(triple.relation)] = attributes.index(triple.attribute)
    slots.flags.writeable = False
    return KnowledgeGraph(triples, header, names, relations, attributes, slots)


def element(symbol: str) -> None:
    """Prints every triple of an element with its value, the rule that gave it, and the value's source.

    Args:
        symbol: Symbol, English name or atomic number: C, carbon or 6.
    """
    graph = knowledge()
    z = graph.find(symbol)
    triples = graph.of(z)
    sign, name = list(graph.names.items())[z - 1]
    print(f"{sign}, {name}, atomic number {z}: {len(triples)} of {len(graph.relations)} relations")
    rows = [("relation", "attribute value", "value", "rule", "source")]
    for each in triples:
        value = f"{each.value} {each.unit}".strip() if each.source != "rule" else each.value
        source = "atomic number" if each.source == "rule" else each.source
        rows.append((each.relation, each.attribute, value, each.rule, source))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    missing = [each for each in graph.relations if each not in {triple.relation for triple in triples}]
    if missing:
        print(f"no value: {', '.join(missing)}")
    print(next(line for line in graph.header if line.startswith("values: ")))
