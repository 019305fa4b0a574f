"""``diptych list`` and ``configs``, and what is said of domains that cannot be used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from diptych.discovery import find_domain, find_domains, load, missing_packages
from diptych.errors import ConfigError, UserError

LIST = """
import sys
from diptych_pipelines.main import main
try:
    main(["list"])
except SystemExit as left:
    assert left.code == 0
heavy = {"torch", "lightning", "numpy", "pandas", "wfdb", "mne", "matplotlib"} & set(sys.modules)
print("heavy:", sorted(heavy))
"""
WORKING = """
from diptych.domain import Domain
domain = Domain(name="%s", summary="a test", extra="", recipe="%s", evaluators={}, demo="none.yaml")
"""


def plug_in(folder: Path, name: str, code: str, metadata: str = "") -> None:
    """Writes an installed package with one module and one domain entry point."""
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}")
    (info / "entry_points.txt").write_text(f"[diptych.domains]\n{name} = {name}:domain\n")
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    return folder


def test_listing_imports_nothing_heavy(site: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIST], capture_output=True, text=True, check=True)
    assert "heavy: []" in done.stdout
    assert done.stderr == ""


def test_list_shows_every_domain_with_its_package(diptych):
    result = diptych("list")
    assert result.code == 0
    assert "biosignals  ECG and EEG recordings" in result.out
    assert "sines       Synthetic sine waves" in result.out
    assert "(diptych-sines)" in result.out


def test_a_plug_in_that_fails_to_import_is_listed_and_the_others_go_on(diptych, packages):
    plug_in(packages, "broken", "raise RuntimeError('the licence server is away')")
    plug_in(packages, "wrongtype", "domain = 3")
    plug_in(packages, "misnamed", WORKING % ("other", "misnamed:build"))
    result = diptych("list")
    assert result.code == 0
    assert "cannot be used (broken): RuntimeError: the licence server is away" in result.out
    assert "wrongtype:domain is a int, expected a diptych.domain.Domain" in result.out
    assert "misnamed:domain calls itself 'other', its entry point says 'misnamed'" in result.out
    assert "Synthetic sine waves" in result.out
    assert "Traceback" not in result.err
    failed = diptych("broken", "pretrain", "--config", "x.yaml")
    assert failed.code == 1
    assert "domain 'broken' of package broken cannot be used: RuntimeError" in failed.err


def test_two_packages_of_one_name_are_both_refused(packages):
    plug_in(packages, "twin", WORKING % ("twin", "twin:build"))
    plug_in(packages, "other", "")
    (packages / "other-1.0.dist-info" / "entry_points.txt").write_text(
        "[diptych.domains]\ntwin = twin:domain\n"
    )
    twins = [each for each in find_domains() if each.name == "twin"]
    assert len(twins) == 2
    assert all("2 installed packages provide a domain of this name" in (each.error or "") for each in twins)


def test_a_missing_extra_is_named_with_the_command_that_installs_it(diptych, here, packages):
    (here / "x.yaml").write_text("")
    code = (WORKING % ("needy", "needy:build")).replace('extra=""', 'extra="signals"')
    requires = (
        "Provides-Extra: signals\nRequires-Dist: wfdbx (>=4); extra == 'signals'\nRequires-Dist: numpy\n"
        'Requires-Dist: eegio>=1; extra == "signals"\nRequires-Dist: absent; extra == "others"\n'
    )
    plug_in(packages, "needy", code, requires)
    found = find_domain("needy")
    assert missing_packages(found) == ["wfdbx", "eegio"]
    message = "domain 'needy' needs wfdbx, eegio, which are not installed; run: pip install 'needy[signals]'"
    assert message in diptych("list").out
    result = diptych("needy", "pretrain", "--config", "x.yaml")
    assert result.code == 1
    assert result.err == f"diptych: {message}\n"


def test_a_missing_module_that_no_extra_names_is_told_too(packages):
    plug_in(packages, "late", (WORKING % ("late", "late_recipe:build")))
    (packages / "late_recipe.py").write_text("import surely_absent")
    with pytest.raises(UserError, match="domain 'late' needs surely_absent, which is not installed"):
        load(find_domain("late"), "late_recipe:build")
    with pytest.raises(UserError, match="there is no module 'nowhere'"):
        load(find_domain("late"), "nowhere:build")
    with pytest.raises(UserError, match="late has no 'build'"):
        load(find_domain("late"), "late:build")


def test_an_unknown_domain_names_the_nearest(installed):
    with pytest.raises(ConfigError, match="no domain is called 'sine'; did you mean 'sines'"):
        find_domain("sine")


def test_configs_are_listed_shown_and_copied_once(diptych, here, installed):
    listed = diptych("configs", "list")
    assert "sines/demo.yaml" in listed.out
    assert "Two noisy copies of simulated sine waves" in listed.out
    shown = diptych("configs", "show", "sines/demo.yaml")
    assert shown.out == (installed / "diptych_sines/configs/sines/demo.yaml").read_text()
    copied = diptych("configs", "copy", "sines/demo.yaml", "mine.yaml")
    assert (copied.code, copied.out) == (0, "mine.yaml\n")
    assert (here / "mine.yaml").read_text() == shown.out
    again = diptych("configs", "copy", "sines/demo.yaml", "mine.yaml")
    assert again.code == 1
    assert "mine.yaml exists and is left as it is" in again.err


def test_configs_says_what_it_needs(diptych):
    unknown = diptych("configs", "show", "sines/dmo.yaml")
    assert unknown.code == 2
    assert "did you mean 'sines/demo.yaml'?" in unknown.err
    action = diptych("configs", "shw")
    assert action.code == 2
    assert "ACTION: expected one of list, show, copy, came 'shw'" in action.err
    assert "needs the NAME of a config" in diptych("configs", "copy").err
