"""EDF and BDF files keep their own units and rates; those that are not one stretch of time are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.biosignals.files import cut, patch, waves, write_edf

from diptych.data.readable import Item, Unreadable
from diptych_biosignals.readers import edf
from diptych_biosignals.recording import Recording


def item_of(path: Path) -> Item:
    return edf.find([path], path.parent)[0]


def read_all(path: Path) -> Recording:
    return edf.read(item_of(path), edf.read_header(item_of(path)).leads)


def decoded_by_hand(path: Path, channel: int) -> NDArray[np.float64]:
    """EDF as defined: records of 16-bit integers, scaled from the digital to the physical range."""
    data = path.read_bytes()
    header, records, channels = int(data[184:192]), int(data[236:244]), int(data[252:256])

    def number(start: int, of: int) -> float:
        place = 256 + channels * start + 8 * of
        return float(data[place : place + 8])

    counts = [int(number(216, i)) for i in range(channels)]
    low, high = number(104, channel), number(112, channel)
    lowest, highest = number(120, channel), number(128, channel)
    values = []
    place = header
    for _ in range(records):
        place += 2 * sum(counts[:channel])
        for _ in range(counts[channel]):
            digital = int.from_bytes(data[place : place + 2], "little", signed=True)
            values.append((digital - lowest) / (highest - lowest) * (high - low) + low)
            place += 2
        place += 2 * sum(counts[channel + 1 :])
    return np.array(values)


@pytest.mark.parametrize("unit", ["uV", "mV", "V", "degC"])
def test_channels_keep_the_units_of_the_file(tmp_path: Path, unit: str) -> None:
    signal = waves(leads=2) * 500
    path = write_edf(tmp_path / "a.edf", list(signal.T), [100, 100], ["Fp1", "Fp2"], unit=unit)
    recording = read_all(path)
    assert (recording.rate, recording.units) == (100, (unit, unit))
    for channel in range(2):
        np.testing.assert_allclose(
            recording.signal[:, channel], decoded_by_hand(path, channel), rtol=1e-5, atol=1e-4
        )
    np.testing.assert_allclose(recording.signal, signal, atol=0.05)


def test_channels_of_other_rates_are_brought_to_the_highest_wanted(tmp_path: Path) -> None:
    fast, slow = waves(10, 200, 1)[:, 0] * 500, waves(10, 50, 1, seed=3)[:, 0] * 500
    path = write_edf(tmp_path / "a.edf", [fast, slow], [200, 50], ["Cz", "EOG"])
    assert edf.read_header(item_of(path)).rates == (200, 50)
    both = read_all(path)
    assert both.signal.shape == (2000, 2)
    np.testing.assert_allclose(both.signal[:, 0], decoded_by_hand(path, 0), atol=1e-2)
    np.testing.assert_allclose(both.signal[200:-200:4, 1], slow[50:-50], atol=10)
    alone = edf.read(item_of(path), ["EOG"])
    assert alone.rate == 50
    np.testing.assert_allclose(alone.signal[:, 0], decoded_by_hand(path, 1), atol=1e-2)


def test_the_annotation_channel_is_no_lead(tmp_path: Path) -> None:
    signal = waves(leads=1) * 500
    path = write_edf(tmp_path / "a.edf", [signal[:, 0]], [100], ["Cz"], annotations=True)
    recording = read_all(path)
    assert recording.leads == ("Cz",)
    np.testing.assert_allclose(recording.signal, signal, atol=0.05)


def test_a_discontinuous_file_is_refused(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"], annotations=True)
    assert read_all(path).seconds == 12
    patch(path, 192, b"EDF+D")
    with pytest.raises(Unreadable, match=r"discontinuous recording \(EDF\+D\): its records leave gaps"):
        read_all(path)


def test_a_truncated_file_says_how_much_is_left(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"])
    path.write_bytes(path.read_bytes()[:-1600])
    with pytest.raises(Unreadable, match=r"truncated file: 4\.0 of 12\.0 s"):
        read_all(path)


def test_a_file_that_ends_in_its_header(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"])
    cut(path, 0.1)
    with pytest.raises(Unreadable, match="truncated EDF/BDF header"):
        read_all(path)


def test_a_file_whose_number_of_records_is_unknown(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"])
    patch(path, 236, b"-1      ")
    with pytest.raises(Unreadable, match="number of data records in the header does not match"):
        read_all(path)


@pytest.mark.parametrize(
    ("kind", "field", "patient"),
    [
        ("EDF+C", "MCH-0234567 F 02-MAY-1951 Haagse_Harry", "MCH-0234567"),
        ("EDF+C", "X F X X", None),
        ("", "MCH-0234567 F 02-MAY-1951 Haagse_Harry", "MCH-0234567"),
        ("", "X X X X", None),
        ("", "ward 7 bed 3", "ward 7 bed 3"),
        ("", "", None),
    ],
)
def test_the_patient_id_of_the_header(tmp_path: Path, kind: str, field: str, patient: str | None) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"])
    patch(path, 8, field.encode().ljust(80))
    patch(path, 192, kind.encode().ljust(44))
    assert edf.read_header(item_of(path)).patient == patient


def test_text_where_a_number_should_be(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"])
    patch(path, 236, b"JANE    ")
    with pytest.raises(Unreadable, match=r"malformed EDF/BDF header \(ValueError\)$"):
        read_all(path)


def test_two_channels_of_one_name_are_refused_only_where_wanted(tmp_path: Path) -> None:
    signal = waves(leads=3) * 500
    path = write_edf(tmp_path / "a.edf", list(signal.T), [100] * 3, ["X", "Cz", "X"])
    np.testing.assert_allclose(edf.read(item_of(path), ["Cz"]).signal[:, 0], signal[:, 1], atol=0.05)
    with pytest.raises(Unreadable, match="1 channel names occur more than once"):
        edf.read(item_of(path), ["X", "Cz"])


def test_a_channel_without_calibration_is_refused(tmp_path: Path) -> None:
    path = write_edf(tmp_path / "a.edf", [waves(leads=1)[:, 0]], [100], ["Cz"])
    patch(path, 256 + 104, b"0       0       ")
    with pytest.raises(Unreadable, match="no calibration"):
        read_all(path)


def test_bdf_samples_of_24_bits(tmp_path: Path) -> None:
    path = tmp_path / "a.bdf"
    digital = (waves(4, 100, 1)[:, 0] * 2**22).astype(np.int32)
    limits = [("-8388608", 8), ("8388607", 8)]
    texts = [("Cz", 16), ("", 80), ("uV", 8), *limits, *limits, ("", 80), ("100", 8), ("", 32)]
    fixed = [("X X X X", 80), ("", 80), ("01.01.11", 8), ("00.00.00", 8), ("512", 8), ("24BIT", 44), ("4", 8),
             ("1", 8), ("1", 4)]  # fmt: skip
    head = b"\xffBIOSEMI" + b"".join(text.encode().ljust(width) for text, width in fixed + texts)
    path.write_bytes(head + b"".join(int(v).to_bytes(3, "little", signed=True) for v in digital))
    np.testing.assert_array_equal(read_all(path).signal[:, 0], digital.astype(np.float32))
