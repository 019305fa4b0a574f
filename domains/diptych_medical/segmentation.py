"""Segmentation with few labelled patients: what an encoder's features are worth at every voxel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

from diptych.errors import ConfigError
from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.frozen import encoders_of, random_encoder
from diptych.evaluation.per_patient import Scored, compare_units
from diptych.evaluation.table import Table
from diptych.study import Study
from diptych_medical.agreement import measure_names
from diptych_medical.columns import Stages, read
from diptych_medical.contenders import classified, finetuned, linear
from diptych_medical.evaluated import (
    checked_counts,
    images_of,
    labelled_images,
    patients_at,
)
from diptych_medical.features import VOXEL_FEATURES
from diptych_medical.trial import INTENSITIES, PRETRAINED, Mode, Options, Task, Trial

# Measured on hippocampus: a linear head is where it ends up after 500 such steps, at 0.03 far from it.
HEAD_RATES: dict[Mode, float] = {"linear": 0.1, "finetune": 1e-3}


def segmentation(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    mode: Mode = "linear",
    stages: Stages = "last",
    patients: tuple[int, ...] = (0, 10, 5),
    seeds: int = 3,
    draws: int = 2000,
    steps: int = 500,
    rate: float = 1e-3,
    head_rate: float | None = None,
    batch_size: int = 2,
    voxels: int = 8192,
    overlap: float = 0.5,
    tolerance: float = 1.0,
    save: str | None = None,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Segment the masks' classes with a linear head on frozen features or by fine-tuning, with few patients.

    Rows: pretrained, the same network with random weights (from scratch with finetune) on the same budget,
    and boosted trees on intensities, their Gaussian means, the gradient and the position of a voxel. Whole
    test images are predicted window by window. The last step is kept, so no validation patient is needed.

    Args:
        study: The data, with masks, and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        mode: linear trains a linear head on the frozen features of single voxels, finetune the whole network.
        stages: What the head sees of a voxel: the features of the decoder's last stage, which are the encoder's
            grid, or those of all stages, which know more of its surroundings.
        patients: Numbers of labelled training patients; 0 takes all. Fewer are always among more.
        seeds: Number of trainings of each row, each with its own head, batches and draw of patients.
        draws: Number of bootstrap resamples of the test patients.
        steps: Training steps, the same for every row and number of patients.
        rate: Learning rate (AdamW, cosine to 0) of the encoder with finetune.
        head_rate: Learning rate of the head; by default 0.1 with linear, where it converges, and 0.001 with
            finetune.
        batch_size: Crops of a step with finetune.
        voxels: With linear, voxels of each labelled image whose features are kept.
        overlap: Share of a window that the next one repeats.
        tolerance: Distance, in mm, up to which a surface counts as found by surface Dice.
        save: Folder for the label maps that the first pretrained row predicts, in the space of the input.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to compute: auto, cpu, cuda.
    """
    if mode not in HEAD_RATES:
        raise ConfigError(f"mode is one of {', '.join(HEAD_RATES)}; got {mode!r}")
    if seeds < 1:
        raise ConfigError(f"the number of seeds is at least 1; got {seeds}")
    options = Options(
        mode=mode,
        steps=steps,
        rate=rate,
        head_rate=HEAD_RATES[mode] if head_rate is None else head_rate,
        batch_size=batch_size,
        voxels=voxels,
        overlap=overlap,
        tolerance=tolerance,
        save=None if save is None else Path(save),
        device=choose_device(device),
    )
    images = images_of(study)
    trial = Trial(
        study,
        images,
        labelled_images(images, "train", run_splits, patients=1),
        labelled_images(images, "test", run_splits),
        options,
    )
    counts = checked_counts(patients, trial.patients)
    encoders = [read(each, stages) for each in encoders_of(encoder)]
    untrained = "random weights" if mode == "linear" else "from scratch"
    run = linear if mode == "linear" else finetuned
    repeats = {PRETRAINED: max(seeds, len(encoders)), untrained: seeds, INTENSITIES: seeds}
    run(
        trial,
        PRETRAINED,
        repeats[PRETRAINED],
        seeds,
        counts,
        lambda k: encoders[k % len(encoders)],
        len(encoders),
    )
    run(trial, untrained, seeds, seeds, counts, lambda k: read(random_encoder(study, k), stages), seeds)
    classified(trial, seeds, counts)
    return _table(trial, repeats, seeds, counts, draws, stages)


def _table(
    trial: Trial, repeats: dict[str, int], seeds: int, counts: Sequence[int], draws: int, stages: Stages
) -> Table:
    options, images = trial.options, trial.images
    metrics = measure_names(images.classes)
    rows = []
    for count in counts:
        for name, number in repeats.items():
            tasks = [Task(name, count, repeat) for repeat in range(number)]
            rows.append(
                Scored(
                    name=name,
                    scores={
                        metric: np.array([[found[metric] for found in trial.scores[task]] for task in tasks])
                        for metric in metrics
                    },
                    fraction=count / trial.patients,
                    patients=count,
                    samples=round(float(np.mean([len(trial.train_images(task, seeds)) for task in tasks]))),
                )
            )
    how = "linear head on frozen features" if options.mode == "linear" else "fine-tuning"
    how += " of all stages" if stages == "all" else ""
    return compare_units(
        rows,
        [(str(patient),) for patient in patients_at(images, trial.test)],
        title=f"segmentation of {', '.join(images.classes[1:])}: {how}",
        metrics=metrics,
        draws=draws,
        notes=[
            f"{options.steps} steps of every network, the last one kept; trees on {VOXEL_FEATURES}",
            f"surface Dice at {options.tolerance:g}; distances in mm (pixels where images carry no spacing)",
            "a class that the truth lacks is left out; where the prediction alone lacks it, Dice is 0 and HD95 "
            "the diagonal of the image",
        ],
    )
