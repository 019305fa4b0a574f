"""A linear probe small enough to run at every epoch's end."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import f1_score, r2_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diptych.errors import UserError


def probe_score(
    train: NDArray[np.float32],
    train_labels: pd.Series,
    validation: NDArray[np.float32],
    validation_labels: pd.Series,
) -> float:
    """Macro F1 of a logistic regression for classes, R squared of a ridge regression for numbers.

    Embeddings are (n, width), standardised by the training ones; labels are without gaps. F1 is averaged
    over the classes that occur in the validation labels or the predictions.

    Raises UserError when the training labels have one class only.
    """
    if pd.api.types.is_numeric_dtype(train_labels) and not pd.api.types.is_bool_dtype(train_labels):
        model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
        model.fit(train, train_labels.to_numpy(dtype=np.float64))
        return float(r2_score(validation_labels.to_numpy(dtype=np.float64), model.predict(validation)))
    classes = train_labels.astype(str).to_numpy()
    if len(set(classes)) < 2:
        raise UserError(
            f"all training samples have the label {classes[0]!r}; a probe needs at least two classes"
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings():
        # the probe follows a trend; the evaluation that is reported is run to convergence
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, classes)
    predicted = model.predict(validation)
    return float(
        f1_score(validation_labels.astype(str).to_numpy(), predicted, average="macro", zero_division=0)
    )
