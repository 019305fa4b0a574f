"""Alignment and scattering equal their equations, written out row by row, and keep their laws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diptych.losses.alignment import alignment
from diptych.losses.scattering import batch_centre, scattering


def rows(n: int = 7, width: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, dtype=torch.float64, generator=generator).requires_grad_()


def test_alignment_is_the_squared_distance_of_unit_rows() -> None:
    p, t = rows(seed=1), rows(seed=2)
    for i, loss in enumerate(alignment(p, t)):
        expected = sum((a - b) ** 2 for a, b in zip(p[i] / p[i].norm(), t[i] / t[i].norm(), strict=True))
        assert loss.item() == pytest.approx(float(torch.as_tensor(expected).detach()), abs=1e-12)
    torch.testing.assert_close(alignment(p, t, form="cosine"), alignment(p, t) / 2 - 1)


def test_alignment_of_what_points_the_same_way_is_least() -> None:
    p = rows(seed=3)
    torch.testing.assert_close(alignment(p, 3 * p), torch.zeros(7, dtype=torch.float64))
    torch.testing.assert_close(alignment(p, -p), torch.full((7,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(alignment(p, 3 * p, form="cosine"), -torch.ones(7, dtype=torch.float64))


def test_alignment_gradient() -> None:
    assert torch.autograd.gradcheck(alignment, (rows(3, seed=4), rows(3, seed=5)))


def test_scattering_is_its_equation() -> None:
    z = rows(seed=6)
    unit = [row / row.norm() for row in z]
    centre = sum(unit[1:], unit[0]) / len(unit)
    expected = -sum(((row - centre) ** 2).sum() for row in unit) / len(unit)
    loss = scattering(z)
    assert loss.item() == pytest.approx(float(torch.as_tensor(expected).detach()), abs=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))
    torch.testing.assert_close(loss, batch_centre(z).square().sum() - 1)


def test_scattering_gradient() -> None:
    z = rows(seed=7)
    assert torch.autograd.gradcheck(scattering, (z,))
    # The mean is where the summed squared distance is least, so holding the centre changes nothing ...
    held = scattering(z, batch_centre(z).detach())
    torch.testing.assert_close(torch.autograd.grad(scattering(z), z), torch.autograd.grad(held, z))
    # ... while any other centre pushes elsewhere, and hears of it.
    centre = torch.ones(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(scattering(z, centre), centre)
    torch.testing.assert_close(gradient, 2 * (batch_centre(z) - centre))


def test_scattering_runs_from_0_at_collapse_to_minus_1_when_centred() -> None:
    z = rows(seed=9).detach()
    assert scattering(z[:1].expand(5, -1) * torch.rand(5, 1)).item() == pytest.approx(0, abs=1e-6)
    assert scattering(torch.cat([z, -z])).item() == pytest.approx(-1)
    assert scattering(z * 17).item() == pytest.approx(scattering(z).item())


@pytest.mark.parametrize("loss", [lambda z: alignment(z, z.flip(0)).mean(), scattering])
def test_half_precision_and_autocast_compute_in_float32(loss: object) -> None:
    assert callable(loss)
    z = rows(seed=10).detach().bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(z)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(z.float()).item(), rel=1e-6)


def test_no_rows_scatter_to_zero_with_zero_gradient() -> None:
    z = torch.zeros(0, 3, requires_grad=True)
    loss = scattering(z)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, z)[0].shape == (0, 3)


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ValueError, match=r"got predicted \(7, 4\) and target \(6, 4\)"):
        alignment(rows(), rows(6))
    with pytest.raises(ValueError, match=r"scattering needs rows \(n, width\), got \(2, 3, 4\)"):
        scattering(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match=r"the centre must be \(4,\) for rows \(7, 4\), got \(3,\)"):
        scattering(rows(), torch.zeros(3))
