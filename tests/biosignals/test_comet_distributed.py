"""Two processes give every level's loss, and the gradient, of one process with all windows."""

from __future__ import annotations

from typing import Any

import comet_processes as processes
import pytest
import torch


@pytest.fixture(
    scope="module", params=[(0, 4, 7), (0, 1, 7)], ids=["even and uneven", "one window and the rest"]
)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return processes.in_processes(tmp_path_factory.mktemp("gloo"), request.param)


@pytest.mark.parametrize("name", processes.METHODS)
def test_two_processes_give_the_loss_and_gradient_of_one(name: str, outcomes: Any) -> None:
    terms, gradients = processes.outcome(name, 0, processes.WINDOWS)
    for term, value in terms.items():
        mean = sum(each[name][0][term] for each in outcomes) / 2
        assert mean == pytest.approx(value, rel=1e-10), term
    for index, gradient in enumerate(gradients):
        mean = torch.stack([each[name][1][index] for each in outcomes]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=1e-9, atol=1e-12)
    assert max(gradient.abs().max() for gradient in gradients) > 1e-4
