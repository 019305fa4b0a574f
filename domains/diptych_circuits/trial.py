"""One evaluation of circuits: its targets, labels and options, and the rows of its table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diptych.evaluation.frozen import Encoders, check_options, encoders_of, random_encoder, torch_seed
from diptych.evaluation.metrics import Floats
from diptych.study import Indices
from diptych_circuits import baselines
from diptych_circuits.balanced.losses import ClassLoss, RegressionLoss, make_loss
from diptych_circuits.downstream import Downstream
from diptych_circuits.evaluated import features_of_pairs, node_statistics, surroundings_of
from diptych_circuits.fitting import Portions, fit, predict
from diptych_circuits.heads import Encoding, Head, Kept, Network
from diptych_circuits.options import Options
from diptych_circuits.portions import Tables, netlist_portions, node_rows, random_portions, sampled_portions
from diptych_circuits.scored import Predicted
from diptych_circuits.study import CircuitStudy
from diptych_circuits.targets import Targets

PRETRAINED = "pretrained"
RANDOM = "random weights"
ALONE = "statistics alone, the same head"


class Trial:
    """Targets with their labels, and everything that rows are made of.

    Args:
        study: The netlists and how to make an encoder.
        targets: n targets.
        labels: (n,) numbers, or class codes.
        classes: 0 for numbers.
        options: The options.
        loss: That heads are trained with.
        distances: Whether heads are given what is known of a pair.
        balance: Whether to train on as many targets of each kind as of the rarest.
    """

    def __init__(
        self,
        study: CircuitStudy,
        targets: Targets,
        labels: Any,
        classes: int,
        options: Options,
        *,
        loss: RegressionLoss | ClassLoss,
        distances: bool = False,
        balance: bool = False,
    ) -> None:
        self.study, self.targets, self.classes, self.options = study, targets, classes, options
        self.labels, self.loss, self.balance = labels, loss, balance
        self.fractions = check_options(options.fractions, options.seeds)
        self.circuits = study.circuits
        # statistics that are the same for all training nodes say nothing, and might say something wrong elsewhere
        around = surroundings_of(self.circuits)
        statistics = node_statistics(self.circuits, around)
        self.columns = np.flatnonzero(np.ptp(statistics[self._training_nodes()], axis=0) > 0)
        self.statistics = statistics[:, self.columns]
        self.pairs = features_of_pairs(around, targets)
        given = self.pairs if distances else self.pairs[:, :0]
        self.tables = Tables(targets, given)
        self.wanted = torch.from_numpy(labels if classes else np.asarray(labels, np.float32))

    def _training_nodes(self) -> Indices:
        """All nodes of the netlists that have training targets: what may be known of the data."""
        netlist = np.asarray(self.circuits.netlist)
        return np.flatnonzero(np.isin(netlist, netlist[self.targets.ends[self.targets.train, 0]]))

    def contenders(self, encoder: Encoders) -> list[Predicted]:
        """All rows, those of the largest fraction first; the first row of each fraction is the pretrained one."""
        rows = self._boosted(encoder) if self.options.mode == "trees" else self._networks(encoder)
        features = baselines.join_features(self.statistics, self.pairs, self.targets)
        found: list[Predicted] = []
        for fraction in self.fractions:
            for name, (repeats, predicted) in rows.items():

                def trained(train: Indices, repeat: int, predicted: Fitted = predicted) -> Floats:
                    return predicted(train, repeat, fraction)  # noqa: B023  (called at once)

                number = repeats if fraction == 1.0 else max(repeats, self.options.seeds)
                found.append(self._row(name, fraction, number, trained))
            once = 1 if fraction == 1.0 else self.options.seeds
            found.append(self._row(baselines.TREES, fraction, once, self._trees(features)))
            if len(np.unique(self.targets.kind[self.targets.test])) > 1:
                found.append(self._row(baselines.KIND_MEAN, fraction, once, self._kind_mean))
            found.append(self._row(baselines.CONSTANT, fraction, once, self._constant))
        return found

    def tested(self, rows: nn.Module, train: Indices, repeat: int, fraction: float) -> Floats:
        """Predictions for the test targets of a network trained on these training targets."""
        network = self.trained(rows, train, repeat, fraction)
        return predict(network, self.portions, self.targets.test)

    def trained(self, rows: nn.Module, train: Indices, repeat: int, fraction: float = 1.0) -> Network:
        """A head, and what else is trainable, after training."""
        targets, options = self.targets, self.options
        validation = targets.few(targets.validation, fraction, repeat % options.seeds)
        wanted = self.wanted[torch.from_numpy(train)]
        with torch_seed(repeat):
            if self.classes:
                loss = make_loss(self.loss, wanted, classes=self.classes)
            else:
                loss = make_loss(self.loss, wanted)
            head = self.new_head(int(rows.width), wanted)  # type: ignore[arg-type]
            network = Network(rows, head)
            return fit(
                network, loss, self.portions, self.wanted, train, validation, options.fitting(), seed=repeat
            )

    def new_head(self, width: int, wanted: Tensor) -> Head:
        """A head with fresh weights, centred on the training labels."""
        numbers = wanted.float()
        spread = float(numbers.std(correction=0)) if len(numbers) > 1 else 1.0
        return Head(
            width * self.targets.ends.shape[1] + self.tables.features.shape[1],
            len(self.targets.kinds),
            max(1, self.classes),
            hidden=self.options.hidden,
            dropout=self.options.dropout,
            centre=0.0 if self.classes else float(numbers.mean()),
            scale=1.0 if self.classes else spread or 1.0,
        )

    @cached_property
    def portions(self) -> Portions:
        """How an epoch is cut into steps."""
        options = self.options
        if options.mode == "frozen":
            return random_portions(self.tables, options.batch_size)
        if options.subgraphs != "whole":
            apart = options.subgraphs == "disjoint"
            return sampled_portions(self.tables, self.study.graphs, options.batch_size, disjoint=apart)
        return netlist_portions(self.tables, self.circuits, self.study.whole, NODES_OF_A_STEP)

    def _networks(self, encoder: Encoders) -> dict[str, tuple[int, Fitted]]:
        """The rows that are networks: their name, number of repeats, and what trains one and predicts with it."""
        study, options = self.study, self.options
        encoders = encoders_of(encoder)
        repeats = max(options.seeds, len(encoders))

        def fitted(make: Callable[[int], nn.Module]) -> Fitted:
            return lambda train, repeat, fraction: self.tested(make(repeat), train, repeat, fraction)

        if options.mode == "finetune":
            return {
                PRETRAINED: (
                    repeats,
                    fitted(lambda k: self._encoding(deepcopy(encoders[k % len(encoders)]))),
                ),
                "from scratch": (options.seeds, fitted(lambda k: self._encoding(random_encoder(study, k)))),
            }
        kept, random = self._embeddings(encoders)
        rows = {
            PRETRAINED: (repeats, fitted(lambda k: self.rows_of(kept[k % len(kept)]))),
            RANDOM: (options.seeds, fitted(lambda k: self.rows_of(random[k % len(random)]))),
        }
        if options.statistics or options.mode == "downstream":
            nothing = torch.zeros(len(self.circuits), 0)
            rows[ALONE] = (options.seeds, fitted(lambda k: self.rows_of(nothing)))
        return rows

    def _boosted(self, encoder: Encoders) -> dict[str, tuple[int, Fitted]]:
        """The rows that are boosted trees on embeddings; each embedding is one repeat."""
        nodes = self._training_nodes()

        def fitted(embeddings: Sequence[Tensor]) -> tuple[int, Fitted]:
            tables = [
                np.concatenate([components(each.numpy(), nodes), self._given_statistics().numpy()], axis=1)
                for each in embeddings
            ]
            given = self.tables.features.numpy()

            def predicted(train: Indices, repeat: int, _: float) -> Floats:
                features = baselines.join_features(tables[repeat % len(tables)], given, self.targets)
                return self._trees(features)(train, repeat)

            return len(tables), predicted

        kept, random = self._embeddings(encoders_of(encoder))
        return {PRETRAINED: fitted(kept), RANDOM: fitted(random)}

    def _embeddings(self, encoders: Sequence[nn.Module]) -> tuple[list[Tensor], list[Tensor]]:
        """Rows of all nodes of each pretrained encoder, and of as many with random weights as there are seeds."""
        random = (random_encoder(self.study, seed) for seed in range(self.options.seeds))
        return [self.embedded(each) for each in encoders], [self.embedded(each) for each in random]

    def embedded(self, encoder: nn.Module) -> Tensor:
        """(N, width) rows of all nodes, of a frozen encoder."""
        return node_rows(
            encoder, self.circuits, self.study.whole, nodes=NODES_AT_ONCE, device=self.options.device
        )

    def rows_of(self, embedding: Tensor) -> nn.Module:
        """What makes rows of nodes from a frozen embedding: itself, or the network that is trained upon it."""
        given = self._given_statistics()
        if self.options.mode == "frozen":
            return Kept(torch.cat([embedding, given], dim=1))
        kind = torch.from_numpy(np.asarray(self.circuits.kind, np.int64))
        return Downstream(kind, embedding, given, width=self.options.hidden, dropout=self.options.dropout)

    def _encoding(self, encoder: nn.Module) -> nn.Module:
        return Encoding(encoder.requires_grad_(True), self._given_statistics())

    def _given_statistics(self) -> Tensor:
        table = torch.from_numpy(np.asarray(self.statistics, np.float32))
        return table if self.options.statistics else table[:, :0]

    def _row(
        self, name: str, fraction: float, repeats: int, predicted: Callable[[Indices, int], Floats]
    ) -> Predicted:
        targets, predictions, samples, designs = self.targets, [], [], 0
        for repeat in range(repeats):
            draw = repeat % self.options.seeds
            train = targets.few(targets.train, fraction, draw)
            if self.balance:
                train = targets.balanced(train, draw)
            predictions.append(predicted(train, repeat))
            samples.append(len(train))
            designs = len(np.unique(targets.design[train]))
        return Predicted(
            name=name,
            fraction=fraction,
            predictions=predictions,
            designs=designs,
            samples=round(float(np.mean(samples))),
        )

    def _trees(self, features: Floats) -> Callable[[Indices, int], Floats]:
        return lambda train, repeat: baselines.trees(
            features, self.labels, self.classes, train, self.targets.test, repeat
        )

    def _kind_mean(self, train: Indices, _: int) -> Floats:
        return baselines.kind_mean(self.targets, self.labels, self.classes, train, self.targets.test)

    def _constant(self, train: Indices, _: int) -> Floats:
        return baselines.constant(self.labels, self.classes, train, self.targets.test)


def components(embedding: Floats, nodes: Indices, number: int = 16) -> Floats:
    """(N, number) principal components of rows, those of greatest variance among some nodes.

    Trees look at one column at a time, and hundreds of mixed ones would cost them much and tell them little.
    """
    wide = np.asarray(embedding, np.float64)
    centre = wide[nodes].mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(wide[nodes], rowvar=False))
    return np.asarray((wide - centre) @ vectors[:, ::-1][:, :number])


Fitted = Callable[
    [Indices, int, float], Floats
]  # training positions, repeat, fraction of designs -> predictions
NODES_OF_A_STEP = 4000  # of netlists that share a training step
NODES_AT_ONCE = 50_000  # of netlists that are embedded together
