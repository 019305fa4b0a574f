"""What a domain calls its things, so that tables and messages speak of scaffolds or designs where patients are none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Words:
    """The nouns of a domain, in the singular.

    ``unit`` is what splits keep together and intervals resample (the id column "patient"), ``recording`` what one
    id "recording" stands for, ``sample`` one row. ``overlap`` says what happens where a unit of the test data was
    among those that an encoder was pretrained on: "refuse" stops, since a person's data would be on both sides;
    "report" notes it, for units that are no secret of their own, such as the ring systems of molecules.
    """

    unit: str = "patient"
    recording: str = "recording"
    sample: str = "sample"
    overlap: Literal["refuse", "report"] = "refuse"

    @property
    def units(self) -> str:
        return f"{self.unit}s"

    @property
    def recordings(self) -> str:
        return f"{self.recording}s"

    @property
    def samples(self) -> str:
        return f"{self.sample}s"

    def level(self, name: str) -> str:
        """The noun of a level's name: "patient" is the unit's, others are their own."""
        known = {"patient": self.unit, "recording": self.recording, "sample": self.sample}
        return known.get(name, name)


PATIENTS = Words()
