"""What an installation gets: packages, type marker, configs, entry points."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_wheel_holds_the_packages_and_the_configs(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (points,) = [name for name in names if name.endswith("entry_points.txt")]
        text = archive.read(points).decode()
    configs = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert configs
    assert {f"diptych_pipelines/configs/{name}" for name in configs} <= names
    assert {"diptych/py.typed", "diptych_biosignals/py.typed", "diptych_pipelines/py.typed"} <= names
    assert not any(name.startswith(("tests/", "shared/", "domains/")) for name in names)
    assert "biosignals = diptych_biosignals:domain" in text
    assert "diptych = diptych_pipelines.main:main" in text
