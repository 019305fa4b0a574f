"""Keys and splits: pure functions of a salt and an id."""

from __future__ import annotations

import hashlib
import hmac
import random
import re
from collections import Counter

import pytest

from diptych.data.identity import (
    Split,
    file_key,
    pseudonym_salt,
    salt_fingerprint,
    salt_is_secret,
    salted_key,
)
from diptych.errors import ConfigError, DataError

NAMES = [f"patient-{number}" for number in range(20_000)]


def test_a_key_is_the_beginning_of_an_hmac() -> None:
    full = hmac.new(b"pepper", "Zoë".encode(), hashlib.sha256).hexdigest()
    assert salted_key("pepper", "Zoë") == full[:16]
    assert salted_key("pepper", "Zoë", length=64) == full


def test_keys_of_other_salts_or_texts_differ() -> None:
    assert len({salted_key(salt, text) for salt in "abc" for text in NAMES}) == 3 * len(NAMES)


@pytest.mark.parametrize("length", [0, 7, 65])
def test_a_key_that_is_too_short_or_long_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"8 to 64 hex digits, not {length}"):
        salted_key("s", "text", length)


def test_the_pseudonym_salt_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIPTYCH_SALT", raising=False)
    public = file_key("a/b.dat")
    assert not salt_is_secret()
    monkeypatch.setenv("DIPTYCH_SALT", "correct horse")
    assert pseudonym_salt() == "correct horse"
    assert salt_is_secret()
    assert file_key("a/b.dat") != public


def test_an_empty_salt_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_SALT", "")
    assert not salt_is_secret()


def test_a_fingerprint_tells_salts_apart_and_does_not_hold_them() -> None:
    assert salt_fingerprint("one") != salt_fingerprint("two")
    assert re.fullmatch("[0-9a-f]{8}", salt_fingerprint("deadbeef"))
    assert salt_fingerprint("deadbeef") != "deadbeef"


def test_shares_of_patients_come_near_the_asked_ones() -> None:
    found = Counter(Split(train=0.7, validation=0.1, test=0.2).of(name) for name in NAMES)
    for name, share in {"train": 0.7, "validation": 0.1, "test": 0.2}.items():
        deviation = (len(NAMES) * share * (1 - share)) ** 0.5
        assert abs(found[name] - share * len(NAMES)) < 4 * deviation


def test_known_patients_stay_where_they_were() -> None:
    """Fixed answers: another version of the program must give the same split."""
    places = "".join(Split().of(str(number))[1] for number in range(1, 13))  # tRain, vAlidation, tEst
    assert places == "rrerrrreaare"


def test_a_split_depends_on_nothing_but_salt_and_id() -> None:
    split = Split(salt="s")
    first = {name: split.of(name) for name in NAMES[:500]}
    shuffled = random.Random(0).sample(NAMES, len(NAMES))
    again = {name: split.of(name) for name in shuffled}
    assert all(again[name] == first[name] for name in first)
    other = {name: Split(salt="t").of(name) for name in first}
    assert other != first


def test_splits_of_two_salts_are_independent() -> None:
    both = Counter((Split(salt="s").of(name) == "test", Split(salt="t").of(name) == "test") for name in NAMES)
    assert both[(True, True)] / len(NAMES) == pytest.approx(0.04, abs=0.006)


def test_a_larger_test_share_keeps_its_patients() -> None:
    small = {name for name in NAMES if Split(train=0.7, validation=0.1, test=0.2).of(name) == "test"}
    large = {name for name in NAMES if Split(train=0.5, validation=0.2, test=0.3).of(name) == "test"}
    assert small < large


def test_a_share_of_nothing_gets_nobody() -> None:
    found = {Split(train=0.9, validation=0.1, test=0.0).of(name) for name in NAMES}
    assert found == {"train", "validation"}
    assert {Split(train=0.0, validation=0.0, test=1.0).of(name) for name in NAMES[:100]} == {"test"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.7, 0.2, 0.2), "add up to 1.1"),
        ((1.2, -0.1, -0.1), "train 1.2, validation -0.1"),
        ((0.0, 0.0, 0.0), "add up to 0. Change"),
        ((float("nan"), 0.5, 0.5), "lie between 0 and 1"),
    ],
)
def test_shares_that_are_none_are_refused(shares: tuple[float, float, float], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Split(train=shares[0], validation=shares[1], test=shares[2])


@pytest.mark.parametrize("name", ["", "  "])
def test_an_empty_id_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="a patient id is empty"):
        Split().of(name)
