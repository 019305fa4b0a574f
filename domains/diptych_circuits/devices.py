"""The pins of a batch of netlist graphs, and its device graph: devices joined where they share a net.

Letters: m nodes, p pins, d devices, e edges between devices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from diptych.graphs.batch import GraphBatch
from diptych.graphs.segments import segment_count
from diptych_circuits.schema import COLUMN, Kind


class Pins(NamedTuple):
    """Rows of the pins that have a device and a net in the batch, in ascending order, each (p,) int64."""

    pin: Tensor
    device: Tensor
    net: Tensor


def pins_of(batch: GraphBatch) -> Pins:
    """Every pin with its device and its net; a pin that lacks either, as one of a removed supply does, is left out."""
    kind = batch.nodes[:, COLUMN["kind"]]
    pin, other = batch.edges
    joined = torch.full((2, len(batch.nodes)), -1, device=pin.device)  # the device and the net of every node
    for row, wanted in enumerate((Kind.DEVICE, Kind.NET)):
        edges = ((kind[pin] == Kind.PIN) & (kind[other] == wanted)).nonzero()[:, 0]
        joined[row, pin[edges]] = other[edges]
    whole = (joined >= 0).all(0).nonzero()[:, 0]
    return Pins(whole, joined[0, whole], joined[1, whole])


class DeviceEdges(NamedTuple):
    """Directed edges between devices that share a net, each (e,): a pair of pins on the net, one of either device."""

    source: Tensor  # places in the pins
    target: Tensor


def device_edges(pins: Pins, nodes: int, largest: int) -> DeviceEdges:
    """All ordered pairs of pins of different devices on one net; a net of more than ``largest`` pins joins none.

    Their number grows with the square of the pins of a net, hence the limit.
    """
    order = pins.net.argsort(stable=True)
    count = segment_count(pins.net, nodes)
    start = (count.cumsum(0) - count)[pins.net[order]]
    partners = count[pins.net[order]]
    partners = torch.where(partners > largest, 0, partners)
    target = torch.repeat_interleave(torch.arange(len(order), device=order.device), partners)
    before = partners.cumsum(0) - partners
    place = torch.arange(len(target), device=order.device) - before[target] + start[target]
    source, target = order[place], order[target]
    different = (pins.device[source] != pins.device[target]).nonzero()[:, 0]
    return DeviceEdges(source[different], target[different])
