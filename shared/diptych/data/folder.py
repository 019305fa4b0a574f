"""What lies in a folder, or in the folder of a manifest: files, and which of them a config wants."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from diptych.data.identity import file_key
from diptych.data.manifest import Checksum, Manifest
from diptych.errors import ConfigError, DataError

PACKAGE = "package:"


def expand(path: str, setting: str) -> Path:
    """A path with ~ and $NAME replaced; ``package:NAME/INSIDE`` is a place inside an installed package.

    Raises ConfigError for a variable that is not set or a package that is not installed.
    """
    if path.startswith(PACKAGE):
        return _in_package(path, setting)
    text = os.path.expandvars(path)
    if unset := re.search(r"\$\{?(\w+)", text):
        raise ConfigError(f"{setting}: the environment variable {unset[1]} is not set")
    return Path(text).expanduser()


def _in_package(path: str, setting: str) -> Path:
    """Where a package lies that is installed; nothing of it is imported."""
    name, _, inside = path.removeprefix(PACKAGE).partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(f"{setting}: {path!r} needs the package {name!r}, which is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / inside


def locate(text: str, suffixes: Sequence[str] = ()) -> tuple[Path, list[Path], Manifest | None]:
    """The root folder, the files to look at, and the manifest if the source is one.

    A single file may be named without its suffix where it is one of ``suffixes``.

    Raises ConfigError where the path is not there, DataError where files of a manifest are missing.
    """
    path = expand(text, "data.path")
    if path.suffix in (".csv", ".parquet") and path.is_file():
        manifest = Manifest.read(path)
        files = [manifest.root / entry.path for entry in manifest.entries]
        lost = [entry.path for entry, file in zip(manifest.entries, files, strict=True) if not file.is_file()]
        if lost:
            named = ", ".join(file_key(each) for each in lost[:5])
            raise DataError(
                f"{len(lost)} of {len(files)} files of the manifest are missing ({named}); run inspect again"
            )
        return manifest.root, files, manifest
    if path.is_dir():
        return path, list(walk(path)), None
    for file in (path, *(path.with_name(path.name + suffix) for suffix in suffixes)):
        if file.is_file():
            return file.parent, [file], None
    raise ConfigError(f"data.path: there is no file or folder {text!r}")


def walk(root: Path) -> Iterator[Path]:
    """All files below a folder, links followed, hidden ones left out."""
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Whether a path below the root matches a pattern to include and none to exclude ("*" also matches "/")."""
    included = any(fnmatch.fnmatchcase(path, pattern) for pattern in include)
    return included and not any(fnmatch.fnmatchcase(path, pattern) for pattern in exclude)


def compare_with_manifest(manifest: Manifest, sums: dict[str, Checksum]) -> None:
    """Raise DataError where a file is not what the manifest says."""
    changed = [
        entry.path
        for entry in manifest.entries
        if entry.path in sums and (entry.size, entry.sha256) != tuple(sums[entry.path])
    ]
    if changed:
        named = ", ".join(file_key(path) for path in changed[:5])
        raise DataError(
            f"{len(changed)} of {len(manifest)} files are not what the manifest says ({named}); "
            "restore them or run inspect again"
        )
