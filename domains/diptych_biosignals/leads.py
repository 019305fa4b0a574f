"""Lead names: one spelling for the many that devices write, and which lead of a recording is meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

from diptych.data.readable import Unreadable

# Other names of the same electrode or derivation, in the spelling of :func:`canonical`.
_SYNONYMS = {
    "mli": "i", "mlii": "ii", "mliii": "iii", "ml1": "i", "ml2": "ii", "ml3": "iii",
    "vx": "x", "vy": "y", "vz": "z",
    "t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8",  # 10-20 system, names before and after 1991
}  # fmt: skip

_REFERENCES = r"[-:](ref|le|ar|avg|cz-ref|org)$"


def canonical(name: str) -> str:
    """One spelling of a lead name: "EEG Fp1-REF" and "FP1" become "fp1", "MLII" and "Lead II" become "ii"."""
    text = re.sub(r"\(.*?\)", " ", name).lower().replace("_", " ").strip(" .")
    text = re.sub(r"^(eeg|ecg|ekg|lead)[ -]+(?=\S)", "", text)
    text = re.sub(_REFERENCES, "", text).strip(" .")
    return _SYNONYMS.get(text, text)


def find_leads(
    present: Sequence[str], wanted: Sequence[str], aliases: Mapping[str, str] | None = None
) -> list[str | None]:
    """The recording's own name of every wanted lead, or None where it has no such lead.

    ``aliases`` maps a name in the files to a wanted one and goes before the built-in spellings. A name that
    stands in the file exactly as configured wins over a similar one. Raises Unreadable where two leads of the
    file are the wanted one.
    """
    named = {canonical(other): canonical(lead) for other, lead in (aliases or {}).items()}
    spelled = [named.get(canonical(name), canonical(name)) for name in present]
    chosen: list[str | None] = []
    for lead in wanted:
        same = [name for name in present if name == lead]
        same = same or [name for name, text in zip(present, spelled, strict=True) if text == canonical(lead)]
        if len(same) > 1:
            raise Unreadable(f"ambiguous leads: {len(same)} leads of the file are the wanted lead {lead!r}")
        chosen.append(same[0] if same else None)
    return chosen


def most_frequent(recordings: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The lead names that most recordings have, in their most frequent order; of ties the larger set."""
    sets = Counter(frozenset(map(canonical, names)) for names in recordings)
    best = max(sets, key=lambda each: (sets[each], len(each), sorted(each)))
    orders = Counter(tuple(names) for names in recordings if frozenset(map(canonical, names)) == best)
    return max(orders, key=lambda each: (orders[each], each))
