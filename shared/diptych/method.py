"""A pretraining method as data: named modules, and the phases that train them in turn at every step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from diptych.types import Encoded, Views

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
ScheduleFactory = Callable[[Optimizer], LRScheduler]


class MethodBuilder(Protocol):
    """How an encoder is pretrained, as a config names it: a class whose instances make the method."""

    def __call__(
        self, encoder: nn.Module, optimizer: OptimizerFactory, schedule: ScheduleFactory | None
    ) -> Method: ...


class Encode(Protocol):
    """Turns a batch into encoded views: an ``nn.Module`` that holds the encoder and what follows it."""

    def __call__(self, batch: Views, /) -> tuple[Encoded, ...]: ...


class Objective(Protocol):
    """Encoded views to a scalar. May own parameters (a deformer, prototypes) and state (a queue).

    ``target`` is what the pass's target branch made of the same batch, without gradient; () without one.
    """

    def __call__(
        self, online: tuple[Encoded, ...], target: tuple[Encoded, ...], batch: Views, /
    ) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Term:
    """One weighted objective of a pass, logged as ``loss/<name>`` before its weight is applied."""

    name: str
    objective: Objective
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One encoding of the batch and the terms computed from it.

    The loss of a phase is the sum over its passes, and each pass is backpropagated before the next one is
    encoded: gradients add up to the same, and only one pass's activations live at a time.
    """

    online: Encode
    terms: Sequence[Term]
    target: Encode | None = None


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Passes followed by one step of one optimiser over ``trains``, then ``after`` (a teacher's update).

    ``after_epoch`` is called at the end of each epoch, when all phases have taken its last step.
    """

    name: str
    passes: Sequence[Pass]
    trains: Sequence[nn.Module]
    optimizer: OptimizerFactory
    schedule: ScheduleFactory | None = None
    after: Sequence[Callable[[], None]] = ()
    after_epoch: Sequence[Callable[[], None]] = ()

    def parameters(self) -> Iterator[nn.Parameter]:
        """The trainable parameters of this phase, each once."""
        seen: set[nn.Parameter] = set()
        for module in self.trains:
            for parameter in module.parameters():
                if parameter.requires_grad and parameter not in seen:
                    seen.add(parameter)
                    yield parameter


class Method(nn.Module):
    """The modules of a method by name (they make the checkpoint) and its phases, which refer to them.

    ``encoder`` is what is kept after pretraining: the online encoder, or a teacher's averaged copy.

    Raises ValueError when a phase uses a module that is not among ``parts``: its weights would be missing
    from checkpoints.
    """

    def __init__(self, parts: Mapping[str, nn.Module], phases: Sequence[Phase], encoder: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(dict(parts))
        self.phases = tuple(phases)
        self._encoder = (encoder,)  # in a tuple: it is already registered under its part's name
        known = {id(tensor) for tensor in self._tensors(self.parts)}
        for phase in self.phases:
            for module in self._modules_of(phase):
                if any(id(tensor) not in known for tensor in self._tensors(module)):
                    raise ValueError(
                        f"phase {phase.name!r} uses a {type(module).__name__} with weights or state that are not "
                        f"among the method's parts ({', '.join(parts)}); add it to parts"
                    )

    @property
    def encoder(self) -> nn.Module:
        """The module that is exported and evaluated."""
        return self._encoder[0]

    @staticmethod
    def _tensors(module: nn.Module) -> Iterator[Tensor]:
        yield from module.parameters()
        yield from module.buffers()

    @staticmethod
    def _modules_of(phase: Phase) -> Iterator[nn.Module]:
        candidates: list[object] = list(phase.trains)
        for each in phase.passes:
            candidates += [each.online, each.target, *(term.objective for term in each.terms)]
        return (candidate for candidate in candidates if isinstance(candidate, nn.Module))
