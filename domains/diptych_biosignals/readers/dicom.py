"""DICOM waveforms (PS3.3 C.10.9): every original multiplex group of a file is a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.config
from pydicom.errors import InvalidDicomError
from pydicom.waveforms.numpy_handler import multiplex_array

from diptych.data.readable import MALFORMED, Item, Unreadable, malformed
from diptych_biosignals.recording import Header, Recording

# pydicom warns of values that do not keep to the standard and may quote them: names must not reach a log.
_UNCHECKED = pydicom.config.disable_value_validation()

_BROKEN: tuple[type[Exception], ...] = (*MALFORMED, InvalidDicomError)


@_UNCHECKED
def find(files: Sequence[Path], root: Path) -> list[Item]:
    """One item per original multiplex group; derived ones (median beats) are no recordings.

    A file that cannot be read stays one item, so that reading it says why.
    """
    items = []
    for path in files:
        name = path.relative_to(root).with_suffix("").as_posix()
        try:
            groups = _original(_open(path))
        except Unreadable:
            groups = [0]
        items += [
            Item(path=path, name=name, part=group if len(groups) > 1 else None, files=(path,))
            for group in groups
        ]
    return items


@_UNCHECKED
def read_header(item: Item) -> Header:
    """Lead names from the channel sources' meanings ("Lead aVR"), units from the sensitivities."""
    data = _open(item.path)
    group = _group(data, item.part)
    try:
        channels = list(group.ChannelDefinitionSequence)
        rate = float(group.SamplingFrequency)
        return Header(
            leads=tuple(_lead(channel, i) for i, channel in enumerate(channels)),
            rates=(rate,) * len(channels),
            units=tuple(_unit(channel) for channel in channels),
            seconds=int(group.NumberOfWaveformSamples) / rate if rate else None,
            patient=str(data.PatientID) if data.get("PatientID") else None,
        )
    except MALFORMED as error:
        raise malformed("DICOM waveform", error) from None


@_UNCHECKED
def read(item: Item, leads: Sequence[str]) -> Recording:
    """The group's samples times sensitivity and its correction, plus the baseline; padding values are NaN."""
    header = read_header(item)
    data = _open(item.path)
    group = _group(data, item.part)
    index = list(data.WaveformSequence).index(group)
    try:
        values = data.waveform_array(index).astype(np.float32)
        if (padding := group.get("WaveformPaddingValue")) is not None:
            values[multiplex_array(data, index, as_raw=True) == _integer(padding, group)] = np.nan
    except MALFORMED as error:
        raise malformed("DICOM waveform", error) from None
    chosen = [header.leads.index(lead) for lead in leads]
    return Recording(
        signal=np.ascontiguousarray(values[:, chosen]),
        rate=header.rates[0],
        leads=tuple(leads),
        units=tuple(header.units[i] for i in chosen),
    )


def _open(path: Path) -> Any:
    try:
        data = pydicom.dcmread(path)
    except _BROKEN as error:
        raise malformed("DICOM file", error) from None
    if not data.get("WaveformSequence"):
        raise Unreadable("the DICOM file holds no waveform")
    return data


def _original(data: Any) -> list[int]:
    groups = [str(group.get("WaveformOriginality", "ORIGINAL")) for group in data.WaveformSequence]
    original = [i for i, origin in enumerate(groups) if origin != "DERIVED"]
    if not original:
        raise Unreadable("the DICOM file holds derived waveforms only")
    return original


def _group(data: Any, part: int | None) -> Any:
    return data.WaveformSequence[_original(data)[0] if part is None else part]


def _lead(channel: Any, index: int) -> str:
    sources = channel.get("ChannelSourceSequence")
    if sources and sources[0].get("CodeMeaning"):
        return str(sources[0].CodeMeaning)
    return str(channel.get("ChannelLabel", f"channel {index + 1}"))


def _unit(channel: Any) -> str:
    units = channel.get("ChannelSensitivityUnitsSequence")
    return str(units[0].CodeValue) if units else ""


def _integer(padding: Any, group: Any) -> int:
    """The padding value, which is stored as one sample's bytes (OB or OW)."""
    if isinstance(padding, bytes):
        signed = str(group.WaveformSampleInterpretation) in ("SB", "SS", "SL")
        return int.from_bytes(padding[: group.WaveformBitsAllocated // 8], "little", signed=signed)
    return int(padding)
