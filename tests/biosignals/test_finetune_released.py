"""Fine-tuning as released: the head's double sigmoid, the hidden masking, and that the default has neither."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from diptych.data.identity import Split
from diptych.data.loading import OrderedBatches, ResumableLoader
from diptych.data.manifest import Manifest
from diptych.data.quarantine import Quarantine
from diptych.errors import ConfigError
from diptych.evaluation import finetune as core
from diptych.study import Indices, Samples, Study
from diptych.types import Views
from diptych_biosignals.encoder import DilatedEncoder
from diptych_biosignals.finetune import HiddenMasking, ReleasedHead, SignalFineTuning, hidden_masking

PATIENTS, STEPS = 40, 16


class Waves:
    """Two windows a patient: noise around a slow wave (class a) or a fast one (class b)."""

    def __init__(self) -> None:
        draws = np.random.default_rng(0)
        time = np.arange(STEPS)
        fast = (np.arange(2 * PATIENTS) // 2 % 2)[:, None]
        waves = np.sin(2 * np.pi * time[None] * np.where(fast, 0.25, 0.0625))
        noise = 0.3 * draws.standard_normal((2 * PATIENTS, STEPS))
        self.values = (waves + noise)[..., None].astype(np.float32)
        self.classes = np.where(fast[:, 0], "b", "a")

    def batch(self, indices: Indices) -> Views:
        return Views((torch.from_numpy(self.values[indices]),), {"sample": torch.from_numpy(indices)})


def new_encoder() -> DilatedEncoder:
    return DilatedEncoder(1, width=8, hidden=8, depth=2)


@pytest.fixture(scope="module")
def study() -> Study:
    waves = Waves()
    names = [f"p{number:03}" for number in range(PATIENTS) for _ in range(2)]
    split = Split(salt="waves", train=0.5, validation=0.2, test=0.3)
    ids = pd.DataFrame({"patient": names, "recording": names, "trial": names})
    ids["split"] = [split.of(name) for name in names]
    return Study(
        samples=Samples(
            ids=ids,
            labels=pd.DataFrame({"wave": waves.classes}),
            manifest=Manifest("waves", []),
            quarantine=Quarantine(),
        ),
        new_encoder=new_encoder,
        method=lambda encoder: pytest.fail("not pretrained here"),
        training=lambda indices, seed: pytest.fail("not pretrained here"),
        plain=lambda indices: ResumableLoader(waves, OrderedBatches(indices, 16)),
    )


def test_the_released_head_squashes_two_classes_twice() -> None:
    torch.manual_seed(0)
    head = ReleasedHead(8, 2).eval()
    rows = 50 * torch.randn(500, 8)
    outputs = head(rows)
    torch.testing.assert_close(outputs, head.layers(rows).sigmoid().sigmoid())
    assert outputs.min() >= 0.5
    assert outputs.max() <= 1 / (1 + math.exp(-1)) + 1e-6
    probabilities = outputs.softmax(1)
    assert 0.442 < probabilities.min() <= probabilities.max() < 0.558


def test_the_released_head_leaves_more_classes_as_they_are() -> None:
    head = ReleasedHead(8, 3).eval()
    rows = torch.randn(5, 8)
    assert torch.equal(head(rows), head.layers(rows))


def test_the_released_head_drops_outputs_in_training() -> None:
    outputs = ReleasedHead(8, 3).train()(torch.randn(4000, 8))
    assert outputs.eq(0).double().mean().item() == pytest.approx(0.1, abs=0.02)


def test_hidden_masking_hides_steps_in_training_only() -> None:
    encoder = DilatedEncoder(1, width=8, hidden=8, depth=2, dropout=0.0)
    wrapped, x = hidden_masking(encoder), torch.randn(3, STEPS, 1)
    assert (wrapped.width, len(wrapped.layers())) == (8, 4)
    assert torch.equal(wrapped.eval()(x).whole, encoder(x).whole)
    first, second = (wrapped.train()(x).whole for _ in range(2))
    assert not torch.equal(first, second)


def test_only_the_dilated_encoder_is_fine_tuned_as_released() -> None:
    with pytest.raises(
        ConfigError, match=r"fine-tunes a DilatedEncoder, got a Linear; leave as_released out"
    ):
        hidden_masking(nn.Linear(2, 2))


@pytest.mark.parametrize("as_released", [False, True])
def test_fine_tuning_uses_the_released_parts_only_on_request(
    study: Study, as_released: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[type, type]] = []
    tune: Any = core.tune

    def watched(*arguments: Any) -> Any:
        model = tune(*arguments)
        seen.append((type(model.encoder), type(model.head)))
        return model

    monkeypatch.setattr(core, "tune", watched)
    table = SignalFineTuning(
        label="wave", as_released=as_released, seeds=1, draws=50, epochs=12, rate=3e-3, device="cpu"
    )(study, new_encoder())
    expected = (HiddenMasking, ReleasedHead) if as_released else (DilatedEncoder, nn.Linear)
    assert seen == [expected] * 2  # pretrained and from scratch
    assert table.score("pretrained", "AUROC").value > 0.7
