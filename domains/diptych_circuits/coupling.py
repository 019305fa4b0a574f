"""``evaluate coupling``: coupling capacitances of unseen designs, predicted zero-shot and with few labelled designs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from diptych.evaluation.frozen import check_options
from diptych.evaluation.table import Table
from diptych.evaluation.target import check_samples
from diptych.study import Study
from diptych.words import Words
from diptych_circuits.balanced.losses import RegressionLoss
from diptych_circuits.elsewhere import tested_elsewhere
from diptych_circuits.evaluated import Between, circuit_study, coupling_targets
from diptych_circuits.ranges import Range
from diptych_circuits.scored import compare_predicted
from diptych_circuits.targets import LabelRange, Targets, check_targets, label_range, within
from diptych_circuits.trial import Mode, Options, Subgraphs, Trial

WORDS = Words(unit="design", recording="netlist", sample="coupling")
MODES = {
    "frozen": "heads on frozen embeddings",
    "trees": "boosted trees on frozen embeddings",
    "downstream": "a graph network on frozen embeddings",
    "finetune": "fine-tuning",
}


def coupling(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    mode: Mode = "frozen",
    between: Between = "terminals",
    statistics: bool = True,
    distances: bool = True,
    loss: RegressionLoss = "mse",
    balance: bool = False,
    scale: LabelRange = "training",
    fractions: tuple[float, ...] = (1.0, 0.1),
    seeds: int = 3,
    draws: int = 2000,
    epochs: int = 40,
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
    """Predict the capacitance between two nodes, of designs that no label was seen of.

    Rows: pretrained, the same with random weights (from scratch with finetune), the same head on statistics alone,
    boosted trees on statistics of both ends and of the pair, the mean of each kind of coupling, and one constant.
    Labels are log10 of the capacitance, 0 and 1 at the smallest and largest of the training designs.

    Args:
        study: The netlists and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        mode: frozen trains a head of two layers on the embeddings of both ends; trees boosted trees on their
            principal components; downstream four SAGE layers and a
            head on frozen embeddings, as the release of CircuitGCL does; finetune the encoder and a head.
        between: terminals takes couplings between pins and nets as they are, nets adds those of pins to their nets'.
        statistics: Give networks the statistics of nodes, their devices and nets beside the embeddings.
        distances: Give heads what is known of the pair: hops, devices in common, a net in common.
        loss: mse, gai, bmc, bni, lds or released_bmc.
        balance: Train on as many couplings of each kind as of the rarest.
        scale: training, or release: 1e-21 to 1e-15 F, couplings beyond left out.
        fractions: Shares of the labelled training and validation designs to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of designs.
        draws: Number of bootstrap resamples of the test designs.
        epochs: Passes over the training couplings; the epoch of the smallest validation error is kept.
        rate: Learning rate (AdamW, cosine to 0) of all that is new.
        encoder_rate: That of the encoder with finetune.
        batch_size: Couplings in a step, where steps are not whole netlists.
        hidden: Width of heads and of the downstream network.
        dropout: In heads and in the downstream network.
        subgraphs: With downstream and finetune: whole netlists, or sampled surroundings of each coupling's ends
            as loader has it, shared by the couplings of a step or a disjoint one for each (which distances to the
            ends as positions need); large designs need one of both.
        tested: Path of other netlists to test on instead of the study's test designs; designs of theirs that the
            study trains on or validates with are left out.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training designs is
            tested on.
        device: Where to embed: auto, cpu, cuda.

    Raises:
        ConfigError: options that cannot be run.
        DataError: netlists without couplings, or too few designs that have any.
    """
    fractions = check_options(fractions, seeds)
    options = Options(
        mode=mode,
        statistics=statistics,
        distances=distances,
        loss=loss,
        balance=balance,
        fractions=fractions,
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
    targets = coupling_targets(study, between)
    check_targets(targets, "coupling capacitances", len(study.circuits.netlists))
    limits = label_range(targets, scale)
    targets, left_out = kept(targets, limits, scale)
    trial = Trial(study, targets, limits.label(targets.farad), 0, options)
    return compare_predicted(
        trial.contenders(encoder),
        targets,
        limits,
        title=f"coupling capacitance between {between}: {MODES[mode]}, loss {loss}",
        words=WORDS,
        draws=draws,
        notes=[*notes, *left_out, *label_notes(targets, limits), *input_notes(options)],
    )


def kept(targets: Targets, limits: Range, scale: LabelRange) -> tuple[Targets, list[str]]:
    """The targets that the release would take, where its scale is asked for, and a note on the others."""
    if scale != "release":
        return targets, []
    inside = within(limits, targets.farad)
    note = f"{np.count_nonzero(~inside)} of {len(inside)} capacitances lie beyond the release's limits and are left out"
    train, validation, test = (
        each[inside[each]] for each in (targets.train, targets.validation, targets.test)
    )
    return replace(targets, train=train, validation=validation, test=test), [note]


def label_notes(targets: Targets, limits: Range) -> list[str]:
    """What 0 and 1 are, and how many test labels lie beyond."""
    beyond = np.count_nonzero(~within(limits, targets.farad[targets.test]))
    notes = [
        f"labels: log10 of the capacitance, 0 at {limits.low:.3g} F and 1 at {limits.high:.3g} F",
        "error of total %: sum of |predicted - true| over the sum of the true capacitances, in farad; macro F1 of five "
        "classes of equal width of the label",
    ]
    if beyond:
        notes.append(f"{beyond} test capacitances lie beyond and count as the nearer limit")
    return notes


def input_notes(options: Options) -> list[str]:
    """What heads were given."""
    given = ["embeddings"]
    if options.statistics:
        given.append("statistics of nodes, their devices and their nets")
    if options.distances:
        given.append("hops, devices and nets in common of both ends")
    return [f"heads are given {', '.join(given)}; boosted trees always have all but embeddings"]
