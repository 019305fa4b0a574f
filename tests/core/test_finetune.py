"""Fine-tuning: what is trained at which rate, which epoch is kept, and that the given encoder stays."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import synthetic_evaluation as synthetic
import torch
from torch import nn

from diptych.data.identity import Split
from diptych.errors import ConfigError, UserError
from diptych.evaluation import metrics
from diptych.evaluation.finetune import FineTuning
from diptych.evaluation.frozen import torch_seed
from diptych.evaluation.table import Table
from diptych.evaluation.target import prepare
from diptych.evaluation.tuning import MLP, Tuned, Tuning, make_head, parameter_groups, predict, tune

STUDY = synthetic.study()
CPU = torch.device("cpu")
FAST: dict[str, Any] = {
    "seeds": 2,
    "draws": 100,
    "device": "cpu",
    "epochs": 4,
    "rate": 3e-3,
    "head_rate": 3e-2,
}


@pytest.fixture(scope="module")
def sign() -> Table:
    return FineTuning(label="sign", **FAST)(STUDY, synthetic.knowing())


def test_the_table_has_a_row_from_scratch(sign: Table) -> None:
    names = ["pretrained", "from scratch", "random forest", "logistic regression", "majority class"]
    assert [row.name for row in sign.rows if not row.difference] == names
    assert sign.rows[0].repeats == 2
    assert sign.score("pretrained", "AUROC").value > 0.8


def test_the_same_seed_gives_the_same_numbers(sign: Table) -> None:
    torch.manual_seed(99)
    assert FineTuning(label="sign", **FAST)(STUDY, synthetic.knowing()).frame().equals(sign.frame())


def test_the_given_encoder_stays() -> None:
    encoder = synthetic.knowing()
    before = deepcopy(encoder.state_dict())
    FineTuning(label="sign", fractions=(1.0, 0.3), **FAST | {"epochs": 1})(STUDY, encoder)
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    assert all(parameter.requires_grad for parameter in encoder.parameters())


def tuned(mode: str, epochs: int = 1) -> tuple[dict[str, torch.Tensor], Tuned]:
    """The encoder's weights before, and the model after."""
    encoder = synthetic.knowing()
    before = deepcopy(encoder.state_dict())
    target = prepare(STUDY.samples, "sign")
    options = Tuning(mode=mode, epochs=epochs)  # type: ignore[arg-type]
    with torch_seed(0):
        return before, tune(STUDY, target, encoder, target.train, target.validation, options, CPU)


def test_a_frozen_encoder_does_not_change_and_the_others_do() -> None:
    before, model = tuned("frozen")
    assert all(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())
    for mode in ("whole", "layerwise"):
        before, model = tuned(mode)
        assert not any(torch.equal(before[name], value) for name, value in model.encoder.state_dict().items())


def test_a_frozen_encoder_has_its_own_name_in_the_table() -> None:
    table = FineTuning(label="sign", mode="frozen", **FAST | {"epochs": 1})(STUDY, synthetic.knowing())
    assert table.rows[1].name == "random weights"
    assert "frozen" in table.title


class Deep(nn.Module):
    """Three layers listed by ``layers`` in an order that is not the attributes', and a loose parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 2
        self.c, self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
        self.token = nn.Parameter(torch.zeros(2))

    def layers(self) -> list[nn.Module]:
        return [self.a, self.b, self.c]


def test_rates_decay_from_the_last_layer_to_the_first() -> None:
    encoder = Deep()
    model = Tuned(encoder, nn.Linear(2, 2))
    groups = parameter_groups(model, Tuning(mode="layerwise", rate=1.0, head_rate=5.0, decay=0.5))
    rate = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert rate[model.head.weight] == 5.0
    assert [rate[layer.weight] for layer in (encoder.c, encoder.b, encoder.a)] == [1.0, 0.5, 0.25]
    assert rate[encoder.token] == 0.25
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_children_are_the_layers_of_an_encoder_that_lists_none() -> None:
    encoder = synthetic.Encoder()
    groups = parameter_groups(Tuned(encoder, nn.Linear(6, 2)), Tuning(mode="layerwise", rate=1.0, decay=0.1))
    rate = {parameter: group["lr"] for group in groups for parameter in group["params"]}
    assert rate[encoder.second.weight] == 1.0
    assert rate[encoder.first.weight] == pytest.approx(0.1)


def test_whole_and_frozen_have_one_rate_and_none() -> None:
    model = Tuned(Deep(), nn.Linear(2, 2))
    assert [group["lr"] for group in parameter_groups(model, Tuning(mode="whole", rate=7.0))] == [1e-3, 7.0]
    assert len(parameter_groups(model, Tuning(mode="frozen"))) == 1


@pytest.mark.parametrize(
    ("scores", "best"), [([0.2, 0.9, 0.3], 2), ([0.5, 0.5, 0.5], 1), ([0.1, 0.2, 0.3], 3)]
)
def test_the_best_validation_epoch_is_kept(
    scores: list[float], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights are those of a training that ended then; of equal epochs the first is kept."""

    def after(epochs: int, given: list[float]) -> list[nn.Parameter]:
        left = iter(given)
        monkeypatch.setattr("diptych.evaluation.tuning._validation_score", lambda *_: next(left))
        return list(tuned("whole", epochs)[1].parameters())

    kept = after(3, scores)
    for epochs in (1, 2, 3):
        rising = after(epochs, [0.1, 0.2, 0.3])
        same = [torch.equal(one, other) for one, other in zip(kept, rising, strict=True)]
        assert all(same) if epochs == best else not any(same)


def test_without_validation_patients_the_last_epoch_is_kept_and_said() -> None:
    study = synthetic.study(split=Split(salt="synthetic", train=0.7, validation=0.0, test=0.3))
    table = FineTuning(label="sign", **FAST | {"epochs": 1, "seeds": 1})(study, synthetic.knowing())
    assert "without validation patients the last epoch is kept" in table.notes
    assert "no labelled validation patients" in table.notes


def test_regression_predicts_in_the_units_of_the_label() -> None:
    target = prepare(STUDY.samples, "age")
    options = Tuning(epochs=15, rate=1e-3, head_rate=3e-2)
    with torch_seed(0):
        model = tune(STUDY, target, synthetic.knowing(), target.train, target.validation, options, CPU)
    predicted = predict(STUDY, target, model, target.test, CPU)
    assert predicted.shape == (len(target.test),)
    truth = target.values[target.test]
    found = metrics.regression_scores(truth, predicted)
    assert found["MAE"] < np.abs(truth - target.values[target.train].mean()).mean()
    assert found["Spearman"] > 0.5


def test_probabilities_add_up() -> None:
    _, model = tuned("frozen")
    target = prepare(STUDY.samples, "sign")
    predicted = predict(STUDY, target, model, target.test, CPU)
    assert predicted.sum(axis=1) == pytest.approx(np.ones(len(target.test)))


def test_class_weights_favour_the_rare_class() -> None:
    rare = np.where(STUDY.samples.ids["patient"] < "p012", "few", "many")
    study = replace(STUDY, samples=replace(STUDY.samples, labels=STUDY.samples.labels.assign(rare=rare)))
    target = prepare(study.samples, "rare")
    shares = []
    for weigh in (False, True):
        options = Tuning(epochs=3, mode="frozen", head_rate=1e-2, class_weights=weigh)
        with torch_seed(0):
            model = tune(
                study, target, synthetic.knowing(), target.train, target.validation[:0], options, CPU
            )
        shares.append(predict(study, target, model, target.test, CPU)[:, target.classes.index("few")].mean())
    assert shares[1] > shares[0] + 0.1


def test_batch_norm_survives_a_last_batch_of_one_sample() -> None:
    """The loader's batches hold 32 samples; of 33 the last has one."""
    target = prepare(STUDY.samples, "sign")
    options = Tuning(epochs=1, head="diptych.evaluation.tuning.MLP")
    train = target.train[:33]
    with torch_seed(0):
        model = tune(STUDY, target, synthetic.knowing(), train, target.validation, options, CPU)
    assert isinstance(model.head, MLP)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def test_divergence_is_an_error() -> None:
    with pytest.raises(UserError, match="fine-tuning diverged: predictions are not finite; lower"):
        FineTuning(label="age", **FAST | {"rate": 1e30, "head_rate": 1e30})(STUDY, synthetic.knowing())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("torch.nn.Liner", "the head 'torch.nn.Liner' cannot be made: module 'torch.nn' has no attribute"),
        ("Linear", "the head 'Linear' cannot be made"),
        ("no.such.Head", "No module named 'no'"),
        ("torch.nn.ReLU", "expected the path of a class that takes"),
        ("builtins.pow", "is a int; expected a torch.nn.Module"),
    ],
)
def test_a_head_that_cannot_be_made_is_refused(path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_head(path, 4, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "takes at least 1 epoch; got 0"),
        ({"rate": 0.0}, "learning rates are above 0.*got rate 0"),
        ({"decay": 1.5}, "decay is above 0 and at most 1.*decay 1.5"),
        ({"label": "sing"}, "did you mean 'sign'"),
        ({"fractions": (0.0,)}, "label fractions are above 0"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FineTuning(**{"label": "sign"} | FAST | options)(STUDY, synthetic.knowing())
