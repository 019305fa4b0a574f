"""Finds the domains: built-in ones and anybody's, by the entry point group ``diptych.domains``.

A plug-in package declares, in its own ``pyproject.toml``::

    [project.entry-points."diptych.domains"]
    sines = "diptych_sines:domain"

and the module behind it builds a :class:`diptych.domain.Domain` without importing anything heavy. Nothing
here imports torch, so that listing is instant; what a domain needs is imported by :func:`load`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any

from diptych.domain import ENTRY_POINT_GROUP, Domain
from diptych.errors import ConfigError, UserError
from diptych.nearest import nearest


@dataclass(frozen=True, kw_only=True)
class Found:
    """One entry point: the domain it gave, or why it gave none."""

    name: str
    distribution: str  # of the package that brings it: "diptych"
    module: str  # the module behind the entry point: "diptych_biosignals"
    domain: Domain | None = None
    error: str | None = None


def find_domains() -> list[Found]:
    """Every installed domain by name; one that fails to import is there with its error, among the others."""
    points = sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name)
    owners = Counter(point.name for point in points)
    found = [_find(point) for point in points]
    return [_rejected(each, owners[each.name]) if owners[each.name] > 1 else each for each in found]


def find_domain(name: str) -> Found:
    """The installed domain of that name.

    Raises ConfigError for an unknown name (with the nearest one), UserError for one that fails to import.
    """
    found = find_domains()
    for each in found:
        if each.name == name:
            if each.domain is None:
                raise UserError(
                    f"domain {name!r} of package {each.distribution} cannot be used: {each.error}"
                )
            return each
    raise ConfigError(f"no domain is called {name!r}; {nearest(name, [each.name for each in found])}")


def load(found: Found, path: str) -> Any:
    """The object behind an import path of a domain, ``"module:name"``.

    Raises UserError when the extra that the domain needs is not installed, or the path leads nowhere.
    """
    missing = missing_packages(found)
    if missing:
        raise UserError(missing_message(found, missing))
    module_name, _, attribute = path.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        absent = error.name or ""
        if absent and module_name != absent and not module_name.startswith(f"{absent}."):
            raise UserError(missing_message(found, [absent])) from error
        raise UserError(f"domain {found.name!r} names {path!r}, but there is no module {absent!r}") from error
    if not hasattr(module, attribute):
        raise UserError(f"domain {found.name!r} names {path!r}, but {module_name} has no {attribute!r}")
    return getattr(module, attribute)


def missing_packages(found: Found) -> list[str]:
    """The packages of the domain's extra that are not installed, by metadata alone (nothing is imported)."""
    if found.domain is None or not found.domain.extra:
        return []
    return [name for name in _extra_packages(found.distribution, found.domain.extra) if not _installed(name)]


def missing_message(found: Found, packages: list[str]) -> str:
    """One line that says what a domain lacks and how to install it."""
    extra = found.domain.extra if found.domain else ""
    target = f"'{found.distribution}[{extra}]'" if extra else " ".join(packages)
    verb = "is" if len(packages) == 1 else "are"
    return (
        f"domain {found.name!r} needs {', '.join(packages)}, which {verb} not installed; "
        f"run: pip install {target}"
    )


def _find(point: metadata.EntryPoint) -> Found:
    distribution = point.dist.name if point.dist else "unknown"
    error, domain = None, None
    try:
        domain = point.load()
    except Exception as caught:  # a plug-in may fail in any way, and must fail alone
        error = f"{type(caught).__name__}: {caught}"
    else:
        if not isinstance(domain, Domain):
            error = f"{point.value} is a {type(domain).__name__}, expected a diptych.domain.Domain"
        elif domain.name != point.name:
            error = f"{point.value} calls itself {domain.name!r}, its entry point says {point.name!r}"
    return Found(
        name=point.name,
        distribution=distribution,
        module=point.module,
        domain=domain if error is None else None,
        error=error,
    )


def _rejected(found: Found, count: int) -> Found:
    error = f"{count} installed packages provide a domain of this name; uninstall all but one"
    return Found(name=found.name, distribution=found.distribution, module=found.module, error=error)


def _extra_packages(distribution: str, extra: str) -> Iterator[str]:
    for requirement in metadata.requires(distribution) or ():
        name, _, marker = requirement.partition(";")
        if re.search(rf"""extra\s*==\s*['"]{re.escape(extra)}['"]""", marker):
            matched = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", name)
            if matched:
                yield matched.group(1)


def _installed(package: str) -> bool:
    try:
        metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return False
    return True
