"""Embedding: in order, in evaluation mode, without a trace on the encoder, and never with NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.evaluation.embeddings import choose_device, embed
from diptych.types import Encoded, Views


class Normed(nn.Module):
    """Batch norm and dropout give other values in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 3
        self.norm = nn.BatchNorm1d(3)
        self.drop = nn.Dropout(0.5)

    def forward(self, view: Tensor) -> Encoded:
        return Encoded(self.drop(self.norm(view)))


def batches(values: Tensor, size: int = 4) -> list[Views]:
    wrong_view = torch.full((1, 3), float("nan"))
    return [Views((rows, wrong_view), {"sample": torch.arange(len(rows))}) for rows in values.split(size)]


VALUES = torch.from_numpy(np.random.default_rng(0).normal(size=(10, 3))).float()


def test_rows_come_in_order_as_float32() -> None:
    found = embed(Normed(), batches(VALUES), device="cpu")
    assert found.dtype == np.float32
    assert found == pytest.approx(VALUES.numpy() / np.sqrt(1 + 1e-5), abs=1e-6)


def test_batch_size_does_not_matter() -> None:
    encoder = Normed()
    assert (embed(encoder, batches(VALUES, 1)) == embed(encoder, batches(VALUES, 10))).all()


def test_the_modes_and_statistics_of_the_encoder_stay() -> None:
    encoder = Normed().train()
    encoder.drop.eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    embed(encoder, batches(VALUES))
    assert (encoder.training, encoder.norm.training, encoder.drop.training) == (True, True, False)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())


def test_the_modes_are_restored_after_an_error() -> None:
    encoder = Normed().train()
    with pytest.raises(UserError):
        embed(encoder, [])
    assert encoder.training
    assert encoder.drop.training


def test_no_gradient_is_kept() -> None:
    encoder = Normed()
    embed(encoder, batches(VALUES))
    assert all(parameter.grad is None for parameter in encoder.parameters())


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stop(broken: float) -> None:
    values = VALUES.clone()
    values[7, 1] = broken
    with pytest.raises(UserError, match=r"not finite for 1 of 10 samples \(the first is number 7\)"):
        embed(Normed(), batches(values))


def test_an_empty_loader_stops() -> None:
    with pytest.raises(UserError, match="nothing to embed: the loader is empty"):
        embed(Normed(), [])


def test_an_encoder_that_returns_something_else_is_named() -> None:
    with pytest.raises(TypeError, match="Identity must return Encoded"):
        embed(nn.Identity(), batches(VALUES))


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="device 'nonsense' cannot be used here"):
        choose_device("nonsense")
