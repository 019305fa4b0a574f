"""check_domain passes a good plug-in and says what is wrong with a bad one."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass, replace
from functools import wraps
from importlib import import_module
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from diptych.data.quarantine import Quarantine
from diptych.evaluation.table import Table
from diptych.study import Samples, Study
from diptych.testing import check_domain
from diptych.types import Encoded, Views


@pytest.fixture
def sines(installed) -> ModuleType:
    for name in ("recipe", "learning", "waves"):
        import_module(f"diptych_sines.{name}")
    return import_module("diptych_sines")


def changed_study(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """Makes the recipe return a Study with other fields; a field's change is a function of the study."""
    recipe = sys.modules["diptych_sines.recipe"]
    whole = inspect.unwrap(recipe.build)

    @wraps(whole)
    def build(**settings: object) -> Study:
        study = whole(**settings)
        return replace(study, **{name: change(study) for name, change in changes.items()})

    monkeypatch.setattr(recipe, "build", build)


def broken(domain: object, message: str, *overrides: tuple[str, str]) -> None:
    with pytest.raises(AssertionError) as raised:
        check_domain(domain, overrides)
    assert "domain 'sines' breaks its contract" in str(raised.value)
    assert message in str(raised.value)


def test_a_good_plug_in_passes(sines):
    check_domain(sines.domain)


def test_a_domain_that_is_not_installed_is_told(sines):
    with pytest.raises(AssertionError, match="no domain is called 'absent'"):
        check_domain(replace(sines.domain, name="absent"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"summary": "two\nlines"}, "summary: expected one line"),
        ({"recipe": "diptych_sines.recipe:bild"}, "diptych_sines.recipe has no 'bild'"),
        (
            {"evaluators": {"nearest": "diptych_sines.absent:nearest"}},
            "there is no module 'diptych_sines.absent'",
        ),
        ({"demo": "sines/absent.yaml"}, "demo: there is no config 'sines/absent.yaml'"),
        ({"recipe": "diptych_sines.recipe:spectrum"}, "recipe: expected the return type diptych.study.Study"),
        (
            {"evaluators": {"bad": "diptych_sines.recipe:spectrum"}},
            "evaluator 'bad': expected the return type",
        ),
    ],
)
def test_a_wrong_declaration_is_told(sines, monkeypatch, change, message):
    wrong = replace(sines.domain, **change)
    monkeypatch.setattr(sines, "domain", wrong)
    broken(wrong, message)


def test_signatures_must_be_typed_and_documented(sines, monkeypatch):
    def untyped(*, data: sines.waves.Source, speed, encoder: nn.Module = sines.learning.WaveEncoder) -> Study:
        """No Args."""
        raise AssertionError

    def evaluator(study: Study, encoder: nn.Module, data: int) -> int:
        """No Args."""
        return 0

    untyped.__annotations__ = {"data": sines.waves.Source, "encoder": nn.Module, "return": Study}
    monkeypatch.setattr(sys.modules["diptych_sines.recipe"], "build", untyped)
    monkeypatch.setattr(sys.modules["diptych_sines.learning"], "nearest", evaluator)
    for message in (
        "recipe: speed has no type",
        "recipe: speed is missing in the Args of",
        "recipe: encoder may be any class and takes no default but None",
        "evaluator 'nearest': expected options after study and encoder to be keyword-only",
        "evaluator 'nearest': the option 'data' is also a setting of a run",
    ):
        broken(sines.domain, message)


@dataclass(frozen=True)
class Loose:
    """Counts something.

    Args:
        speed: In steps a second.
    """

    speed: float = 1.0
    data: int = 0

    def __call__(self, study: Study, encoder: nn.Module) -> int:
        return 0


@dataclass(frozen=True, kw_only=True)
class Uncalled:
    """Nothing to call."""


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Takes an option when it is called."""

    def __call__(self, study: Study, encoder: nn.Module, speed: float = 1.0) -> Table:
        raise AssertionError


@dataclass(frozen=True, kw_only=True)
class Counting:
    """Counts something.

    Args:
        speed: In steps a second.
    """

    speed: float = 1.0

    def __call__(self, study: Study, encoder: nn.Module) -> Table:
        raise AssertionError


@dataclass(frozen=True, kw_only=True)
class Inheriting(Counting):
    """Counts something else, as fast."""


WRONG_CALL = "expected (study, encoder, *, options), or a dataclass that is called with (study, encoder)"


@pytest.mark.parametrize(
    ("evaluator", "messages"),
    [
        (
            Loose,
            [
                "expected options after study and encoder to be keyword-only",
                "data is missing in the Args of Loose",
                "expected the return type diptych.evaluation.table.Table",
                "the option 'data' is also a setting of a run",
            ],
        ),
        (Uncalled, [WRONG_CALL]),
        (Greedy, [WRONG_CALL]),
        (Counting, []),
        (Inheriting, []),
    ],
)
def test_evaluators_that_are_dataclasses_are_checked_too(sines, monkeypatch, evaluator, messages):
    monkeypatch.setattr(sys.modules["diptych_sines.learning"], "nearest", evaluator)
    if not messages:
        check_domain(sines.domain)
        return
    with pytest.raises(AssertionError) as raised:
        check_domain(sines.domain)
    told = [line.partition("evaluator 'nearest': ")[2] for line in str(raised.value).splitlines()[1:]]
    assert len(told) == len(messages)
    assert all(map(str.startswith, told, messages))


def test_a_training_that_changes_nothing_is_told(sines):
    broken(sines.domain, "one pretraining step changed no weight", ("optimizer.lr", "0"))


def test_an_encoder_must_keep_its_promises(sines, monkeypatch):
    learning = sys.modules["diptych_sines.learning"]
    forward = learning.WaveEncoder.forward

    def flat(self: nn.Module, wave: torch.Tensor) -> torch.Tensor:
        return forward(self, wave).whole

    def wide(self: nn.Module, wave: torch.Tensor) -> Encoded:
        return Encoded(torch.cat([forward(self, wave).whole] * 2, dim=1))

    for change, message in (
        (flat, "expected it to return diptych.types.Encoded"),
        (wide, "whole has shape (32, 32)"),
    ):
        monkeypatch.setattr(learning.WaveEncoder, "forward", change)
        with pytest.raises(AssertionError, match=message.replace("(", "\\(").replace(")", "\\)")):
            check_domain(sines.domain)


def test_new_encoders_must_follow_the_random_state(sines, monkeypatch):
    def fixed(study: Study):
        def new() -> nn.Module:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(7)
                return study.new_encoder()

        return new

    changed_study(monkeypatch, new_encoder=fixed)
    broken(sines.domain, "expected weights drawn from torch's random state")


def test_loaders_must_give_ids_and_follow_their_seed(sines, monkeypatch):
    changed_study(monkeypatch, training=lambda study: lambda indices, seed: study.training(indices, 0))
    broken(sines.domain, "training loader: expected another first batch from another seed")
    changed_study(
        monkeypatch,
        plain=lambda study: lambda indices: [Views(each.views, {}) for each in study.plain(indices)],
    )
    broken(sines.domain, "plain loader: expected groups['sample'], came no groups")
    changed_study(monkeypatch, plain=lambda study: lambda indices: study.plain(np.sort(indices)))
    broken(sines.domain, "plain loader: expected samples in the order of the indices")


def test_splits_must_be_clean(sines, monkeypatch):
    def mixed(study: Study) -> Samples:
        ids = study.samples.ids.assign(split=np.resize(["train", "test"], len(study.samples)))
        return Samples(
            ids=ids, labels=study.samples.labels, manifest=study.samples.manifest, quarantine=Quarantine()
        )

    changed_study(monkeypatch, samples=mixed)
    broken(sines.domain, "is in test and train")
