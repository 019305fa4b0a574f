"""The contract of a domain plug-in; see ``diptych.discovery`` for how domains are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ENTRY_POINT_GROUP = "diptych.domains"


@dataclass(frozen=True, kw_only=True)
class Domain:
    """What a domain declares. Every import path is text, ``"module:name"``, so that listing imports nothing heavy.

    ``recipe`` names a function whose typed signature is the YAML schema and the command line; it returns a
    :class:`diptych.study.Study`. An evaluator is a frozen dataclass that is called with ``(study, encoder)`` and whose
    fields are the command line's options, or a function ``(study, encoder, *, options)``; both return a
    :class:`diptych.evaluation.table.Table`. Options that several evaluators share are fields of a dataclass that
    theirs inherit from, and documented there once.

    ``commands`` are further commands of the domain, by name (``diptych NAME COMMAND``): functions whose positional
    parameters are the command's arguments and whose keyword-only parameters are its options. They print their
    result and raise :class:`diptych.errors.UserError` for what is the user's to mend. ``label_settings`` are the
    settings of the recipe that only evaluators need: data that are named to be embedded go without them.
    """

    name: str
    summary: str
    extra: str
    recipe: str
    evaluators: Mapping[str, str]
    commands: Mapping[str, str] = field(default_factory=dict)
    label_settings: Sequence[str] = ("labels",)
    demo: str  # path of a config below configs/: runs in about a minute on data that a package ships or simulates
