from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins import MixedPrecision
from references_training import naive_training
from synthetic import Apart, EachView, Encoder, sgd, shared_method, study
from torch import Tensor, nn

from diptych.errors import UserError
from diptych.method import Method, Pass, Phase, Term
from diptych.metrics_file import read_metrics
from diptych.pretrainer import Pretrainer
from diptych.runs import Run
from diptych.training import TrainerOptions, pretrain, quiet_lightning, seed_everything
from diptych.types import Encoded, Views
from diptych.weights import read_weights

OPTIONS: dict[str, Any] = {"accelerator": "cpu", "progress": "off", "log_every": 1}


def batches_of(of: Any, seed: int, epochs: int) -> list[list[Views]]:
    loader = of.training(of.samples.where("train"), seed)
    found = []
    for epoch in range(epochs):
        loader.position.set_epoch(epoch)
        found.append(list(loader))
    return found


def grouped(batches: Sequence[Views], size: int) -> list[Sequence[Views]]:
    return [batches[start : start + size] for start in range(0, len(batches), size)]


@pytest.mark.parametrize("accumulate", [1, 2, 3])  # 7 batches an epoch: the last group is smaller
@pytest.mark.parametrize("clip", [None, 0.3])
def test_trains_as_plain_loops_do(tmp_path: Path, accumulate: int, clip: float | None) -> None:
    of = study(method=shared_method, dropout=0.0)
    options = TrainerOptions(max_epochs=2, accumulate=accumulate, gradient_clip=clip, **OPTIONS)
    result = pretrain(of, Run(tmp_path), trainer=options, seed=4)
    seed_everything(4)
    method = shared_method(of.new_encoder())
    groups = [group for epoch in batches_of(of, 4, 2) for group in grouped(epoch, accumulate)]
    history = naive_training(method, groups, clip)
    for name, expected in method.encoder.state_dict().items():
        torch.testing.assert_close(result.encoder.state_dict()[name], expected, rtol=1e-5, atol=1e-6)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert (
        [row["step"] for row in rows] == list(range(1, len(history) + 1)) == list(range(1, result.steps + 1))
    )
    for row, expected_row in zip(rows, history, strict=True):
        for name, value in expected_row.items():
            assert row[name] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_a_phase_changes_only_what_it_trains(tmp_path: Path) -> None:
    """The second phase's gradient reaches the encoder; with the first phase standing still, nothing moves it."""

    def method(encoder: nn.Module) -> Method:
        whole = shared_method(encoder)
        still = lambda parameters: torch.optim.SGD(parameters, lr=0.0)  # noqa: E731
        first, second = whole.phases
        phases = [
            Phase(name=first.name, passes=first.passes, trains=first.trains, optimizer=still),
            second,
        ]
        return Method(dict(whole.parts.items()), phases, encoder)

    of = study(method=method, dropout=0.0)
    seed_everything(4)
    before = of.new_encoder().state_dict()
    result = pretrain(of, Run(tmp_path), trainer=TrainerOptions(max_epochs=1, **OPTIONS), seed=4)
    for name, tensor in result.encoder.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is None for parameter in result.encoder.parameters())
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows[-1]["loss/again"] < rows[0]["loss/again"]


class Noted(nn.Module):
    """Encodes, and notes when it does so and whether with gradient."""

    def __init__(self, encoder: nn.Module, name: str, notes: list[str]) -> None:
        super().__init__()
        self.encoder, self.name, self.notes = encoder, name, notes

    def forward(self, batch: Views) -> tuple[Encoded, ...]:
        self.notes.append(f"{self.name} {'with' if torch.is_grad_enabled() else 'without'} gradient")
        encoded = tuple(self.encoder(view) for view in batch.views)
        if torch.is_grad_enabled():
            encoded[0].whole.register_hook(lambda gradient: self.notes.append(f"{self.name} backward"))
        return encoded


class Near(nn.Module):
    """Distance between the two branches."""

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        return (online[0].whole - target[0].whole).square().mean()


def test_every_pass_is_backpropagated_before_the_next_is_encoded(tmp_path: Path) -> None:
    notes: list[str] = []

    def method(encoder: nn.Module) -> Method:
        teacher = copy.deepcopy(encoder)
        teacher.requires_grad_(False)
        one, two, target = (
            Noted(encoder, "first", notes),
            Noted(encoder, "second", notes),
            Noted(teacher, "target", notes),
        )
        passes = [
            Pass(online=one, target=target, terms=[Term(name="one", objective=Near())]),
            Pass(online=two, target=target, terms=[Term(name="two", objective=Near())]),
        ]
        after = [lambda: notes.append(f"after, {'with' if torch.is_grad_enabled() else 'without'} gradient")]
        phase = Phase(name="only", passes=passes, trains=[one], optimizer=sgd, after=after)
        return Method({"one": one, "two": two, "target": target}, [phase], encoder)

    pretrain(study(method=method), Run(tmp_path), trainer=TrainerOptions(max_steps=2, **OPTIONS), seed=0)
    step = ["target without gradient", "first with gradient", "first backward"]
    step += ["target without gradient", "second with gradient", "second backward"]
    assert notes == [*step, "after, without gradient"] * 2


class Breaks(nn.Module):
    """A loss that becomes infinite at its fifth batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
        self.seen += 1
        return online[0].whole.mean() * (float("nan") if self.seen == 5 else 1.0)


def breaking_method(encoder: nn.Module) -> Method:
    branch, apart = EachView(encoder), Apart()
    terms = [Term(name="apart", objective=apart), Term(name="ratio", objective=Breaks())]
    phase = Phase(
        name="only", passes=[Pass(online=branch, terms=terms)], trains=[branch, apart], optimizer=sgd
    )
    return Method({"branch": branch, "apart": apart}, [phase], encoder)


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(3, 4), (100, 2)])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    tmp_path: Path, log_every: int, checkpoint_every: int
) -> None:
    options = TrainerOptions(
        max_epochs=3, checkpoint_every=checkpoint_every, **(OPTIONS | {"log_every": log_every})
    )
    with pytest.raises(UserError, match=r"not finite .* from step 5 on: loss/ratio;") as caught:
        pretrain(study(method=breaking_method), Run(tmp_path), trainer=options, seed=0)
    assert "loss/apart" not in str(caught.value)
    kept = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert kept["pretrainer"]["step"] == 4
    assert all(tensor.isfinite().all() for tensor in kept["state_dict"].values())
    assert not (tmp_path / "encoder.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """A finite loss with an infinite gradient: the square root of zero."""

    class Root(nn.Module):
        def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
            return (0 * online[0].whole).sqrt().sum()

    def method(encoder: nn.Module) -> Method:
        branch = EachView(encoder)
        passes = [Pass(online=branch, terms=[Term(name="root", objective=Root())])]
        return Method(
            {"b": branch}, [Phase(name="p", passes=passes, trains=[branch], optimizer=sgd)], encoder
        )

    options = TrainerOptions(max_epochs=1, checkpoint_every=1, **(OPTIONS | {"log_every": 100}))
    with pytest.raises(UserError, match=r"after step 1 the weights are not finite .*: b\.encoder\.layers\.0"):
        pretrain(study(method=method), Run(tmp_path), trainer=options, seed=0)
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_two_terms_of_one_name_are_refused() -> None:
    branch = EachView(Encoder())
    terms = [Term(name="near", objective=Near())] * 2
    phase = Phase(name="only", passes=[Pass(online=branch, terms=terms)], trains=[branch], optimizer=sgd)
    with pytest.raises(ValueError, match="two terms of the method are named 'near'"):
        Pretrainer(Method({"branch": branch}, [phase], branch), total_steps=1, batches_per_epoch=1)


def test_a_loss_without_weights_is_refused(tmp_path: Path) -> None:
    class Zero(nn.Module):
        def forward(self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views) -> Tensor:
            return torch.zeros(())

    def method(encoder: nn.Module) -> Method:
        branch = EachView(encoder)
        passes = [Pass(online=branch, terms=[Term(name="zero", objective=Zero())])]
        return Method(
            {"b": branch}, [Phase(name="p", passes=passes, trains=[branch], optimizer=sgd)], encoder
        )

    with pytest.raises(RuntimeError, match="phase 'p': no weight to train has a part in the loss of zero"):
        pretrain(study(method=method), Run(tmp_path), trainer=TrainerOptions(max_steps=1, **OPTIONS), seed=0)


def test_logs_the_mean_since_the_last_row(tmp_path: Path) -> None:
    for name, every in (("each", 1), ("third", 3)):
        options = TrainerOptions(max_steps=9, **(OPTIONS | {"log_every": every}))
        pretrain(study(method=shared_method), Run(tmp_path / name), trainer=options, seed=0)
    each, third = (read_metrics(tmp_path / name / "metrics.csv") for name in ("each", "third"))
    assert [row["step"] for row in third] == [3, 6, 9]
    for number, row in enumerate(third):
        mean = sum(every["loss/total"] for every in each[3 * number : 3 * number + 3]) / 3
        assert row["loss/total"] == pytest.approx(mean, rel=1e-5)


def test_bfloat16_trains_and_logs_float32(tmp_path: Path) -> None:
    options = TrainerOptions(max_steps=5, precision="bf16-mixed", **OPTIONS)
    pretrain(study(method=shared_method), Run(tmp_path), trainer=options, seed=0)
    weights = read_weights(tmp_path / "encoder.safetensors")
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in weights.values())


def test_half_precision_gradients_are_clipped_unscaled() -> None:
    """With a loss scale of 2^12 as 16-mixed uses it; the norms are those of a training in float32."""
    norms = []
    for plugin in (None, MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))):
        of = study(method=shared_method, dropout=0.0)
        seed_everything(1)
        pretrainer = Pretrainer(
            shared_method(of.new_encoder()), total_steps=5, batches_per_epoch=7, clip=0.1, log_every=5
        )
        plain: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "max_epochs": -1}
        quiet: dict[str, Any] = {"enable_progress_bar": False, "enable_model_summary": False}
        with quiet_lightning():
            engine = Trainer(accelerator="cpu", plugins=[plugin] if plugin else None, **plain, **quiet)
            engine.fit(pretrainer, of.training(of.samples.where("train"), 1))
        assert pretrainer.step == 5
        norms.append({name: value for name, value in pretrainer.latest.items() if "gradient" in name})
    assert norms[0].keys() == {"gradient/align", "gradient/restore"}
    assert norms[1] == pytest.approx(norms[0], rel=0.05)
