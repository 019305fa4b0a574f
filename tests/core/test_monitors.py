from __future__ import annotations

import dataclasses
import logging
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.preprocessing import StandardScaler
from synthetic import Encoder, collapsing_method, shared_method, study

from diptych.diagnostics import alignment, rankme, uniformity
from diptych.errors import ConfigError, UserError
from diptych.evaluation.embeddings import embed
from diptych.metrics_file import read_metrics
from diptych.monitors import MonitorOptions, Monitors
from diptych.runs import Run
from diptych.study import Study
from diptych.training import PretrainResult, TrainerOptions, pretrain
from diptych.types import Encoded
from diptych.watched import draw_pairs

OPTIONS: dict[str, Any] = {"accelerator": "cpu", "progress": "off", "log_every": 5}


def watched(of: Study, path: Path, *, trainer: dict[str, Any], **options: Any) -> PretrainResult:
    run = Run(path)
    monitors = Monitors(of, run, MonitorOptions(**options))
    return pretrain(
        of,
        run,
        trainer=TrainerOptions(**OPTIONS, **trainer),
        seed=2,
        callbacks=monitors.callbacks,
        choose=monitors.choose,
    )


def cells(path: Path, prefix: str) -> list[dict[str, float]]:
    rows = read_metrics(path / "metrics.csv")
    found = [{name: value for name, value in row.items() if name.startswith(prefix)} for row in rows]
    return [row | {"step": whole["step"]} for row, whole in zip(found, rows, strict=True) if row]


class Restless(Encoder):
    """Draws from the global generators in evaluation mode too."""

    def forward(self, view: torch.Tensor) -> Encoded:
        noise = torch.rand(len(view), 1) * np.random.rand() * random.random()  # noqa: NPY002
        return Encoded(self.layers(view) + 0.1 * noise)


def test_watching_changes_no_number_of_the_training(tmp_path: Path) -> None:
    options = {"max_epochs": 3}
    of = dataclasses.replace(study(), new_encoder=Restless)
    plain = pretrain(of, Run(tmp_path / "plain"), trainer=TrainerOptions(**OPTIONS, **options), seed=2)
    seen = watched(of, tmp_path / "seen", trainer=options, alarm_every=2, probe="class")
    for name, tensor in plain.encoder.state_dict().items():
        assert torch.equal(seen.encoder.state_dict()[name], tensor)
    assert cells(tmp_path / "seen", "loss/") == cells(tmp_path / "plain", "loss/")


def test_a_collapse_is_flagged_within_50_steps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "diptych"):
        watched(study(method=collapsing_method), tmp_path, trainer={"max_steps": 60}, alarm_every=10)
    alarms = cells(tmp_path, "alarm/")
    assert alarms
    assert alarms[0]["step"] <= 50
    said = [record.message for record in caplog.records if "COLLAPSE" in record.message]
    assert len(said) == 1, "said once, not at every look"
    assert "Different samples get the same embedding" in said[0]
    assert "uniformity rose from" in said[0]


@pytest.mark.parametrize("method", [None, shared_method])
def test_a_healthy_run_is_not_flagged(tmp_path: Path, caplog: pytest.LogCaptureFixture, method: Any) -> None:
    of = study() if method is None else study(method=method)
    with caplog.at_level(logging.WARNING, "diptych"):
        watched(of, tmp_path, trainer={"max_steps": 100}, alarm_every=10)
    assert cells(tmp_path, "alarm/") == []
    assert not caplog.records


def test_a_collapse_ends_the_run_on_request(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"COLLAPSE at step \d+: .* The run was stopped \(alarm_stops\)"):
        watched(
            study(method=collapsing_method),
            tmp_path,
            trainer={"max_steps": 60},
            alarm_every=10,
            alarm_stops=True,
        )


def test_health_is_logged_before_the_first_step_and_is_what_the_embeddings_say(tmp_path: Path) -> None:
    of = study()
    result = watched(of, tmp_path, trainer={"max_epochs": 4}, health_every=2, samples=30)
    rows = cells(tmp_path, "health/")
    assert [row["step"] for row in rows] == [0, 14, 28]
    indices, pairs, _ = draw_pairs(of.samples, 30, 0)
    z = torch.from_numpy(embed(result.encoder, of.plain(indices), "cpu"))
    assert rows[-1]["health/rank"] == pytest.approx(rankme(z), rel=1e-5)
    assert rows[-1]["health/uniformity"] == pytest.approx(uniformity(z), rel=1e-5)
    assert rows[-1]["health/alignment"] == pytest.approx(alignment(z[pairs[:, 0]], z[pairs[:, 1]]), rel=1e-5)


@pytest.mark.parametrize("count", [2, 9, 30, 500])
def test_pairs_share_an_id_and_come_from_training_patients(count: int) -> None:
    samples = study().samples
    indices, pairs, column = draw_pairs(samples, count, seed=1)
    assert column == "patient", "every trial and recording has one sample only"
    assert len(indices) == len(set(indices.tolist())) == min(count, 64)
    assert set(samples.ids["split"].iloc[indices]) == {"train"}
    patients = samples.ids["patient"].to_numpy()[indices]
    assert len(pairs) == min(count // 2, 16)
    for one, other in pairs:
        assert one != other
        assert patients[one] == patients[other]
    assert len({patients[one] for one, _ in pairs}) == len(pairs), "each patient gives one pair"


def test_the_finest_id_with_pairs_is_taken() -> None:
    samples = study().samples
    samples.ids["trial"] = [f"t{number // 2}" for number in range(len(samples))]
    _, pairs, column = draw_pairs(samples, 20, seed=1)
    assert column == "trial"
    assert len(pairs) == 10


def test_the_probe_is_a_logistic_regression_scored_on_validation_patients(tmp_path: Path) -> None:
    of = study()
    result = watched(of, tmp_path, trainer={"max_epochs": 2}, probe="class")
    rows = cells(tmp_path, "probe/")
    assert [row["step"] for row in rows] == [7, 14]
    train, validation = of.samples.where("train"), of.samples.where("validation")
    z, other = (embed(result.encoder, of.plain(indices), "cpu") for indices in (train, validation))
    scale = StandardScaler().fit(z)
    labels = of.samples.labels["class"].to_numpy()
    model = LogisticRegression(max_iter=300).fit(scale.transform(z), labels[train])
    expected = f1_score(labels[validation], model.predict(scale.transform(other)), average="macro")
    assert rows[-1]["probe/class"] == pytest.approx(expected)


def test_numbers_are_probed_by_regression_and_gaps_left_out(tmp_path: Path) -> None:
    of = study()
    values = np.arange(len(of.samples), dtype=float)
    values[::3] = np.nan
    of.samples.labels["age"] = values
    watched(of, tmp_path, trainer={"max_epochs": 1}, probe="age")
    assert cells(tmp_path, "probe/")[0]["probe/age"] <= 1.0


def test_the_epoch_with_the_best_probe_is_kept_and_named(tmp_path: Path) -> None:
    """A method that collapses: the probe is best early, and those weights are exported."""
    of = study(method=collapsing_method)
    result = watched(of, tmp_path / "best", trainer={"max_epochs": 5}, probe="class", keep="best_probe")
    scores = {int(row["step"]): row["probe/class"] for row in cells(tmp_path / "best", "probe/")}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert (
        f"of step {best}, with the best online probe of class"
        in (tmp_path / "best" / "model_card.md").read_text()
    )
    until = pretrain(
        study(method=collapsing_method),
        Run(tmp_path / "until"),
        trainer=TrainerOptions(**OPTIONS, max_steps=best),
        seed=2,
    )
    for name, tensor in until.encoder.state_dict().items():
        assert torch.equal(result.encoder.state_dict()[name], tensor)


def test_the_epoch_with_the_highest_rank_is_kept(tmp_path: Path) -> None:
    result = watched(
        study(method=collapsing_method), tmp_path, trainer={"max_epochs": 4}, keep="best_rank", alarm_every=0
    )
    ranks = {int(row["step"]): row["health/rank"] for row in cells(tmp_path, "health/") if row["step"] > 0}
    best = max(ranks, key=lambda step: (ranks[step], -step))
    assert best < result.steps, "a collapsing run is best early, so that a choice is seen"
    assert f"of step {best}, with the highest effective rank" in (tmp_path / "model_card.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"probe": "clas"}, "no label 'clas' to probe; the labels are class. Did you mean 'class'?"),
        ({"keep": "best_probe"}, "best_probe needs the label to probe"),
        ({"samples": 1}, "at least 2 samples, got 1"),
        ({"health_every": 0}, "at least 1"),
    ],
)
def test_options_that_cannot_be_followed_are_refused(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        Monitors(study(), Run(tmp_path), MonitorOptions(**options))


def test_a_label_without_validation_patients_is_refused(tmp_path: Path) -> None:
    of = study()
    of.samples.labels.loc[of.samples.ids["split"] == "validation", "class"] = None
    with pytest.raises(ConfigError, match="no validation sample has the label 'class'"):
        Monitors(of, Run(tmp_path), MonitorOptions(probe="class"))


def test_a_label_of_one_class_is_refused(tmp_path: Path) -> None:
    of = study()
    of.samples.labels["class"] = "yes"
    with pytest.raises(
        UserError, match="all training samples have the label 'yes'; a probe needs at least two"
    ):
        watched(of, tmp_path, trainer={"max_epochs": 1}, probe="class")
