"""Biosignals for Diptych: ECG and EEG recordings, contrasted at observation, sample, trial and patient level."""

from diptych.domain import Domain

domain = Domain(
    name="biosignals",
    summary="ECG and EEG recordings: contrast of time steps, windows, trials and patients (COMET and others)",
    extra="biosignals",
    recipe="diptych_biosignals.recipe:build",
    evaluators={
        "linear": "diptych.evaluation.linear:LinearProbe",
        "knn": "diptych.evaluation.knn:NearestNeighbours",
        "finetune": "diptych_biosignals.finetune:SignalFineTuning",
        "retrieval": "diptych.evaluation.retrieval:retrieval",
    },
    demo="biosignals/demo.yaml",
)
