"""Activity cliffs: molecules that resemble another and differ from it in their label, where the data mark them.

A column of the data says which molecules they are, as ``cliff_mol`` does in MoleculeACE (van Tilborg et al., Exposing
the limitations of molecular machine learning with activity cliffs, 2022). They are scored apart from the others.
"""

from __future__ import annotations

import numpy as np

from diptych.errors import ConfigError, DataError
from diptych.nearest import nearest
from diptych.study import Samples
from diptych_molecules.scoring import Marked

TRUE = ("1", "1.0", "true", "yes")
FALSE = ("0", "0.0", "false", "no")


def marked_cliffs(samples: Samples, column: str) -> Marked:
    """The molecules that a label marks; those without a mark are none.

    Raises:
        ConfigError: no such label, or values other than 0 and 1, true and false, yes and no.
        DataError: it marks no molecule.
    """
    if column not in samples.labels.columns:
        names = [str(name) for name in samples.labels.columns]
        raise ConfigError(
            f"cliffs: there is no label {column!r}; {nearest(column, names) if names else 'the data have none'}. "
            f"Name the column in labels or tasks, such as --labels.{column}.column {column}"
        )
    texts = samples.labels[column].astype("string").str.strip().str.casefold()
    marks = texts.isin(TRUE).fillna(False).to_numpy(dtype=bool)
    strange = texts[~(texts.isin([*TRUE, *FALSE]) | texts.isna() | texts.eq("")).to_numpy(dtype=bool)]
    if len(strange):
        raise ConfigError(
            f"cliffs: the label {column!r} holds {strange.iloc[0]!r}; expected 0 and 1, true and false, or yes and no"
        )
    if not marks.any():
        raise DataError(
            f"cliffs: the label {column!r} marks no molecule; leave cliffs out, or give another column"
        )
    return Marked("activity-cliff molecule", np.asarray(marks, np.bool_))
