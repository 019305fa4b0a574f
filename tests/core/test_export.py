"""What an exported program gives is what the encoder gives, in a process that has no Diptych."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.export import export_program, export_weights
from diptych.types import Encoded


class Pooled(nn.Module):
    """A convolution whose mean over time is the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 5
        self.network = nn.Conv1d(3, 5, 3, padding=1)

    def forward(self, view: Tensor) -> Encoded:
        grid = self.network(view)
        return Encoded(grid.mean(-1), None, grid)


class Stubborn(nn.Module):
    """Looks at values in Python, which no exported program can."""

    width = 3

    def forward(self, view: Tensor) -> Encoded:
        return Encoded(view.mean(-1) if float(view.sum()) > 0 else view.sum(-1))


LOAD = """
import sys, numpy, torch
view = torch.from_numpy(numpy.load(sys.argv[2]))
given = torch.export.load(sys.argv[1]).module()(view)
assert not any(name.startswith("diptych") for name in sys.modules), "it needs Diptych"
numpy.savez(sys.argv[3], **{name: value.detach().numpy() for name, value in given.items()})
"""


def test_a_program_runs_without_diptych_at_other_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = Pooled()
    assert export_program(encoder, torch.randn(2, 3, 16), tmp_path / "encoder.pt2") == ["free", "3", "free"]
    view = torch.randn(5, 3, 23)
    np.save(tmp_path / "view.npy", view.numpy())
    subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-c",
            LOAD,
            *(str(tmp_path / name) for name in ("encoder.pt2", "view.npy", "out.npz")),
        ],
        check=True,
    )
    with np.load(tmp_path / "out.npz") as found:
        expected = encoder(view)
        assert sorted(found.files) == ["grid", "whole"]
        np.testing.assert_allclose(found["whole"], expected.whole.detach().numpy(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["grid"], expected.grid.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_code_that_cannot_be_followed_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"torch\.export cannot follow Stubborn .*write its weights instead"):
        export_program(Stubborn(), torch.randn(2, 3, 16), tmp_path / "encoder.pt2")
    assert not (tmp_path / "encoder.pt2").exists()


def test_weights_keep_the_names_of_the_network_inside(tmp_path: Path) -> None:
    encoder = Pooled()
    assert export_weights(encoder, tmp_path / "network.safetensors") == "torch.nn.modules.conv.Conv1d"
    plain = nn.Conv1d(3, 5, 3, padding=1)
    plain.load_state_dict(load_file(tmp_path / "network.safetensors"), strict=True)
    assert torch.equal(plain.weight, encoder.network.weight)


def test_an_encoder_without_a_network_inside_has_no_other_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Stubborn is no wrapper around another library's network"):
        export_weights(Stubborn(), tmp_path / "network.safetensors")
