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
        "linear": "diptych.evaluation.linear:linear",
        "knn": "diptych.evaluation.knn:knn",
        "finetune": "diptych.evaluation.finetune:finetune",
        "retrieval": "diptych.evaluation.retrieval:retrieval",
    },
    demo="medical/demo.yaml",
)
