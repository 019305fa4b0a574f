"""Fine-tuning: the encoder with a new head, trained on labels; beside it the same from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

from torch import nn

from diptych.evaluation.classical import classical_contenders, over_draws
from diptych.evaluation.comparison import Contender, compare
from diptych.evaluation.embeddings import choose_device
from diptych.evaluation.frozen import check_options, encoders_of, random_encoder, torch_seed
from diptych.evaluation.metrics import Floats
from diptych.evaluation.table import Table
from diptych.evaluation.target import Task, prepare
from diptych.evaluation.tuning import Mode, Tuning, predict, tune
from diptych.study import Indices, Study


def finetune(
    study: Study,
    encoder: nn.Module | Sequence[nn.Module],
    *,
    label: str,
    task: Task = "auto",
    fractions: tuple[float, ...] = (1.0,),
    seeds: int = 3,
    draws: int = 2000,
    mode: Mode = "whole",
    head: str = "torch.nn.Linear",
    epochs: int = 30,
    rate: float = 1e-4,
    head_rate: float = 1e-3,
    decay: float = 0.75,
    weight_decay: float = 0.01,
    class_weights: bool = False,
    run_splits: str | Path | None = None,
    device: str = "auto",
) -> Table:
    """Train the encoder and a head on the labels; the same budget for the encoder from scratch.

    The epoch with the best score of the validation patients (macro F1, or MAE) is kept; of these, too, only
    the label fraction is used. Rows: pretrained, from scratch (random weights; the encoder stays so with mode
    frozen), a random forest and a linear model on hand-made features, and the majority class or mean.

    Args:
        study: The data and how to make an encoder.
        encoder: The pretrained encoder, or a list with one from each pretraining seed. It is copied.
        label: Name of the label to predict.
        task: classification, regression, or auto: text is classes, numbers are regression.
        fractions: Shares of the labelled training and validation patients to use.
        seeds: Number of trainings of each row, each with its own head, order and draw of patients.
        draws: Number of bootstrap resamples of the test patients.
        mode: whole trains everything at one rate, frozen the head alone, layerwise at rates that fall from
            the last layer to the first.
        head: Class path of a module made as Class(width, outputs), such as torch.nn.Linear or
            diptych.evaluation.tuning.MLP.
        epochs: Passes over the labelled training samples.
        rate: Learning rate (AdamW) of the encoder, of its last layer with layerwise.
        head_rate: Learning rate of the head.
        decay: With layerwise, each layer's rate is this times that of the layer after it.
        weight_decay: Of AdamW.
        class_weights: Weigh each class by the inverse of its share in the training samples.
        run_splits: splits.csv of the run that trained the encoder, to check that none of its training
            patients is tested on.
        device: Where to train: auto, cpu, cuda.
    """
    fractions = check_options(fractions, seeds)
    tuning = Tuning(
        mode=mode,
        head=head,
        epochs=epochs,
        rate=rate,
        head_rate=head_rate,
        decay=decay,
        weight_decay=weight_decay,
        class_weights=class_weights,
    )
    encoders = encoders_of(encoder)
    repeats = max(seeds, len(encoders))
    target = prepare(study.samples, label, task, run_splits)
    where = choose_device(device)
    notes: list[str] = []

    def tuned(start: nn.Module, train: Indices, seed: int, fraction: float) -> Floats:
        validation = target.validation
        if fraction < 1.0 and len(validation):
            validation = target.few(validation, fraction, seed % seeds)
        with torch_seed(seed):
            model = tune(study, target, start, train, validation, tuning, where)
            return predict(study, target, model, target.test, where)

    classical, remarks = classical_contenders(study, target, fractions, seeds)
    contenders: list[Contender] = []
    for fraction in fractions:

        def pretrained(train: Indices, seed: int, fraction: float = fraction) -> Floats:
            return tuned(deepcopy(encoders[seed % len(encoders)]), train, seed, fraction)

        def scratch(train: Indices, seed: int, fraction: float = fraction) -> Floats:
            return tuned(random_encoder(study, seed), train, seed, fraction)

        contenders.append(over_draws("pretrained", target, fraction, repeats, seeds, pretrained))
        name = "random weights" if mode == "frozen" else "from scratch"
        contenders.append(over_draws(name, target, fraction, seeds, seeds, scratch))
        contenders += [each for each in classical if each.fraction == fraction]
    if not len(target.validation):
        notes.append(f"without validation {target.words.units} the last epoch is kept")
    return compare(
        target, contenders, title=f"{label}: fine-tuning ({mode})", draws=draws, notes=[*notes, *remarks]
    )
