"""The element knowledge graph has the published size where it should, and every triple follows from its value."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from diptych.errors import UserError
from diptych_molecules.elements import ATOMIC_NUMBERS, element, knowledge
from diptych_molecules.knowledge import rules

# relation: (attribute values, triples) of the published graph
PUBLISHED = {
    "period": (7, 118),
    "group": (18, 118),
    "weight": (9, 118),
    "category": (9, 108),
    "state": (3, 103),
    "abundance": (5, 118),
    "melting_point": (9, 102),
    "boiling_point": (9, 96),
    "density": (3, 96),
    "electron_affinity": (5, 73),
    "electronegativity": (5, 94),
    "ionisation_energy": (4, 104),
    "atomic_radius": (3, 84),
    "specific_heat": (6, 88),
    "hardness": (4, 59),
    "bulk_modulus": (4, 69),
    "thermal_conductivity": (4, 95),
}
# where ours differ: values that the libraries have or lack, and a weight class of rutherfordium alone
DIFFERENT = {
    "weight": (8, 118),
    "state": (3, 102),
    "melting_point": (9, 103),
    "boiling_point": (9, 93),
    "electron_affinity": (5, 70),
    "electronegativity": (5, 100),
    "ionisation_energy": (4, 103),
    "atomic_radius": (3, 82),
    "specific_heat": (6, 85),
    "thermal_conductivity": (4, 96),
}


def test_counts_are_the_published_ones_but_for_the_named_deviations() -> None:
    graph = knowledge()
    triples = Counter(each.relation for each in graph.triples)
    values = Counter(relation for relation, _ in {(each.relation, each.attribute) for each in graph.triples})
    found = {relation: (values[relation], triples[relation]) for relation in graph.relations}
    assert found == PUBLISHED | DIFFERENT
    assert all(PUBLISHED[relation] != DIFFERENT[relation] for relation in DIFFERENT)
    assert (len(graph.triples), len(graph.attributes), graph.entities) == (1638, 106, 224)


def test_every_triple_follows_from_its_value_by_its_rule() -> None:
    graph = knowledge()
    by_relation = {each.relation: each for each in rules.CUTS}
    for each in graph.triples:
        assert each.value, each
        assert each.rule, each
        assert re.fullmatch(r"rule|(pymatgen-core|mendeleev) [\d.]+: \w.*", each.source), each
        if each.relation in by_relation:
            assert (each.attribute, each.rule) == by_relation[each.relation].place(float(each.value)), each
        if each.relation in ("period", "group", "weight"):
            z = graph.numbers[each.element]
            assert each.attribute == f"{each.relation}_{getattr(rules, each.relation)(z)}", each


def test_rules_agree_with_rdkit_and_the_periodic_table() -> None:
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    numbers = knowledge().numbers
    for symbol, z in numbers.items():
        assert table.GetElementSymbol(z) == symbol
        assert rules.period(z) == table.GetRow(z)
    groups = {
        "H": 1,
        "He": 18,
        "C": 14,
        "Sc": 3,
        "Fe": 8,
        "Zn": 12,
        "Ga": 13,
        "Hf": 4,
        "La": 3,
        "U": 3,
        "Og": 18,
    }
    assert {symbol: rules.group(numbers[symbol]) for symbol in groups} == groups


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        # rows that the published file has under other symbols
        ("Y", {"weight_5", "category_transition_metal"}),
        ("K", {"electronegativity_1", "atomic_radius_3"}),
        ("Yb", {"weight_6", "category_lanthanoid"}),
        ("Br", {"state_liquid"}),
        ("Hg", {"state_liquid"}),
        ("C", {"period_2", "group_14", "category_reactive_nonmetal", "state_solid", "abundance_common"}),
    ],
)
def test_known_elements_have_their_attribute_values(symbol: str, expected: set[str]) -> None:
    graph = knowledge()
    found = {each.attribute for each in graph.of(graph.numbers[symbol])}
    assert expected <= found
    assert len({attribute.rsplit("_", 1)[0] for attribute in found}) == len(found)


def test_only_bromine_and_mercury_are_liquid() -> None:
    assert [each.element for each in knowledge().triples if each.attribute == "state_liquid"] == ["Br", "Hg"]


@pytest.mark.parametrize(
    ("value", "attribute", "rule"),
    [
        (4.8, "hardness_1", "hardness <= 4.8 MPa"),
        (4.80001, "hardness_2", "4.8 < hardness <= 77 MPa"),
        (5000, "hardness_4", "hardness > 1220 MPa"),
    ],
)
def test_a_cut_belongs_to_the_class_below_it(value: float, attribute: str, rule: str) -> None:
    cuts = next(each for each in rules.CUTS if each.relation == "hardness")
    assert cuts.place(value) == (attribute, rule)


def test_state_needs_what_tells() -> None:
    assert rules.state(-10, 100) == ("liquid", "melting point <= 25 degC < boiling point")
    assert rules.state(-10, None) is None
    assert rules.state(None, None) is None
    assert rules.state(None, -20) == ("gas", "boiling point <= 25 degC")


def test_slots_hold_the_triples_and_nothing_for_a_dummy_atom() -> None:
    graph = knowledge()
    assert graph.slots.shape == (ATOMIC_NUMBERS, 17)
    assert (graph.slots[0] == -1).all()
    pairs = {(each.attribute, each.element) for each in graph.triples}
    symbols = list(graph.names)
    found = {
        (graph.attributes[graph.slots[z, r]], symbols[z - 1])
        for z, r in zip(*np.nonzero(graph.slots >= 0), strict=True)
    }
    assert found == pairs
    for attribute, relation in enumerate(graph.relation_of):
        assert graph.attributes[attribute].startswith(graph.relations[relation] + "_")
    heads, _, tails = graph.numbered().T
    assert heads.max() < len(graph.attributes) <= tails.min()
    assert tails.max() < graph.entities


@pytest.mark.parametrize("text", ["C", "c", "carbon", "Carbon", "6", " C "])
def test_the_command_prints_every_triple(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    element(text)
    printed = capsys.readouterr().out
    assert printed.startswith("C, Carbon, atomic number 6: 16 of 17 relations\n")
    for each in knowledge().of(6):
        line = next(line for line in printed.splitlines() if line.startswith(each.relation + " "))
        assert all(word in line for word in (each.attribute, each.value, each.rule))
    assert "no value: hardness" in printed
    assert "pymatgen-core" in printed.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("carbom", "no element is called 'carbom'; did you mean 'carbon'?"),
        ("Xq", "no element is called 'Xq'; symbols with that letter: Xe"),
        ("", "no element is called ''; no symbol starts so"),
        ("0", "atomic numbers go from 1 to 118, got 0"),
        ("119", "atomic numbers go from 1 to 118, got 119"),
        ("-3", "atomic numbers go from 1 to 118, got -3"),
        ("6.5", "no element is called '6.5'; elements are"),
    ],
)
def test_what_is_no_element_is_said(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        element(text)
