"""``diptych DOMAIN inspect``: what a data set holds, before anything is trained on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pandas as pd

from diptych.data.leaks import check_leaks
from diptych.data.manifest import Manifest
from diptych.errors import ConfigError
from diptych.settings.config import read_yaml
from diptych.settings.plans import plan, with_needed_defaults
from diptych.settings.shipped import find_config
from diptych.study import Samples, Study
from diptych_pipelines.commands import Call

SHOWN = 20  # lines of quarantine, and values of a label
SHOWN_OF_FACTS = 6


def inspect(
    call: Call,
    data: str | None = None,
    *,
    config: str | None = None,
    manifest: str | None = None,
    quarantine: str | None = None,
) -> None:
    """Reads the data and prints what is there.

    Args:
        data: The folder, file or manifest with the data; by default data.path of the config.
        config: How to read it: a YAML file or a shipped config; by default the domain's defaults.
        manifest: Writes the manifest to this .csv or .parquet file; pretrain takes it as data.
        quarantine: Writes all files that were set aside, with their reasons, to this .jsonl file.
    """
    given = read_yaml(find_config(config)) if config else {}
    source = f"{config} and the command line" if config else "the command line"
    if data is None and config is None and "data.path" not in dict(call.overrides):
        raise ConfigError(
            "inspect needs the folder, file or manifest with the data, or a --config that names one"
        )
    overrides = [*([] if data is None else [("data.path", data)]), *call.overrides]
    study = plan(call.domain, with_needed_defaults(call.domain, given), overrides, source).build()
    for line in describe(study):
        print(line)
    if manifest is not None:
        study.samples.manifest.write(manifest)
        print(f"manifest: {manifest}")
    if quarantine is not None:
        study.samples.quarantine.write(quarantine, paths=True)
        print(f"quarantine: {quarantine}")
    check_leaks(study.samples.ids, study.samples.manifest, study.samples.words)


def describe(study: Study) -> Iterator[str]:
    """The lines that inspect prints."""
    samples = study.samples
    yield from _counts(samples)
    yield from (f"{name}: {text}" for name, text in study.summary.items())
    if len(samples.manifest):
        size = sum(entry.size for entry in samples.manifest.entries)
        yield f"files: {len(samples.manifest)}, {size / 1e6:.1f} MB"
        yield from _facts(samples.manifest)
    if len(samples.labels.columns):
        yield ""
        yield "labels:"
        yield from (f"  {name}: {_values(samples.labels[name])}" for name in samples.labels.columns)
    yield ""
    yield from _quarantined(samples)


def _counts(samples: Samples) -> Iterator[str]:
    """A line for each split and one for all."""
    ids, words = samples.ids, samples.words
    columns = {words.units: "patient", words.recordings: "recording", words.samples: None}
    yield "".join([f"{'split':<12}", *(f"{name:>12}" for name in columns)])
    for split in ("train", "validation", "test", "all"):
        rows = ids if split == "all" else ids[ids["split"] == split]
        counts = [len(rows) if column is None else rows[column].nunique() for column in columns.values()]
        yield "".join([f"{split:<12}", *(f"{count:>12}" for count in counts)])
    yield ""


def _facts(manifest: Manifest) -> Iterator[str]:
    """What the files' facts are: a range of numbers, or the values and how often each occurs."""
    names = sorted({name for entry in manifest.entries for name in entry.facts} - {"content"})
    for name in names:
        values = [entry.facts[name] for entry in manifest.entries if name in entry.facts]
        yield f"  {name}: {_values(pd.Series([_plain(each) for each in values]), SHOWN_OF_FACTS)}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _text(value)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _values(column: pd.Series[Any], shown: int = SHOWN) -> str:
    """How often each value occurs, or the range of many numbers; and how many are missing."""
    present = column.dropna()
    counts = Counter(present)
    missing = f"; missing {len(column) - len(present)}" if len(present) < len(column) else ""
    if pd.api.types.is_numeric_dtype(present) and len(counts) > 8:
        return f"{present.min():g} to {present.max():g}, mean {present.mean():.4g}{missing}"
    listed = "; ".join(f"{value} ({count})" for value, count in counts.most_common(shown))
    more = f"; and {len(counts) - shown} more values" if len(counts) > shown else ""
    return f"{listed or 'none'}{more}{missing}"


def _quarantined(samples: Samples) -> Iterator[str]:
    rows = samples.quarantine.rows
    yield f"quarantined: {len({row.path for row in rows})} files"
    yield from (f"  {kind}: {count}" for kind, count in samples.quarantine.kinds().most_common())
    yield from (f"  {row.path}: {row.reason}" for row in rows[:SHOWN])
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN} more (--quarantine FILE writes all)"
