"""The hierarchy expanded: a netlist as columns of nets, devices, terminals, capacitors and resistors.

A definition is expanded once for every set of parameter values; its instances in one parent are then copies whose
numbers are shifted, all at once. So time and memory grow with what comes out.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from diptych.data.readable import Unreadable
from diptych_circuits.netlist.definition import NUMBERS, Definition, Instance, Library
from diptych_circuits.netlist.naming import Named, Naming, resolve_names
from diptych_circuits.netlist.values import Scope

Integers = NDArray[np.int64]
SEPARATOR = "."  # between the instances and the name in a name of the hierarchy, as ngspice writes it
_MULTIPLIER = NUMBERS.index("multiplier")
_DEEPEST = 200


@dataclass(kw_only=True)
class Flat:
    """A netlist without hierarchy: n nets, d devices, t terminals, c capacitors, r resistors."""

    nets: list[str]  # (n,) names; ports first
    ports: Integers  # (p,) net of each port
    met: NDArray[np.bool_]  # (n,) a port, or on a terminal of something that is no diode
    devices: list[str]  # (d,) names
    kind: NDArray[np.uint8]  # (d,) ord of the letter
    model: Integers  # (d,) into the library's models
    numbers: NDArray[np.float64]  # (d, len(NUMBERS)), NaN unknown
    ends: Integers  # (d + 1,) the terminals of device i are ends[i] to ends[i + 1]
    terminals: Integers  # (t,) net of each
    capacitor_nets: Integers  # (2, c)
    capacitor_terminals: Integers  # (2, c) the terminal an end is at as a pin; -1: at the net
    farad: NDArray[np.float64]  # (c,)
    resistor_nets: Integers  # (2, r); both the same where a net's network is given as its sum
    ohm: NDArray[np.float64]  # (r,)
    joined: NDArray[np.bool_]  # (r,) the resistor joins two nodes of one net; else it was a short
    globals: dict[str, int] = field(default_factory=dict)  # folded names of global nets -> net


class Hierarchy:
    """Expands definitions of one library; what was expanded for one top is at hand for the next.

    Args:
        unknown: A subcircuit that is defined nowhere makes the netlist unreadable, or is a device of type other.
    """

    def __init__(
        self, library: Library, naming: Naming, unknown: Literal["reject", "other"] = "reject"
    ) -> None:
        self.library = library
        self.naming = naming
        self.unknown = unknown
        self.scope = Scope(library.parameters)
        self.done: dict[tuple[str, tuple[tuple[str, float], ...]], Flat] = {}
        self.named: dict[str, Named] = {}

    def flatten(self, top: Definition) -> Flat:
        """A definition without hierarchy; nodes that parasitic resistors join are one net.

        Raises:
            Unreadable: unknown or recursive subcircuits, a wrong number of nodes, parameters without a value.
        """
        return _join(_expand(top, (), self, ()))


def _expand(
    definition: Definition,
    parameters: tuple[tuple[str, float], ...],
    expansion: Hierarchy,
    around: tuple[str, ...],
) -> Flat:
    own_key = (definition.name.lower(), parameters)
    if own_key in expansion.done:
        return expansion.done[own_key]
    if definition.name.lower() in around or len(around) > _DEEPEST:
        chain = " -> ".join([*around[-6:], definition.name.lower()])
        raise Unreadable(f"recursive subcircuits: {chain}")
    around = (*around, definition.name.lower())
    scope = Scope(
        {**definition.parameters, **{name: repr(value) for name, value in parameters}}, expansion.scope
    )
    if definition.name.lower() not in expansion.named:
        _adopt(definition, expansion)
        expansion.named[definition.name.lower()] = resolve_names(definition, expansion.naming)
    own = _own(definition, scope, expansion)
    groups: dict[tuple[str, tuple[tuple[str, float], ...]], list[tuple[Instance, float]]] = defaultdict(list)
    for instance in definition.instances:
        child = expansion.library.definitions[instance.child]
        values, copies = _values(instance, child, scope)
        groups[instance.child, values].append((instance, copies))
    inner = {}
    for (name, values), instances in groups.items():
        child = expansion.library.definitions[name]
        _check_ports(child, instances)
        inner[name, values] = _expand(child, values, expansion, around)
    for (
        each
    ) in inner.values():  # global nets first, so that the nets of copies are numbered after all own ones
        for name, number in each.globals.items():
            if name not in own.globals:
                own.globals[name] = len(own.nets)
                own.nets.append(each.nets[number])
    own.met = np.concatenate([own.met, np.zeros(len(own.nets) - len(own.met), bool)])
    of = expansion.named[definition.name.lower()].net
    parts = [own, *(_copies(own, inner[key], instances, of) for key, instances in groups.items())]
    expansion.done[own_key] = flat = _concatenate(parts)
    return flat


def _check_ports(child: Definition, instances: list[tuple[Instance, float]]) -> None:
    for instance, _ in instances:
        if len(instance.nodes) != len(child.ports):
            raise Unreadable(
                f"wrong node count: {instance.name!r} in line {instance.line} gives {len(instance.nodes)} nodes, "
                f"the subcircuit {child.name!r} has {len(child.ports)}"
            )


def _adopt(definition: Definition, expansion: Hierarchy) -> None:
    """Make devices of instances whose subcircuit is not defined, or raise Unreadable."""
    known, kept = expansion.library.definitions, []
    for instance in definition.instances:
        if instance.child in known:
            kept.append(instance)
            continue
        if expansion.unknown == "reject":
            raise Unreadable(
                f"unknown subcircuit: {instance.child!r} in line {instance.line} is defined nowhere "
                "(netlist.unknown_subcircuits: other makes it a device)"
            )
        definition.device_names.append(instance.name)
        definition.device_kind.append(ord("x"))
        definition.device_model.append(definition.model(instance.child))
        definition.device_numbers.extend([float("nan")] * len(NUMBERS))
        definition.device_line.append(instance.line)
        definition.terminals.extend(instance.nodes)
        definition.terminal_ends.append(len(definition.terminals))
    definition.instances = kept


def _values(
    instance: Instance, child: Definition, scope: Scope
) -> tuple[tuple[tuple[str, float], ...], float]:
    """(the parameters that an instance sets, by name; how many copies it stands for)."""
    if not instance.parameters:
        return (), 1.0
    given = instance.parameters
    values = tuple(
        sorted((name, scope.value(text)) for name, text in given.items() if name in child.parameters)
    )
    return values, scope.value(given["m"]) if "m" in given and "m" not in child.parameters else 1.0


def _own(definition: Definition, scope: Scope, expansion: Hierarchy) -> Flat:
    """What a definition holds itself, without its instances."""
    named = expansion.named[definition.name.lower()]
    numbers = np.array(definition.device_numbers, np.float64).reshape(-1, len(NUMBERS))
    for device, place, text in definition.expressions:
        numbers[device, place] = scope.value(text)
    terminals = (
        named.net[np.array(definition.terminals, np.int64)] if definition.terminals else np.zeros(0, np.int64)
    )
    kind = np.frombuffer(bytes(definition.device_kind), np.uint8)
    ends = np.array(definition.terminal_ends, np.int64)
    capacitors = np.array(definition.capacitor_ends, np.int64).reshape(-1, 2).T
    resistors = (
        named.net[np.array(definition.resistor_ends, np.int64).reshape(-1, 2).T] if definition.ohm else None
    )
    farad = np.array(definition.farad, np.float64)
    ohm = np.array(definition.ohm, np.float64)
    extra_nets, extra_farad, sums, sum_ohm = _networks(definition, named, expansion)
    nets = list(named.nets)
    met = np.zeros(len(nets), bool)
    met[named.net[list(definition.ports)]] = True
    met[named.net[definition.other_nodes]] = True
    met[terminals[np.repeat(kind, np.diff(ends)) != ord("d")]] = True
    capacitor_nets = np.concatenate([named.net[capacitors] if len(farad) else capacitors, extra_nets], axis=1)
    at = named.terminal[capacitors] if len(farad) else capacitors
    shared = expansion.library.globals | {"0"}
    return Flat(
        nets=nets,
        ports=named.net[list(definition.ports)].astype(np.int64),
        met=met,
        devices=list(definition.device_names),
        kind=kind,
        model=np.array(definition.device_model, np.int64),
        numbers=numbers,
        ends=ends,
        terminals=terminals,
        capacitor_nets=capacitor_nets,
        capacitor_terminals=np.concatenate([at, np.full(extra_nets.shape, -1)], axis=1),
        farad=np.concatenate([farad, extra_farad]),
        resistor_nets=np.concatenate(
            [np.zeros((2, 0), np.int64) if resistors is None else resistors, sums], axis=1
        ),
        ohm=np.concatenate([ohm, sum_ohm]),
        joined=np.ones(len(ohm) + len(sum_ohm), bool),
        globals={name: number for number, name in enumerate(map(str.lower, nets)) if name in shared},
    )


def _networks(
    definition: Definition, named: Named, expansion: Hierarchy
) -> tuple[Integers, NDArray[np.float64], Integers, NDArray[np.float64]]:
    """The networks of the three-file form: capacitances to ground and sums of resistors, of the nets they name."""
    numbers, nets = named.numbers, named.nets

    def number(name: str) -> int:
        found = numbers.setdefault(name.lower(), len(nets))
        if found == len(nets):
            nets.append(name)
        return found

    grounded, farad, of, ohm = [], [], [], []
    for net, nodes, child in definition.networks:
        network = expansion.library.networks.get(child)
        if network is None:
            raise Unreadable(f"unknown subcircuit: the network {child!r} is defined nowhere")
        if network.ports != len(nodes):
            raise Unreadable(
                f"wrong node count: the network {network.name!r} has {network.ports} ports, its instance {len(nodes)}"
            )
        if network.farad > 0:
            grounded.append((number(net), number("0")))
            farad.append(network.farad)
        if network.resistors:
            of.append(number(net))
            ohm.append(network.ohm)
    ends = np.array(grounded, np.int64).reshape(-1, 2).T
    sums = np.array([of, of], np.int64).reshape(2, -1)
    return ends, np.array(farad, np.float64), sums, np.array(ohm, np.float64)


def _copies(own: Flat, inner: Flat, instances: list[tuple[Instance, float]], named: Integers) -> Flat:
    """k copies of an expanded definition inside its parent, with nets numbered as there, new ones after its own.

    ``named`` (nodes of the parent,) is the net of each.
    """
    k, n, t, d = len(instances), len(inner.nets), len(inner.terminals), len(inner.devices)
    outer = named[np.array([instance.nodes for instance, _ in instances], np.int64).reshape(k, -1)]
    bound = np.zeros(n, bool)
    bound[inner.ports] = True
    bound[list(inner.globals.values())] = True
    new = n - int(bound.sum())
    local = np.cumsum(~bound) - 1  # place among the nets that are new in the parent
    of = local[None] + len(own.nets) + np.arange(k)[:, None] * new  # (k, n)
    of[:, inner.ports] = outer
    for name, number in inner.globals.items():
        of[:, number] = own.globals[name]
    shorts = _port_shorts(inner, outer)
    names = [instance.name for instance, _ in instances]
    free = [inner.nets[i] for i in np.flatnonzero(~bound)]
    numbers = np.tile(inner.numbers, (k, 1))
    copies = np.repeat([each for _, each in instances], d)
    given = numbers[:, _MULTIPLIER]
    numbers[:, _MULTIPLIER] = np.where(copies == 1, given, np.where(np.isnan(given), 1.0, given) * copies)
    shift = np.arange(k)[:, None, None] * t
    at = inner.capacitor_terminals[None] + np.where(inner.capacitor_terminals[None] >= 0, shift, 0)
    return Flat(
        nets=[name + SEPARATOR + net for name in names for net in free],
        ports=np.zeros(0, np.int64),
        met=np.tile(inner.met[~bound], k),
        devices=[name + SEPARATOR + device for name in names for device in inner.devices],
        kind=np.tile(inner.kind, k),
        model=np.tile(inner.model, k),
        numbers=numbers,
        ends=np.concatenate([[0], (inner.ends[1:][None] + np.arange(k)[:, None] * t).ravel()]).astype(
            np.int64
        ),
        terminals=of[:, inner.terminals].ravel(),
        capacitor_nets=_side(of, inner.capacitor_nets),
        capacitor_terminals=at.transpose(1, 0, 2).reshape(2, -1),
        farad=np.tile(inner.farad, k),
        resistor_nets=np.concatenate([_side(of, inner.resistor_nets), shorts], axis=1),
        ohm=np.concatenate([np.tile(inner.ohm, k), np.zeros(shorts.shape[1])]),
        joined=np.concatenate([np.tile(inner.joined, k), np.zeros(shorts.shape[1], bool)]),
    )


def _side(of: Integers, nets: Integers) -> Integers:
    """(2, c) nets of a definition as those of its k copies, (2, k * c)."""
    return of[:, nets].transpose(1, 0, 2).reshape(2, -1)


def _port_shorts(inner: Flat, outer: Integers) -> Integers:
    """The pairs of outer nets, (2, pairs), that children with two ports on one net, or a global port, join."""
    first = {int(net): place for place, net in reversed(list(enumerate(inner.ports)))}
    pairs = [
        np.stack([outer[:, place], outer[:, first[int(net)]]])
        for place, net in enumerate(inner.ports)
        if first[int(net)] != place
    ]
    return np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)


def _concatenate(parts: list[Flat]) -> Flat:
    """A definition's own part and the copies in it, whose nets are numbered already; terminals are not."""
    own = parts[0]
    starts = np.cumsum([0, *(len(part.terminals) for part in parts)])
    shift_nets = np.cumsum([len(own.nets), *(len(part.nets) for part in parts[1:])])
    # the new nets of a group were numbered from the end of the own ones: move them behind the groups before
    for place, part in enumerate(parts[1:]):
        by = int(shift_nets[place] - len(own.nets))
        for nets in (part.terminals, part.capacitor_nets, part.resistor_nets):
            nets[nets >= len(own.nets)] += by
    at = [
        part.capacitor_terminals + np.where(part.capacitor_terminals >= 0, start, 0)
        for part, start in zip(parts, starts, strict=False)
    ]
    return Flat(
        nets=[net for part in parts for net in part.nets],
        ports=own.ports,
        met=_met(parts),
        devices=[device for part in parts for device in part.devices],
        kind=np.concatenate([part.kind for part in parts]),
        model=np.concatenate([part.model for part in parts]),
        numbers=np.concatenate([part.numbers for part in parts]),
        ends=np.concatenate(
            [[0], *(part.ends[1:] + start for part, start in zip(parts, starts, strict=False))]
        ).astype(np.int64),
        terminals=np.concatenate([part.terminals for part in parts]),
        capacitor_nets=np.concatenate([part.capacitor_nets for part in parts], axis=1),
        capacitor_terminals=np.concatenate(at, axis=1),
        farad=np.concatenate([part.farad for part in parts]),
        resistor_nets=np.concatenate([part.resistor_nets for part in parts], axis=1),
        ohm=np.concatenate([part.ohm for part in parts]),
        joined=np.concatenate([part.joined for part in parts]),
        globals=own.globals,
    )


def _met(parts: list[Flat]) -> NDArray[np.bool_]:
    """``met`` of all nets, with what the terminals inside copies do to the nets around them."""
    met = np.concatenate([part.met for part in parts])
    for part in parts[1:]:
        met[part.terminals[np.repeat(part.kind, np.diff(part.ends)) != ord("d")]] = True
    return met


def _join(flat: Flat) -> Flat:
    """Nets joined by resistors as one, named after the first of them, which is a port where one is among them."""
    a, b = flat.resistor_nets
    across = a != b
    if not across.any():
        return flat
    count = len(flat.nets)
    links = coo_array((np.ones(int(across.sum()), np.int8), (a[across], b[across])), shape=(count, count))
    label = connected_components(links, directed=False)[1]
    first = np.full(int(label.max()) + 1, count, np.int64)
    np.minimum.at(first, label, np.arange(count))
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    of = place[label]
    met = np.zeros(len(order), bool)
    np.logical_or.at(met, of, flat.met)
    return replace(
        flat,
        nets=[flat.nets[i] for i in first[order]],
        ports=of[flat.ports],
        met=met,
        terminals=of[flat.terminals],
        capacitor_nets=of[flat.capacitor_nets],
        resistor_nets=of[flat.resistor_nets],
        globals={name: int(of[number]) for name, number in flat.globals.items()},
    )
