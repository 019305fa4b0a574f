"""Configs that come with the domains: in the checkout first, then in the package, then in plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from diptych.discovery import find_domains
from diptych.errors import ConfigError
from diptych.nearest import nearest


def shipped_configs() -> dict[str, Path]:
    """Every shipped config by name, such as ``biosignals/demo.yaml``."""
    found: dict[str, Path] = {}
    for folder in config_folders():
        for path in sorted(folder.glob("*/*.yaml")):
            found.setdefault(path.relative_to(folder).as_posix(), path)
    return dict(sorted(found.items()))


def find_config(name: str) -> Path:
    """The file of a config: a path of the user's own, or a shipped config's name.

    Raises ConfigError, with the nearest name, when there is neither.
    """
    own = Path(name)
    if own.is_file():
        return own
    known = shipped_configs()
    for candidate in (name, f"{name}.yaml", name.removeprefix("configs/")):
        if candidate in known:
            return known[candidate]
    raise ConfigError(
        f"there is no config {name!r}, as a file or among the shipped ones; {nearest(name, list(known))}"
    )


def config_folders() -> Iterator[Path]:
    """The folders that hold shipped configs, the one that wins first."""
    checkout = Path(__file__).parents[3]
    if (checkout / "pyproject.toml").is_file() and (checkout / "configs").is_dir():
        yield checkout / "configs"
    package = _folder_of("diptych_pipelines")  # where an installation keeps them
    if package is not None and (package / "configs").is_dir():
        yield package / "configs"
    for each in find_domains():
        plug_in = _folder_of(each.module.partition(".")[0])
        if plug_in is not None:
            yield plug_in / "configs"


def header_of(path: Path) -> str:
    """The first comment line of a config, which says what it is."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def _folder_of(package: str) -> Path | None:
    spec = find_spec(package)
    return Path(spec.origin).parent if spec is not None and spec.origin is not None else None
