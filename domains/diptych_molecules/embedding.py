"""One call from SMILES to embeddings, for scripts and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.discovery import find_domain
from diptych.errors import ConfigError, DataError, UserError
from diptych.evaluation.embeddings import embed as embed_batches
from diptych.settings.plans import plan_of_run
from diptych.types import Views
from diptych.weights import load_encoder
from diptych_molecules.chunks import jobs
from diptych_molecules.store import Store, make_store

Invalid = Literal["nan", "raise"]


def embed(
    smiles: Sequence[str],
    *,
    run: str | Path,
    invalid: Invalid = "nan",
    batch_size: int = 256,
    device: str = "auto",
) -> NDArray[np.float32]:
    """Embeddings of molecules by the encoder of a run, (n, width) float32, in the order of the SMILES.

    Molecules are standardised as those of the run were. ::

        diptych_molecules.embed(["CCO", "c1ccccc1"], run="runs/molecules-kcl-20261125-101500")

    Args:
        smiles: n texts.
        run: The folder of a finished run.
        invalid: What a SMILES that cannot be read becomes: a row of NaN, or an error that names it.
        batch_size: Molecules that are embedded at once.
        device: Where to compute: auto, cpu, cuda.

    Raises:
        DataError: with ``invalid="raise"``, a SMILES that cannot be read; RDKit's reason is given.
        UserError: this is no folder of a finished run.
        ConfigError: an unknown value of ``invalid``, or a text instead of a list of them.
    """
    if isinstance(smiles, str):
        raise ConfigError(f"expected a list of SMILES, came the text {smiles!r}; give [{smiles!r}]")
    if invalid not in ("nan", "raise"):
        raise ConfigError(f"invalid is 'nan' or 'raise'; got {invalid!r}")
    settings = plan_of_run(find_domain("molecules"), Path(run), ()).resolved.values
    weights = Path(run) / "encoder.safetensors"
    if not weights.is_file():
        raise UserError(f"{run} has no encoder.safetensors: the run did not end")
    with torch.random.fork_rng(devices=[]):  # the weights that are drawn are replaced at once
        encoder = settings["encoder"]()
    load_encoder(encoder, weights)
    data = settings["data"]
    texts = ["" if text is None else str(text).replace("\0", " ") for text in smiles]
    found = np.full((len(texts), encoder.width), np.nan, np.float32)
    with TemporaryDirectory() as folder:
        work = jobs(texts, "smiles", data.standard, data.isolated_atoms == "drop")
        store, _ = make_store(work, Path(folder), workers=1)
        if store.rejected and invalid == "raise":
            row, reason = store.rejected[0]
            raise DataError(
                f"{len(store.rejected)} of {len(texts)} SMILES cannot be read; the first is number {row}, "
                f"{texts[row]!r}: {reason}"
            )
        if len(store):
            found[store.rows] = embed_batches(encoder, _Clean(store, batch_size), device)
    return found


class _Clean:
    """All molecules of a store in their order, without any change."""

    def __init__(self, store: Store, batch_size: int) -> None:
        self.store, self.batch_size = store, batch_size

    def __iter__(self):  # type: ignore[no-untyped-def]
        for start in range(0, len(self.store), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(self.store)), dtype=np.int64)
            yield Views(views=(self.store.batch(rows),), groups={"sample": torch.from_numpy(rows)})
