"""The commands: what each is called, says of itself, and runs. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from diptych.discovery import Found

Reads = Literal["nothing", "config", "evaluator", "run"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One verb. Its function's signature gives its arguments (positional) and options (keyword-only)."""

    name: str
    target: str  # "module:function", imported when the command runs
    summary: str
    examples: tuple[str, ...]
    reads: Reads = "nothing"  # which settings it takes beside its own options
    own: bool = False  # a command of one domain, whose function takes no Call and says of itself what it does

    def example_lines(self, domain: str) -> list[str]:
        """The examples with the domain's name put in."""
        return [each.format(domain=domain) for each in self.examples]


@dataclass(frozen=True)
class Call:
    """What a command is called with beside its own arguments."""

    found: Found | None  # the domain, for a domain's command
    overrides: Sequence[tuple[str, str]] = ()  # dotted options that are not the command's own

    @property
    def domain(self) -> Found:
        """The domain of a domain's command."""
        if self.found is None:
            raise ValueError("this command has no domain")
        return self.found


def own_commands(found: Found) -> tuple[Command, ...]:
    """The further commands of a domain; nothing of them is imported."""
    named = found.domain.commands if found.domain else {}
    return tuple(
        Command(
            name=name,
            target=target,
            summary="",
            examples=(f"diptych {found.name} {name} --help",),
            own=True,
        )
        for name, target in named.items()
    )


GENERAL = (
    Command(
        name="list",
        target="diptych_pipelines.listing:show_domains",
        summary="Lists the installed domains, what each lacks to run, and their commands.",
        examples=("diptych list", "diptych list --debug"),
    ),
    Command(
        name="configs",
        target="diptych_pipelines.listing:configs",
        summary="Lists the configs that come with the domains, shows one, or copies one to start from.",
        examples=("diptych configs list", "diptych configs copy biosignals/demo.yaml my.yaml"),
    ),
)

DOMAIN = (
    Command(
        name="inspect",
        target="diptych_pipelines.inspection:inspect",
        summary="Reads the data and prints what is there: patients, recordings, samples, labels, splits, and "
        "every file that was set aside with its reason. Trains nothing.",
        examples=(
            "diptych {domain} inspect recordings/",
            "diptych {domain} inspect recordings/ --config my.yaml --manifest manifest.csv",
        ),
        reads="config",
    ),
    Command(
        name="pretrain",
        target="diptych_pipelines.pretraining:pretrain",
        summary="Pretrains an encoder without labels, as a config says, and writes a run folder with its "
        "settings, checkpoints, encoder and report.",
        examples=(
            "diptych {domain} pretrain --config {domain}/demo.yaml",
            "diptych {domain} pretrain --config my.yaml --data.path recordings/ --run.seed 1",
        ),
        reads="config",
    ),
    Command(
        name="evaluate",
        target="diptych_pipelines.evaluation:evaluate",
        summary="Evaluates the encoder of a run and prints a table, with random weights and a classical "
        "baseline beside it; the table is kept in the run folder.",
        examples=(
            "diptych {domain} evaluate linear --run runs/RUN --label LABEL",
            "diptych {domain} evaluate knn --run runs/RUN --label LABEL --data.path other/",
        ),
        reads="evaluator",
    ),
    Command(
        name="embed",
        target="diptych_pipelines.embedding:embed",
        summary="Writes one embedding per sample, with salted ids, to a Parquet or npz file.",
        examples=(
            "diptych {domain} embed out.parquet --run runs/RUN",
            "diptych {domain} embed other/ out.npz --run runs/RUN",
        ),
        reads="run",
    ),
    Command(
        name="export",
        target="diptych_pipelines.exporting:export",
        summary="Writes the encoder of a run for code without Diptych: a program that torch alone runs (.pt2), "
        "or the weights of the network inside it under that library's own names (.safetensors).",
        examples=(
            "diptych {domain} export encoder.pt2 --run runs/RUN",
            "diptych {domain} export network.safetensors --run runs/RUN",
        ),
        reads="run",
    ),
    Command(
        name="report",
        target="diptych_pipelines.report:write",
        summary="Writes report.html of a run: settings, data, curves and evaluation tables in one file that "
        "needs no network.",
        examples=("diptych {domain} report runs/RUN", "diptych {domain} report runs/RUN --debug"),
    ),
    Command(
        name="demo",
        target="diptych_pipelines.demo:demo",
        summary="Pretrains, evaluates and embeds on the domain's demo data in about a minute, and prints the "
        "three commands that do it.",
        examples=("diptych {domain} demo", "diptych {domain} demo --folder /tmp/runs"),
    ),
)
