"""Graphs for Diptych: one's own graphs or nodes, from torch-geometric and NetworkX files."""

from diptych.domain import Domain

domain = Domain(
    name="graphs",
    summary="One's own graphs: contrast of graphs or of their nodes (GraphCL, GRACE, BGRL, SGRL, gCooL)",
    extra="graphs",
    recipe="diptych_graphs.recipe:build",
    evaluators={
        "linear": "diptych.evaluation.linear:LinearProbe",
        "knn": "diptych.evaluation.knn:NearestNeighbours",
        "finetune": "diptych.evaluation.finetune:FineTuning",
        "retrieval": "diptych.evaluation.retrieval:retrieval",
    },
    demo="graphs/demo.yaml",
)
