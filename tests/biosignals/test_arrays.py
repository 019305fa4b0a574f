"""NumPy arrays: one per recording or one of many, in either order of axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.biosignals.files import waves

from diptych.data.readable import Unreadable
from diptych_biosignals.readers import arrays


def test_one_array_is_one_recording(tmp_path: Path) -> None:
    signal = waves(leads=3)
    np.save(tmp_path / "a.npy", signal)
    (item,) = arrays.find([tmp_path / "a.npy"], tmp_path)
    header = arrays.read_header(item, rate=100, lead_names=["x", "y", "z"])
    recording = arrays.read(item, ["z", "x"], header)
    assert (item.part, header.leads, header.seconds, recording.rate) == (None, ("x", "y", "z"), 12, 100)
    np.testing.assert_array_equal(recording.signal, signal[:, [2, 0]].astype(np.float32))


@pytest.mark.parametrize("turned", [False, True])
def test_a_big_array_is_many_recordings(tmp_path: Path, turned: bool) -> None:
    big = np.stack([waves(leads=3, seed=seed) for seed in range(4)])
    np.save(tmp_path / "big.npy", big.transpose(0, 2, 1) if turned else big)
    axes: arrays.Axes = "leads_time" if turned else "time_leads"
    items = arrays.find([tmp_path / "big.npy"], tmp_path)
    assert [item.part for item in items] == [0, 1, 2, 3]
    for item, signal in zip(items, big, strict=True):
        header = arrays.read_header(item, rate=100, axes=axes)
        np.testing.assert_array_equal(
            arrays.read(item, ["1", "2", "3"], header, axes=axes).signal, signal.astype(np.float32)
        )


def test_one_axis_is_one_lead(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves(leads=1)[:, 0])
    (item,) = arrays.find([tmp_path / "a.npy"], tmp_path)
    header = arrays.read_header(item, rate=100, axes="leads_time")
    assert arrays.read(item, ["1"], header, axes="leads_time").signal.shape == (1200, 1)


def test_an_archive_may_carry_its_rate_and_leads(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", signal=waves(), rate=250, leads=["I", "II"])
    (item,) = arrays.find([tmp_path / "a.npz"], tmp_path)
    header = arrays.read_header(item, rate=100)
    assert (header.leads, header.rates) == (("I", "II"), (250, 250))


def reason(path: Path, **facts: object) -> str:
    (item,) = arrays.find([path], path.parent)
    with pytest.raises(Unreadable) as caught:
        arrays.read_header(item, **facts)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_missing_rate_says_where_to_set_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves())
    assert reason(tmp_path / "a.npy") == (
        "the sampling rate is missing: arrays carry none, so set data.rate (Hz)"
    )


def test_axes_the_other_way_round(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves().T)
    assert reason(tmp_path / "a.npy", rate=100) == (
        "the array has 1200 leads and 2 samples: is data.axes ('time_leads') the other way round?"
    )


def test_lead_names_of_another_number(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", waves())
    assert "has 2 leads, but 3 lead names" in reason(tmp_path / "a.npy", rate=100, lead_names=["a", "b", "c"])


def test_pickles_text_and_rubbish_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save(tmp_path / "text.npy", np.array(["DOE^JANE"]))
    (tmp_path / "rubbish.npy").write_bytes(b"no array")
    (tmp_path / "rubbish.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "other.npz", data=waves())
    assert reason(tmp_path / "objects.npy", rate=1) == "malformed NumPy file (ValueError)"
    assert reason(tmp_path / "text.npy", rate=1).startswith(
        "expected numbers on 1 to 3 axes, found 1 axes of <U8"
    )
    assert reason(tmp_path / "rubbish.npy", rate=1).startswith("malformed NumPy file")
    assert reason(tmp_path / "rubbish.npz", rate=1).startswith("malformed NumPy file")
    assert reason(tmp_path / "other.npz", rate=1) == "the .npz archive has no array named 'signal'"
