"""``diptych DOMAIN pretrain``: a config to a run folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from diptych.discovery import Found
from diptych.errors import ConfigError
from diptych.runs import Run, leads
from diptych.settings.config import read_yaml
from diptych.settings.plans import Plan, build, plan, plan_of_run, started
from diptych.settings.shipped import find_config
from diptych.study import Study
from diptych_pipelines import report
from diptych_pipelines.commands import Call

MAY_CHANGE = ("trainer.", "data.")  # at a resumption: what it runs on, and where the data lie


def pretrain(call: Call, *, config: str | None = None, resume: str | None = None) -> None:
    """Pretrains an encoder and prints its run folder.

    Args:
        config: A YAML file, or the name of a shipped config (diptych configs list).
        resume: The folder of an interrupted run, to go on from its last checkpoint.
    """
    if (config is None) == (resume is None):
        raise ConfigError("pretrain needs either --config FILE, for a new run, or --resume RUN")
    if resume is not None:
        run = resume_run(call.domain, Path(resume), call.overrides)
    else:
        run = new_run(call.domain, config or "", call.overrides)
    if leads():
        print(run.path)


def new_run(found: Found, config: str, overrides: Sequence[tuple[str, str]]) -> Run:
    """Checks a config, makes the run folder, reads the data and trains. Returns the finished run."""
    path = find_config(config)
    made = plan(found, read_yaml(path), overrides, f"{path} and the command line")
    options = made.resolved.values["run"]
    run = Run.create(options.folder, found.name, options.name)
    run.write_config(made.resolved.text)
    try:
        study = started(build(made), options.start)
    except BaseException:
        if leads():
            shutil.rmtree(run.path)  # nothing was measured yet
        raise
    _train(made, study, run, resume=False)
    return run


def resume_run(found: Found, folder: Path, overrides: Sequence[tuple[str, str]]) -> Run:
    """Goes on with an interrupted run, with the config in its folder."""
    fixed = [f"--{key}" for key, _ in overrides if not key.startswith(MAY_CHANGE)]
    if fixed:
        raise ConfigError(
            f"a resumed run keeps its settings; leave out {', '.join(fixed)}, or start a new run "
            f"with --config {folder / 'config.yaml'}"
        )
    made = plan_of_run(found, folder, overrides)
    run = Run.open(folder)
    _train(made, build(made), run, resume=True)
    return run


def _train(made: Plan, study: Study, run: Run, *, resume: bool) -> None:
    from diptych.monitors import Monitors
    from diptych.training import pretrain as train

    values = made.resolved.values
    monitors = Monitors(study, run, values["monitor"])
    if leads():
        print(f"run folder: {run.path}", file=sys.stderr, flush=True)
    try:
        train(
            study,
            run,
            trainer=values["trainer"],
            seed=values["run"].seed,
            resume=resume,
            callbacks=monitors.callbacks,
            choose=monitors.choose,
        )
    except SystemExit as left:  # what Lightning makes of Ctrl-C
        if isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from left
        raise
    if leads():
        report.write_report(run.path)
