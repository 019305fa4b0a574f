"""Files that cannot be used: listed with a reason, counted, never replaced by others."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from diptych.data.atomic import write_text
from diptych.data.identity import file_key
from diptych.errors import ConfigError, DataError

LONGEST_REASON = 200


class Rejected(NamedTuple):
    """One file in quarantine."""

    path: str  # relative to the data root, posix
    reason: str

    @property
    def kind(self) -> str:
        """The reason up to a colon: "too short: 3.2 s" is of the kind "too short"."""
        return self.reason.split(":", 1)[0].strip()


@dataclass
class Quarantine:
    """The files that were left out, in the order they were found. Safe to add to from several threads."""

    rows: list[Rejected] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, path: str | PurePath, reason: str) -> None:
        """Leave a file out.

        Args:
            path: Relative to the data root; the same text as the manifest's, so that their keys agree.
            reason: One line in the caller's own words, the kind first: "too short: 3.2 s of 10 s". It must
                not quote what stands in a header (names, dates). The file's own path and name, which may
                carry one too, are replaced by "<file>".
        """
        path = PurePath(path)
        stem = path.stem if len(path.stem) > 4 else path.name  # "1" may also be a number of leads
        for text in sorted({str(path), path.as_posix(), path.name, stem}, key=len, reverse=True):
            if text:
                reason = re.sub(rf"(?<!\w){re.escape(text)}(?!\w)", "<file>", reason)
        reason = " ".join(reason.split())
        if not reason:
            raise ValueError("a file is quarantined for a reason; got an empty one")
        if len(reason) > LONGEST_REASON:
            reason = reason[: LONGEST_REASON - 1] + "…"
        self.rows.append(Rejected(path.as_posix(), reason))

    def kinds(self) -> Counter[str]:
        """How many files were left out for each kind of reason."""
        return Counter(row.kind for row in self.rows)

    def check(self, total: int, limit: float = 0.2) -> None:
        """Stop when too much is missing.

        Args:
            total: Number of files that were looked at, those in quarantine included.
            limit: Largest share of them that may be in quarantine, 0 to 1.

        Raises:
            DataError: above the limit; names the three most frequent kinds of reason.
            ConfigError: the limit is not a share.
        """
        if not 0.0 <= limit <= 1.0:
            raise ConfigError(f"the largest share of files in quarantine lies between 0 and 1; got {limit:g}")
        lost = len({row.path for row in self.rows})
        if lost > total:
            raise ValueError(f"{lost} files in quarantine of a total of {total}")
        if lost > limit * total:
            reasons = "; ".join(f"{kind} ({count})" for kind, count in self.kinds().most_common(3))
            raise DataError(
                f"{lost} of {total} files ({lost / total:.0%}) cannot be used, more than {limit:.0%} "
                f"allowed. Most frequent: {reasons}. Mend or remove these files, or raise the limit"
            )

    def write(self, path: str | Path, *, paths: bool = False) -> None:
        """Write one JSON object a line, atomically, with file keys; with ``paths`` the paths themselves."""
        named = [{"path": row.path} if paths else {"file": file_key(row.path)} for row in self.rows]
        lines = [
            json.dumps({**name, "reason": row.reason}, ensure_ascii=False)
            for name, row in zip(named, self.rows, strict=True)
        ]
        write_text(path, "".join(f"{line}\n" for line in lines))
