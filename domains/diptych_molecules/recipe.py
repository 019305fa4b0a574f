"""The recipe of the molecules domain: its typed signature is the YAML and the command line of every command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from diptych.data.loading import BatchPlan, OrderedBatches, ResumableLoader, ShuffledBatches
from diptych.errors import ConfigError
from diptych.method import MethodBuilder, OptimizerFactory, ScheduleFactory
from diptych.study import Baseline, Indices
from diptych.types import Views
from diptych_molecules.batches import SimilarBatches
from diptych_molecules.labels import Tasks
from diptych_molecules.settings import Loading
from diptych_molecules.similarity import alike
from diptych_molecules.source import Label, Molecules, Source, Splitting, prepare
from diptych_molecules.study import MoleculeStudy


class Batches:
    """Stored molecules as batches with their ids."""

    def __init__(self, molecules: Molecules) -> None:
        self.store, self.rows = molecules.store, molecules.rows
        self.molecule_ids, self.unit_ids = molecules.molecule_ids, molecules.unit_ids
        self.unit = molecules.samples.words.unit

    def batch(self, indices: Indices) -> Views:
        """One view, a GraphBatch, and the ids of samples, molecules, units of the split, and atoms ("part")."""
        rows = self.rows[indices]
        return Views(
            views=(self.store.batch(rows),),
            groups={
                "sample": torch.from_numpy(np.asarray(indices, np.int64)),
                "molecule": torch.from_numpy(self.molecule_ids[indices]),
                self.unit: torch.from_numpy(self.unit_ids[indices]),
                "part": torch.from_numpy(self.store.atom_ids(rows)),
            },
        )


def build(
    *,
    data: Source,
    labels: Mapping[str, Label] = {},
    tasks: Tasks = None,
    split: Splitting = Splitting(),  # noqa: B008  (frozen)
    loader: Loading = Loading(),  # noqa: B008  (frozen)
    encoder: Callable[[], nn.Module],
    method: MethodBuilder,
    optimizer: OptimizerFactory,
    schedule: ScheduleFactory | None = None,
    features: Literal["fingerprints", "descriptors", "none"] = "none",
) -> MoleculeStudy:
    """Builds a study of molecules.

    Args:
        data: Which molecules there are, and what is done to them before anything is computed.
        labels: What evaluators may predict, by name: columns of the file.
        tasks: Columns of numbers that are labels of their own name, or all numeric ones; 0 and 1 are classes.
        split: What stays together and the shares of train, validation and test.
        loader: How batches are made.
        encoder: The network, such as diptych_molecules.gcn.GCN.
        method: How the encoder is pretrained, such as diptych_molecules.kcl.KCL.
        optimizer: A torch optimiser.
        schedule: A learning-rate schedule of torch, or diptych.schedules.WarmupCosine.
        features: Hand-made features for the classical rows of evaluation tables.
    """
    molecules = prepare(data, labels, tasks, split, cache=loader.cache, workers=loader.readers)
    batches = Batches(molecules)

    def training(indices: Indices, seed: int) -> ResumableLoader:
        return ResumableLoader(batches, _plan(molecules, loader, indices, seed), workers=loader.workers)

    def plain(indices: Indices) -> ResumableLoader:
        return ResumableLoader(batches, OrderedBatches(indices, 256), shared=False)

    return MoleculeStudy(
        samples=molecules.samples,
        new_encoder=encoder,
        method=partial(_method, method, optimizer, schedule),
        training=training,
        plain=plain,
        baseline=None if features == "none" else partial(baseline, molecules, features),
        described=molecules.described,
        summary=molecules.report,
        molecules=molecules,
    )


def baseline(
    molecules: Molecules, kind: Literal["fingerprints", "descriptors"], indices: Indices
) -> Baseline:
    """Morgan fingerprints as 0 and 1, (n, 1024), or RDKit's descriptors (n, d), with their name."""
    if kind == "fingerprints":
        bits = np.unpackbits(molecules.fingerprints(indices), axis=1).astype(np.float64)
        return Baseline(name="Morgan fingerprints, radius 2", values=bits)
    from rdkit.Chem import Descriptors

    from diptych_molecules.derived import descriptors

    names = [name for name, _ in Descriptors.descList]
    values = descriptors(molecules.store, names, molecules.workers)[molecules.rows[indices]]
    return Baseline(name="RDKit descriptors", values=np.asarray(values))


def _plan(molecules: Molecules, loader: Loading, indices: Indices, seed: int) -> BatchPlan:
    if not len(indices):
        raise ConfigError("there are no molecules to make batches of; check the split and its shares")
    if loader.order == "similar":
        clusters = alike(molecules.fingerprints(indices), loader.cluster_size)
        return SimilarBatches(indices, clusters, batch_size=loader.batch_size, seed=seed)
    return ShuffledBatches(
        indices, loader.batch_size, seed, drop_last=len(indices) % loader.batch_size == 1 < len(indices) - 1
    )


def _method(
    method: MethodBuilder, optimizer: OptimizerFactory, schedule: ScheduleFactory | None, encoder: nn.Module
) -> Any:
    return method(encoder, optimizer, schedule)
