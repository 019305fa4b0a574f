"""Heads between an encoder and an objective; thrown away after pretraining."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from diptych.errors import ConfigError

Activation = Literal["relu", "elu", "prelu"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "prelu": nn.PReLU}


class Projector(nn.Module):
    """Linear layers with batch norm and ReLU (or another ``activation``) between them: (n, width_in) to (n, width).

    With ``normalize`` off it is SimCLR's projector (Chen et al. 2020, section 2.1), on it is BYOL's (Grill et
    al. 2020, appendix C).

    Raises:
        ConfigError: a width or number of layers below 1, or an activation that does not exist.
    """

    def __init__(
        self,
        width_in: int,
        hidden: int = 2048,
        width: int = 128,
        *,
        layers: int = 2,
        normalize: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__()
        if min(width_in, hidden, width, layers) < 1:
            raise ConfigError(
                f"a head needs widths and layers of at least 1, got width_in {width_in}, hidden {hidden}, "
                f"width {width}, layers {layers}"
            )
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"a head's activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}"
            )
        self.width = width
        sizes = [width_in, *[hidden] * (layers - 1), width]
        modules: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(sizes)):
            last = index == layers - 1
            modules.append(nn.Linear(before, after, bias=last or not normalize))
            if not last:
                modules += [nn.BatchNorm1d(after)] * normalize + [ACTIVATIONS[activation]()]
        self.layers = nn.Sequential(*modules)

    def forward(self, z: Tensor) -> Tensor:
        """Project rows (n, width_in) to (n, width)."""
        projected: Tensor = self.layers(z)
        return projected


class Predictor(Projector):
    """A projector from a width to itself that predicts the target branch's rows from the online ones."""

    def __init__(
        self,
        width: int,
        hidden: int = 512,
        *,
        layers: int = 2,
        normalize: bool = True,
        activation: Activation = "relu",
    ) -> None:
        super().__init__(width, hidden, width, layers=layers, normalize=normalize, activation=activation)
