"""Synthetic sine waves as a domain of Diptych: a template for third-party plug-ins."""

from diptych.domain import Domain

domain = Domain(
    name="sines",
    summary="Synthetic sine waves: contrast of two noisy copies of one wave",
    extra="",
    recipe="diptych_sines.recipe:build",
    evaluators={
        "nearest": "diptych_sines.learning:nearest",
        "linear": "diptych.evaluation.linear:LinearProbe",
    },
    commands={"draw": "diptych_sines.drawing:draw"},
    demo="sines/demo.yaml",
)
