"""The folder of a run: what was asked for, on which data, what was measured, and the weights."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pandas as pd

import diptych
from diptych.data.atomic import write_text
from diptych.errors import ConfigError, UserError
from diptych.study import Samples, Study

LIBRARIES = ("torch", "lightning", "numpy", "pandas", "scikit-learn", "safetensors")
FOLLOW = "DIPTYCH_RUN"  # tells the other processes of this machine which folder the first one made


@dataclass(frozen=True)
class Run:
    """A run's folder. In a distributed run only the first process writes into it.

    ``config.yaml``, ``environment.json``, ``data.json``, ``manifest.json``, ``splits.csv``,
    ``quarantine.jsonl``, ``metrics.csv``, ``checkpoints/``, ``encoder.safetensors``, ``model_card.md``.
    """

    path: Path

    @staticmethod
    def create(root: str | Path, domain: str, name: str) -> Run:
        """Makes ``root/<domain>-<name>-<time>``, and never one that is there already.

        Raises ConfigError for a name that is not a file name, UserError when it cannot be written.
        """
        for text, what in ((domain, "domain"), (name, "run name")):
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
                raise ConfigError(
                    f"the {what} {text!r} becomes part of a folder's name; use letters, digits and - _ ."
                )
        if not leads():
            return Run(Path(os.environ.get(FOLLOW, Path(root) / f"{domain}-{name}")))
        stem = f"{domain}-{name}-{time.strftime('%Y%m%d-%H%M%S')}"
        for number in range(1, 1000):
            path = Path(root) / (stem if number == 1 else f"{stem}-{number}")
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                if Path(root).exists() and not Path(root).is_dir():
                    raise UserError(f"the folder for runs {root} is a file; give a folder") from None
                continue
            except OSError as error:
                raise _unwritable(path, error) from error
            run = Run(path.absolute())
            run.check_writable()
            os.environ[FOLLOW] = str(run.path)
            return run
        raise UserError(f"{root} has a thousand runs named {stem}; give the run another name")

    @staticmethod
    def open(path: str | Path) -> Run:
        """An existing run. Raises UserError when it is none, or cannot be written."""
        run = Run(Path(path).absolute())
        if not run.config.is_file():
            raise UserError(f"{path} is not a run: it has no config.yaml; give the folder of a run")
        if leads():
            run.check_writable()
        return run

    @property
    def config(self) -> Path:
        """The resolved configuration, to run again."""
        return self.path / "config.yaml"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint that a resumption starts from."""
        return self.checkpoints / "last.ckpt"

    @property
    def metrics(self) -> Path:
        """The numbers measured during the run."""
        return self.path / "metrics.csv"

    @property
    def encoder(self) -> Path:
        """The weights that are kept."""
        return self.path / "encoder.safetensors"

    def check_writable(self) -> None:
        """Writes and removes an empty file, before anything else is done. Raises UserError."""
        probe = self.path / ".writable"
        try:
            self.checkpoints.mkdir(exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turns an error of the disk within the block into a UserError that says how to go on."""
        try:
            yield
        except OSError as error:
            how = "resume this run" if self.last_checkpoint.exists() else "start again"
            raise UserError(
                f"the run folder {self.path} could not be written ({error.strerror}); make room or make it "
                f"writable, then {how}"
            ) from error

    def write_config(self, text: str) -> None:
        """Keeps the resolved configuration. Raises UserError when one is there already."""
        if not leads():
            return
        if self.config.exists():
            raise UserError(f"{self.config} is there already; a run is never overwritten")
        write_text(self.config, text)

    def write_facts(self, study: Study) -> None:
        """Writes what was run where and on which data: environment, data, manifest, splits, quarantine."""
        if not leads():
            return
        samples = study.samples
        write_json(self.path / "environment.json", environment())
        write_json(self.path / "data.json", data_facts(samples, study.summary))
        samples.manifest.write_public(self.path / "manifest.json")
        splits = samples.ids[["patient", "split"]].drop_duplicates().sort_values(["split", "patient"])
        write_text(self.path / "splits.csv", splits.to_csv(index=False, lineterminator="\n"))
        samples.quarantine.write(self.path / "quarantine.jsonl")

    def write_card(self, facts: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes ``model_card.md``: one section per key, one line per fact."""
        if leads():
            write_text(self.path / "model_card.md", card_text(facts))

    def clean(self) -> None:
        """Removes what a killed process left half-written."""
        for folder in (self.path, self.checkpoints):
            for partial in folder.glob(".*.partial"):
                partial.unlink()


def leads() -> bool:
    """Whether this process writes: the first of a distributed run, and any other process."""
    ranks = (os.environ.get(name, "0") for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return all(rank in ("", "0") for rank in ranks)


def write_json(path: Path, content: Any) -> None:
    """Writes readable JSON, atomically."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def environment() -> dict[str, Any]:
    """Versions and devices; no name of a user or a machine."""
    import torch

    devices = [torch.cuda.get_device_name(each) for each in range(torch.cuda.device_count())]
    return {
        "diptych": diptych.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "cuda": torch.version.cuda,
        "devices": devices or ["cpu"],
        "processors": os.cpu_count(),
    }


def _commit() -> str | None:
    """The commit of the checkout that runs, with "+" when files differ from it; None in an installation."""
    here = Path(diptych.__file__).resolve().parent
    try:
        commit = _git(here, "rev-parse", "HEAD")
        inside = _git(here, "ls-files", "--error-unmatch", "__init__.py")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no", ".")
    except FileNotFoundError:  # no git on this machine
        return None
    if commit is None or inside is None:
        return None
    return commit + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def data_facts(samples: Samples, summary: Mapping[str, str]) -> dict[str, Any]:
    """The manifest's digest, how many of everything in every split, and the domain's own lines.

    Counts stand under the domain's words; where two are the same word, the later one is shown.
    """
    ids: pd.DataFrame = samples.ids
    return {
        "digest": samples.manifest.digest,
        "files": len(samples.manifest.entries),
        "quarantined": len(samples.quarantine.rows),
        "splits": {
            str(split): {
                samples.words.units: int(rows["patient"].nunique()),
                samples.words.recordings: int(rows["recording"].nunique()),
                samples.words.samples: len(rows),
            }
            for split, rows in ids.groupby("split", sort=True, observed=True)
        },
        "summary": dict(summary),
    }


def card_text(facts: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown with a section per key and a line per fact."""
    lines = ["# Model card", ""]
    for section, content in facts.items():
        lines += [f"## {section}", "", *(f"- {name}: {value}" for name, value in content.items()), ""]
    return "\n".join(lines)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"the run folder {path} cannot be written ({error.strerror}); "
        "give another folder for runs, or make this one writable"
    )
