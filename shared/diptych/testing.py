"""The contract of a domain as a check that built-in domains and every plug-in author call in their tests."""

from __future__ import annotations

import inspect
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_type_hints

import numpy as np
import torch
from torch import Tensor, nn

from diptych.data.leaks import check_leaks
from diptych.discovery import Found, find_domain, load
from diptych.domain import Domain
from diptych.errors import UserError
from diptych.evaluation.embeddings import embed
from diptych.evaluation.table import Table
from diptych.recipes import grid_width_of
from diptych.runs import Run
from diptych.settings.config import read_yaml
from diptych.settings.plans import RUN_SECTIONS, evaluator_settings, plan
from diptych.settings.schema import REQUIRED, Setting, call_of, form_of, settings_of
from diptych.settings.shipped import find_config
from diptych.study import Indices, Study
from diptych.training import TrainerOptions, pretrain
from diptych.types import Encoded, Views

MOST = 64  # samples that batches and embeddings are checked on


def check_domain(domain: Domain, overrides: Sequence[tuple[str, str]] = ()) -> None:
    """Runs the whole contract of :class:`diptych.domain.Domain` on the domain's demo config.

    Names and import paths; a recipe and evaluators with typed, documented signatures; a study whose splits
    are clean; views with ids, batches that a seed repeats; an encoder that returns
    :class:`diptych.types.Encoded`; a pretraining step that changes its weights; embeddings that are finite
    and aligned with the indices.

    Args:
        domain: The domain; its package has to be installed.
        overrides: Settings of the demo config to change, as dotted keys and texts.

    Raises:
        AssertionError: names everything that breaks the contract.
    """
    problems = list(_declared(domain))
    _report(domain, problems)
    found = find_domain(domain.name)
    recipe = load(found, domain.recipe)
    problems += _recipe_problems(recipe)
    for name, path in domain.evaluators.items():
        problems += _evaluator_problems(name, load(found, path), recipe)
    for name, path in domain.commands.items():
        command = load(found, path)
        problems += [
            f"command {name!r}: {each}" for each in _signature_problems(command, settings_of(command))
        ]
    _report(domain, problems)
    study = _study(found, domain, overrides)
    indices = np.arange(min(MOST, len(study.samples)), dtype=np.int64)
    problems += [*_sample_problems(study), *_view_problems(study, indices), *_batch_problems(study)]
    _report(domain, problems)
    problems += [*_encoder_problems(study, indices), *_baseline_problems(study, indices)]
    _report(domain, problems)
    _report(domain, list(_training_problems(study, indices)))


def _report(domain: Domain, problems: Sequence[str]) -> None:
    if problems:
        lines = "\n".join(f"  - {each}" for each in problems)
        raise AssertionError(
            f"domain {domain.name!r} breaks its contract in {len(problems)} places:\n{lines}"
        )


def _declared(domain: Domain) -> Iterator[str]:
    """What the declaration itself says: names, import paths, the demo config."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", domain.name):
        yield f"name: expected lower-case letters, digits and '_', came {domain.name!r}"
    if not domain.summary.strip() or "\n" in domain.summary:
        yield f"summary: expected one line, came {domain.summary!r}"
    try:
        found = find_domain(domain.name)
    except UserError as error:
        yield f"entry point: {error}"
        return
    if found.domain != domain:
        yield f"entry point: {found.distribution} provides another domain of this name"
    paths = {
        "recipe": domain.recipe,
        **{f"evaluator {name!r}": path for name, path in domain.evaluators.items()},
        **{f"command {name!r}": path for name, path in domain.commands.items()},
    }
    for what, path in paths.items():
        try:
            target = load(found, path)
        except UserError as error:
            yield f"{what}: {error}"
            continue
        if not callable(target):
            yield f"{what}: {path} is a {type(target).__name__}, expected a function"
    try:
        find_config(domain.demo)
    except UserError as error:
        yield f"demo: {error}"


def _recipe_problems(recipe: Callable[..., Any]) -> Iterator[str]:
    settings = settings_of(recipe)
    yield from (f"recipe: {each}" for each in _signature_problems(recipe, settings))
    returned = get_type_hints(recipe).get("return")
    if not (isinstance(returned, type) and issubclass(returned, Study)):
        yield "recipe: expected the return type diptych.study.Study"
    data = next((each for each in settings if each.name == "data"), None)
    form = form_of(data.hint) if data else None
    if form is None or form.kind != "section" or "path" not in {x.name for x in settings_of(form.inner)}:
        yield "recipe: expected a setting 'data' of a dataclass with the field 'path', which inspect fills in"
    for each in settings:
        if each.name in RUN_SECTIONS:
            yield f"recipe: the setting {each.name!r} belongs to every run; give it another name"
        if form_of(each.hint).kind == "open" and each.default not in (REQUIRED, None):
            yield f"recipe: {each.name} may be any class and takes no default but None; leave it to configs"


def _evaluator_problems(
    name: str, evaluator: Callable[..., Any], recipe: Callable[..., Any]
) -> Iterator[str]:
    what = f"evaluator {name!r}"
    own = list(inspect.signature(evaluator).parameters.values())
    call: Callable[..., Any] | None = evaluator
    called, given = own[:2], own[2:]
    if isinstance(evaluator, type):  # its call has no options, they are its fields
        call = call_of(evaluator)
        called, given = list(inspect.signature(call).parameters.values())[1:] if call else [], own
    if len(called) != 2 or any(each.kind is each.KEYWORD_ONLY for each in called):
        yield f"{what}: expected (study, encoder, *, options), or a dataclass that is called with (study, encoder)"
        return
    if any(each.kind is not each.KEYWORD_ONLY for each in given):
        yield f"{what}: expected options after study and encoder to be keyword-only"
    options = evaluator_settings(evaluator)
    yield from (f"{what}: {each}" for each in _signature_problems(evaluator, options))
    if get_type_hints(call).get("return") is not Table:
        yield f"{what}: expected the return type diptych.evaluation.table.Table"
    taken = {each.name for each in settings_of(recipe)} | set(RUN_SECTIONS) | {"run", "also"}
    for each in options:
        if each.name in taken:
            yield f"{what}: the option {each.name!r} is also a setting of a run; give it another name"


def _signature_problems(
    target: Callable[..., Any], settings: Sequence[Setting], prefix: str = ""
) -> Iterator[str]:
    """Settings without a type or a line of documentation, down to the fields of dataclasses."""
    for each in settings:
        if each.hint is Any:
            yield f"{prefix}{each.name} has no type, so it cannot be checked before data are read"
        if not each.doc:
            yield f"{prefix}{each.name} is missing in the Args of {target.__qualname__}, which --help shows"
        form = form_of(each.hint)
        inner = form_of(form.inner) if form.kind == "named" else form
        if inner.kind == "section":
            yield from _signature_problems(inner.inner, settings_of(inner.inner), f"{prefix}{each.name}.")


def _study(found: Found, domain: Domain, overrides: Sequence[tuple[str, str]]) -> Study:
    path = find_config(domain.demo)
    made = plan(found, read_yaml(path), overrides, str(path)).build()
    if not isinstance(made, Study):
        _report(domain, [f"recipe: expected it to return a Study, came {type(made).__name__}"])
    return made


def _sample_problems(study: Study) -> Iterator[str]:
    samples = study.samples
    if not len(samples.where("train")):
        yield "samples: the demo has none in the training split"
    other = set(samples.ids["split"]) - {"train", "validation", "test"}
    if other:
        yield f"samples: split is train, validation or test, came {', '.join(map(repr, sorted(other)))}"
    try:
        check_leaks(samples.ids, samples.manifest, samples.words)
    except UserError as error:
        yield f"samples: {error}"


def _view_problems(study: Study, indices: Indices) -> Iterator[str]:
    reversed_indices = indices[::-1].copy()
    sample: list[int] = []
    for batch in study.plain(reversed_indices):
        if not isinstance(batch, Views):
            yield f"plain loader: expected it to yield diptych.types.Views, came {type(batch).__name__}"
            return
        if "sample" not in batch.groups:
            yield f"plain loader: expected groups['sample'], came {', '.join(batch.groups) or 'no groups'}"
            return
        yield from (f"plain loader: {each}" for each in _group_problems(batch.groups))
        sample += batch.groups["sample"].tolist()
    if len(set(sample)) != len(indices):
        yield f"plain loader: expected a unique id in groups['sample'] for each of {len(indices)} samples"
    forward = [each for batch in study.plain(indices) for each in batch.groups["sample"].tolist()]
    if forward[::-1] != sample:
        yield "plain loader: expected samples in the order of the indices, with ids that do not depend on it"


def _group_problems(groups: Mapping[str, Tensor]) -> Iterator[str]:
    for name, ids in groups.items():
        of_positions = ids.ndim > 1 and len(ids) == len(groups["sample"])
        if ids.dtype != torch.int64 or not (ids.ndim == 1 or of_positions):
            yield (
                f"groups[{name!r}] is {ids.dtype} of shape {tuple(ids.shape)}, expected int64 of shape (n,) or, "
                "with an id for each position, (n, *space)"
            )


def _batch_problems(study: Study) -> Iterator[str]:
    """A seed repeats the batches; another seed gives others."""
    train = study.samples.where("train")

    def first(seed: int) -> bytes:
        buffer = io.BytesIO()
        batch = next(iter(study.training(train, seed)))
        torch.save((batch.views, dict(batch.groups)), buffer)
        return buffer.getvalue()

    if first(0) != first(0):
        yield "training loader: expected the same first batch from the same seed"
    if first(0) == first(1):
        yield "training loader: expected another first batch from another seed"


def _encoder_problems(study: Study, indices: Indices) -> Iterator[str]:
    encoder = _new_encoder(study, 0).eval()
    if not isinstance(encoder, nn.Module):
        yield f"encoder: expected a torch.nn.Module, came {type(encoder).__name__}"
        return
    width = getattr(encoder, "width", None)
    if not isinstance(width, int):
        yield f"encoder: expected a whole number 'width', came {width!r}"
        return
    if not _same(encoder, _new_encoder(study, 0)) or _same(encoder, _new_encoder(study, 1)):
        yield "new_encoder: expected weights drawn from torch's random state, and from it alone"
    batch = next(iter(study.plain(indices)))
    with torch.no_grad():
        encoded = encoder(batch.views[0])
    if not isinstance(encoded, Encoded):
        yield f"encoder: expected it to return diptych.types.Encoded, came {type(encoded).__name__}"
        return
    count = len(batch.groups["sample"])
    shapes = {"whole": (encoded.whole, (count, width)), "parts": (encoded.parts, (None, width))}
    for name, (rows, expected) in shapes.items():
        if rows is not None and (
            rows.ndim != 2 or rows.shape[1] != width or expected[0] not in (None, len(rows))
        ):
            yield f"encoder: {name} has shape {tuple(rows.shape)}, expected ({expected[0] or 'm'}, {width})"
    wide = grid_width_of(encoder)
    if encoded.grid is not None and tuple(encoded.grid.shape[:2]) != (count, wide):
        yield f"encoder: grid has shape {tuple(encoded.grid.shape)}, expected ({count}, {wide}, *space)"


def _baseline_problems(study: Study, indices: Indices) -> Iterator[str]:
    if study.baseline is None:
        return
    values = study.baseline(indices).values
    backwards = study.baseline(indices[::-1].copy()).values
    if values.ndim != 2 or len(values) != len(indices):
        yield f"baseline: values have shape {values.shape}, expected ({len(indices)}, features)"
    elif not np.allclose(values[::-1], backwards, equal_nan=True):
        yield "baseline: expected rows in the order of the indices"


def _training_problems(study: Study, indices: Indices) -> Iterator[str]:
    """One step changes the weights; what comes out embeds finite rows in the order of the indices."""
    torch.manual_seed(0)
    before = {name: value.clone() for name, value in study.new_encoder().state_dict().items()}
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(folder, "check", "domain")
        options = TrainerOptions(max_steps=1, accelerator="cpu", devices=1, progress="off")
        encoder = pretrain(study, run, trainer=options, seed=0).encoder
    after = encoder.state_dict()
    if before.keys() != after.keys():
        yield "method: its encoder has other weights than new_encoder gives, so it could not be loaded again"
    elif all(torch.equal(before[name], value.cpu()) for name, value in after.items()):
        yield "method: one pretraining step changed no weight of the encoder"
    rows = embed(encoder, study.plain(indices), "cpu")
    backwards = embed(encoder, study.plain(indices[::-1].copy()), "cpu")
    if len(rows) != len(indices):
        yield f"embeddings: {len(rows)} rows for {len(indices)} samples"
    elif not np.allclose(rows[::-1], backwards, rtol=1e-3, atol=1e-5):
        yield "embeddings: expected rows in the order of the indices, whatever shares their batch"


def _new_encoder(study: Study, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return study.new_encoder()


def _same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in pairs)
