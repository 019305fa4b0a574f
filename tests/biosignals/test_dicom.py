"""DICOM waveforms, on the 12-lead ECG that pydicom ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.data import get_testdata_file

from diptych.data.readable import Item, Unreadable
from diptych_biosignals.leads import canonical
from diptych_biosignals.readers import dicom, format_of
from diptych_biosignals.recording import Recording

SOURCE = Path(str(get_testdata_file("waveform_ecg.dcm", download=False)))


def changed(tmp_path: Path, name: str = "a.dcm", **elements: Any) -> Item:
    data = pydicom.dcmread(SOURCE)
    for group in data.WaveformSequence:
        for key, value in elements.items():
            setattr(group, key, value)
            if isinstance(value, bytes):
                group[key].VR = "OW"
    data.save_as(tmp_path / name)
    return dicom.find([tmp_path / name], tmp_path)[0]


def read_all(item: Item) -> Recording:
    return dicom.read(item, dicom.read_header(item).leads)


def test_the_original_group_is_the_recording_and_the_median_beat_is_none() -> None:
    (item,) = dicom.find([SOURCE], SOURCE.parent)
    header = dicom.read_header(item)
    assert (item.part, header.seconds, set(header.rates), set(header.units)) == (None, 10, {1000}, {"uV"})
    assert [canonical(lead) for lead in header.leads] == [
        "i", "ii", "iii", "avr", "avl", "avf", "v1", "v2", "v3", "v4", "v5", "v6",
    ]  # fmt: skip


def test_sensitivity_correction_and_baseline_are_applied(tmp_path: Path) -> None:
    data = pydicom.dcmread(SOURCE)
    group = data.WaveformSequence[0]
    stored = np.frombuffer(group.WaveformData, "<i2").reshape(-1, 12)
    channel = group.ChannelDefinitionSequence[1]
    channel.ChannelSensitivity, channel.ChannelSensitivityCorrectionFactor, channel.ChannelBaseline = (
        2.5,
        1.1,
        40,
    )
    data.save_as(tmp_path / "a.dcm")
    (item,) = dicom.find([tmp_path / "a.dcm"], tmp_path)
    signal = read_all(item).signal
    np.testing.assert_allclose(signal[:, 0], stored[:, 0] * 1.25, rtol=1e-6)
    np.testing.assert_allclose(signal[:, 1], stored[:, 1] * 2.5 * 1.1 + 40, rtol=1e-5)


def test_padding_values_are_missing_samples(tmp_path: Path) -> None:
    stored = np.frombuffer(pydicom.dcmread(SOURCE).WaveformSequence[0].WaveformData, "<i2").reshape(-1, 12)
    value = int(stored[0, 0])
    item = changed(tmp_path, WaveformPaddingValue=value.to_bytes(2, "little", signed=True))
    np.testing.assert_array_equal(np.isnan(read_all(item).signal), stored == value)


def test_two_original_groups_are_two_recordings(tmp_path: Path) -> None:
    changed(tmp_path, WaveformOriginality="ORIGINAL")
    items = dicom.find([tmp_path / "a.dcm"], tmp_path)
    assert [len(read_all(item).signal) for item in items] == [10000, 1200]


def test_a_file_without_suffix_is_known_by_its_mark(tmp_path: Path) -> None:
    changed(tmp_path, name="IM0001")
    (tmp_path / "README").write_text("x" * 200)
    assert (format_of(tmp_path / "IM0001"), format_of(tmp_path / "README")) == ("dicom", None)


def test_files_that_hold_no_waveform(tmp_path: Path) -> None:
    data = pydicom.dcmread(SOURCE)
    del data.WaveformSequence
    data.save_as(tmp_path / "image.dcm")
    (tmp_path / "text.dcm").write_text("DOE^JANE")
    changed(tmp_path, name="derived.dcm", WaveformOriginality="DERIVED")
    changed(tmp_path, name="short.dcm", WaveformData=b"\x00\x00")
    reasons = {}
    for item in dicom.find(sorted(tmp_path.iterdir()), tmp_path):
        with pytest.raises(Unreadable) as caught:
            read_all(item)
        reasons[item.name] = str(caught.value)
    assert reasons == {
        "derived": "the DICOM file holds derived waveforms only",
        "image": "the DICOM file holds no waveform",
        "short": "malformed DICOM waveform (ValueError)",
        "text": "malformed DICOM file (InvalidDicomError)",
    }


def test_values_against_the_standard_are_read_without_a_warning_that_could_quote_them(tmp_path: Path) -> None:
    data = pydicom.dcmread(SOURCE)
    with disable_value_validation():
        data.PatientID = "DOE^JANE" * 10  # more than the 64 characters allowed
        data.save_as(tmp_path / "a.dcm")
    with pytest.warns(UserWarning, match="exceeds the maximum length of 64"):
        str(pydicom.dcmread(tmp_path / "a.dcm").PatientID)
    (item,) = dicom.find([tmp_path / "a.dcm"], tmp_path)
    assert dicom.read_header(item).patient == "DOE^JANE" * 10
    assert read_all(item).signal.shape == (10000, 12)
