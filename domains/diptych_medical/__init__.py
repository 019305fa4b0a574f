"""Medical images for Diptych: 2D images and 3D volumes, dense contrast guided by a learned homeomorphism."""

from diptych.domain import Domain

domain = Domain(
    name="medical",
    summary="2D images and 3D volumes: dense contrast guided by a learned homeomorphism (GEMINI and others)",
    extra="medical",
    recipe="diptych_medical.recipe:build",
    evaluators={
        "segmentation": "diptych_medical.segmentation:segmentation",
        "registration": "diptych_medical.registration:registration",
        "propagation": "diptych_medical.propagation:propagation",
        "linear": "diptych.evaluation.linear:LinearProbe",
        "knn": "diptych.evaluation.knn:NearestNeighbours",
        "finetune": "diptych.evaluation.finetune:FineTuning",
        "retrieval": "diptych.evaluation.retrieval:retrieval",
    },
    demo="medical/demo.yaml",
)
