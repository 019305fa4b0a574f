"""``diptych DOMAIN evaluate``: what a run's encoder is worth, as a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from diptych.settings.config import parse_text
from diptych.settings.plans import (
    build,
    evaluator_settings,
    load_evaluator,
    plan_of_run,
    trained_encoder,
    with_options,
)
from diptych.settings.schema import Setting, form_of
from diptych.settings.walk import Walk
from diptych_pipelines import report
from diptych_pipelines.commands import Call

FILES = (".csv", ".txt", ".html")
# options of evaluators that are files of the run, where they are not given
OF_THE_RUN = {"run_splits": "splits.csv", "run_checkpoint": "checkpoints/last.ckpt"}


def evaluate(call: Call, evaluator: str, *, run: str, also: Sequence[str] = ()) -> None:
    """Evaluates the encoder of a run, prints a table and keeps it in the run folder.

    Args:
        evaluator: How: one of the evaluators of the domain.
        run: The folder of a finished run.
        also: Runs of the same config with other seeds, whose encoders are evaluated with it.
    """
    loaded = load_evaluator(call.domain, evaluator)
    settings = evaluator_settings(loaded)
    names = {each.name for each in settings}
    given = {key: text for key, text in call.overrides if key in names}
    for name, file in OF_THE_RUN.items():
        if name in names:
            given.setdefault(name, str(Path(run) / file))
    walk = Walk(every_key=[*names, "run", "also"])
    options = walk.settings(_parsed(given, settings), settings, "--")
    bind = partial(with_options, loaded, {name: each.value for name, each in options.items()})
    bound: Any = None if walk.faults else walk.called(bind, None, evaluator).value
    overrides = [(key, text) for key, text in call.overrides if key not in names]
    made = plan_of_run(call.domain, Path(run), overrides, walk.faults, more_keys=names)
    study = build(made)
    encoders = [trained_encoder(study, Path(each)) for each in (run, *also)]
    table = bound(study, encoders if also else encoders[0])
    print(table)
    _keep(table, Path(run), "-".join([evaluator, *([given["label"]] if "label" in given else [])]))
    report.write_report(Path(run))


def _parsed(given: dict[str, str], settings: Sequence[Setting]) -> dict[str, Any]:
    """Options of a section's form are YAML in one line; the others are parsed by their type."""
    plain = {each.name for each in settings if form_of(each.hint).kind == "leaf"}
    return {name: text if name in plain else parse_text(text) for name, text in given.items()}


def _keep(table: Any, run: Path, name: str) -> None:
    """Writes the table beside earlier ones; none is overwritten."""
    folder = run / "evaluations"
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", name)
    taken = {path.stem for path in folder.glob("*")}
    stem = next(
        each for each in (safe, *(f"{safe}-{number}" for number in range(2, 10_000))) if each not in taken
    )
    for suffix in FILES:
        table.write(folder / f"{stem}{suffix}")
