"""The ``data:``, ``netlist:`` and ``loader:`` sections of a config."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from diptych.data import source
from diptych.errors import ConfigError
from diptych_circuits.graph import SUBSTRATES, SUPPLIES, Nets
from diptych_circuits.netlist.naming import PINS, SEGMENTS, Naming
from diptych_circuits.netlist.state import Reading
from diptych_circuits.netlist.types import Types

# The file's name without a drive strength at its end and without what extractors append to it.
DESIGN = r"(?P<design>[^/]+?)(?:_\d+)?(?:_(?:k25d_)?pex(?:_netlist)?)?$"


@dataclass(frozen=True, kw_only=True)
class Source(source.Source):
    """Which netlists there are, and of which design each is: the unit that no split divides.

    Args:
        path: Folder of netlists, one file, a manifest (.csv, .parquet) written by inspect, or package:NAME/FOLDER
            for what an installed package ships. $NAME is replaced by the environment variable.
        names: Regular expression with named groups, searched in the path without suffix. The default finds the
            design as the file's name without a drive strength (inv_1, inv_2 and inv_16 are the design inv).
        patient: Rule for the design; the default takes the group "design" of ``names``.
        format: Only files of this format; auto takes every known one.
    """

    names: str | None = DESIGN
    patient: str = "name:design"
    format: Literal["auto", "spice", "dspf"] = "auto"


@dataclass(frozen=True, kw_only=True)
class Netlist:
    """What is made of a netlist.

    Args:
        top: The subcircuit that is the circuit; by default the one that no other uses, and where a file has several
            each is a netlist of its own.
        supplies: Supply nets are removed with their edges and couplings (as CircuitGCL does), are removed with their
            couplings counted as capacitance to ground, or are kept as nets like others. Substrate nets are always
            removed, and couplings to them are capacitance to ground.
        supply: Names of supply and ground nets, as regular expressions of whole names in any case.
        substrate: Names of substrate, wells and the ground of extraction, likewise.
        pins: Names of nodes that are pins, with the groups net, device and terminal (g, d, s, b); the default is that
            of Calibre's three-file form. DSPF says what its nodes are.
        segments: Names of nodes that are pieces of a net, with the group net.
        types: By device type (nmos, pmos, bipolar, capacitor, resistor, diode) a regular expression that is searched
            in names of models before the built-in rule.
        plain: Resistors and capacitors with a value and no model are parasitics, or devices.
        lengths: Unit of W and L; auto takes lengths of 1e-4 and more for micrometres, less for metres.
        missing_includes: A netlist with an include that is not there goes to quarantine, or goes without it.
        unknown_subcircuits: So does one with a subcircuit that is defined nowhere, or that is a device of type other.
        unknown_models: So does one with a MOS transistor that no rule takes for n or p, or that is of type other.
        bad_capacitance: So does one with a capacitance of 0 or below, or that capacitor is left out.
        duplicates: So does one with two elements of one name, or both are taken.
        max_quarantined: Largest share of netlists in quarantine, beyond which nothing is run.
    """

    top: str | None = None
    supplies: Literal["remove", "ground", "keep"] = "remove"
    supply: list[str] = field(default_factory=lambda: list(SUPPLIES))
    substrate: list[str] = field(default_factory=lambda: list(SUBSTRATES))
    pins: str | None = PINS
    segments: str | None = SEGMENTS
    types: dict[str, str] = field(default_factory=dict)
    plain: Literal["parasitics", "devices"] = "parasitics"
    lengths: Literal["auto", "micrometres", "metres"] = "auto"
    missing_includes: Literal["reject", "ignore"] = "reject"
    unknown_subcircuits: Literal["reject", "other"] = "reject"
    unknown_models: Literal["reject", "other"] = "other"
    bad_capacitance: Literal["reject", "skip"] = "reject"
    duplicates: Literal["reject", "keep"] = "reject"
    max_quarantined: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.max_quarantined <= 1:
            raise ConfigError(f"netlist.max_quarantined is a share from 0 to 1; got {self.max_quarantined:g}")
        _ = self.naming, self.nets, self.device_types  # their faults are found before any data is read

    @property
    def reading(self) -> Reading:
        """How statements are taken."""
        return Reading(
            missing_includes=self.missing_includes,
            plain=self.plain,
            bad_capacitance=self.bad_capacitance,
            duplicates=self.duplicates,
        )

    @property
    def naming(self) -> Naming:
        """What names of nodes stand for."""
        return Naming(pins=self.pins, segments=self.segments)

    @property
    def nets(self) -> Nets:
        """Which nets are supplies or substrate."""
        return Nets(
            supply=self.supply, substrate=self.substrate, supplies=self.supplies, lengths=self.lengths
        )

    @property
    def device_types(self) -> Types:
        """Rules for device types."""
        return Types(rules=self.types, unknown=self.unknown_models)
