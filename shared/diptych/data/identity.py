"""Who a sample belongs to: salted keys for patients and files, and the split a patient falls into.

There are two salts, and they are different things:

* The **pseudonym salt** is a secret. It turns a patient id or a path into a key that cannot be turned back by
  hashing every plausible id. It is read from the environment (``DIPTYCH_SALT``) and never written anywhere;
  a run keeps only its fingerprint, to tell whether two runs' keys can be compared.
* The **split salt** (:attr:`Split.salt`) is public. It stands in the config, because whoever has the ids must
  be able to compute the same split again.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Literal

from diptych.errors import ConfigError, DataError

SALT_VARIABLE = "DIPTYCH_SALT"
PUBLIC_SALT = "diptych"
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def salted_key(salt: str, text: str, length: int = 16) -> str:
    """The first ``length`` hex digits (8 to 64) of HMAC-SHA256 of ``text`` under ``salt``.

    16 digits are 64 bits: among a million ids two share a key with a chance of 3e-8.
    """
    if not 8 <= length <= 64:
        raise ValueError(f"a key has 8 to 64 hex digits, not {length}")
    return hmac.new(salt.encode(), text.encode(), hashlib.sha256).hexdigest()[:length]


def pseudonym_salt() -> str:
    """The salt of patient and file keys: ``DIPTYCH_SALT``, or else a public one.

    With the public one keys are stable, but anyone can hash a list of ids and look a patient up; the
    reports say so (:func:`salt_is_secret`).
    """
    return os.environ.get(SALT_VARIABLE) or PUBLIC_SALT


def salt_is_secret() -> bool:
    """Whether keys are made with a salt of the user's own."""
    return pseudonym_salt() != PUBLIC_SALT


def salt_fingerprint(salt: str | None = None) -> str:
    """Eight hex digits that tell two pseudonym salts apart without giving either away.

    A salt that can be guessed can be confirmed by it (as by any key of a known id): take a long random one.
    """
    return salted_key(pseudonym_salt() if salt is None else salt, "diptych salt fingerprint", length=8)


def file_key(path: str) -> str:
    """The key of a file in run folders, since a path may carry a name. ``path`` is relative and posix."""
    return salted_key(pseudonym_salt(), f"file:{path}")


@dataclass(frozen=True, kw_only=True)
class Split:
    """Shares of patients in train, validation and test, decided for each patient alone.

    :meth:`of` hashes the public ``salt`` and the raw patient id to a number in [0, 1): the split of a patient
    depends on no other patient, on no order and on no data set, so it holds between pretraining and
    evaluation and when recordings are added. The realised shares therefore only come near the asked ones.

    Args:
        salt: Public text; another one gives another split. Not the pseudonym salt (see the module).
        train: Share of patients to train on.
        validation: Share of patients for choices such as the epoch.
        test: Share of patients held out.
    """

    salt: str = "diptych"
    train: float = 0.7
    validation: float = 0.1
    test: float = 0.2

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in SPLITS}
        wrong = {name: share for name, share in shares.items() if not 0.0 <= share <= 1.0}
        if wrong or abs(sum(shares.values()) - 1.0) > 1e-6:
            given = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise ConfigError(
                f"the shares of a split lie between 0 and 1 and add up to 1; got {given}, which add up to "
                f"{sum(shares.values()):g}. Change one of them"
            )

    def of(self, patient_id: str) -> SplitName:
        """The split of one raw patient id. Raises DataError for an empty one: it would pool patients."""
        if not patient_id.strip():
            raise DataError(
                "a patient id is empty, so its patient cannot be kept in one split; "
                "give every recording a patient id or leave it out"
            )
        place = _unit_interval(f"{self.salt}\x1f{patient_id}")
        shares = [(name, float(getattr(self, name))) for name in SPLITS]
        edge = 0.0
        for name, share in shares:
            edge += share
            if place < edge:
                return name
        return next(name for name, share in reversed(shares) if share > 0.0)  # the sum was rounded below 1


def _unit_interval(text: str) -> float:
    """Uniform in [0, 1): the first 53 bits of SHA-256, as many as a float holds exactly."""
    return (int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 11) / 2.0**53
