"""RotatE embedding of the element knowledge graph (Sun et al. 2019, "RotatE", equations 4 to 7).

Entities are K complex numbers, relations K phases, and a relation turns its head into its tail:
score = margin - sum_k | h_k exp(i theta_k) - t_k |. The package ships the embedding that :func:`train` makes of
its own table; to write it again:

    python -m diptych_molecules.rotate

Letters: K complex numbers, t triples of a batch, c corrupted triples of each.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from diptych.errors import ConfigError
from diptych_molecules.elements import knowledge

SHIPPED = "rotate.safetensors"


class Embedding(NamedTuple):
    """What RotatE learns of a graph."""

    entities: Tensor  # (entities, 2 K): the real half, then the imaginary half
    relations: Tensor  # (relations, K): phases before their scaling to radians


@dataclass(frozen=True, kw_only=True)
class RotatE:
    """Settings of the training; the defaults are KCL's.

    Args:
        width: K, complex numbers of an entity.
        margin: added to every score.
        rate: of Adam.
        batch: triples of a step.
        negatives: corrupted triples for each true one.
        adversarial: temperature factor of the weights of corrupted triples; 0 weighs them alike.
        regularization: factor of the sum of cubes of all numbers.
        steps: of training; tails are corrupted at the odd ones, heads at the even ones.
        seed: what everything is drawn from.
    """

    width: int = 64
    margin: float = 19.9
    rate: float = 0.025
    batch: int = 64
    negatives: int = 32
    adversarial: float = 1.0
    regularization: float = 1e-9
    steps: int = 1000
    seed: int = 1234

    def __post_init__(self) -> None:
        if min(self.width, self.batch, self.negatives, self.steps) < 1 or not self.margin > 0:
            raise ConfigError(
                "RotatE needs width, batch, negatives and steps of at least 1 and a margin above 0, got "
                f"{self.width}, {self.batch}, {self.negatives}, {self.steps} and {self.margin:g}"
            )

    @property
    def half_range(self) -> float:
        """The relation number that stands for a turn by pi."""
        return (self.margin + 2) / self.width


def scores(heads: Tensor, relations: Tensor, tails: Tensor, *, margin: float, half_range: float) -> Tensor:
    """The score of triples: (..., 2 K), (..., K), (..., 2 K) to (...), by broadcasting (equation 4)."""
    theta = relations * (math.pi / half_range)
    h_real, h_imaginary = heads.chunk(2, dim=-1)
    t_real, t_imaginary = tails.chunk(2, dim=-1)
    real = h_real * theta.cos() - h_imaginary * theta.sin() - t_real
    imaginary = h_real * theta.sin() + h_imaginary * theta.cos() - t_imaginary
    # the tiny addend keeps the gradient finite where a number is met exactly
    return margin - (real.square() + imaginary.square() + 1e-24).sqrt().sum(-1)


def loss(true: Tensor, corrupted: Tensor, weights: Tensor, *, adversarial: float) -> Tensor:
    """Self-adversarial loss of true (t,) and corrupted (t, c) scores (equations 5 and 6).

    ``weights`` (t,) weigh the triples. The weights of corrupted triples, softmax over c of adversarial * score,
    carry no gradient. The two halves are averaged.
    """
    share = (adversarial * corrupted).softmax(dim=1).detach()
    positive = -F.logsigmoid(true)
    negative = -(share * F.logsigmoid(-corrupted)).sum(1)
    return (weights * (positive + negative)).sum() / (2 * weights.sum())


def subsampling(triples: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights of triples (n, 3), 1 / sqrt(count(head, relation) + count(relation, tail)); counts start at 4."""
    counts = np.zeros(len(triples))
    for column in (0, 2):
        _, inverse, of_pair = np.unique(
            triples[:, [column, 1]], axis=0, return_inverse=True, return_counts=True
        )
        counts += of_pair[inverse.ravel()] + 3  # the first triple of a pair counts 4
    return 1 / np.sqrt(counts)


def free(triples: NDArray[np.int64], entities: int, column: int) -> NDArray[np.bool_]:
    """(n, entities): which entity in ``column`` (0 head, 2 tail) of a triple makes one that is not known."""
    kept = triples[:, [2 - column, 1]]
    _, pair = np.unique(kept, axis=0, return_inverse=True)
    known = np.zeros((pair.max() + 1, entities), bool)
    known[pair.ravel(), triples[:, column]] = True
    return ~known[pair.ravel()]


def train(triples: NDArray[np.int64], entities: int, relations: int, settings: RotatE) -> Embedding:
    """The embedding of triples (n, 3) of head, relation and tail numbers; the same for the same seed."""
    generator = torch.Generator().manual_seed(settings.seed)
    table = torch.rand(entities, 2 * settings.width, generator=generator, requires_grad=True)
    phases = torch.rand(relations, settings.width, generator=generator, requires_grad=True)
    optimizer = torch.optim.Adam([table, phases], lr=settings.rate)
    known = torch.from_numpy(triples)
    weights = torch.from_numpy(subsampling(triples)).float()
    allowed = {column: torch.from_numpy(free(triples, entities, column)).float() for column in (0, 2)}
    order = known.new_empty(0)
    for step in range(1, settings.steps + 1):
        if len(order) < settings.batch:
            order = torch.cat([order, torch.randperm(len(known), generator=generator)])
        chosen, order = order[: settings.batch], order[settings.batch :]
        column = 2 if step % 2 else 0
        drawn = torch.multinomial(
            allowed[column][chosen], settings.negatives, replacement=True, generator=generator
        )
        h, r, t = (known[chosen, which] for which in range(3))
        ends = (h[:, None], drawn) if column == 2 else (drawn, t[:, None])
        shape = {"margin": settings.margin, "half_range": settings.half_range}
        true = scores(table[h], phases[r], table[t], **shape)
        corrupted = scores(table[ends[0]], phases[r][:, None], table[ends[1]], **shape)
        cubes = table.abs().pow(3).sum() + phases.abs().pow(3).sum()
        total = loss(true, corrupted, weights[chosen], adversarial=settings.adversarial)
        optimizer.zero_grad()
        torch.autograd.backward(total + settings.regularization * cubes)
        optimizer.step()
    return Embedding(table.detach(), phases.detach())


@torch.no_grad()
def reciprocal_rank(embedding: Embedding, triples: NDArray[np.int64], settings: RotatE) -> float:
    """Mean over triples, and over head and tail, of 1 / rank of the entity among those that make no known triple.

    Ties count half.
    """
    table, phases = embedding
    found = []
    for column in (0, 2):
        others = torch.from_numpy(free(triples, len(table), column))
        kept = table[triples[:, 2 - column]][:, None]
        turned = phases[triples[:, 1]][:, None]
        ends = (table[None], kept) if column == 0 else (kept, table[None])
        shape = {"margin": settings.margin, "half_range": settings.half_range}
        every = scores(ends[0], turned, ends[1], **shape)
        own = every.gather(1, torch.from_numpy(triples[:, [column]]))
        above = ((every > own) & others).sum(1) + ((every == own) & others).sum(1) / 2
        found.append((1 / (1 + above.double())).mean())
    return float(torch.stack(found).mean())


@cache
def shipped() -> Embedding:
    """The embedding that the package ships. Raises ConfigError when it was made from another table."""
    from safetensors import safe_open

    with (
        as_file(files("diptych_molecules.knowledge").joinpath(SHIPPED)) as path,
        safe_open(path, "pt") as file,
    ):
        if file.metadata()["table"] != digest():
            raise ConfigError(
                f"{SHIPPED} belongs to another elements.tsv; run: python -m diptych_molecules.rotate"
            )
        return Embedding(file.get_tensor("entities"), file.get_tensor("relations"))


def digest() -> str:
    """What tells one table of triples from another."""
    return hashlib.sha256(knowledge().numbered().tobytes()).hexdigest()


def main() -> None:
    """Train on the shipped table and write the result beside it."""
    from safetensors.torch import save_file

    graph, settings = knowledge(), RotatE()
    triples = graph.numbered()
    embedding = train(triples, graph.entities, len(graph.relations), settings)
    path = Path(str(files("diptych_molecules.knowledge").joinpath(SHIPPED)))
    save_file(embedding._asdict(), path, {"table": digest(), "settings": json.dumps(asdict(settings))})
    rank = reciprocal_rank(embedding, triples, settings)
    print(f"{path.name}: mean reciprocal rank of the {len(triples)} triples {rank:.3f}")


if __name__ == "__main__":
    main()
