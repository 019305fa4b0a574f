"""Heads have the layers they declare; a branch gives each view its encoder and each row its heads."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diptych.branch import Branch
from diptych.errors import ConfigError
from diptych.heads import Predictor, Projector
from diptych.types import Encoded, Views


class Dense(nn.Module):
    """Maps (n, 3, 5) to a whole, six parts and a grid of width 4."""

    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(3, 4, 1)

    def forward(self, view: Tensor) -> Encoded:
        grid = self.layer(view)
        return Encoded(grid.mean(-1), grid.mean(-1).repeat(2, 1), grid)


def views(n: int = 3, count: int = 2) -> Views:
    generator = torch.Generator().manual_seed(0)
    return Views(
        tuple(torch.randn(n, 3, 5, generator=generator) for _ in range(count)), {"sample": torch.arange(n)}
    )


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("normalize", [True, False])
def test_projector_layers(layers: int, normalize: bool) -> None:
    projector = Projector(8, 16, 4, layers=layers, normalize=normalize)
    kinds = [type(module) for module in projector.layers]
    between = [nn.Linear, nn.BatchNorm1d, nn.ReLU] if normalize else [nn.Linear, nn.ReLU]
    assert kinds == between * (layers - 1) + [nn.Linear]
    assert projector(torch.randn(5, 8)).shape == (5, 4)
    assert projector.width == 4


def test_predictor_maps_a_width_to_itself() -> None:
    assert Predictor(6, 10)(torch.randn(5, 6)).shape == (5, 6)


def test_bad_sizes_are_named() -> None:
    with pytest.raises(
        ConfigError, match="widths and layers of at least 1, got width_in 8, hidden 16, width 0"
    ):
        Projector(8, 16, 0)
    with pytest.raises(ConfigError, match="layers 0"):
        Predictor(8, layers=0)


def test_one_encoder_for_all_views() -> None:
    encoder, batch = Dense(), views()
    for ours, view in zip(Branch(encoder)(batch), batch.views, strict=True):
        theirs = encoder(view)
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_one_encoder_per_view_and_one_projector() -> None:
    first, second, batch = Dense(), Dense(), views()
    projector = Projector(4, 8, 2, normalize=False)
    branch = Branch([first, second], projector)
    a, b = branch(batch)
    assert torch.equal(a.whole, projector(first(batch.views[0]).whole))
    assert torch.equal(b.whole, projector(second(batch.views[1]).whole))
    assert torch.equal(a.grid, first(batch.views[0]).grid)  # heads leave maps alone unless asked
    with pytest.raises(ValueError, match="the branch has 2 encoders, one per view; got 3 views"):
        branch(views(count=3))


def test_dense_heads_apply_to_every_position_and_part() -> None:
    encoder, batch = Dense(), views()
    projector, predictor = Projector(4, 8, 6, normalize=False), Predictor(6, 5, normalize=False)
    a, _ = Branch(encoder, projector, predictor, dense=True)(batch)
    raw = encoder(batch.views[0])
    assert a.grid is not None
    assert a.grid.shape == (3, 6, 5)
    for p in range(5):
        torch.testing.assert_close(a.grid[:, :, p], predictor(projector(raw.grid[:, :, p])))
    torch.testing.assert_close(a.parts, predictor(projector(raw.parts)))
    torch.testing.assert_close(a.whole, predictor(projector(raw.whole)))


def test_everything_is_saved_once() -> None:
    encoder = Dense()
    branch = Branch(encoder, Projector(4, 8, 6), Predictor(6))
    heads = {name.split(".")[0] for name in branch.state_dict()}
    assert heads == {"encoders", "projector", "predictor"}
    assert sum(1 for _ in Branch([encoder, encoder]).parameters()) == 2
