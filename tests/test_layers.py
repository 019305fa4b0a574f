"""Who may import whom: the core knows no domain, domains do not know each other, pipelines know no domain."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOMAINS = ("diptych_medical", "diptych_molecules", "diptych_circuits", "diptych_biosignals", "diptych_graphs")
DOMAIN_LIBRARIES = (
    "wfdb",
    "mne",
    "neurokit2",
    "pydicom",
    "pyedflib",
    "nibabel",
    "nrrd",
    "monai",
    "SimpleITK",
    "rdkit",
    "torch_geometric",
)
SHARED = sorted((ROOT / "shared").rglob("*.py"))
PIPELINES = sorted((ROOT / "pipelines").rglob("*.py"))
DOMAIN_FILES = sorted((ROOT / "domains").rglob("*.py"))
LIGHT = {"diptych", "__future__"} | set(sys.stdlib_module_names)


def imported(path: Path) -> Iterator[str]:
    """The full names of all modules that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide who imports whom"
            yield node.module or ""


def packages(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_there_is_something_to_check():
    assert len(SHARED) > 10
    assert len(PIPELINES) > 5
    assert len(DOMAIN_FILES) > 5


@pytest.mark.parametrize("path", SHARED, ids=relative)
def test_the_core_imports_no_domain_and_no_pipeline(path):
    assert not packages(path) & {*DOMAINS, *DOMAIN_LIBRARIES, "diptych_pipelines"}


@pytest.mark.parametrize("path", PIPELINES, ids=relative)
def test_pipelines_import_no_domain(path):
    assert not packages(path) & {*DOMAINS, *DOMAIN_LIBRARIES}


@pytest.mark.parametrize("path", DOMAIN_FILES, ids=relative)
def test_domains_import_neither_each_other_nor_pipelines(path):
    own = path.relative_to(ROOT / "domains").parts[0]
    assert not packages(path) & ({*DOMAINS, "diptych_pipelines"} - {own})


@pytest.mark.parametrize("path", sorted((ROOT / "domains").glob("*/__init__.py")), ids=relative)
def test_a_domain_is_declared_without_heavy_imports(path):
    assert packages(path) <= LIGHT
    assert set(imported(path)) & {"diptych.domain"}
    assert all(
        name in ("diptych.domain", "__future__") for name in imported(path) if name.startswith("diptych")
    )
