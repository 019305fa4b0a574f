"""``diptych list`` and ``diptych configs``: what is installed and what comes with it, with light imports."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal

from diptych.discovery import Found, find_domains, missing_message, missing_packages
from diptych.errors import ConfigError, UserError
from diptych.nearest import nearest
from diptych.settings.shipped import find_config, header_of, shipped_configs
from diptych_pipelines.commands import DOMAIN, Call


def show_domains(call: Call) -> None:
    """Prints every domain with what it lacks, or why it cannot be used."""
    found = find_domains()
    width = max((len(each.name) for each in found), default=0) + 2
    for each in found:
        print(f"{each.name:<{width}}{_state(each)}")
    if not found:
        print("no domain is installed")
    print(f"\ncommands of each: {', '.join(each.name for each in DOMAIN)}  (diptych DOMAIN COMMAND --help)")


def configs(call: Call, action: Literal["list", "show", "copy"], name: str = "", to: str = "") -> None:
    """Lists, shows or copies the configs that come with the domains.

    Args:
        action: What to do with them
        name: Which config, as the list names it (for show and copy)
        to: Where copy writes; by default the config's own file name, in this folder
    """
    known = shipped_configs()
    if action == "list":
        width = max((len(each) for each in known), default=0) + 2
        for each, path in known.items():
            print(f"{each:<{width}}{header_of(path)}")
        return
    if not name:
        raise ConfigError(f"configs {action} needs the NAME of a config; {nearest('', list(known))}")
    path = find_config(name)
    if action == "show":
        print(path.read_text(encoding="utf-8"), end="")
        return
    target = Path(to or path.name)
    target = target / path.name if target.is_dir() else target
    if target.exists():
        raise UserError(
            f"{target} exists and is left as it is; give another name: diptych configs copy {name} NAME"
        )
    shutil.copyfile(path, target)
    print(target)


def _state(found: Found) -> str:
    if found.domain is None:
        return f"cannot be used ({found.distribution}): {found.error}"
    missing = missing_packages(found)
    source = "" if found.distribution == "diptych" else f" ({found.distribution})"
    lacks = f"\n    {missing_message(found, missing)}" if missing else ""
    return f"{found.domain.summary}{source}{lacks}"
