"""Contenders without an encoder: fingerprints and descriptors with classical models, and the constant predictor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, get_args

import numpy as np
import scipy.sparse as sp
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from diptych.errors import ConfigError
from diptych.evaluation.classical import TREES, spread
from diptych.evaluation.linear_model import fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.target import Target
from diptych.nearest import nearest
from diptych.study import Indices
from diptych_molecules.derived import descriptors
from diptych_molecules.parse import again
from diptych_molecules.scoring import Contender
from diptych_molecules.source import Molecules
from diptych_molecules.tasks import Tasks
from diptych_molecules.trials import Fit, over_trials, task_by_task

Name = Literal["forest", "linear", "boosting", "constant"]
NAMES: tuple[Name, ...] = get_args(Name)
BITS, RADIUS = 2048, 2
# Ipc grows beyond what a float holds with the molecule (AvgIpc is its scaled form); qed and SPS are made of the others.
_LEFT_OUT = {"Ipc", "qed", "SPS"}


def baseline_rows(
    molecules: Molecules,
    tasks: Tasks,
    names: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    threads: int = 1,
) -> tuple[list[Contender], list[str]]:
    """The rows that need no encoder, in the order of ``NAMES``, for every fraction; and notes.

    * forest: 200 trees on Morgan fingerprints of radius 2 folded to 2048 counts (Rogers and Hahn, Extended-connectivity
      fingerprints, 2010); sqrt(features) tried at a split, a third of them in regression.
    * linear: logistic or ridge regression on log(1 + count), its strength chosen as the linear probe's is.
    * boosting: histogram gradient boosting of scikit-learn on all RDKit descriptors, missing values as such.
    * constant: the training molecules' share of each class, or their mean.

    Raises:
        ConfigError: an unknown name.
    """
    check_baselines(names)
    fits = _fits(molecules, tasks, names, threads)
    contenders = []
    for fraction in fractions:
        for name, (title, fit, drawn) in fits.items():
            contender = over_trials(title, tasks, fraction, seeds if drawn else 1, seeds, task_by_task(fit))
            contenders.append(replace(contender, constant=name == "constant"))
    return contenders, ["ECFP: Morgan fingerprints, radius 2, 2048 counts"] if {"forest", "linear"} & set(
        names
    ) else []


def check_baselines(names: Sequence[str]) -> None:
    """Raise ConfigError for a name that is no baseline's."""
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise ConfigError(f"there is no baseline {unknown[0]!r}; {nearest(unknown[0], NAMES)}")


def ecfp(smiles: Sequence[str]) -> sp.csr_array:
    """Morgan fingerprints of radius 2 folded to 2048 counts, (n, 2048) sparse."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=RADIUS, fpSize=BITS)
    counts, columns, sizes = [], [], [0]
    for text in smiles:
        found = generator.GetCountFingerprint(again(text)).GetNonzeroElements()
        columns += found.keys()
        counts += found.values()
        sizes.append(len(columns))
    data = np.array(counts, np.float64), np.array(columns, np.int32), np.array(sizes, np.int32)
    return sp.csr_array(data, shape=(len(smiles), BITS))


def all_descriptors(molecules: Molecules) -> Floats:
    """Every descriptor of RDKit that is a bounded number of its own, (n, d); NaN where one cannot be computed."""
    names = [name for name, _ in Descriptors.descList if name not in _LEFT_OUT]
    values = np.asarray(descriptors(molecules.store, names, molecules.workers)[molecules.rows])
    # charges of exotic atoms are infinite; float32 is what the trees bin
    return np.where(np.abs(values) < np.finfo(np.float32).max, values, np.nan)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """At most so many threads in the arithmetic of scikit-learn within the block."""
    with threadpool_limits(limits=threads):
        yield


def _fits(
    molecules: Molecules, tasks: Tasks, names: Sequence[str], threads: int
) -> dict[str, tuple[str, Fit, bool]]:
    """By name: the row's title, how it is fitted, and whether a seed makes a difference."""
    classes = bool(tasks.classes)
    fits: dict[str, tuple[str, Fit, bool]] = {}
    if {"forest", "linear"} & set(names):
        counts = ecfp(molecules.smiles())
        logs = _logs(counts)
        columns = counts.astype(np.float32)

        def forest(target: Target, train: Indices, seed: int) -> Floats:
            return _forest(columns[target.rows], target, train, seed, threads)

        def straight(target: Target, train: Indices, seed: int) -> Floats:
            return _straight(logs[target.rows], target, train, seed)

        fits["forest"] = "ECFP + random forest", forest, True
        fits["linear"] = f"ECFP + {'logistic' if classes else 'ridge'} regression", straight, False
    if "boosting" in names:
        values = all_descriptors(molecules)

        def boosted(target: Target, train: Indices, seed: int) -> Floats:
            with limited(threads):
                return _boosting(values[target.rows], target, train, seed)

        fits["boosting"] = "descriptors + gradient boosting", boosted, False
    fits["constant"] = (
        "majority class" if classes else "mean",
        lambda target, train, _: _constant(target, train),
        False,
    )
    return {name: fits[name] for name in NAMES if name in names}


def with_ecfp(molecules: Molecules, features: Floats) -> Fit:
    """A linear fit of embeddings (n, width), standardised, side by side with the fingerprints' log(1 + count)."""
    logs = _logs(ecfp(molecules.smiles()))

    def fit(target: Target, train: Indices, seed: int) -> Floats:
        rows = features[target.rows]
        scaled = StandardScaler().fit(rows[train]).transform(rows)
        return _straight(
            sp.hstack([sp.csr_array(scaled), logs[target.rows]], format="csr"), target, train, seed
        )

    return fit


def _logs(counts: sp.csr_array) -> sp.csr_array:
    logs = counts.copy()
    logs.data = np.log1p(logs.data)
    return logs


def _straight(features: sp.csr_array, target: Target, train: Indices, seed: int) -> Floats:
    """Logistic or ridge regression on sparse features as they are; standardising would make them dense."""
    return fit_linear(features, target, train, seed=seed, standardise=False).predict(features[target.test])


def _forest(features: sp.csr_array, target: Target, train: Indices, seed: int, threads: int) -> Floats:
    options: dict[str, Any] = {"n_estimators": TREES, "random_state": seed, "n_jobs": threads}
    model: Any = (
        RandomForestClassifier(**options)
        if target.classes
        else RandomForestRegressor(**options, max_features=1 / 3)
    )
    seen = sp.csc_array(features[train])  # columns by column, as trees read them: ten times faster than dense
    test = sp.csr_array(features[target.test])
    if not target.classes:
        return np.asarray(model.fit(seen, target.values[train]).predict(test), dtype=np.float64)
    model.fit(seen, target.codes[train])
    return spread(model.predict_proba(test), model.classes_, len(target.classes))


def _boosting(values: Floats, target: Target, train: Indices, seed: int) -> Floats:
    options: dict[str, Any] = {
        "random_state": seed,
        "max_iter": 200,
        "learning_rate": 0.05,
        "early_stopping": False,
    }
    if not target.classes:
        model: Any = HistGradientBoostingRegressor(**options).fit(values[train], target.values[train])
        return np.asarray(model.predict(values[target.test]), dtype=np.float64)
    model = HistGradientBoostingClassifier(**options).fit(values[train], target.codes[train])
    return spread(model.predict_proba(values[target.test]), model.classes_, len(target.classes))


def _constant(target: Target, train: Indices) -> Floats:
    if not target.classes:
        return np.full(len(target.test), target.values[train].mean())
    shares = np.bincount(target.codes[train], minlength=len(target.classes)) / len(train)
    return np.tile(shares, (len(target.test), 1))
