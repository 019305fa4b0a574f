"""One label of a study, made ready for an evaluation: classes or numbers, splits, what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diptych.data.leaks import check_leaks, check_overlap, trained_patients
from diptych.errors import ConfigError, DataError
from diptych.evaluation.few_labels import draw_patients
from diptych.evaluation.metrics import Floats
from diptych.study import Indices, Samples
from diptych.words import PATIENTS, Words

Task = Literal["auto", "classification", "regression"]
MOST_CLASSES = 20  # whole numbers with more values than this are not taken for classes


@dataclass(frozen=True, kw_only=True)
class Target:
    """The labelled samples of one label, n of them; ``rows`` says which samples of the study they are.

    ``train``, ``validation`` and ``test`` are positions among these n.
    """

    label: str
    classes: tuple[str, ...]  # sorted; () for regression
    positive: int | None  # of two classes, the rarer: the one whose AUPRC is given
    values: Floats  # (n,) class codes or numbers
    rows: Indices  # (n,)
    patients: NDArray[np.str_]  # (n,) salted keys
    units: NDArray[np.str_] | None  # (n,) what scores are averaged over besides samples
    unit: Literal["patient", "recording"] | None
    train: Indices
    validation: Indices
    test: Indices
    notes: tuple[str, ...]
    words: Words = PATIENTS

    @property
    def codes(self) -> NDArray[np.int64]:
        """(n,) class codes."""
        return self.values.astype(np.int64)

    @cached_property
    def strata(self) -> dict[str, object]:
        """Each patient's set of classes, or the quarter in which the mean of its numbers lies."""
        frame = pd.DataFrame({"patient": self.patients, "value": self.values})
        if self.classes:
            return {
                str(patient): tuple(np.unique(values))
                for patient, values in frame.groupby("patient")["value"]
            }
        means = frame.groupby("patient")["value"].mean()
        edges = np.quantile(means, [0.25, 0.5, 0.75])
        return {str(patient): int(np.searchsorted(edges, mean)) for patient, mean in means.items()}

    def few(self, positions: Indices, fraction: float, seed: int) -> Indices:
        """The samples of a fraction of the patients at ``positions``; see ``few_labels``."""
        strata = {patient: self.strata[patient] for patient in np.unique(self.patients[positions]).tolist()}
        chosen = draw_patients(strata, fraction, seed)
        return positions[np.isin(self.patients[positions], sorted(chosen))]


def prepare(
    samples: Samples, label: str, task: Task = "auto", run_splits: str | Path | None = None
) -> Target:
    """Check the splits and one label, and say what is left out.

    Args:
        samples: The study's samples.
        label: A column of its labels.
        task: "auto" takes text, truth values and two whole numbers for classes, other numbers for regression.
        run_splits: ``splits.csv`` of the run that trained the encoder; none of its training patients may be
            tested on.

    Raises:
        ConfigError: no such label, or values that do not fit the task.
        DataError: a leak, too few classes or patients in a split.
    """
    overlap = check_samples(samples, run_splits)
    words = samples.words
    column = _column(samples.labels, label)
    known = column.notna() & ~column.astype("string").str.strip().eq("").fillna(False).to_numpy(dtype=bool)
    in_split = samples.ids["split"].isin(["train", "validation", "test"])
    rows = np.flatnonzero((known & in_split).to_numpy(dtype=bool)).astype(np.int64)
    ids = samples.ids.iloc[rows]
    classes, values, notes = _values(column.iloc[rows], label, task)
    lost = np.flatnonzero(~known.to_numpy(dtype=bool))
    if len(lost):
        patients = samples.ids["patient"].iloc[lost].nunique()
        notes.append(
            f"{len(lost)} {words.samples} of {patients} {words.units} have no label {label!r} and are left out"
        )
    splits = {
        name: np.flatnonzero(ids["split"].to_numpy() == name).astype(np.int64)
        for name in ("train", "validation", "test")
    }
    patients_of = ids["patient"].to_numpy(dtype=np.str_)
    notes += _check_splits(label, classes, values, patients_of, splits, words)
    unit = _unit(ids.iloc[splits["test"]], values[splits["test"]])
    if unit != "patient":
        level = (
            f"no average over {words.samples} is scored"
            if unit is None
            else f"scores are given per {words.recording}"
        )
        notes.append(f"{label!r} differs between the {words.recordings} of a {words.unit}, so {level}")
    positive = None
    if len(classes) == 2:
        positive = int(np.count_nonzero(values == 1) <= np.count_nonzero(values == 0))
        share = np.mean(values[splits["test"]] == positive)
        notes.append(f"AUPRC is that of {classes[positive]!r}, {share:.1%} of the test {words.samples}")
    return Target(
        label=label,
        classes=classes,
        positive=positive,
        values=values,
        rows=rows,
        patients=patients_of,
        units=None if unit is None else ids[unit].to_numpy(dtype=np.str_),
        unit=unit,
        **splits,
        notes=(*notes, *overlap),
        words=words,
    )


def check_samples(samples: Samples, run_splits: str | Path | None = None) -> list[str]:
    """Stop on a leak between the splits, and on test units that the encoder was trained on.

    Returns:
        A note on such units where the domain reports them instead (:class:`diptych.words.Words`).
    """
    words = samples.words
    check_leaks(samples.ids, samples.manifest, words)
    if run_splits is None:
        return []
    tested = set(samples.ids.loc[samples.ids["split"] == "test", "patient"])
    trained = trained_patients(run_splits, words)
    if words.overlap == "refuse":
        check_overlap(trained, tested, words=words)
        return []
    both = len(trained & tested)
    return [
        f"{both} of {len(tested)} test {words.units} were among those that the encoder was pretrained on, "
        "without labels"
    ]


def _column(labels: pd.DataFrame, label: str) -> pd.Series:
    if label not in labels.columns:
        names = [str(name) for name in labels.columns]
        near = difflib.get_close_matches(label, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        listed = ", ".join(names) if names else "none; name them in the data settings"
        raise ConfigError(f"there is no label {label!r}; {hint}labels: {listed}")
    return labels[label].reset_index(drop=True)


def _values(column: pd.Series, label: str, task: Task) -> tuple[tuple[str, ...], Floats, list[str]]:
    """(classes, values, notes) of the known labels."""
    if not len(column):
        raise DataError(
            f"no sample of the three splits has the label {label!r}; there is nothing to evaluate"
        )
    truth_values = column.map(lambda value: isinstance(value, bool | np.bool_)).all()
    text = column.map(lambda value: isinstance(value, str)).all()
    if truth_values or text:
        if task == "regression":
            raise ConfigError(
                f"label {label!r} holds text such as {str(column.iloc[0])!r}; regression needs numbers: "
                "use the task classification or another label"
            )
        return *_classes(column.astype(str)), [f"classification of {label!r}"]
    try:
        numbers = column.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"label {label!r} mixes text and numbers; expected one kind in a column") from error
    if not np.isfinite(numbers).all():
        raise DataError(f"label {label!r} holds infinite numbers; correct them or leave them empty")
    distinct = np.unique(numbers)
    whole = bool((distinct == np.round(distinct)).all())
    if task == "classification" and not (whole and len(distinct) <= MOST_CLASSES):
        raise ConfigError(
            f"label {label!r} holds {len(distinct)} different numbers, {distinct[0]:g} to {distinct[-1]:g}; "
            f"classification needs text, or at most {MOST_CLASSES} whole numbers: use the task regression"
        )
    if task == "classification" or (task == "auto" and whole and len(distinct) == 2):
        taken = pd.Series([str(int(number)) for number in numbers])
        names = [str(int(number)) for number in distinct]
        codes = np.searchsorted(distinct, numbers).astype(np.float64)
        if len(names) < 2:
            _classes(taken)  # raises
        return (
            tuple(names),
            codes,
            [f"classification of {label!r}: the numbers {', '.join(names)} are classes"],
        )
    if len(distinct) < 2:
        raise DataError(f"label {label!r} is {distinct[0]:g} for every sample; there is nothing to predict")
    return (), numbers, [f"regression of {label!r}"]


def _classes(column: pd.Series) -> tuple[tuple[str, ...], Floats]:
    names = tuple(sorted(set(column)))
    if len(names) < 2:
        raise DataError(
            f"every labelled sample is of the class {names[0]!r}; expected at least 2 classes. "
            "Choose another label, or check how labels are read"
        )
    code = {name: place for place, name in enumerate(names)}
    return names, column.map(code).to_numpy(dtype=np.float64)


def _check_splits(
    label: str,
    classes: tuple[str, ...],
    values: Floats,
    patients: NDArray[np.str_],
    splits: dict[str, Indices],
    words: Words,
) -> list[str]:
    """Notes on classes that are absent or rare; DataError where nothing can be learnt or measured."""
    notes = []
    for split in ("train", "test"):
        positions = splits[split]
        number = len(np.unique(patients[positions]))
        if number < 2:
            raise DataError(
                f"label {label!r} is known for {number} {split} {words.units}; expected at least 2. "
                f"Change the shares of the split, or label more {words.units}"
            )
        here = set(values[positions].astype(int).tolist()) if classes else set()
        if classes and len(here) < 2:
            only = classes[here.pop()]
            raise DataError(
                f"all {split} {words.samples} with the label {label!r} are of the class {only!r}; expected at least "
                "2 classes. Use another split salt or other shares, or merge rare classes"
            )
        absent = [name for code, name in enumerate(classes) if code not in here]
        effect = "never predicted" if split == "train" else "not part of the macro averages"
        if absent:
            notes.append(f"absent from the {split} {words.units}, so {effect}: {_quoted(absent)}")
    test = splits["test"]
    single = [
        name for code, name in enumerate(classes) if len(np.unique(patients[test][values[test] == code])) == 1
    ]
    if single:
        notes.append(f"only one test {words.unit}, whose chance the intervals cannot show: {_quoted(single)}")
    if not len(splits["validation"]):
        notes.append(f"no labelled validation {words.units}")
    return notes


def _unit(ids: pd.DataFrame, values: Floats) -> Literal["patient", "recording"] | None:
    """The largest grouping of samples in which the label is constant."""
    units: tuple[Literal["patient", "recording"], ...] = ("patient", "recording")
    for unit in units:
        if pd.Series(values).groupby(ids[unit].to_numpy()).nunique().max() == 1:
            return unit
    return None


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
