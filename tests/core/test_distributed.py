"""Several processes give the loss and the gradient of one, for every objective and for uneven shares."""

from __future__ import annotations

from typing import Any

import processes
import pytest
import torch

SHARES = {"even and uneven": (0, 4, 7), "one sample and the rest": (0, 1, 7), "an empty share": (0, 0, 7)}


@pytest.fixture(scope="module", params=SHARES.values(), ids=SHARES)
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return processes.in_processes(tmp_path_factory.mktemp("gloo"), request.param), request.param


@pytest.mark.parametrize("name", processes.OBJECTIVES)
def test_two_processes_give_the_loss_and_gradient_of_one(name: str, outcomes: Any) -> None:
    one = processes.two_steps(name, 0, processes.SAMPLES)
    several = [outcome[name] for outcome in outcomes[0]]
    for step, loss in enumerate(one.losses):
        mean = sum(each.losses[step] for each in several) / len(several)
        assert mean == pytest.approx(loss, abs=1e-12)
    for index, gradient in enumerate(one.gradients):
        mean = torch.stack([each.gradients[index] for each in several]).mean(0)
        torch.testing.assert_close(mean, gradient, rtol=0, atol=1e-12)
    if name != "no positives":
        assert one.gradients[0].abs().max() > 1e-4


def test_gather_concatenates_and_its_gradient_adds_up(outcomes: Any) -> None:
    per_process, cuts = outcomes
    world = len(cuts) - 1
    everything = torch.arange(7.0, dtype=torch.float64)[:, None].repeat(1, 2)
    whole = processes.primitives(0, 7)
    for rank, outcome in enumerate(per_process):
        found = outcome["primitives"]
        own = slice(cuts[rank], cuts[rank + 1])
        assert torch.equal(found["gathered"], everything)
        weight = torch.arange(1.0, 8.0, dtype=torch.float64)[own, None].expand(-1, 2)
        assert torch.equal(found["gradient"], world * weight)  # every process asked the same of these rows
        assert torch.equal(found["integers"], torch.arange(7))
        assert torch.equal(found["columns"], torch.arange(7).repeat(2, 1))
        assert torch.equal(found["sum"], everything.sum(0))
        assert torch.equal(
            found["through sum"], torch.tensor([2.0, 5.0]).double().expand(len(weight), 2) * world
        )
        assert found["no weight"] == 0
        # Rows arrive process by process, each with the ids it left with.
        pairs = dict(zip(found["rows"][2].tolist(), found["rows"][0].tolist(), strict=True))
        assert pairs == dict(zip(whole["rows"][2].tolist(), whole["rows"][0].tolist(), strict=True))
        assert torch.equal(found["scoped"], torch.stack([found["rows"][0], -found["rows"][0]]))
    assert sum(outcome["primitives"]["mean"] for outcome in per_process) / world == whole["mean"] == 6


def test_one_process_needs_no_distributed_run() -> None:
    alone = processes.primitives(2, 5)
    assert alone["gathered"].tolist() == [[2, 2], [3, 3], [4, 4]]
    assert alone["mean"] == 6
    assert alone["no weight"] == 0
