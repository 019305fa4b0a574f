"""A domain's recipe as settings, a config as a study, and a run's config as the study it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from diptych.data.folder import expand
from diptych.data.leaks import check_leaks
from diptych.discovery import Found, load
from diptych.domain import Domain
from diptych.errors import ConfigError, UserError
from diptych.method import Method
from diptych.nearest import nearest
from diptych.settings.config import Config, Resolved, overridden, read_yaml, resolve
from diptych.settings.schema import REQUIRED, Setting, settings_of, summary_of
from diptych.settings.shipped import find_config
from diptych.settings.walk import Fault
from diptych.study import Study
from diptych.weights import load_encoder

RUN_SECTIONS = ("run", "trainer", "monitor")
Options = Iterable[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is called, where it goes and what it draws its random numbers from.

    Args:
        name: Part of the run folder's name, after the domain.
        folder: The folder that run folders are made in.
        seed: Weights, order and views are drawn from it; the same seed gives the same numbers.
        start: File of encoder weights to go on from (encoder.safetensors of a run, or a torch checkpoint);
            they must fit exactly. By default the weights are drawn.
    """

    name: str = "run"
    folder: str = "runs"
    seed: int = 0
    start: str | None = None


class Plan(NamedTuple):
    """A checked config of a domain, ready to be built."""

    recipe: Callable[..., Study]
    resolved: Resolved

    def build(self) -> Study:
        """Reads the data and builds the study."""
        values = {key: each for key, each in self.resolved.values.items() if key not in RUN_SECTIONS}
        return self.recipe(**values)


def domain_of(found: Found) -> Domain:
    """The domain that was found. Raises UserError with the reason when it cannot be used."""
    if found.domain is None:
        raise UserError(f"domain {found.name!r} cannot be used: {found.error}")
    return found.domain


def run_settings() -> list[Setting]:
    """The sections that every domain has: ``run``, ``trainer`` and ``monitor``."""
    from diptych.monitors import MonitorOptions
    from diptych.training import TrainerOptions

    return [
        Setting("run", RunOptions, RunOptions(), "What the run is called, where it goes and its seed"),
        Setting("trainer", TrainerOptions, TrainerOptions(), "How long and on what it trains"),
        Setting(
            "monitor",
            MonitorOptions,
            MonitorOptions(),
            "What is watched meanwhile, and which encoder is kept",
        ),
    ]


def recipe_settings(found: Found) -> list[Setting]:
    """The settings of a domain's recipe."""
    return settings_of(load(found, domain_of(found).recipe))


def plan(
    found: Found,
    config: Config,
    options: Options,
    source: str,
    faults: Sequence[Fault] = (),
    more_keys: Iterable[str] = (),
) -> Plan:
    """Checks a config with its overrides against the recipe and the run's sections.

    Raises ConfigError with every fault, those in ``faults`` too, before any data is read. ``more_keys``
    are options that an unknown one may have been meant for.
    """
    recipe = load(found, domain_of(found).recipe)
    settings = [*run_settings(), *settings_of(recipe)]
    return Plan(recipe, resolve(overridden(config, options, settings), settings, source, faults, more_keys))


def plan_of_run(
    found: Found,
    run: Path,
    options: Options,
    faults: Sequence[Fault] = (),
    more_keys: Iterable[str] = (),
    without: Sequence[str] = (),
) -> Plan:
    """The plan of a run from the config in its folder, and the defaults of the settings ``without``.

    Raises UserError when that is no run folder.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise UserError(
            f"{run} is not a run folder: it has no config.yaml; give a folder that pretrain wrote"
        )
    config = {name: value for name, value in read_yaml(path).items() if name not in without}
    return plan(found, config, options, f"{path} and the command line", faults, more_keys)


def base_config(found: Found, options: Mapping[str, str]) -> Config:
    """The config that ``--help`` explains: the given one, a run's, or the domain's demo."""
    if "config" in options:
        return read_yaml(find_config(options["config"]))
    if "run" in options and (Path(options["run"]) / "config.yaml").is_file():
        return read_yaml(Path(options["run"]) / "config.yaml")
    return read_yaml(find_config(domain_of(found).demo))


def with_needed_defaults(found: Found, config: Config) -> Config:
    """The config, and from the domain's demo what has no default: enough to read data with."""
    demo = read_yaml(find_config(domain_of(found).demo))
    needed = [
        each.name for each in recipe_settings(found) if each.default is REQUIRED and each.name != "data"
    ]
    return {**{name: demo[name] for name in needed if name in demo}, **config}


def evaluators_of(found: Found) -> Mapping[str, str]:
    """The import paths of a domain's evaluators by name."""
    return domain_of(found).evaluators


def load_evaluator(found: Found, name: str) -> Callable[..., Any]:
    """An evaluator of a domain. Raises ConfigError for an unknown name, with the nearest one."""
    known = evaluators_of(found)
    if name not in known:
        raise ConfigError(f"{found.name} has no evaluator {name!r}; {nearest(name, list(known))}")
    evaluator: Callable[..., Any] = load(found, known[name])
    return evaluator


def evaluator_settings(evaluator: Callable[..., Any]) -> list[Setting]:
    """The options of an evaluator: a dataclass's fields, or a function's parameters after study and encoder."""
    return settings_of(evaluator, skip=0 if isinstance(evaluator, type) else 2)


def with_options(evaluator: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    """The evaluator with its options, which is left to be called with study and encoder.

    Raises ConfigError when a dataclass refuses the options; a function does so when it is called.
    """
    if isinstance(evaluator, type):
        made: Callable[..., Any] = evaluator(**options)
        return made
    return partial(evaluator, **options)


def evaluator_summaries(found: Found) -> list[tuple[str, str]]:
    """Every evaluator of a domain with the first sentence of what it says of itself."""
    return [(name, summary_of(load_evaluator(found, name))) for name in evaluators_of(found)]


def build(made: Plan) -> Study:
    """Reads the data of a plan. Raises DataError when a patient or recording is on both sides of a split."""
    study = made.build()
    check_leaks(study.samples.ids, study.samples.manifest, study.samples.words)
    return study


def started(study: Study, weights: str | None) -> Study:
    """The study with its encoder pretrained from the weights in a file, where one is given.

    Raises UserError when they do not fit. What is compared with pretraining stays random.
    """
    if weights is None:
        return study
    path = expand(weights, "run.start")
    load_encoder(study.new_encoder(), path)  # refused before anything is made of it

    def method(encoder: nn.Module) -> Method:
        load_encoder(encoder, path)
        return study.method(encoder)

    return replace(study, method=method)


def trained_encoder(study: Study, run: Path) -> nn.Module:
    """The encoder that a run exported, in evaluation mode. Raises UserError when it does not fit."""
    path = run / "encoder.safetensors"
    if not path.is_file():
        raise UserError(
            f"{run} has no encoder.safetensors: the run did not end; go on with pretrain --resume {run}"
        )
    encoder = study.new_encoder()
    load_encoder(encoder, path)
    return encoder.eval()
