"""COMET's pretraining step word for word: the yardstick of ``comet.py``, and a text to learn the method from.

Wang et al. 2023, "Contrast Everything". Eight passes through the encoder (two views for each of the four
levels) are all kept until one backward pass; every similarity matrix is formed whole. Nothing is left out and
nothing is
saved: what the method costs when its formulas are typed in as they stand.

Letters: B windows, T time steps, C channels, K width of the embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """y = conv_b(gelu(conv_a(gelu(h)))) + skip(h), both convolutions of kernel 3 and one dilation."""

    def __init__(self, inputs: int, outputs: int, dilation: int, last: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=dilation, dilation=dilation)
        self.projector = nn.Conv1d(inputs, outputs, 1) if last else None

    def forward(self, h: Tensor) -> Tensor:
        skip = h if self.projector is None else self.projector(h)
        return self.conv2(F.gelu(self.conv1(F.gelu(h)))) + skip


class LiteralEncoder(nn.Module):
    """(B, T, C) to (B, T, 320): projection, mask, eleven residual blocks of dilation 1 to 1024, dropout."""

    def __init__(self, channels: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.input_fc = nn.Linear(channels, 64)
        self.net = nn.Sequential(*[Block(64, 320 if i == 10 else 64, 2**i, i == 10) for i in range(11)])
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        h = self.input_fc(x)
        if mask is not None:
            h = h * mask.unsqueeze(-1)
        return self.dropout(self.net(h.transpose(1, 2))).transpose(1, 2)

    def load_released(self, weights: dict[str, Tensor]) -> None:
        """Take over weights under the released names, as the library's encoder has them."""
        renamed = {name.removeprefix("feature_extractor."): value for name, value in weights.items()}
        self.load_state_dict({name.replace(".conv.", "."): value for name, value in renamed.items()})


def continuous_mask(B: int, T: int) -> Tensor:
    """Per window five runs of T // 10 steps set to False."""
    mask = torch.ones(B, T, dtype=torch.bool)
    length = max(int(0.1 * T), 1)
    for b in range(B):
        for _ in range(max(min(5, T // 2), 1)):
            start = int(torch.randint(T - length + 1, ()))
            mask[b, start : start + length] = False
    return mask


def contrast_with_the_twin(V: Tensor) -> Tensor:
    """V (scopes, 2n, K): rows m and m + n are twins; mean of lse_{j != m} <V_m, V_j> - <V_m, V_twin>."""
    rows = V.shape[1]
    S = V @ V.transpose(1, 2)
    S = S.masked_fill(torch.eye(rows, dtype=torch.bool), -torch.inf)
    twin = torch.arange(rows).roll(rows // 2)
    return -F.log_softmax(S, dim=-1)[:, torch.arange(rows), twin].mean()


def observation(z1: Tensor, z2: Tensor) -> Tensor:
    """One scale: scopes are windows, rows their time steps in both views."""
    return contrast_with_the_twin(torch.cat([z1, z2], dim=1))


def sample(z1: Tensor, z2: Tensor) -> Tensor:
    """One scale: scopes are time steps, rows the windows of the batch in both views."""
    return contrast_with_the_twin(torch.cat([z1, z2], dim=0).transpose(0, 1))


def over_scales(one_scale, z1: Tensor, z2: Tensor) -> Tensor:
    """The mean of a loss over T, T // 2, ... steps, by max-pooling, while more than one step is left."""
    losses = []
    while z1.shape[1] > 1:
        losses.append(one_scale(z1, z2))
        z1, z2 = (F.max_pool1d(z.transpose(1, 2), 2).transpose(1, 2) for z in (z1, z2))
    return torch.stack(losses).mean()


def id_level(z1: Tensor, z2: Tensor, ids: Tensor, temperature: float = 0.1) -> Tensor:
    """Windows of one id, the earlier of the batch being the anchor, against the other view's whole batch."""
    u, w = (F.normalize(F.normalize(z, dim=1).flatten(1), dim=1) for z in (z1, z2))
    S = u @ w.T / temperature
    pairs = (ids[:, None] == ids[None, :]).triu(1)
    if not pairs.any():
        return 0 * S.sum()
    up, down = -F.log_softmax(S, dim=1)[pairs].mean(), -F.log_softmax(S.T, dim=1)[pairs].mean()
    return (up + down) / 2


def comet_loss(
    views: list[Tensor],
    patient: Tensor,
    trial: Tensor,
    weights: tuple[float, float, float, float] = (1.0, 1.0, 0.25, 0.25),
) -> Tensor:
    """The total of the eight encoded views P1, P2, R1, R2, S1, S2, O1, O2, each (B, T, K).

    The default weights are those that 0.25 four times amounts to in the released code.
    """
    p1, p2, r1, r2, s1, s2, o1, o2 = views
    return (
        weights[0] * id_level(p1, p2, patient)
        + weights[1] * id_level(r1, r2, trial)
        + weights[2] * over_scales(sample, s1, s2)
        + weights[3] * over_scales(observation, o1, o2)
    )


class LiteralComet:
    """Encoder, AdamW and the running mean of its weights: one ``step`` per batch."""

    def __init__(self, encoder: LiteralEncoder, rate: float = 1e-4) -> None:
        self.encoder = encoder
        self.optimizer = torch.optim.AdamW(encoder.parameters(), lr=rate)
        self.average = torch.optim.swa_utils.AveragedModel(encoder)
        self.average.update_parameters(encoder)

    def step(self, x: Tensor, patient: Tensor, trial: Tensor) -> None:
        B, T, _ = x.shape
        masks = [None] * 4 + [continuous_mask(B, T) for _ in range(4)]
        views = [self.encoder(x, mask) for mask in masks]
        self.optimizer.zero_grad()
        comet_loss(views, patient, trial).backward()
        self.optimizer.step()
        self.average.update_parameters(self.encoder)
