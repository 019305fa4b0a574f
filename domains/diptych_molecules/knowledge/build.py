"""Writes elements.tsv, the element knowledge graph, from values of two libraries. Run by hand:

    pip install --no-deps pymatgen-core mendeleev
    PYTHONPATH=shared:domains python -m diptych_molecules.knowledge.build

Reads the data files of the two libraries (MIT, both) without importing them. A triple is written only where a
value exists. Temperatures become degC, energies kJ/mol, densities g/cm3.
"""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from diptych_molecules.knowledge import rules

KELVIN = 273.15
KJ_PER_MOL = 96.48533212  # of 1 eV
COLUMNS = ("relation", "attribute", "element", "value", "unit", "rule", "source")


class Value(NamedTuple):
    """A property of an element, and the library and field it comes from."""

    number: float
    source: str


class Row(NamedTuple):
    """One triple with what it was made from; the fields are :data:`COLUMNS`."""

    relation: str
    attribute: str
    element: str
    value: str
    unit: str
    rule: str
    source: str


Values = Mapping[tuple[str, int], Value]  # by relation and atomic number


def pymatgen_values() -> dict[tuple[str, int], Value]:
    """What pymatgen-core's periodic table says of every element."""
    found = metadata.distribution("pymatgen-core")
    path = Path(str(found.locate_file("pymatgen/core/periodic_table.json.gz")))
    table: dict[str, dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))
    fields: dict[str, tuple[str, Callable[[float], float]]] = {
        "melting_point": ("Melting point", lambda x: x - KELVIN),
        "boiling_point": ("Boiling point", lambda x: x - KELVIN),
        "electronegativity": ("X", float),
        "atomic_radius": ("Atomic radius calculated", float),
        "hardness": ("Brinell hardness", float),
        "bulk_modulus": ("Bulk modulus", float),
        "thermal_conductivity": ("Thermal conductivity", float),
    }
    return {
        (relation, entry["Atomic no"]): Value(
            convert(entry[field]), f"pymatgen-core {found.version}: {field}"
        )
        for symbol, entry in table.items()
        if symbol not in ("_unit", "D", "T")
        for relation, (field, convert) in fields.items()
        if isinstance(entry.get(field), (int, float))
    }


def mendeleev_values() -> dict[tuple[str, int], Value]:
    """What mendeleev's database says of every element. Of several allotropes the first one listed speaks."""
    found = metadata.distribution("mendeleev")
    path = Path(str(found.locate_file("mendeleev/elements.db")))
    # grey tin turns into white tin at 13 degC, which is no melting
    stable = "where not coalesce(is_transition, 0) order by id desc"
    queries = {
        "melting_point": f"select atomic_number, melting_point - {KELVIN} from phasetransitions {stable}",
        "boiling_point": f"select atomic_number, boiling_point - {KELVIN} from phasetransitions {stable}",
        "density": "select atomic_number, density from elements",
        "electron_affinity": f"select atomic_number, electron_affinity * {KJ_PER_MOL} from elements "
        "where electron_affinity > 0",
        "electronegativity": "select atomic_number, en_pauling from elements",
        "ionisation_energy": f"select atomic_number, ionization_energy * {KJ_PER_MOL} from ionizationenergies "
        "where ion_charge = 0",
        "specific_heat": "select atomic_number, specific_heat_capacity from elements",
    }
    values = {}
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        for relation, query in queries.items():
            field = query.split()[2]
            for z, number in database.execute(query):
                if number is not None:
                    values[relation, z] = Value(number, f"mendeleev {found.version}: {field}")
    return values


def symbols() -> dict[int, tuple[str, str]]:
    """Symbol and English name by atomic number."""
    path = Path(str(metadata.distribution("mendeleev").locate_file("mendeleev/elements.db")))
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
        rows = database.execute("select atomic_number, symbol, name from elements order by atomic_number")
        return {z: (symbol, name) for z, symbol, name in rows}


def of_number(z: int, symbol: str) -> Iterator[Row]:
    """The triples that follow from the atomic number alone."""

    def row(relation: str, attribute: str, rule: str) -> Row:
        return Row(relation, attribute, symbol, str(z), "atomic number", rule, "rule")

    yield row("period", f"period_{rules.period(z)}", rules.block(z, rules.PERIOD_ENDS))
    rule = "lanthanoids and actinoids" if 57 <= z <= 71 or 89 <= z <= 103 else "column of the periodic table"
    yield row("group", f"group_{rules.group(z)}", rule)
    yield row("weight", f"weight_{rules.weight(z)}", rules.block(z, rules.WEIGHT_ENDS))
    kind = rules.category(z)
    if kind is not None:
        yield row("category", f"category_{kind[0]}", kind[1])
    name, rule = rules.abundance(z)
    yield row("abundance", f"abundance_{name}", rule)


def of_values(z: int, symbol: str, values: Values) -> Iterator[Row]:
    """The triples that follow from measured values, none from predictions of the heaviest elements."""
    if z > rules.LAST_MEASURED:
        return
    melting, boiling = values.get(("melting_point", z)), values.get(("boiling_point", z))
    found = rules.state(melting and melting.number, boiling and boiling.number)
    if found is not None:
        name, rule = found
        value = boiling if name == "gas" or melting is None else melting
        assert value is not None
        yield Row("state", f"state_{name}", symbol, f"{value.number:.6g}", "degC", rule, value.source)
    for cuts in rules.CUTS:
        value = values.get((cuts.relation, z))
        if value is None or (cuts.relation == "density" and (z > 98 or z in (85, 87))):
            continue  # densities of At, Fr and beyond Cf are estimates
        attribute, rule = cuts.place(value.number)
        yield Row(cuts.relation, attribute, symbol, f"{value.number:.6g}", cuts.unit, rule, value.source)


def build() -> list[Row]:
    """All triples: by relation, then by atomic number."""
    # mendeleev cites its sources, so it goes first where both have a value
    values = pymatgen_values() | mendeleev_values()
    rows = [
        row
        for z, (symbol, _) in symbols().items()
        for row in (*of_number(z, symbol), *of_values(z, symbol, values))
    ]
    return sorted(rows, key=lambda row: rules.RELATIONS.index(row.relation))


def main() -> None:
    """Write the table beside this file."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("pymatgen-core", "mendeleev"))
    names = " ".join(f"{symbol}={name}" for symbol, name in symbols().values())
    rows = build()
    lines = [
        f"# element knowledge graph: {len(rows)} triples, written by diptych_molecules.knowledge.build",
        f"# values: {versions} (both MIT)",
        f"# elements: {names}",
        "\t".join(COLUMNS),
        *("\t".join(row) for row in rows),
    ]
    path = Path(__file__).with_name("elements.tsv")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(rows)} triples from {versions}")


if __name__ == "__main__":
    main()
