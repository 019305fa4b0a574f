"""Evaluators of molecules: many tasks, missing labels, several splits, networks; against naive references."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from evaluated_molecules import Counts, labelled, run_folder, study_of
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import nn

from diptych.errors import ConfigError, DataError
from diptych.evaluation.bootstrap import patient_draws
from diptych.evaluation.linear_model import fit_linear
from diptych.evaluation.table import Table
from diptych_molecules.evaluators.frozen import LinearProbe, NearestNeighbours
from diptych_molecules.evaluators.networks import MLP, FineTuning
from diptych_molecules.overlap import FILE, overlap_notes
from diptych_molecules.property import (
    Head,
    Network,
    Training,
    masked_loss,
    outputs_of,
    predictions,
    scale_of,
    side_by_side,
    start_as_probe,
    train,
)
from diptych_molecules.resplit import samples_of
from diptych_molecules.scoring import Contender, Trial, compare_tasks, mean_level, task_level
from diptych_molecules.settings import Splitting
from diptych_molecules.study import MoleculeStudy
from diptych_molecules.tasks import Tasks, prepare_tasks
from diptych_molecules.trials import Labelled, over_trials

TWO = ("large", "nitrogen")
QUICK = Training(
    epochs=3, patience=3, batch_size=16, rate=1e-2, head_rate=1e-2, weight_decay=0.0, hidden=0, dropout=0.0
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> MoleculeStudy:
    return study_of(tmp_path_factory.mktemp("study"), labelled(), ["large", "nitrogen", "logp", "cliff"])


def tasks_of(study: MoleculeStudy, labels: tuple[str, ...], seeds: tuple[int, ...] = ()) -> Tasks:
    return prepare_tasks(samples_of(study.molecules, "own", seeds), labels)


def made_up(tasks: Tasks, name: str, seed: int, repeats: int = 1) -> Contender:
    """Random probabilities, with ties, that lean towards the truth."""
    generator = np.random.default_rng(seed)
    trials = []
    for split, targets in enumerate(tasks.targets):
        for _ in range(repeats):
            chances = [
                np.round((target.codes[target.test] + generator.random(len(target.test)) * 2) / 3, 1)
                for target in targets
            ]
            pairs = tuple(np.stack([1 - chance, chance], axis=1) for chance in chances)
            trials.append(Trial(split, pairs, 1, 1))
    return Contender(name=name, fraction=1.0, trials=trials)


def test_scores_are_means_over_tasks_of_known_labels_and_intervals_resample_molecules_together(
    study: MoleculeStudy,
) -> None:
    tasks = tasks_of(study, TWO, (0, 1))
    one, other = made_up(tasks, "one", 1, repeats=2), made_up(tasks, "other", 2)
    table = compare_tasks(tasks, [one, other], title="", draws=40, seed=7)
    tested = [target.patients[target.test] for targets in tasks.targets for target in targets]
    units = sorted(set(np.concatenate(tested).tolist()))
    counts = patient_draws([None] * len(units), 40, 7)

    def naive(trial: Trial, draw: int | None) -> list[tuple[float, float]]:
        found = []
        for target, predicted in zip(tasks.targets[trial.split], trial.predictions, strict=True):
            truth, score = [], []
            for place, row in enumerate(target.test.tolist()):
                unit = units.index(str(target.patients[row]))
                times = 1 if draw is None else int(counts[unit, draw])
                truth += [int(target.codes[row] == target.positive)] * times
                score += [float(predicted[place, target.positive or 0])] * times
            found.append((roc_auc_score(truth, score), average_precision_score(truth, score)))
        return found

    level = mean_level(tasks)
    for place, metric in enumerate(("AUROC", "AUPRC")):
        values = [np.mean([each[place] for each in naive(trial, None)]) for trial in one.trials]
        drawn = {
            name: [
                np.mean([[each[place] for each in naive(trial, draw)] for trial in contender.trials])
                for draw in range(40)
            ]
            for name, contender in (("one", one), ("other", other))
        }
        score = table.score("one", metric, level)
        assert score.value == pytest.approx(np.mean(values), abs=1e-12)
        assert score.sd == pytest.approx(np.std(values, ddof=1), abs=1e-12)
        assert (score.low, score.high) == pytest.approx(tuple(np.quantile(drawn["one"], [0.025, 0.975])))
        gap = table.score("one - other", metric, level)
        differences = np.subtract(drawn["one"], drawn["other"])
        assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))
        for number, label in enumerate(TWO):
            alone = [naive(trial, None)[number][place] for trial in one.trials]
            assert table.score("one", metric, task_level(tasks, label)).value == pytest.approx(np.mean(alone))
            if metric == "AUROC":  # texts give each task a line
                [line] = [
                    line for line in table.text().splitlines() if line.startswith(task_level(tasks, label))
                ]
                assert f"{np.mean(alone):.3f}" == line.split()[2]


def test_a_task_without_both_classes_is_left_out_with_its_reason(study: MoleculeStudy) -> None:
    labels = study.samples.labels.copy()
    split = study.samples.ids["split"].to_numpy()
    labels["rare"] = np.where(split == "train", labels["large"], 0.0)
    samples = replace(study.samples, labels=labels)
    tasks = prepare_tasks({"own": samples}, ["large", "rare"])
    assert tasks.labels == ("large",)
    assert (
        "'rare' is left out: all test molecules with the label 'rare' are of the class '0'; expected at least 2 "
        in ("\n".join(tasks.notes))
    )
    with pytest.raises(DataError, match="no task can be evaluated: all test molecules with the label 'rare'"):
        prepare_tasks({"own": samples}, ["rare"])


def test_missing_labels_are_counted_and_kinds_are_not_mixed(study: MoleculeStudy) -> None:
    unknown = int(study.samples.labels["nitrogen"].isna().sum())
    assert unknown == 40
    assert f"{unknown} of 240 labels are missing (16.7%)" in "\n".join(tasks_of(study, TWO).notes)
    with pytest.raises(ConfigError, match=r"some tasks are classes \(large\), others numbers \(logp\)"):
        tasks_of(study, ("large", "logp"))
    with pytest.raises(ConfigError, match="there is no label 'larg'; did you mean 'large'"):
        tasks_of(study, ("larg",))


def test_random_splits_have_exact_shares_and_differ_by_seed(study: MoleculeStudy) -> None:
    found = samples_of(study.molecules, "random", (0, 1))
    assert list(found) == ["random 0", "random 1"]
    for samples in found.values():
        assert samples.ids["split"].value_counts().to_dict() == {"train": 96, "validation": 12, "test": 12}
    first, second = (set(samples.where("test").tolist()) for samples in found.values())
    assert first != second


def test_the_scaffold_split_keeps_scaffolds_together_whatever_the_config_splits_by(
    study: MoleculeStudy,
) -> None:
    [samples] = samples_of(study.molecules, "scaffold", ()).values()
    scaffold, texts = study.molecules.units(Splitting())
    assert samples.words.unit == "scaffold"
    acyclic = scaffold == texts.index("")
    assert samples.ids["patient"][acyclic].is_unique
    assert samples.ids["split"][acyclic].nunique() == 1
    scaffold = np.where(acyclic, -1 - np.arange(len(scaffold)), scaffold)
    pairs = pd.DataFrame(
        {"scaffold": scaffold, "patient": samples.ids["patient"], "split": samples.ids["split"]}
    )
    assert len(pairs[["scaffold", "patient"]].drop_duplicates()) == pairs["scaffold"].nunique()
    assert pairs.groupby("scaffold")["split"].nunique().max() == 1


def test_seeds_need_a_split_with_chance_in_it_and_every_split_test_molecules(
    study: MoleculeStudy, tmp_path: Path
) -> None:
    with pytest.raises(
        ConfigError, match="the largest scaffolds first, without chance; leave split_seeds out"
    ):
        samples_of(study.molecules, "scaffold", (0, 1))
    none = study_of(
        tmp_path / "none", labelled(20), split=Splitting(by="random", train=0.9, validation=0.1, test=0)
    )
    with pytest.raises(ConfigError, match="no test molecules; take --splits scaffold or --splits random"):
        samples_of(none.molecules, "own", ())


def test_a_fraction_of_the_labels_limits_training_and_validation(study: MoleculeStudy) -> None:
    seen: list[Labelled] = []

    def fit(labels: Labelled) -> tuple[np.ndarray, ...]:
        seen.append(labels)
        return tuple(np.full((len(target.test), 2), 0.5) for target in labels.targets)

    tasks = tasks_of(study, ("large",))
    contender = over_trials("few", tasks, 0.25, 1, 3, fit)
    target = tasks.targets[0][0]
    assert len(contender.trials) == 3
    for labels in seen:
        for few, whole in ((labels.train[0], target.train), (labels.validation[0], target.validation)):
            assert set(few) < set(whole)
            assert len(few) == pytest.approx(len(whole) / 4, abs=1)
    assert set(seen[0].train[0]) != set(seen[1].train[0])


@pytest.mark.parametrize("classes", [True, False])
def test_the_loss_is_the_mean_over_known_entries_alone(classes: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    wanted = torch.randint(0, 2, (5, 3), generator=generator).double()
    wanted[0, 1] = wanted[3] = torch.nan
    total, known = 0.0, 0
    for row in range(5):
        for task in range(3):
            truth, output = float(wanted[row, task]), float(outputs.detach()[row, task])
            if np.isnan(truth):
                continue
            known += 1
            chance = 1 / (1 + np.exp(-output))
            total -= np.log(chance if truth else 1 - chance) if classes else -((output - truth) ** 2)
    loss = masked_loss(outputs, wanted, classes)
    assert float(loss.detach()) == pytest.approx(total / known, abs=1e-12)
    loss.backward()
    assert outputs.grad is not None
    assert torch.equal(outputs.grad != 0, ~wanted.isnan())
    assert float(masked_loss(outputs, torch.full_like(wanted, torch.nan), classes).detach()) == 0.0


@pytest.mark.parametrize("labels", [TWO, ("logp",)])
def test_a_head_that_starts_as_the_probe_predicts_what_the_probe_predicts(
    study: MoleculeStudy, labels: tuple[str, ...]
) -> None:
    targets = tasks_of(study, labels).targets[0]
    features = np.random.default_rng(0).normal(size=(len(study.samples), 6)) * [1, 10, 100, 1, 1, 0.01] + 3
    trains = [target.train for target in targets]
    rows = side_by_side(targets, trains, scale_of(targets, trains)).rows
    head = Head(torch.from_numpy(features[rows]).float(), len(targets), 0, 0.0).double()
    start_as_probe(head, features, targets, trains, 0)
    tensor = torch.from_numpy(features)
    found = predictions(head, lambda chosen: tensor[chosen], targets, scale_of(targets, trains))
    for target, own in zip(targets, found, strict=True):
        wanted = fit_linear(features[target.rows], target, target.train).predict(
            features[target.rows[target.test]]
        )
        np.testing.assert_allclose(own, wanted, atol=1e-4)


def network_of(study: MoleculeStudy, tasks: Tasks) -> tuple[Network, tuple[object, ...]]:
    targets = tasks.targets[0]
    trains = [target.train for target in targets]
    scale = scale_of(targets, trains)
    learnt = side_by_side(targets, trains, scale)
    validation = side_by_side(targets, [target.validation for target in targets], scale)
    torch.manual_seed(0)
    encoder = Counts()

    def inputs(rows: np.ndarray) -> object:
        return next(iter(study.plain(rows))).views[0]

    with torch.no_grad():
        features = encoder(inputs(learnt.rows)).whole
    return Network(encoder, Head(features, len(targets), 0, 0.0)), (inputs, learnt, validation)


def test_fine_tuning_moves_every_parameter_of_the_encoder_and_keeps_the_best_epoch(
    study: MoleculeStudy,
) -> None:
    network, (inputs, learnt, validation) = network_of(study, tasks_of(study, TWO))
    before = deepcopy(network.state_dict())
    without = replace_rows(validation)
    train(network, inputs, learnt, without, QUICK, True, torch.device("cpu"))  # type: ignore[arg-type]
    moved = {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in network.named_parameters()}
    again, _ = network_of(study, tasks_of(study, TWO))
    worse = replace(QUICK, rate=1e-12, head_rate=1e-12)
    train(again, inputs, learnt, validation, worse, True, torch.device("cpu"))  # type: ignore[arg-type]
    np.testing.assert_allclose(
        outputs_of(again, inputs, learnt.rows),  # type: ignore[arg-type]
        outputs_of(loaded(again, before), inputs, learnt.rows),  # type: ignore[arg-type]
        atol=1e-6,
    )


def replace_rows(wanted):  # type: ignore[no-untyped-def]
    """No validation, so that the last epoch is kept."""
    return wanted._replace(rows=wanted.rows[:0], values=wanted.values[:0])


def loaded(network: nn.Module, state: dict[str, torch.Tensor]) -> nn.Module:
    found = deepcopy(network)
    found.load_state_dict(state)
    return found


def test_evaluators_print_the_rows_that_belong_in_every_table(study: MoleculeStudy) -> None:
    torch.manual_seed(1)
    encoder = Counts()
    before = deepcopy(encoder.state_dict())
    table = FineTuning(targets=TWO, seeds=1, draws=20, epochs=2, baselines=("constant",), device="cpu")(
        study, encoder
    )
    assert [row.name for row in table.rows] == [
        "pretrained",
        "from scratch",
        "majority class",
        "pretrained - from scratch",
    ]
    assert table.levels == [mean_level(tasks_of(study, TWO)), "molecule, large", "molecule, nitrogen"]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert table.score("majority class", "AUROC").value == 0.5
    frozen = LinearProbe(
        targets=("logp",), seeds=2, draws=20, fused=True, baselines=("constant",), device="cpu"
    )(study, encoder)
    names = ["pretrained", "random weights", "pretrained + ECFP", "mean"]
    assert [row.name for row in frozen.rows][:4] == names
    assert [row.repeats for row in frozen.rows][:4] == [1, 2, 1, 1]
    assert frozen.score("pretrained", "RMSE").value < frozen.score("mean", "RMSE").value


@pytest.mark.parametrize("evaluator", [NearestNeighbours, partial(MLP, epochs=60, rate=0.01)])
def test_other_frozen_evaluators_see_what_the_embeddings_tell(
    study: MoleculeStudy, evaluator: Callable[..., Callable[..., Table]]
) -> None:
    torch.manual_seed(1)
    evaluate = evaluator(targets=("large",), seeds=1, draws=20, baselines=("constant",), device="cpu")
    table = evaluate(study, Counts())
    assert table.score("pretrained", "AUROC").value > 0.7
    assert [row.name for row in table.rows][:3] == ["pretrained", "random weights", "majority class"]


def test_networks_refuse_what_they_cannot_do(study: MoleculeStudy) -> None:
    labels = study.samples.labels.assign(third=np.arange(len(study.samples)) % 3)
    three = replace(study, molecules=replace(study.molecules, samples=replace(study.samples, labels=labels)))
    with pytest.raises(
        ConfigError, match="'third' has 3 classes; networks are trained on two classes or numbers"
    ):
        MLP(targets=("third",), task="classification", device="cpu")(three, Counts())
    with pytest.raises(ConfigError, match="epochs and patience are at least 1, batch_size at least 2"):
        replace(QUICK, batch_size=1)


@pytest.mark.parametrize(
    ("evaluator", "options", "message"),
    [
        (LinearProbe, {"strengths": (0.0,)}, "the strengths C to choose from are positive numbers"),
        (LinearProbe, {"fractions": (2.0,)}, "label fractions are above 0 and at most 1, such as 1.0 and 0.1; got 2"),
        (NearestNeighbours, {"neighbours": 0}, "neighbours are at least 1 and the temperature is above 0; got 0 and"),
        (MLP, {"hidden": 0}, "an mlp has at least 1 hidden unit; got 0"),
        (MLP, {"rate": 0.0}, "learning rates are above 0, .* got rate 0, head_rate 0, "),
        (FineTuning, {"head_rate": -1.0}, "learning rates are above 0, .* got rate 0.0001, head_rate -1, "),
        (FineTuning, {"seeds": 0}, "the number of seeds is at least 1; got 0"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_run_are_refused_before_data_are_read(
    evaluator: type, options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluator(**options)


def test_the_overlap_with_pretraining_is_counted_by_molecule_and_by_scaffold(
    study: MoleculeStudy, tmp_path: Path
) -> None:
    tasks = tasks_of(study, ("large",))
    target = tasks.targets[0][0]
    tested = study.molecules.smiles(target.rows[target.test])
    ringed = [text for text in tested if "1" in text]
    run, _ = run_folder(
        tmp_path,
        [ringed[0], "C" + ringed[1], "CCCCCCCCCCCCBr"],
        {"by": "random", "train": 1.0, "test": 0.0, "validation": 0.0},
    )
    [note] = overlap_notes(study, tasks, run / "splits.csv")
    assert note.startswith(
        f"of {len(set(tested))} test molecules, 1 were in pretraining, without labels; of their "
    )
    scaffold, texts = study.molecules.units(Splitting(acyclic="apart"))
    same = {texts[code] for code in scaffold[target.rows[target.test]]}
    assert f"{len(same)} scaffolds, " in note
    assert (run / FILE).is_file()
    (tmp_path / "pretraining.smi").unlink()
    assert overlap_notes(study, tasks, run / "splits.csv") == [note]  # kept in the run
    (run / FILE).unlink()
    [unknown] = overlap_notes(study, tasks, run / "splits.csv")
    assert unknown.startswith(
        "whether test molecules were among those of pretraining is not known: data.path: there is"
    )
    assert overlap_notes(study, tasks, None) == []
