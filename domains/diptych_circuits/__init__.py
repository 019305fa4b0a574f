"""Circuits for Diptych: netlists as graphs of nets, devices and pins, scattered (CircuitGCL), and their parasitics."""

from diptych.domain import Domain

domain = Domain(
    name="circuits",
    summary="Netlists: representation scattering on graphs of nets, devices and pins (CircuitGCL), parasitics",
    extra="circuits",
    recipe="diptych_circuits.recipe:build",
    evaluators={
        "coupling": "diptych_circuits.coupling:CouplingCapacitance",
        "ground": "diptych_circuits.ground:GroundCapacitance",
        "links": "diptych_circuits.links_evaluated:CouplingExistence",
        "linear": "diptych.evaluation.linear:LinearProbe",
        "knn": "diptych.evaluation.knn:NearestNeighbours",
    },
    commands={"predict": "diptych_circuits.predict:predict"},
    demo="circuits/demo.yaml",
)
