"""What a phase does after each epoch happens once an epoch, after its last step, also when a run is resumed."""

from __future__ import annotations

from pathlib import Path

import torch
from synthetic import shared_method, study
from torch import nn

from diptych.method import Method, Phase
from diptych.runs import Run
from diptych.training import TrainerOptions, pretrain


class Counter(nn.Module):
    """Counts calls, and remembers the weights it saw."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.seen: list[float] = []
        self.encoder = (encoder,)

    def __call__(self) -> None:
        self.calls += 1
        self.seen.append(sum(float(each.sum()) for each in self.encoder[0].parameters()))


def test_calls_after_an_epoch_follow_its_last_step(tmp_path: Path) -> None:
    made: list[Counter] = []

    def method(encoder: nn.Module) -> Method:
        whole = shared_method(encoder)
        counter = Counter(encoder)
        made.append(counter)
        first, *rest = whole.phases
        watched = Phase(
            name=first.name,
            passes=first.passes,
            trains=first.trains,
            optimizer=first.optimizer,
            after_epoch=[counter],
        )
        return Method({**dict(whole.parts.items()), "counter": counter}, [watched, *rest], encoder)

    options = TrainerOptions(max_epochs=3, accumulate=2, accelerator="cpu", progress="off")
    result = pretrain(study(method=method), Run(tmp_path), trainer=options, seed=4)
    assert int(made[0].calls) == 3
    assert result.steps == 12  # 7 batches an epoch
    last = sum(float(each.detach().sum()) for each in result.encoder.parameters())
    assert made[0].seen[-1] == last
    assert len(set(made[0].seen)) == 3
