"""From text to a molecule of RDKit, standardised as asked, or to the reason why not."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from rdkit import Chem, rdBase
from rdkit.Chem.MolStandardize import rdMolStandardize

from diptych.data.readable import Unreadable

Form = Literal["smiles", "sdf"]  # what a text is: a SMILES, or a record of an SD file


@dataclass(frozen=True, kw_only=True)
class Standard:
    """What is done to a molecule before anything is computed from it; nothing by default.

    The order is: fragments, charges, tautomer, as in RDKit's own pipelines (rdMolStandardize).
    """

    fragments: Literal["all", "largest", "without_salts"] = "all"
    neutralise: bool = False
    tautomer: bool = False


def molecule(text: str, form: Form, standard: Standard) -> Chem.Mol:
    """The sanitised molecule of a text. Raises Unreadable with RDKit's reason, without the text itself."""
    if not text.strip():
        raise Unreadable("empty: no structure in this row")
    try:
        with rdBase.BlockLogs():
            mol = _read(text, form)
            if mol is not None:
                return _standardised(mol, standard)
    except (
        RuntimeError,
        ValueError,
    ) as error:  # RDKit's invariants are RuntimeErrors, its molecules' ValueErrors
        raise Unreadable(_kind(_one_line(str(error)))) from None
    raise Unreadable(_why(text, form))


def again(smiles: str) -> Chem.Mol:
    """The molecule of a canonical SMILES that RDKit wrote itself.

    A few of those it cannot read back with full checks; they are read without.
    """
    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
        if mol is None:
            mol = Chem.MolFromSmiles(smiles, sanitize=False)
            mol.UpdatePropertyCache(strict=False)
            Chem.FastFindRings(mol)
    return mol


def _read(text: str, form: Form) -> Chem.Mol | None:
    if form == "smiles":
        return Chem.MolFromSmiles(text)
    return Chem.MolFromMolBlock(text)


def _standardised(mol: Chem.Mol, standard: Standard) -> Chem.Mol:
    if standard.fragments == "largest":
        mol = rdMolStandardize.LargestFragmentChooser().choose(mol)
    elif standard.fragments == "without_salts":
        mol = rdMolStandardize.FragmentRemover().remove(mol)
    if standard.neutralise:
        mol = rdMolStandardize.Uncharger().uncharge(mol)
    if standard.tautomer:
        mol = rdMolStandardize.TautomerEnumerator().Canonicalize(mol)
    return mol


def _why(text: str, form: Form) -> str:
    """What RDKit logs when it fails on the text, as one line with the kind first."""
    with _heard() as lines:
        _read(text, form)
    useful = [re.sub(r"^\[\d\d:\d\d:\d\d\] ?", "", line) for line in lines]
    position = next(
        (found[1] for line in useful if (found := re.search(r"around position (\d+)", line))), None
    )
    for line in useful:
        if line.strip(" *-") and line != "Pre-condition Violation":
            return _kind(_without_structure(line), position)
    return "not parsed: RDKit gives no reason"


def _without_structure(line: str) -> str:
    """A message of RDKit without the structure that it quotes at its end."""
    return re.sub(r"\s*(?:for input|while parsing): .*$", "", _one_line(line))


def _kind(message: str, position: str | None = None) -> str:
    """The message with its kind before it: what quarantines count."""
    where = "" if position is None else f" around character {position}"
    text = message.removeprefix("SMILES Parse Error:").strip()
    lowered = text.lower()
    kinds = {
        "valence": "valence",
        "kekulize": "not kekulised",
        "atomic number": "no element",
        "aromatic": "aromaticity",
    }
    kind = next((name for word, name in kinds.items() if word in lowered), "not parsed")
    return f"{kind}: {text}{where}"


def _one_line(text: str) -> str:
    return " ".join(text.split())


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines += record.getMessage().splitlines()


@contextmanager
def _heard() -> Iterator[list[str]]:
    """Collects what RDKit logs within the block. Its log is one of the process: not for threads."""
    logger, handler = logging.getLogger("rdkit"), _Lines()
    before, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [handler], False
    rdBase.LogToPythonLogger()
    try:
        yield handler.lines
    finally:
        rdBase.LogToCppStreams()
        logger.handlers, logger.propagate = before, propagate
