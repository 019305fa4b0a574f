"""``evaluate links``: does a pair of nodes couple at all? Negatives are pairs of the same kinds in the same netlist."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from diptych.errors import ConfigError, DataError
from diptych.evaluation.frozen import check_options
from diptych.evaluation.table import Table
from diptych.evaluation.target import check_samples
from diptych.study import Indices, Study
from diptych.words import Words
from diptych_circuits.balanced.losses import ClassLoss
from diptych_circuits.circuits import Circuits
from diptych_circuits.coupling import MODES, input_notes
from diptych_circuits.elsewhere import tested_elsewhere
from diptych_circuits.evaluated import Between, circuit_study, coupling_targets
from diptych_circuits.scored import compare_links
from diptych_circuits.targets import Targets, check_targets, split_positions
from diptych_circuits.trial import Mode, Options, Subgraphs, Trial

WORDS = Words(unit="design", recording="netlist", sample="pair")
ROUNDS = 20  # draws of a negative pair before a coupling goes without


def links(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    mode: Mode = "frozen",
    between: Between = "terminals",
    negatives: float = 1.0,
    statistics: bool = True,
    distances: bool = True,
    loss: ClassLoss = "ce",
    fractions: tuple[float, ...] = (1.0, 0.1),
    seeds: int = 3,
    draws: int = 500,
    epochs: int = 30,
    rate: float = 2e-3,
    encoder_rate: float = 3e-4,
    batch_size: int = 512,
    hidden: int = 144,
    dropout: float = 0.1,
    subgraphs: Subgraphs = "whole",
    tested: str | None = None,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Tell pairs that couple from pairs of the same kinds of nodes in the same netlist that do not.

    What an extractor dropped as too small counts as no coupling. Rows as in the evaluation of coupling capacitances,
    but for the mean of each kind, which here is a constant.

    Args:
        study: The netlists and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        mode: frozen trains a head of two layers on the embeddings of both ends; trees boosted trees on their
            principal components; downstream four SAGE layers and a
            head on frozen embeddings; finetune the encoder and a head.
        between: terminals takes couplings between pins and nets as they are, nets adds those of pins to their nets'.
        negatives: Pairs without coupling for each coupling.
        statistics: Give networks the statistics of nodes, their devices and nets beside the embeddings.
        distances: Give heads what is known of the pair: hops, devices in common, a net in common.
        loss: ce, balanced_softmax, released_balanced_softmax or focal.
        fractions: Shares of the labelled training and validation designs to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of designs.
        draws: Number of bootstrap resamples of the test designs.
        epochs: Passes over the training pairs; the epoch of the best validation score is kept.
        rate: Learning rate (AdamW, cosine to 0) of all that is new.
        encoder_rate: That of the encoder with finetune.
        batch_size: Pairs in a step, where steps are not whole netlists.
        hidden: Width of heads and of the downstream network.
        dropout: In heads and in the downstream network.
        subgraphs: With downstream and finetune: whole netlists, or sampled surroundings, shared or disjoint.
        tested: Path of other netlists to test on instead of the study's test designs; designs of theirs that the
            study trains on or validates with are left out.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training designs is
            tested on.
        device: Where to embed: auto, cpu, cuda.

    Raises:
        ConfigError: options that cannot be run.
        DataError: netlists without couplings, or too few designs that have any.
    """
    if not negatives > 0:
        raise ConfigError(
            f"negatives: expected a number above 0 of pairs for each coupling; got {negatives:g}"
        )
    options = Options(
        mode=mode,
        statistics=statistics,
        distances=distances,
        loss=loss,
        balance=False,
        fractions=check_options(fractions, seeds),
        seeds=seeds,
        epochs=epochs,
        rate=rate,
        encoder_rate=encoder_rate,
        batch_size=batch_size,
        hidden=hidden,
        dropout=dropout,
        subgraphs=subgraphs,
        device=device,
    )
    study, elsewhere = tested_elsewhere(circuit_study(study), tested)
    notes = [*check_samples(study.samples, run_splits), *elsewhere]
    couplings = coupling_targets(study, between)
    check_targets(couplings, "coupling capacitances", len(study.circuits.netlists))
    targets, labels = with_negatives(study.circuits, couplings, negatives, seed=0)
    trial = Trial(study, targets, labels, 2, options)
    return compare_links(
        trial.contenders(encoder),
        targets,
        labels,
        title=f"existence of couplings between {between}: {MODES[mode]}, loss {loss}",
        words=WORDS,
        draws=draws,
        notes=[
            *notes,
            f"{np.count_nonzero(labels == 0)} pairs without coupling beside {np.count_nonzero(labels)} couplings, of "
            "the same kinds in the same netlists; what the extractor dropped as too small counts as none",
            *input_notes(options),
        ],
    )


def with_negatives(
    circuits: Circuits, couplings: Targets, ratio: float, seed: int
) -> tuple[Targets, Indices]:
    """The couplings and pairs that do not couple, with (n,) labels 1 and 0.

    A negative pair keeps the first end of a coupling, and its second end is another node of the same kind in the same
    netlist, uniformly. Negatives are different from each other and from all couplings. A coupling for which none is
    found after ROUNDS draws has none, as where all pairs of a netlist couple.

    Raises DataError where no negative pair exists.
    """
    generator = np.random.default_rng(seed)
    first, second = np.repeat(couplings.ends, int(np.ceil(ratio)), axis=0).T
    source = np.repeat(np.arange(len(couplings.ends)), int(np.ceil(ratio)))
    chosen = np.sort(generator.permutation(len(source))[: round(ratio * len(couplings.ends))])
    first, second, source = first[chosen], second[chosen], source[chosen]
    low, size = _alike(circuits, second)
    span = len(circuits)
    taken = np.unique(_codes(couplings.ends, span))
    found: list[tuple[Indices, Indices]] = []
    for _ in range(ROUNDS):
        other = low + (generator.random(len(first)) * size).astype(np.int64)
        pairs = np.column_stack([first, other])
        codes = _codes(pairs, span)
        _, earliest = np.unique(codes, return_index=True)
        good = np.zeros(len(codes), dtype=bool)
        good[earliest] = True
        good &= ~np.isin(codes, taken) & (first != other)
        found.append((source[good], pairs[good]))
        taken = np.union1d(taken, codes[good])
        first, low, size, source = (each[~good] for each in (first, low, size, source))
    origin = np.concatenate([places for places, _ in found])
    if not len(origin):
        raise DataError(
            "all pairs of nodes couple in these netlists; there is no pair without coupling to tell apart"
        )
    everything = np.concatenate([np.arange(len(couplings.ends)), origin])
    split = np.full(len(couplings.ends), "", dtype="U10")
    for name in ("train", "validation", "test"):
        split[getattr(couplings, name)] = name
    parts = split_positions(split[everything])
    joined = replace(
        couplings,
        ends=np.concatenate([couplings.ends, *(pairs for _, pairs in found)]),
        kind=couplings.kind[everything],
        farad=couplings.farad[everything],
        design=couplings.design[everything],
        train=parts["train"],
        validation=parts["validation"],
        test=parts["test"],
    )
    return joined, (np.arange(len(everything)) < len(couplings.ends)).astype(np.int64)


def _alike(circuits: Circuits, nodes: Indices) -> tuple[Indices, Indices]:
    """The first node of the same kind in the same netlist, and how many there are: they are contiguous."""
    code = np.asarray(circuits.netlist, np.int64) * 4 + np.asarray(circuits.kind, np.int64)
    _, start, size = np.unique(code, return_index=True, return_counts=True)
    place = np.searchsorted(code[start], code[nodes])
    return start[place].astype(np.int64), size[place].astype(np.int64)


def _codes(pairs: Indices, span: int) -> Indices:
    """One number for every unordered pair."""
    low, high = np.sort(pairs, axis=1).T
    return np.asarray(low * span + high, dtype=np.int64)
