"""Paths of a config: variables, packages that ship data, and what is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diptych.data.folder import expand, locate
from diptych.errors import ConfigError


def test_a_place_inside_an_installed_package() -> None:
    assert expand("package:numpy/version.py", "data.path") == Path(np.__file__).parent / "version.py"
    root, files, manifest = locate("package:numpy/version.py")
    assert (root, files, manifest) == (
        Path(np.__file__).parent,
        [Path(np.__file__).parent / "version.py"],
        None,
    )


@pytest.mark.parametrize(
    "path", ["package:no_such_package/x", "package:", "package:not-a-name/x", "package:os/x"]
)
def test_a_package_that_is_not_there_is_named(path: str) -> None:
    with pytest.raises(
        ConfigError, match=r"data\.path: 'package:.*' needs the package '.*', which is not installed"
    ):
        expand(path, "data.path")


def test_variables_are_replaced_and_must_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_TEST_FOLDER", "/data/here")
    monkeypatch.delenv("DIPTYCH_TEST_ABSENT", raising=False)
    assert expand("$DIPTYCH_TEST_FOLDER/a", "data.path") == Path("/data/here/a")
    with pytest.raises(
        ConfigError, match=r"data\.path: the environment variable DIPTYCH_TEST_ABSENT is not set"
    ):
        expand("${DIPTYCH_TEST_ABSENT}/a", "data.path")
