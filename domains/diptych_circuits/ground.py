"""``evaluate ground``: capacitance to ground of the nets of unseen designs, as a number or as one of five classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from torch import nn

from diptych.errors import ConfigError
from diptych.evaluation.frozen import check_options
from diptych.evaluation.table import Table
from diptych.evaluation.target import check_samples
from diptych.study import Study
from diptych.words import Words
from diptych_circuits.balanced.losses import ClassLoss, RegressionLoss
from diptych_circuits.coupling import MODES, kept, label_notes
from diptych_circuits.elsewhere import tested_elsewhere
from diptych_circuits.evaluated import circuit_study, ground_targets
from diptych_circuits.ranges import CLASSES, classes
from diptych_circuits.scored import compare_predicted
from diptych_circuits.targets import LabelRange, check_targets, label_range
from diptych_circuits.trial import Mode, Options, Subgraphs, Trial

Answer = Literal["number", "class"]
WORDS = Words(unit="design", recording="netlist", sample="net")


def ground(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    answer: Answer = "number",
    mode: Mode = "frozen",
    statistics: bool = True,
    loss: RegressionLoss | ClassLoss | None = None,
    scale: LabelRange = "training",
    fractions: tuple[float, ...] = (1.0, 0.1),
    seeds: int = 3,
    draws: int = 2000,
    epochs: int = 100,
    rate: float = 2e-3,
    encoder_rate: float = 3e-4,
    batch_size: int = 128,
    hidden: int = 144,
    dropout: float = 0.1,
    subgraphs: Subgraphs = "whole",
    tested: str | None = None,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Predict a net's capacitance to ground, of designs that no label was seen of.

    Rows: pretrained, the same with random weights (from scratch with finetune), the same head on statistics alone,
    boosted trees on statistics, and one constant. Labels are log10 of the capacitance, 0 and 1 at the smallest and
    largest of the training designs; the classes are its fifths.

    Args:
        study: The netlists and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        answer: number, or class: one of five.
        mode: frozen trains a head of two layers on the net's embedding; trees boosted trees on its principal
            components; downstream four SAGE layers and a head on
            frozen embeddings, as the release of CircuitGCL does; finetune the encoder and a head.
        statistics: Give networks the statistics of nodes and their devices beside the embeddings.
        loss: For numbers mse (the default), gai, bmc, bni, lds or released_bmc; for classes ce (the default),
            balanced_softmax, released_balanced_softmax or focal.
        scale: training, or release: 1e-20 to 1e-14 F, nets beyond left out.
        fractions: Shares of the labelled training and validation designs to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of designs.
        draws: Number of bootstrap resamples of the test designs.
        epochs: Passes over the training nets; the epoch of the best validation score is kept.
        rate: Learning rate (AdamW, cosine to 0) of all that is new.
        encoder_rate: That of the encoder with finetune.
        batch_size: Nets in a step, where steps are not whole netlists.
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
        DataError: netlists without ground capacitances, or too few designs that have any.
    """
    if answer not in get_args(Answer):
        raise ConfigError(f"answer is {' or '.join(map(repr, get_args(Answer)))}; got {answer!r}")
    allowed = get_args(RegressionLoss if answer == "number" else ClassLoss)
    loss = loss or allowed[0]
    if loss not in allowed:
        raise ConfigError(f"the loss of a {answer} is one of {', '.join(allowed)}; got {loss!r}")
    options = Options(
        mode=mode,
        statistics=statistics,
        distances=False,
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
    targets = ground_targets(study)
    check_targets(targets, "capacitances of nets to ground", len(study.circuits.netlists))
    limits = label_range(targets, scale)
    targets, left_out = kept(targets, limits, scale)
    numbers = limits.label(targets.farad)
    labels = numbers if answer == "number" else classes(numbers)
    trial = Trial(study, targets, labels, 0 if answer == "number" else CLASSES, options)
    return compare_predicted(
        trial.contenders(encoder),
        targets,
        limits,
        title=f"ground capacitance of nets as a {answer}: {MODES[mode]}, loss {loss}",
        words=WORDS,
        draws=draws,
        notes=[*notes, *left_out, *label_notes(targets, limits)],
    )
