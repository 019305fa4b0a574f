"""The options that evaluators of circuits share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from diptych.errors import ConfigError
from diptych.evaluation.frozen import check_options
from diptych.evaluation.target import check_samples
from diptych.study import Study
from diptych_circuits.balanced.losses import ClassLoss, RegressionLoss
from diptych_circuits.elsewhere import tested_elsewhere
from diptych_circuits.evaluated import Between, circuit_study
from diptych_circuits.fitting import Fitting
from diptych_circuits.study import CircuitStudy

Mode = Literal["frozen", "trees", "downstream", "finetune"]
Subgraphs = Literal["whole", "shared", "disjoint"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every evaluator of circuits is told.

    Args:
        mode: frozen trains a head of two layers on the embeddings of a net, or of both ends of a pair; trees boosted
            trees on their principal components; downstream four SAGE layers and a head on frozen embeddings, as the
            release of CircuitGCL does; finetune the encoder and a head.
        statistics: Give networks the statistics of nodes, their devices and nets beside the embeddings.
        fractions: Shares of the labelled training and validation designs to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of designs.
        draws: Number of bootstrap resamples of the test designs.
        epochs: Passes over the training couplings; the epoch of the best validation score is kept.
        rate: Learning rate (AdamW, cosine to 0) of all that is new.
        encoder_rate: That of the encoder with finetune.
        batch_size: Couplings in a step, where steps are not whole netlists.
        hidden: Width of heads and of the downstream network.
        dropout: In heads and in the downstream network.
        subgraphs: With downstream and finetune: whole netlists, or sampled surroundings of each net, or of each pair's
            ends, as loader has it, shared by those of a step or a disjoint one for each (which distances to the ends
            as positions need); large designs need one of both.
        tested: Path of other netlists to test on instead of the study's test designs; designs of theirs that the
            study trains on or validates with are left out.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training designs is
            tested on.
        device: Where to embed: auto, cpu, cuda.

    Raises:
        ConfigError: options that cannot be run.
    """

    mode: Mode = "frozen"
    statistics: bool = True
    fractions: tuple[float, ...] = (1.0, 0.1)
    seeds: int = 3
    draws: int = 2000
    epochs: int = 40
    rate: float = 2e-3
    encoder_rate: float = 3e-4
    batch_size: int = 512
    hidden: int = 144
    dropout: float = 0.1
    subgraphs: Subgraphs = "whole"
    tested: str | None = None
    run_splits: str | Path | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        check_options(self.fractions, self.seeds)
        for name, known in (("mode", Mode), ("subgraphs", Subgraphs)):
            if getattr(self, name) not in get_args(known):
                raise ConfigError(
                    f"{name} is one of {', '.join(get_args(known))}; got {getattr(self, name)!r}"
                )
        least = {"batch_size": 2, "hidden": 1}
        for name, number in least.items():
            if getattr(self, name) < number:
                raise ConfigError(f"{name}: expected at least {number}; got {getattr(self, name)}")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout is from 0 to below 1; got {self.dropout:g}")
        self.fitting()

    def fitting(self) -> Fitting:
        """How networks are trained. Raises ConfigError for epochs and rates that cannot be run."""
        return Fitting(epochs=self.epochs, rate=self.rate, encoder_rate=self.encoder_rate)

    def check_loss(self, loss: RegressionLoss | ClassLoss) -> None:
        """Raise ConfigError for a loss that the mode does not have."""
        if self.mode == "trees" and loss not in ("mse", "ce"):
            raise ConfigError(f"boosted trees have their own loss, mse or ce; got {loss!r} with mode trees")

    def tested_study(self, study: Study) -> tuple[CircuitStudy, list[str]]:
        """The study with the designs to test on, checked, and notes on them."""
        found, elsewhere = tested_elsewhere(circuit_study(study), self.tested)
        return found, [*check_samples(found.samples, self.run_splits), *elsewhere]


@dataclass(frozen=True, kw_only=True)
class PairOptions(Options):
    """What evaluators of pairs of nodes are told too.

    Args:
        between: terminals takes couplings between pins and nets as they are, nets adds those of pins to their nets'.
        distances: Give heads what is known of the pair: hops, devices in common, a net in common.
    """

    between: Between = "terminals"
    distances: bool = True

    def input_notes(self) -> list[str]:
        """What heads are given."""
        given = ["embeddings"]
        if self.statistics:
            given.append("statistics of nodes, their devices and their nets")
        if self.distances:
            given.append("hops, devices and nets in common of both ends")
        return [f"heads are given {', '.join(given)}; boosted trees always have all but embeddings"]
