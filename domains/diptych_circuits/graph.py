"""From a flat netlist to the nodes, edges and couplings of its graph, all at once in NumPy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError
from diptych_circuits.netlist.definition import NUMBERS
from diptych_circuits.netlist.flatten import Flat, Integers
from diptych_circuits.netlist.types import Types
from diptych_circuits.schema import COLUMN, WIDTH, CouplingKind, DeviceType, Kind, PinKind

Numbers = NDArray[np.float64]
_MICRON = (
    1e-4  # lengths from here on are micrometres, those below metres: no transistor is 0.1 mm or 100 pm long
)
_MOS_PINS = np.array([PinKind.SOURCE_DRAIN, PinKind.GATE, PinKind.SOURCE_DRAIN, PinKind.BULK], np.int8)

SUPPLIES = (
    r"[ad]?v(dd|ss|cc|ee)[a-z]?\d?(io)?!?", r"a?gnd[ad]?!?", r"vpwr(in)?", r"vgnd", r"kapwr", r"lowlvpwr",
    r"vdd_?(core|io)", r"power", r"ground",
)  # fmt: skip
SUBSTRATES = (r"0", r"vnb", r"vpb", r"\w*_gnd", r"v?subs?(trate)?!?", r"[np]?well", r"vpw", r"vnw")


@dataclass(frozen=True, kw_only=True)
class Nets:
    """Which nets are supplies or substrate, as regular expressions of whole names in any case.

    Args:
        supply: Supply and ground nets.
        substrate: Substrate, wells and the ground of extraction: couplings to them are capacitance to ground.
        supplies: Supply nets are removed with their edges and couplings (as CircuitGCL does), are removed with their
            couplings counted as capacitance to ground, or are kept as nets like others. Substrate nets are always
            removed.
        lengths: Unit of W and L; auto takes lengths of 1e-4 and more for micrometres, less for metres.
    """

    supply: list[str] = field(default_factory=lambda: list(SUPPLIES))
    substrate: list[str] = field(default_factory=lambda: list(SUBSTRATES))
    supplies: Literal["remove", "ground", "keep"] = "remove"
    lengths: Literal["auto", "micrometres", "metres"] = "auto"

    def __post_init__(self) -> None:
        for setting in ("supply", "substrate"):
            for text in getattr(self, setting):
                try:
                    re.compile(text)
                except re.error as error:
                    raise ConfigError(
                        f"netlist.{setting}: {text!r} is no regular expression: {error}"
                    ) from None

    def masks(self, names: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """(substrate, supply) of each net; a name of both is substrate."""
        substrate, supply = (_matches(names, patterns) for patterns in (self.substrate, self.supply))
        return substrate, supply & ~substrate


def _matches(names: Sequence[str], patterns: Sequence[str]) -> NDArray[np.bool_]:
    if not patterns:
        return np.zeros(len(names), bool)
    match = re.compile("|".join(f"(?:{text})" for text in patterns), re.IGNORECASE).fullmatch
    return np.fromiter((match(name) is not None for name in names), bool, len(names))


@dataclass(frozen=True, kw_only=True)
class Graph:
    """One netlist as a graph; the arrays are those of :class:`diptych_circuits.circuits.Circuits`."""

    nodes: NDArray[np.float32]
    kind: NDArray[np.int8]
    pin_edges: Integers  # (2, pins): device and pin; the pin of every one
    net_edges: Integers  # (2, .): pin and net, of pins whose net is kept
    ground: Numbers
    resistance: Numbers
    coupling: Integers  # (2, c)
    farad: Numbers
    coupling_kind: NDArray[np.int8]
    names: NDArray[np.uint8]  # of nets and devices, UTF-8, one a line
    letters: NDArray[np.uint8]  # (devices,) ord of each one's letter: what its terminals are called by
    totals: Mapping[str, int]  # what the netlist holds, before nets are removed


# What a netlist holds before nets are removed: "nets" are ports and nets of devices other than diodes, "other_nets"
# those that only couple or only meet diodes; "couplings" are raw, then merged by kind; "grounded" are of the nets.
TOTALS = (
    "mos",
    "mos_pins",
    "devices",
    "nets",
    "other_nets",
    "couplings",
    "pin_pin",
    "pin_net",
    "net_net",
    "grounded",
)


def build_graph(
    flat: Flat, models: Sequence[str], cards: Mapping[str, str], types: Types, nets: Nets
) -> Graph:
    """Nodes, edges and couplings of a netlist.

    Couplings of two segments of nets or pins are merged by net and pin (farads added); those within a net are left
    out, those to substrate are capacitance to ground of the net, and of the pin where they end at one.

    Args:
        models: Names of the models that ``flat.model`` numbers.
        cards: Types of .model cards by folded name.
    """
    device_type = _device_types(flat, models, cards, types)
    substrate, supply = nets.masks(flat.nets)
    merged = _merge(flat, substrate)
    ground = _Ground(np.zeros(len(flat.nets)), np.zeros(len(flat.terminals)))
    np.add.at(ground.net, merged.net, merged.net_farad)
    np.add.at(ground.pin, merged.pin, merged.pin_farad)
    totals = _totals(flat, merged, ground, substrate)
    kept = _used(flat, merged, ground) & ~substrate
    if nets.supplies != "keep":
        kept &= ~supply
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    n, d, t = int(kept.sum()), len(flat.devices), len(flat.terminals)
    # ends of couplings as nodes: nets stand first, then devices, then pins; -1 where the net is removed
    ends = np.stack(
        [np.where(end < 0, number[np.where(end < 0, ~end, 0)], n + d + end) for end in merged.ends]
    )
    stays = (ends >= 0).all(0)
    if nets.supplies == "ground":
        _count_as_ground(flat, merged, ends, ground)
    of_terminal = np.repeat(np.arange(d), np.diff(flat.ends))
    pins, pin_net = n + d + np.arange(t), number[flat.terminals]
    names = [*(flat.nets[i] for i in np.flatnonzero(kept)), *flat.devices]
    resistance = np.full(n + d + t, np.nan)
    resistance[:n] = _resistances(flat)[kept]
    known = np.concatenate([ground.net[kept], np.zeros(d), ground.pin])
    return Graph(
        nodes=_features(flat, device_type, of_terminal, kept, nets.lengths),
        kind=np.repeat(np.array([Kind.NET, Kind.DEVICE, Kind.PIN], np.int8), [n, d, t]),
        pin_edges=np.stack([n + of_terminal, pins]).astype(np.int64),
        net_edges=np.stack([pins[pin_net >= 0], pin_net[pin_net >= 0]]).astype(np.int64),
        ground=np.where(known > 0, known, np.nan),
        resistance=resistance,
        coupling=ends[:, stays].astype(np.int64),
        farad=merged.farad[stays],
        coupling_kind=merged.kind[stays],
        names=np.frombuffer("\n".join(names).encode(), np.uint8),
        letters=flat.kind,
        totals=totals,
    )


@dataclass(frozen=True)
class _Merged:
    """Couplings of pairs, each once. An end is a terminal, or ~net where it is a net."""

    ends: Integers  # (2, c) of a pin-net coupling the pin first
    farad: Numbers  # (c,)
    kind: NDArray[np.int8]  # (c,)
    net: Integers  # (g,) nets of the capacitances to ground
    net_farad: Numbers  # (g,)
    pin: Integers  # those of them that end at a pin: its terminal
    pin_farad: Numbers


@dataclass(frozen=True)
class _Ground:
    """Capacitance to ground by net and by terminal, 0 where there is none."""

    net: Numbers
    pin: Numbers


def _used(flat: Flat, merged: _Merged, ground: _Ground) -> NDArray[np.bool_]:
    """The nets that devices, ports or capacitances meet."""
    used = flat.met | (ground.net > 0)
    used[flat.terminals] = True
    used[~merged.ends[merged.ends < 0]] = True
    return used


def _count_as_ground(flat: Flat, merged: _Merged, ends: Integers, ground: _Ground) -> None:
    """Add couplings with one end at a removed net to the ground of the other end."""
    for gone, other in ((ends[0] < 0, merged.ends[1]), (ends[1] < 0, merged.ends[0])):
        lost = np.flatnonzero(gone & ~(ends < 0).all(0))
        end, farad = other[lost], merged.farad[lost]
        np.add.at(ground.pin, end[end >= 0], farad[end >= 0])
        np.add.at(ground.net, np.where(end < 0, ~end, flat.terminals[np.maximum(end, 0)]), farad)


def _features(
    flat: Flat, device_type: Integers, of_terminal: Integers, kept: NDArray[np.bool_], lengths: str
) -> NDArray[np.float32]:
    numbers = _in_micrometres(flat.numbers, lengths)
    pin_kind = _pin_kinds(flat, of_terminal)
    pins = np.zeros((len(flat.terminals), WIDTH), np.float32)
    pins[:, COLUMN["kind"]] = Kind.PIN
    pins[:, COLUMN["pin_kind"]] = pin_kind
    return np.concatenate(
        [
            _net_features(flat, numbers, device_type, of_terminal, pin_kind)[kept],
            _device_features(numbers, device_type, flat),
            pins,
        ]
    )


def _merge(flat: Flat, substrate: NDArray[np.bool_]) -> _Merged:
    nets, terminals, farad = flat.capacitor_nets, flat.capacitor_terminals, flat.farad
    earth = substrate[nets]
    to_ground = earth[0] != earth[1]
    side = np.where(earth[0], 1, 0)  # the end that is no substrate
    columns = np.arange(len(farad))
    own, at = nets[side, columns], terminals[side, columns]
    ground = np.flatnonzero(to_ground)
    at_pin = ground[at[ground] >= 0]
    pairs = np.flatnonzero(~earth[0] & ~earth[1] & (nets[0] != nets[1]))
    code = np.where(terminals[:, pairs] >= 0, terminals[:, pairs], ~nets[:, pairs])
    swap = code[0] < code[1]  # pins first, nets (below 0) second; of two pins the later one first
    high, low = np.where(swap, code[1], code[0]), np.where(swap, code[0], code[1])
    both = (high + len(flat.nets)) * (len(flat.nets) + len(flat.terminals) + 1) + (low + len(flat.nets))
    unique, first, inverse = np.unique(both, return_index=True, return_inverse=True)
    total = np.zeros(len(unique))
    np.add.at(total, inverse.ravel(), farad[pairs])
    ends = np.stack([high[first], low[first]])
    pins = (ends >= 0).sum(0)
    kind = np.array([CouplingKind.NET_NET, CouplingKind.PIN_NET, CouplingKind.PIN_PIN], np.int8)[pins]
    return _Merged(ends, total, kind, own[ground], farad[ground], at[at_pin], farad[at_pin])


def _device_types(flat: Flat, models: Sequence[str], cards: Mapping[str, str], types: Types) -> Integers:
    pairs, inverse = np.unique(
        flat.kind.astype(np.int64) * (len(models) + 1) + flat.model, return_inverse=True
    )
    found = [
        types.of(chr(int(pair) // (len(models) + 1)), models[int(pair) % (len(models) + 1)], cards)
        for pair in pairs
    ]
    return np.asarray(np.array(found, np.int64)[inverse.ravel()])


def _pin_kinds(flat: Flat, of_terminal: Integers) -> NDArray[np.int8]:
    place = np.arange(len(flat.terminals)) - flat.ends[of_terminal]
    mos = flat.kind[of_terminal] == ord("m")
    return np.where(mos, _MOS_PINS[np.minimum(place, 3)], np.int8(PinKind.OTHER)).astype(np.int8)


def _in_micrometres(numbers: Numbers, lengths: str) -> Numbers:
    """Lengths in um and areas in um^2; a device's unit is told by its L, else its W, else its areas."""
    out = numbers.copy()
    sizes = numbers[:, [NUMBERS.index("L"), NUMBERS.index("W")]]
    told = np.where(np.isnan(sizes[:, 0]), sizes[:, 1], sizes[:, 0])
    area = numbers[:, NUMBERS.index("AD")]
    metres = np.where(np.isnan(told), np.abs(area) < 1e-8, np.abs(told) < _MICRON)
    if lengths != "auto":
        metres = np.full(len(numbers), lengths == "metres")
    for name in ("W", "L", "PD", "PS"):
        out[metres, NUMBERS.index(name)] *= 1e6
    for name in ("AD", "AS"):
        out[metres, NUMBERS.index(name)] *= 1e12
    for name in ("fingers", "multiplier"):
        column = out[:, NUMBERS.index(name)]
        column[np.isnan(column)] = 1.0
    return np.nan_to_num(out, nan=0.0)


def _device_features(numbers: Numbers, device_type: Integers, flat: Flat) -> NDArray[np.float32]:
    out = np.zeros((len(numbers), WIDTH), np.float32)
    out[:, COLUMN["kind"]] = Kind.DEVICE
    out[:, COLUMN["device_type"]] = device_type
    for place, name in enumerate(NUMBERS):
        out[:, COLUMN[name]] = numbers[:, place]
    out[:, COLUMN["ports"]] = np.diff(flat.ends)
    return out


def _net_features(
    flat: Flat, numbers: Numbers, device_type: Integers, of_terminal: Integers, pin_kind: NDArray[np.int8]
) -> NDArray[np.float32]:
    count = len(flat.nets)
    out = np.zeros((count, WIDTH), np.float32)
    type_of = device_type[of_terminal]
    mos = flat.kind[of_terminal] == ord("m")
    chosen = {
        "terminals": np.ones(len(flat.terminals), bool),
        "gates": pin_kind == PinKind.GATE,
        "source_drains": pin_kind == PinKind.SOURCE_DRAIN,
        "bulks": pin_kind == PinKind.BULK,
        "diodes": type_of == DeviceType.DIODE,
        "resistors": type_of == DeviceType.RESISTOR,
        "capacitors": type_of == DeviceType.CAPACITOR,
    }
    for name, mask in chosen.items():
        out[:, COLUMN[name]] = np.bincount(flat.terminals[mask], minlength=count)
    # every MOS device once, however many of its terminals are on the net
    meetings = np.unique(flat.terminals[mos] * max(1, len(flat.devices)) + of_terminal[mos])
    net, device = meetings // max(1, len(flat.devices)), meetings % max(1, len(flat.devices))
    width = numbers[:, NUMBERS.index("W")] * numbers[:, NUMBERS.index("multiplier")]
    out[:, COLUMN["mos"]] = np.bincount(net, minlength=count)
    out[:, COLUMN["sum_W"]] = np.bincount(net, weights=width[device], minlength=count)
    out[:, COLUMN["sum_L"]] = np.bincount(net, weights=numbers[device, NUMBERS.index("L")], minlength=count)
    out[flat.ports, COLUMN["is_port"]] = 1
    return out


def _resistances(flat: Flat) -> Numbers:
    """Sum of the resistors of each net in ohm; NaN where none is given."""
    at, ohm = flat.resistor_nets[0][flat.joined], flat.ohm[flat.joined]
    total = np.full(len(flat.nets), np.nan)
    total[at] = 0.0
    np.add.at(total, at, ohm)
    return total


def _totals(flat: Flat, merged: _Merged, ground: _Ground, substrate: NDArray[np.bool_]) -> dict[str, int]:
    mos = flat.kind == ord("m")
    counts = (
        int(mos.sum()),
        int(np.diff(flat.ends)[mos].sum()),
        len(flat.devices),
        int(flat.met.sum()),
        int((_used(flat, merged, ground) & ~flat.met & ~substrate).sum()),
        int((~_zero(flat)[flat.capacitor_nets].any(0)).sum()),
        *np.bincount(merged.kind, minlength=3).tolist(),
        int((flat.met & ~substrate & (ground.net > 0)).sum()),
    )
    return dict(zip(TOTALS, counts, strict=True))


def _zero(flat: Flat) -> NDArray[np.bool_]:
    """Which net is node 0: what is tied to it is no coupling of two nets, whatever else counts as substrate."""
    zero = np.zeros(len(flat.nets), bool)
    if "0" in flat.globals:
        zero[flat.globals["0"]] = True
    return zero
