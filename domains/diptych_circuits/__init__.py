"""Circuits for Diptych: netlists as graphs of nets, devices and pins, scattered (CircuitGCL), and their parasitics."""

from diptych.domain import Domain

domain = Domain(
    name="circuits",
    summary="Netlists: representation scattering on graphs of nets, devices and pins (CircuitGCL), parasitics",
    extra="circuits",
    recipe="diptych_circuits.recipe:build",
    evaluators={
        "coupling": "diptych_circuits.coupling:coupling",
        "ground": "diptych_circuits.ground:ground",
        "links": "diptych_circuits.links_evaluated:links",
        "linear": "diptych.evaluation.linear:linear",
        "knn": "diptych.evaluation.knn:knn",
    },
    commands={"predict": "diptych_circuits.predict:predict"},
    demo="circuits/demo.yaml",
)
