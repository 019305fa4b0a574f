"""GEMINI's loss head of a pair of volumes against its literal implementation: CPU seconds and peak memory of one
forward and backward pass at 64^3 with 32 channels, one thread.

    python tests/benchmarks/medical_loss.py [--rounds 3] [--steps 3] [--size 64] [--channels 32]

Every measurement runs in a process of its own, the contenders in turn within a round. Printed are medians over all
steps but each process's first two, with their range; the peak is the highest resident memory during the steps minus
that before the first, so it holds the gradients but not the images, features and flows. Then: how far totals and
gradients lie from the literal ones, relative to their largest value; with the literal correlation in float32, whose
variances lose digits by subtraction, and in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

import torch
from measuring import in_turn, measure, report
from medical_literal import Pair, literal_head, random_pair
from torch import Tensor

from diptych_medical.correspondence import warped_similarity
from diptych_medical.similarity import local_ncc, smoothness
from diptych_medical.warp import Convention, inside, warp

CONTENDERS = {
    "literal": "formula by formula",
    "official": "Diptych, official convention",
    "aligned": "Diptych, aligned convention",
}
WARM_UP = 2
TARGETS = dict.fromkeys(("official", "aligned"), ">= 2x, peak <= 0.60")


class Batched:
    """The same pair as the library meets it: images, features and flows of both stacked."""

    def __init__(self, pair: Pair) -> None:
        self.images = torch.cat([pair.a, pair.b])
        self.features = torch.cat([pair.features_a, pair.features_b]).detach().requires_grad_()
        self.flows = torch.cat([pair.flow_ab, pair.flow_ba]).detach().requires_grad_()


def head(pair: Batched, convention: Convention) -> Tensor:
    """0.4 L_smo + 0.8 L_gss + 1.0 L_gvs of both directions."""
    mask = inside(pair.flows, convention=convention)
    moved = warp(pair.images, pair.flows, convention=convention)
    # One sum of losses per direction: the released code averages over each direction's own mask.
    gvs = torch.stack([local_ncc(pair.images[1 - i, None], moved[i, None], mask[i, None]) for i in range(2)])
    gss = warped_similarity(pair.features, pair.flows, mask, convention=convention)
    return 0.4 * 2 * smoothness(pair.flows) + 0.8 * gss + gvs.sum()


def step(contender: str, size: int, channels: int) -> Callable[[], None]:
    """A forward and backward pass of a contender on one random pair, gradients set anew."""
    pair = random_pair(size, channels)
    leaves, loss = list(pair[2:]), partial(literal_head, pair)
    if contender != "literal":
        batched = Batched(pair)
        leaves = [batched.features, batched.flows]
        loss = partial(head, batched, "official" if contender == "official" else "aligned")

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        loss().backward()

    return run


def measured(contender: str, size: int, channels: int, steps: int) -> None:
    """Print CPU seconds of every step and the peak of resident memory as JSON."""
    torch.set_num_threads(1)
    step(
        contender, 16, channels
    )()  # so that the code of the libraries is in memory before and does not count
    run = step(contender, size, channels)
    measure(run, warm_up=WARM_UP, steps=steps)


def parity(size: int, channels: int, ncc_type: torch.dtype) -> dict[str, float]:
    """The largest deviation from the literal total and gradients, relative to their largest value."""
    pair = random_pair(size, channels)
    batched = Batched(pair)
    expected, found = literal_head(pair, ncc_type), head(batched, "official")
    expected.backward()
    found.backward()
    assert batched.features.grad is not None
    assert batched.flows.grad is not None
    names = ["features a", "features b", "flow ab", "flow ba"]
    gradients = [*batched.features.grad.split(1), *batched.flows.grad.split(1)]
    deviations = {"total": float((found / expected - 1).detach().abs())}
    for name, leaf, gradient in zip(names, pair[2:], gradients, strict=True):
        assert leaf.grad is not None
        deviations[name] = float((gradient - leaf.grad).abs().max() / leaf.grad.abs().max())
    return deviations


def main() -> None:
    """Run all contenders and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--only", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        measured(options.only, options.size, options.channels, options.steps)
        return
    found = in_turn(
        __file__,
        list(CONTENDERS),
        options.rounds,
        ["--size", str(options.size), "--channels", str(options.channels), "--steps", str(options.steps)],
    )
    report(found, CONTENDERS, TARGETS)
    print("relative deviation from the literal total and gradients, official convention:")
    for ncc_type in (torch.float32, torch.float64):
        deviations = parity(options.size, options.channels, ncc_type).items()
        print(
            f"  its correlation in {ncc_type}: "
            + ", ".join(f"{name} {each:.1e}" for name, each in deviations)
        )


if __name__ == "__main__":
    main()
