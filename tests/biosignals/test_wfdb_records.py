"""WFDB records are decoded to physical units in every layout; broken ones say why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import wfdb
from tests.biosignals.files import SIX, cut, patch, waves, write_wfdb

from diptych.data.readable import Item, Unreadable
from diptych_biosignals.readers import wfdb_records
from diptych_biosignals.recording import Recording


def only_item(folder: Path) -> Item:
    (item,) = wfdb_records.find(sorted(folder.glob("*.hea")), folder)
    return item


def read_all(folder: Path) -> Recording:
    item = only_item(folder)
    return wfdb_records.read(item, wfdb_records.read_header(item).leads)


@pytest.mark.parametrize(
    ("fmt", "step"), [("80", 1 / 50), ("212", 1 / 400), ("16", 1e-3), ("24", 1e-3), ("32", 1e-3)]
)
def test_every_storage_format_gives_physical_units(tmp_path: Path, fmt: str, step: float) -> None:
    signal = waves(leads=3)
    write_wfdb(tmp_path, "a", signal, leads=SIX[:3], fmt=fmt)
    recording = read_all(tmp_path)
    assert (recording.rate, recording.leads, recording.units) == (100, ("I", "II", "III"), ("mV",) * 3)
    np.testing.assert_allclose(recording.signal, signal, atol=0.51 * step)


def test_leads_come_in_the_order_asked_for(tmp_path: Path) -> None:
    signal = waves(leads=6)
    write_wfdb(tmp_path, "a", signal, leads=SIX)
    recording = wfdb_records.read(only_item(tmp_path), ["V3", "I"])
    np.testing.assert_allclose(recording.signal, signal[:, [5, 0]], atol=6e-4)


def test_leads_with_more_samples_per_frame_keep_their_rate(tmp_path: Path) -> None:
    fast, slow = waves(8, 200, 1)[:, 0], waves(8, 100, 1)[:, 0]
    record = wfdb.Record(
        record_name="a", n_sig=2, fs=100, sig_len=800, samps_per_frame=[2, 1], fmt=["16", "16"],
        adc_gain=[1000.0, 1000.0], baseline=[0, 0], units=["mV", "mV"], sig_name=["fast", "slow"],
        file_name=["a.dat", "a.dat"], e_p_signal=[fast, slow], adc_res=[16, 16], adc_zero=[0, 0],
        byte_offset=[None, None], block_size=[0, 0], skew=[None, None],
    )  # fmt: skip
    record.set_d_features(do_adc=True, expanded=True)
    record.wrsamp(expanded=True, write_dir=str(tmp_path))
    item = only_item(tmp_path)
    assert wfdb_records.read_header(item).rates == (200, 100)
    both = wfdb_records.read(item, ["fast", "slow"])
    assert (both.rate, len(both.signal)) == (200, 1600)
    np.testing.assert_allclose(both.signal[:, 0], fast, atol=6e-4)
    np.testing.assert_allclose(both.signal[100:-100:2, 1], slow[50:-50], atol=0.02)
    assert wfdb_records.read(item, ["slow"]).rate == 100


def test_a_multi_segment_record_is_one_item_with_gaps(tmp_path: Path) -> None:
    first, second = waves(4, seed=1), waves(5, seed=2)
    write_wfdb(tmp_path, "s1", first, comments=["age: 61"])
    write_wfdb(tmp_path, "s2", second)
    (tmp_path / "whole.hea").write_text("whole/3 2 100 1100\ns1 400\n~ 200\ns2 500\n")
    item = only_item(tmp_path)
    header = wfdb_records.read_header(item)
    assert (item.name, header.seconds, header.comments) == ("whole", 11.0, ("age: 61",))
    assert {file.name for file in item.files} == {"whole.hea", "s1.hea", "s1.dat", "s2.hea", "s2.dat"}
    signal = read_all(tmp_path).signal
    np.testing.assert_allclose(signal[:400], first, atol=6e-4)
    assert np.isnan(signal[400:600]).all()
    np.testing.assert_allclose(signal[600:], second, atol=6e-4)


def test_segments_with_other_leads_are_missing_where_they_are_not(tmp_path: Path) -> None:
    first, second = waves(4, leads=2, seed=1), waves(5, leads=2, seed=2)
    write_wfdb(tmp_path, "s1", first, leads=["I", "II"])
    write_wfdb(tmp_path, "s2", second, leads=["II", "V1"])
    (tmp_path / "layout.hea").write_text(
        "layout 3 100 0\n~ 0 1000/mV 16 0 0 0 0 I\n~ 0 1000/mV 16 0 0 0 0 II\n~ 0 1000/mV 16 0 0 0 0 V1\n"
    )
    (tmp_path / "whole.hea").write_text("whole/3 3 100 900\nlayout 0\ns1 400\ns2 500\n")
    recording = read_all(tmp_path)
    assert recording.leads == ("I", "II", "V1")
    np.testing.assert_allclose(recording.signal[:400, :2], first, atol=6e-4)
    np.testing.assert_allclose(recording.signal[400:, 1:], second, atol=6e-4)
    assert np.isnan(recording.signal[:400, 2]).all()
    assert np.isnan(recording.signal[400:, 0]).all()


def test_a_changed_sample_is_a_wrong_checksum(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "a", waves())
    patch(tmp_path / "a.dat", 402, b"\x05\x00")
    with pytest.raises(Unreadable, match="wrong checksum in lead 2 of 2"):
        read_all(tmp_path)


def test_a_changed_sample_of_a_segment_is_a_wrong_checksum(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "s1", waves(4))
    (tmp_path / "whole.hea").write_text("whole/1 2 100 400\ns1 400\n")
    patch(tmp_path / "s1.dat", 100, b"\x05\x00")
    with pytest.raises(Unreadable, match="wrong checksum in lead 1 of 2"):
        read_all(tmp_path)


@pytest.mark.parametrize("fmt", ["16", "212"])
def test_a_truncated_signal_file_says_how_much_is_left(tmp_path: Path, fmt: str) -> None:
    write_wfdb(tmp_path, "a", waves(12), fmt=fmt)
    cut(tmp_path / "a.dat", 0.5)
    with pytest.raises(Unreadable, match=r"truncated signal file: \d+ of \d+ bytes, 6\.0 of 12\.0 s"):
        read_all(tmp_path)


def test_a_header_without_its_signal_file(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "a", waves())
    (tmp_path / "a.dat").unlink()
    with pytest.raises(Unreadable, match=r"header without data: the signal file \(.dat\) is missing"):
        read_all(tmp_path)


def test_a_segment_without_its_header(tmp_path: Path) -> None:
    write_wfdb(tmp_path, "s1", waves(4))
    (tmp_path / "whole.hea").write_text("whole/2 2 100 800\ns1 400\ns2 400\n")
    with pytest.raises(Unreadable, match="a segment of the record has no header file"):
        read_all(tmp_path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "malformed WFDB header"),
        ("DOE^JANE was here\n", "malformed WFDB header"),
        ("a 0 100 0\n", "the header lists no signals"),
        ("a 1 100 1200\n../DOE.dat 16 1000/mV 16 0 0 0 0 I\n", "malformed WFDB header"),
        ("a 1 0 1200\na.dat 16 1000/mV 16 0 0 0 0 I\n", "no usable sampling rate"),
    ],
)
def test_a_header_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    write_wfdb(tmp_path, "a", waves())
    (tmp_path / "a.hea").write_text(text)
    with pytest.raises(Unreadable, match=reason) as caught:
        read_all(tmp_path)
    assert "DOE" not in str(caught.value)
