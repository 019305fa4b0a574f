"""Graphs for Diptych: one's own graphs or nodes, from torch-geometric and NetworkX files."""

from diptych.domain import Domain

domain = Domain(
    name="graphs",
    summary="One's own graphs: contrast of graphs or of their nodes (GraphCL, GRACE, BGRL, SGRL, gCooL)",
    extra="graphs",
    recipe="diptych_graphs.recipe:build",
    evaluators={
        "linear": "diptych.evaluation.linear:linear",
        "knn": "diptych.evaluation.knn:knn",
        "finetune": "diptych.evaluation.finetune:finetune",
        "retrieval": "diptych.evaluation.retrieval:retrieval",
    },
    demo="graphs/demo.yaml",
)
