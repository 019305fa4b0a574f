"""The other methods: their losses equal loops over their papers' formulas, and they train an encoder."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import references_comet as reference
import torch
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError
from diptych.method import Method
from diptych.types import Encoded, Views
from diptych_biosignals.encoder import DilatedEncoder
from diptych_biosignals.recipes import BYOL, CLOCS, NTXent, PatientContrast, SplitViews
from diptych_biosignals.ts2vec import HierarchicalContrast, OverlappingViews, TS2Vec, draw_overlap

METHODS: dict[str, Any] = {
    "ntxent": NTXent(hidden=16, width=8),
    "ntxent by patient": NTXent(hidden=16, width=8, group="patient", averaging="uniform"),
    "byol": BYOL(hidden=16, width=8),
    "clocs": CLOCS(),
    "clocs by lead, projected": CLOCS(views="leads", hidden=16, width=8),
    "ts2vec": TS2Vec(),
}
PATIENTS = [0, 1, 0, 2, 1, 0]


def batch(steps: int = 24) -> Views:
    x = torch.randn(6, steps, 3, generator=torch.Generator().manual_seed(steps))
    ids = {"sample": torch.arange(6), "patient": torch.tensor(PATIENTS), "trial": torch.tensor(PATIENTS)}
    return Views((x,), ids)


def small() -> DilatedEncoder:
    torch.manual_seed(0)
    return DilatedEncoder(3, width=8, hidden=6, depth=3)


def train(method: Method, steps: int) -> list[float]:
    (phase,) = method.phases
    optimizer = phase.optimizer(list(phase.parameters()))
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        (each,) = phase.passes
        with torch.no_grad():
            target = () if each.target is None else each.target(batch())
        (term,) = each.terms
        loss = term.objective(each.online(batch()), target, batch())
        loss.backward()
        optimizer.step()
        for call in phase.after:
            call()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_its_encoder(name: str) -> None:
    encoder = small()
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    torch.manual_seed(1)
    losses = train(METHODS[name](encoder, partial(torch.optim.AdamW, lr=3e-3), None), 40)
    assert sum(losses[-8:]) < sum(losses[:8])
    assert any(not torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_what_is_kept_after_training() -> None:
    encoder = small()
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    assert NTXent()(encoder, optimizer, None).encoder is encoder
    assert BYOL()(encoder, optimizer, None).encoder is encoder
    assert TS2Vec()(encoder, optimizer, None).encoder is not encoder
    assert isinstance(TS2Vec()(encoder, optimizer, None).encoder, DilatedEncoder)


def test_the_patient_contrast_equals_a_loop_over_pairs() -> None:
    z1, z2 = torch.randn(2, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    u, w = ([row / row.norm() for row in z] for z in (z1, z2))
    terms = []
    for one, other in ((u, w), (w, u)):
        s = [[(a @ b) / 0.1 for b in other] for a in one]
        pairs = [(a, b) for a in range(6) for b in range(6) if PATIENTS[a] == PATIENTS[b]]
        terms.append(torch.stack([reference.logsumexp(s[a]) - s[a][b] for a, b in pairs]).mean())
    loss = PatientContrast()((Encoded(z1), Encoded(z2)), (), batch())
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_hierarchical_contrast_equals_its_loop(steps: int) -> None:
    z1, z2 = torch.randn(
        2, 3, steps, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).unbind()
    ours = HierarchicalContrast(alpha=0.3)(
        tuple(Encoded(z.amax(1), grid=z.transpose(1, 2)) for z in (z1, z2)), (), batch()
    )
    scales: list[Tensor] = []
    while True:
        loss = 0.3 * reference.sample_loss(z1, z2)
        if z1.shape[1] > 1:
            loss = loss + 0.7 * reference.observation_loss(z1, z2)
        scales.append(loss)
        if z1.shape[1] == 1:
            break
        z1, z2 = reference.max_pool(z1), reference.max_pool(z2)
    assert ours.item() == pytest.approx(torch.stack(scales).mean().item(), rel=1e-10)


@pytest.mark.parametrize("steps", [2, 3, 40])
def test_overlapping_crops_share_their_middle_and_stay_inside(steps: int) -> None:
    torch.manual_seed(0)
    drawn = [draw_overlap(steps, torch.device("cpu")) for _ in range(2000)]
    assert all(0 <= cut.left <= cut.start <= cut.end - 2 <= cut.right - 2 <= steps - 2 for cut in drawn)
    assert {cut.end - cut.start for cut in drawn} == set(range(2, steps + 1))


class Positions(DilatedEncoder):
    """Encodes every step as the value it was given, so that it can be told which step it was."""

    def trunk(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x.transpose(0, 1)


def test_both_views_of_ts2vec_show_the_same_steps() -> None:
    x = torch.arange(30.0)[None, :, None].expand(5, 30, 1)
    views = OverlappingViews(Positions(1, width=1, hidden=2, depth=1, dropout=0.0), "all_true")
    torch.manual_seed(0)
    starts = set()
    for _ in range(50):
        first, second = views(Views((x,), {}))
        assert first.grid is not None
        assert torch.equal(first.grid, second.grid)
        steps = torch.arange(first.grid.shape[2])
        assert torch.equal(first.grid[:, 0] - first.grid[:, 0, :1], steps.expand(5, -1).float())
        starts |= set(first.grid[:, 0, 0].tolist())
    assert len(starts) > 10


def test_split_views_share_no_sample() -> None:
    seen: list[Tensor] = []

    class Watching(nn.Module):
        def forward(self, x: Tensor) -> Encoded:
            seen.append(x)
            return Encoded(x.flatten(1))

    (x,) = batch(steps=7).views
    SplitViews(Watching(), "segments")(batch(steps=7))
    assert torch.equal(torch.cat(seen, dim=1), x[:, :6])
    seen.clear()
    SplitViews(Watching(), "leads")(batch(steps=7))
    assert torch.equal(seen[0] + seen[1], x)
    assert (seen[0] * seen[1]).eq(0).all()
    assert all((view != 0).any(1).sum(1).ge(1).all() for view in seen)


def test_windows_that_cannot_be_split_are_a_clear_error() -> None:
    with pytest.raises(UserError, match="views segments need windows of at least 2 steps, got 1"):
        SplitViews(small(), "segments")(batch(steps=1))
    with pytest.raises(UserError, match="views leads need windows of at least 2 leads, got 1"):
        SplitViews(small(), "leads")(Views((torch.zeros(2, 9, 1),), {}))
    with pytest.raises(UserError, match="overlapping crops need windows of at least 2 time steps, got 1"):
        draw_overlap(1, torch.device("cpu"))


def test_missing_patients_are_a_clear_error() -> None:
    z = Encoded(torch.zeros(2, 3))
    with pytest.raises(UserError, match="needs the id 'patient' of every window; this data has only sample"):
        PatientContrast()((z, z), (), Views((), {"sample": torch.arange(2)}))


def test_encoders_that_do_not_fit_are_refused() -> None:
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    with pytest.raises(ConfigError, match="Linear has no width"):
        NTXent()(nn.Linear(3, 4), optimizer, None)
    with pytest.raises(ConfigError, match="TS2Vec masks the hidden units of a DilatedEncoder, got a Linear"):
        TS2Vec()(nn.Linear(3, 4), optimizer, None)
    with pytest.raises(ConfigError, match=r"alpha must lie in 0\.\.1, got 2"):
        TS2Vec(alpha=2.0)
    with pytest.raises(ConfigError, match="mask must be one of all_true"):
        TS2Vec(mask="none")
