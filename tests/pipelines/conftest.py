"""The command line on a third-party domain, which is installed for real into a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from diptych_pipelines.main import main

PLUGIN = Path(__file__).parents[1] / "plugin"
NO_NETWORK = Path(__file__).parent / "no_network"


class Result(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that pip installed the plug-in into."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    subprocess.run(["cp", "-r", str(PLUGIN), str(source)], check=True)  # pip builds in the source folder
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), str(source)]
    subprocess.run(install, check=True)
    return folder


@pytest.fixture(scope="session")
def installed(site: Path) -> Iterator[Path]:
    """The plug-in on the path of this process."""
    sys.path.insert(0, str(site))
    yield site
    sys.path.remove(str(site))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def diptych(installed: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, in an empty folder."""

    def run(*words: str) -> Result:
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main(words)
        out, err = capfd.readouterr()
        return Result(int(left.value.code or 0), out, err)

    return run


@pytest.fixture(scope="session")
def environment(site: Path) -> dict[str, str]:
    """The environment of a process of its own: the plug-in is there and the network is not."""
    path = os.pathsep.join([str(NO_NETWORK), str(site)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def process(environment: dict[str, str]) -> Run:
    """Runs a command line in a process of its own, without a network."""

    def run(*words: str, folder: Path) -> Result:
        command = [sys.executable, "-m", "diptych_pipelines.main", *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def demo(process: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """What the demo printed, and its run folder."""
    folder = tmp_path_factory.mktemp("demo")
    result = process("sines", "demo", folder=folder)
    assert result.code == 0, result.err
    return result, next((folder / "runs").iterdir())


@pytest.fixture
def waves(tmp_path: Path) -> Path:
    """A folder with 12 people's waves, one wave with NaN and one that is too short."""
    folder = tmp_path / "waves"
    folder.mkdir()
    time = np.arange(256) / 64
    for person in range(12):
        for take in range(2):
            np.save(folder / f"{person:02d}_{take}.npy", np.sin(2 * np.pi * (3 + person / 2) * time + take))
    np.save(folder / "20_0.npy", np.full(256, np.nan))
    np.save(folder / "21_0.npy", np.zeros(10))
    return folder
