"""What the recipe of this domain builds: a study that also gives evaluators its molecules."""

from __future__ import annotations

from dataclasses import dataclass

from diptych.study import Study
from diptych_molecules.source import Molecules


@dataclass(frozen=True, kw_only=True)
class MoleculeStudy(Study):
    """A study of molecules."""

    molecules: Molecules
