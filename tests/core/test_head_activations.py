"""A head has the activation it was asked for."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.heads import Predictor, Projector


@pytest.mark.parametrize(("name", "kind"), [("relu", nn.ReLU), ("elu", nn.ELU), ("prelu", nn.PReLU)])
def test_activation_between_layers(name: str, kind: type[nn.Module]) -> None:
    for head in (
        Projector(3, 4, 2, normalize=False, activation=name),  # type: ignore[arg-type]
        Predictor(3, 4, normalize=False, activation=name),  # type: ignore[arg-type]
    ):
        first, between, last = head.layers
        assert isinstance(between, kind)
        x = torch.randn(5, 3)
        torch.testing.assert_close(head(x), last(kind()(first(x))))


def test_an_activation_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="activation must be one of relu, elu, prelu, got 'gelu'"):
        Projector(3, activation="gelu")  # type: ignore[arg-type]
