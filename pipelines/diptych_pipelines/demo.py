"""``diptych DOMAIN demo``: the three commands on the domain's demo data."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Sequence

from diptych.settings.config import read_yaml
from diptych.settings.plans import domain_of, evaluator_settings, load_evaluator
from diptych.settings.shipped import find_config
from diptych_pipelines.commands import Call
from diptych_pipelines.embedding import embed
from diptych_pipelines.evaluation import evaluate
from diptych_pipelines.pretraining import new_run


def demo(call: Call, *, folder: str = "runs") -> None:
    """Pretrains, evaluates and embeds on the demo data of a domain.

    Args:
        folder: The folder that the run folder is made in.
    """
    began = time.monotonic()
    found = call.domain
    config = domain_of(found).demo
    _show(["diptych", found.name, "pretrain", "--config", config, "--run.folder", folder])
    run = new_run(found, config, [("run.folder", folder)])
    evaluator = next(iter(domain_of(found).evaluators))
    options = _label_option(call, evaluator, config)
    words = [word for key, text in options for word in (f"--{key}", text)]
    _show(["diptych", found.name, "evaluate", evaluator, "--run", str(run.path), *words])
    evaluate(Call(found, options), evaluator, run=str(run.path))
    out = str(run.path / "embeddings.parquet")
    _show(["diptych", found.name, "embed", out, "--run", str(run.path)])
    embed(Call(found), None, out, run=str(run.path))
    print(f"report: {run.path / 'report.html'}")
    print(f"the demo took {time.monotonic() - began:.0f} s", file=sys.stderr)


def _label_option(call: Call, evaluator: str, config: str) -> list[tuple[str, str]]:
    """The first label of the config, for an evaluator that asks for one."""
    names = [each.name for each in evaluator_settings(load_evaluator(call.domain, evaluator))]
    labels = list(read_yaml(find_config(config)).get("labels") or {})
    return [("label", labels[0])] if "label" in names and labels else []


def _show(words: Sequence[str]) -> None:
    print(f"$ {shlex.join(words)}", flush=True)
