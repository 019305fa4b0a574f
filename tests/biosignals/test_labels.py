"""Labels of windows from intervals of time."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diptych.errors import ConfigError
from diptych_biosignals.labels import Label, interval_texts


def test_intervals_need_the_column_that_holds_the_value() -> None:
    with pytest.raises(ConfigError, match="a label with 'intervals' needs 'column'"):
        Label(rule="folder", intervals="x.csv")


def test_a_window_has_the_label_that_covers_more_than_half_of_it() -> None:
    table = pd.DataFrame(
        {
            "recording": ["a", "a", "a", "b"],
            "start": [0, 5, 6, 0],
            "end": [3, 6, 7, 1],
            "stage": ["N", "R", "R", "W"],
        }
    )
    of = np.array([0, 0, 0, 0, 1, 2])
    times = np.array([[0, 2], [2, 4], [4, 6], [5, 7], [0, 2], [0, 1]], float)
    assert interval_texts(table, "stage", ["a", "b", "c"], of, times) == ["N", None, None, "R", None, None]
