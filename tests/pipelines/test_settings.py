"""From YAML and options to typed values and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import pytest
import torch
from torch import nn

from diptych.method import OptimizerFactory, ScheduleFactory
from diptych.settings.config import overridden, parse_yaml, resolve
from diptych.settings.plans import evaluator_settings, with_options
from diptych.settings.schema import form_of, settings_of, spell


@dataclass(frozen=True, kw_only=True)
class Band:
    """A band.

    Args:
        low: Hz.
        high: Hz.
    """

    low: float = 0.5
    high: float = 40.0


class View(Protocol):
    def apply(self, wave: torch.Tensor) -> torch.Tensor: ...


class Scale:
    def __init__(self, by: float = 2.0) -> None:
        self.by = by

    def apply(self, wave: torch.Tensor) -> torch.Tensor:
        return wave * self.by


class Flip(Scale):
    pass


def twice(encoder: nn.Module, times: int = 2) -> nn.Module:
    return nn.Sequential(*[encoder] * times)


def recipe(
    *,
    band: Band = Band(high=30.0),
    bands: Mapping[str, Band] = {},
    leads: tuple[str, ...] = ("I", "II"),
    rates: tuple[float, float] | None = None,
    kind: Literal["ecg", "eeg"] = "ecg",
    views: tuple[View, ...] = (),
    wrap: Callable[[nn.Module], nn.Module] | None = None,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
) -> None: ...


SETTINGS = settings_of(recipe)
TEXT = """
optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1e-2}}
bands: {alpha: {low: 8, high: 13}, "no": {}}
views: [test_settings_views.Scale, {class_path: test_settings_views.Flip, init_args: {by: 3}}]
wrap: {class_path: test_settings_views.twice, init_args: {times: 3}}
"""


@pytest.fixture(autouse=True)
def views_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under a name that a class path can give."""
    import sys

    monkeypatch.setitem(sys.modules, "test_settings_views", sys.modules[__name__])


def resolved(text: str = TEXT, **options: str):
    pairs = [(key.replace("__", "."), value) for key, value in options.items()]
    return resolve(overridden(parse_yaml(text, "text"), pairs, SETTINGS), SETTINGS, "text")


def test_values_have_the_types_of_the_signature():
    values = resolved().values
    assert values["band"] == Band(high=30.0)  # the recipe's default, not the dataclass's
    assert values["bands"] == {"alpha": Band(low=8.0, high=13.0), "no": Band()}
    assert values["leads"] == ("I", "II")
    assert [each.by for each in values["views"]] == [2.0, 3.0]
    assert isinstance(values["views"][1], Flip)
    assert isinstance(values["wrap"], partial)
    assert len(values["wrap"](nn.Linear(1, 1))) == 3
    optimizer = values["optimizer"]([nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.defaults["lr"] == 0.01
    assert values["schedule"] is None


def test_the_resolved_text_gives_the_same_again():
    first = resolved()
    again = resolved(first.text)
    assert again.text == first.text
    assert again.values["bands"] == first.values["bands"]
    assert "momentum: 0.0" in first.text  # defaults of other libraries are kept too


def test_options_override_and_a_class_takes_short_names():
    values = resolved(
        band__high="25", bands__theta__low="4", leads="[V1, V2]", rates="[100, 250]", optimizer__lr="0.5"
    ).values
    assert values["band"] == Band(high=25.0)
    assert values["bands"]["theta"] == Band(low=4.0)
    assert values["leads"] == ("V1", "V2")
    assert values["rates"] == (100.0, 250.0)
    assert values["optimizer"].keywords["lr"] == 0.5


def test_another_class_drops_the_arguments_of_the_one_before():
    text = "optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}"
    changed = resolved(text, optimizer="torch.optim.AdamW").values["optimizer"]
    assert changed.func is torch.optim.AdamW
    assert changed.keywords["lr"] == 0.001
    same = resolved(text, optimizer="torch.optim.SGD").values["optimizer"]
    assert same.keywords["momentum"] == 0.9
    none = resolved(text + "\nschedule: {class_path: torch.optim.lr_scheduler.ConstantLR}", schedule="null")
    assert none.values["schedule"] is None


def test_words_that_yaml_reads_as_something_else_stay_text():
    config = parse_yaml("a: no\nb: on\nc: 2020-01-01\nd: true\ne: 1e-3\nf: 12", "text")
    assert config == {"a": "no", "b": "on", "c": "2020-01-01", "d": True, "e": "1e-3", "f": 12}


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (int, "a whole number"),
        (float | None, "a number or null"),
        (tuple[str, ...], "a list of texts"),
        (tuple[float, float] | None, "a list of 2: a number, a number or null"),
        (Literal["a", "b"], "one of a, b"),
        (Mapping[str, float], "a mapping of texts to numbers"),
        (nn.Module, "the class path of a Module"),
        (Callable[[int], nn.Module], "the class path of what makes a Module"),
        (Band, "settings of Band"),
    ],
)
def test_types_are_said_in_plain_words(hint, text):
    assert spell(hint) == text


def test_forms_follow_the_types():
    kinds = {each.name: form_of(each.hint).kind for each in SETTINGS}
    assert kinds == {
        "band": "section",
        "bands": "named",
        "leads": "leaf",
        "rates": "leaf",
        "kind": "leaf",
        "views": "items",
        "wrap": "open",
        "optimizer": "open",
        "schedule": "open",
    }


@dataclass(frozen=True, kw_only=True)
class Notch(Band):
    """A band with a notch.

    Args:
        notch: Mains frequency in Hz.
    """

    notch: float | None = None


def test_what_a_dataclass_inherits_keeps_its_explanation():
    assert [(each.name, each.doc) for each in settings_of(Notch)] == [
        ("low", "Hz."),
        ("high", "Hz."),
        ("notch", "Mains frequency in Hz."),
    ]


@dataclass(frozen=True, kw_only=True)
class Narrow(Band):
    """A band that says anew what an inherited field means, and gives another default.

    Args:
        high: Hz, of a narrow band.
    """

    high: float = 1.0


def test_a_dataclass_may_say_anew_what_it_inherits():
    assert [(each.name, each.default, each.doc) for each in settings_of(Narrow)] == [
        ("low", 0.5, "Hz."),
        ("high", 1.0, "Hz, of a narrow band."),
    ]


@dataclass(frozen=True, kw_only=True)
class Counting(Band):
    """An evaluator that is a dataclass."""

    def __call__(self, study: str, encoder: str) -> tuple[object, ...]:
        return study, encoder, self.low, self.high


def counting(study: str, encoder: str, *, low: float = 0.5, high: float = 40.0) -> tuple[object, ...]:
    """An evaluator that is a function.

    Args:
        study: Anything.
        encoder: Anything.
        low: Hz.
        high: Hz.
    """
    return study, encoder, low, high


def test_an_evaluator_is_a_dataclass_or_a_function():
    assert evaluator_settings(Counting) == evaluator_settings(counting)
    for evaluator in (Counting, counting):
        assert with_options(evaluator, {"high": 9.0})("study", "encoder") == ("study", "encoder", 0.5, 9.0)


class Grid(nn.Module):
    """Takes channels and dimensions from its caller, and a width from the config."""

    def __init__(self, channels: int, dims: int, *, width: int = 4) -> None:
        super().__init__()
        self.size = (channels, dims, width)


def test_a_factory_may_be_given_two_arguments_by_its_caller():
    def recipe(*, encoder: Callable[[int, int], nn.Module]) -> None: ...

    config = {"encoder": {"class_path": f"{__name__}.Grid", "init_args": {"width": 9}}}
    values = resolve(config, settings_of(recipe), "here").values
    assert values["encoder"](2, 3).size == (2, 3, 9)
