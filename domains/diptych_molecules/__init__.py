"""Molecules for Diptych: contrast with the element knowledge graph (KCL) and of graphs, and property prediction."""

from importlib import import_module
from typing import Any

from diptych.domain import Domain

domain = Domain(
    name="molecules",
    summary="Molecules: contrast with the element knowledge graph (KCL), graph contrast, property prediction",
    extra="molecules",
    recipe="diptych_molecules.recipe:build",
    evaluators={
        "linear": "diptych_molecules.evaluators.frozen:LinearProbe",
        "knn": "diptych_molecules.evaluators.frozen:NearestNeighbours",
        "mlp": "diptych_molecules.evaluators.networks:MLP",
        "finetune": "diptych_molecules.evaluators.networks:FineTuning",
    },
    commands={
        "element": "diptych_molecules.elements:element",
        "explain": "diptych_molecules.explain:explain",
    },
    label_settings=("labels", "tasks"),
    demo="molecules/demo.yaml",
)


def __getattr__(name: str) -> Any:
    """``embed``, imported when it is asked for: it needs torch and rdkit, which listing the domains must not."""
    if name == "embed":
        return import_module("diptych_molecules.embedding").embed
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
