"""Readouts of molecules as loops over molecules, with shared parts or without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych_molecules.readouts import Set2Set, WeightedSumAndMax

GRAPH = torch.tensor([0, 0, 0, 2, 2])


def rows(count: int = 5, width: int = 4) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count), dtype=torch.float64)


def test_weighted_sum_and_max_is_its_loop() -> None:
    torch.manual_seed(0)
    readout = WeightedSumAndMax(4).double()
    x = rows()
    found = readout(x, GRAPH, 3)
    for molecule in range(3):
        members = [x[v] for v in range(5) if GRAPH[v] == molecule]
        total, most = torch.zeros(4).double(), torch.zeros(4).double()
        for each in members:
            total = total + torch.sigmoid(readout.gate.weight[0] @ each + readout.gate.bias[0]) * each
        if members:
            most = torch.stack(members).max(0).values
        torch.testing.assert_close(found[molecule], torch.cat([total, most]))


def literal_set2set(readout: Set2Set, x: torch.Tensor) -> torch.Tensor:
    """One set, equations 3 to 7, with torch's own LSTM."""
    width = x.shape[1]
    read, state = (
        torch.zeros(2 * width).double(),
        tuple(torch.zeros(readout.layers, 1, width).double() for _ in "hc"),
    )
    for _ in range(readout.iterations):
        query, state = readout.lstm(read[None, None], state)
        scores = [x[v] @ query[0, 0] for v in range(len(x))]
        shares = torch.stack(scores).softmax(0) if scores else []
        answer = sum((share * x[v] for v, share in enumerate(shares)), torch.zeros(width).double())
        read = torch.cat([query[0, 0], answer])
    return read


@pytest.mark.parametrize("iterations", [1, 4])
def test_set2set_reads_each_molecule_s_atoms_and_shared_parts_together(iterations: int) -> None:
    torch.manual_seed(0)
    readout = Set2Set(4, iterations=iterations, layers=2).double()
    x, shared = rows(), rows(3)
    present = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    found = readout(x, GRAPH, 3, shared, present)
    plain = readout(x, GRAPH, 3)
    for molecule in range(3):
        own = x[molecule == GRAPH]
        torch.testing.assert_close(plain[molecule], literal_set2set(readout, own))
        torch.testing.assert_close(
            found[molecule], literal_set2set(readout, torch.cat([own, shared[present[molecule]]]))
        )


def test_set2set_is_finite_with_a_gradient_for_an_empty_set_and_large_rows() -> None:
    readout = Set2Set(4).double()
    x = (1e4 * rows()).requires_grad_()
    found = readout(x, GRAPH, 3, rows(2), torch.zeros(3, 2, dtype=torch.bool))
    found.sum().backward()
    assert found.isfinite().all()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert found[1, 4:].abs().max() == 0


def test_readouts_are_trained() -> None:
    for readout in (Set2Set(4), WeightedSumAndMax(4)):
        readout.double()(rows(), GRAPH, 3).square().sum().backward()
        assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in readout.parameters())
        assert isinstance(readout, nn.Module)


def test_sizes_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="iterations and layers of at least 1, got 4, 0, 3"):
        Set2Set(4, iterations=0)
