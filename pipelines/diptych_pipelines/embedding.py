"""``diptych DOMAIN embed``: one embedding per sample with salted ids, in a file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diptych.data.atomic import replacing
from diptych.errors import ConfigError
from diptych.settings.plans import build, domain_of, plan_of_run, trained_encoder
from diptych_pipelines.commands import Call

KEYS = ("patient", "recording", "trial", "split")


def embed(call: Call, data: str | None, out: str, *, run: str, device: str = "auto") -> None:
    """Embeds every sample with the encoder of a run.

    Args:
        data: The folder, file or manifest to embed, which needs no labels; by default the run's own data.
        out: The file to write, .parquet (columns e000, e001, ...) or .npz (array "embeddings").
        run: The folder of a finished run.
        device: Where to compute: auto, cpu, cuda.
    """
    from diptych.evaluation.embeddings import embed as embed_samples

    target = Path(out)
    if target.suffix not in (".parquet", ".npz"):
        raise ConfigError(f"expected a file that ends in .parquet or .npz, came {out!r}")
    overrides = [*([] if data is None else [("data.path", data)]), *call.overrides]
    without = () if data is None else domain_of(call.domain).label_settings
    made = plan_of_run(call.domain, Path(run), overrides, without=without)
    study = build(made)
    indices = np.arange(len(study.samples), dtype=np.int64)
    values = embed_samples(trained_encoder(study, Path(run)), study.plain(indices), device)
    described = None if study.described is None else study.described(indices)
    write_embeddings(target, study.samples.ids, values, described)
    words = study.samples.words
    print(
        f"{len(values)} {words.samples} of {study.samples.ids['patient'].nunique()} {words.units}",
        file=sys.stderr,
    )
    print(target)


def write_embeddings(
    path: Path,
    ids: pd.DataFrame,
    values: np.ndarray[tuple[int, int], np.dtype[np.float32]],
    described: pd.DataFrame | None = None,
) -> None:
    """Writes embeddings (n, width) with the ids of their n samples, atomically, as Parquet or npz.

    ``described`` (n rows) are further columns of the samples (:attr:`diptych.study.Study.described`).
    """
    keys: dict[str, Any] = {name: ids[name].astype(str).to_numpy(dtype=str) for name in KEYS}
    if described is not None:
        keys |= {
            str(name): column.to_numpy()
            if column.dtype.kind in "iufb"
            else column.astype(str).to_numpy(dtype=str)
            for name, column in described.items()
        }
    sample = np.arange(len(values), dtype=np.int64)
    with replacing(path) as partial:
        if path.suffix == ".npz":
            with partial.open("wb") as file:  # given a name, savez would append .npz to it
                np.savez_compressed(file, sample=sample, embeddings=values, **keys)
            return
        columns = [f"e{number:03d}" for number in range(values.shape[1])]
        frame = pd.DataFrame({"sample": sample, **keys})
        pd.concat([frame, pd.DataFrame(values, columns=columns)], axis=1).to_parquet(partial, index=False)
