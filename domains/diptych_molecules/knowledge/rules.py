"""How a property of a chemical element becomes an attribute value: the rules of the element knowledge graph.

The graph is that of KCL (Fang et al. 2022, "Molecular Contrastive Learning with Chemical Element Knowledge
Graph"): triples (attribute value, relation, element), 17 relations, every attribute value of one relation. Cuts
are those that rebuild the published graph from values of pymatgen-core and mendeleev, where they can; slips of
that graph are not repeated (yttrium's rows under ytterbium, potassium's under krypton, a weight class of
rutherfordium alone).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

PERIOD_ENDS = (2, 10, 18, 36, 54, 86, 118)
WEIGHT_ENDS = (2, 10, 18, 36, 54, 71, 88, 118)
LAST_MEASURED = 103  # heavier elements were made in numbers of atoms: their listed values are predictions
LAST_WITH_CATEGORY = 108


@dataclass(frozen=True)
class Cuts:
    """A number falls into class k where k - 1 of the cuts lie below it: class 1 is "value <= first cut"."""

    relation: str
    unit: str
    cuts: tuple[float, ...]

    def place(self, value: float) -> tuple[str, str]:
        """The attribute value's name and the rule that gave it, in words."""
        k = bisect_left(self.cuts, value)
        name = self.relation.replace("_", " ")
        unit = f" {self.unit}" if self.unit else ""
        if k == len(self.cuts):
            rule = f"{name} > {self.cuts[-1]:g}{unit}"
        else:
            low = f"{self.cuts[k - 1]:g} < " if k else ""
            rule = f"{low}{name} <= {self.cuts[k]:g}{unit}"
        return f"{self.relation}_{k + 1}", rule


CUTS = (
    Cuts("melting_point", "degC", (-234, -135, -23, 434, 820, 1266, 2117, 2820)),
    # the published classes 5 to 7 overlap, so the cut at 2300 is our own
    Cuts("boiling_point", "degC", (-221, -85, 12, 895, 1546, 2300, 3608, 4896)),
    Cuts("density", "g/cm3", (0.27, 9.1)),
    Cuts("electron_affinity", "kJ/mol", (14.5, 203, 246.5, 326)),
    Cuts("electronegativity", "", (1.05, 1.545, 2.195, 3.7)),
    Cuts("ionisation_energy", "kJ/mol", (499, 1113, 1881)),
    Cuts("atomic_radius", "angstrom", (0.69, 1.8)),
    Cuts("specific_heat", "J/(g K)", (0.121, 0.2, 0.313, 0.68, 2.7)),
    Cuts("hardness", "MPa", (4.8, 77, 1220)),
    Cuts("bulk_modulus", "GPa", (88, 150, 270)),
    Cuts("thermal_conductivity", "W/(m K)", (98.5, 165, 278)),
)
RELATIONS = (
    "period",
    "group",
    "weight",
    "category",
    "state",
    "abundance",
    *(each.relation for each in CUTS),
)
RARE = {61, 84, 85, 86, 87, 88, 89, 91}  # and everything from neptunium on: in traces only
COMMON = {6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 23, 24, 25, 26, 27, 28}
METALLOIDS = {5, 14, 32, 33, 51, 52, 85}
REACTIVE_NONMETALS = {1, 6, 7, 8, 9, 15, 16, 17, 34, 35, 53}
POST_TRANSITION = {13, 31, 49, 50, 81, 82, 83, 84}


def period(z: int) -> int:
    """The row of the periodic table, from the atomic number."""
    return bisect_left(PERIOD_ENDS, z) + 1


def weight(z: int) -> int:
    """The class of weight, 1 to 8: blocks of atomic numbers."""
    return bisect_left(WEIGHT_ENDS, z) + 1


def block(z: int, ends: tuple[int, ...]) -> str:
    """The range of atomic numbers that z lies in, in words."""
    k = bisect_left(ends, z)
    return f"atomic number {ends[k - 1] + 1 if k else 1} to {ends[k]}"


def group(z: int) -> int:
    """The IUPAC group, 1 to 18; all lanthanoids and actinoids are in group 3."""
    if 57 <= z <= 71 or 89 <= z <= 103:
        return 3
    row = period(z)
    from_left = z - (0, *PERIOD_ENDS)[row - 1]
    from_right = PERIOD_ENDS[row - 1] - z
    if z in (1, 3, 4, 11, 12) or (row > 3 and from_left <= 2):
        return from_left
    return 18 - from_right


def category(z: int) -> tuple[str, str] | None:
    """The kind of element and the rule that says so; None from meitnerium on, whose chemistry is unknown."""
    if z > LAST_WITH_CATEGORY:
        return None
    if 57 <= z <= 71:
        return "lanthanoid", "atomic number 57 to 71"
    if 89 <= z <= 103:
        return "actinoid", "atomic number 89 to 103"
    lists = {
        "metalloid": (METALLOIDS, "one of B Si Ge As Sb Te At"),
        "reactive_nonmetal": (REACTIVE_NONMETALS, "one of H C N O F P S Cl Se Br I"),
        "post_transition_metal": (POST_TRANSITION, "one of Al Ga In Sn Tl Pb Bi Po"),
    }
    for name, (members, rule) in lists.items():
        if z in members:
            return name, rule
    column = group(z)
    names = {1: "alkali_metal", 2: "alkaline_earth_metal", 18: "noble_gas"}
    return names.get(column, "transition_metal"), f"group {column if column in names else '3 to 12'}"


def state(melting: float | None, boiling: float | None) -> tuple[str, str] | None:
    """Solid, liquid or gas at 25 degC from melting and boiling point in degC; None where neither tells."""
    if boiling is not None and boiling <= 25:
        return "gas", "boiling point <= 25 degC"
    if melting is not None and melting > 25:
        return "solid", "melting point > 25 degC"
    if melting is not None and boiling is not None:
        return "liquid", "melting point <= 25 degC < boiling point"
    return None


def abundance(z: int) -> tuple[str, str]:
    """The class of abundance in the universe by mass, and the rule: lists, of fewer and fewer atoms."""
    if z == 1:
        return "hydrogen", "the most abundant element"
    if z == 2:
        return "helium", "the second most abundant element"
    if z in COMMON:
        return "common", "C to Ca and Ti to Ni"
    if z in RARE or z >= 93:
        return "traces", "Pm, Po to Ac, Pa, and Np on: not found beyond traces"
    return "found", "found in nature, neither common nor in traces only"
