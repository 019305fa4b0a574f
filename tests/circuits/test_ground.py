"""``evaluate ground`` on real netlists: numbers and classes."""

import pytest
from studies import QUICK, make_encoder, make_study

from diptych.errors import ConfigError
from diptych_circuits.evaluated import ground_targets
from diptych_circuits.ground import GroundCapacitance
from diptych_circuits.schema import Kind


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("cache"))


def test_numbers_are_scored_on_nets_of_held_out_designs(study):
    table = GroundCapacitance(**QUICK)(study, make_encoder(1))
    targets = ground_targets(study)
    assert table.test_samples == len(targets.test)
    assert "nets" in table.text()
    assert (study.circuits.kind[targets.ends[:, 0]] == Kind.NET).all()
    trees, constant = (table.score(name, "MAE").value for name in ("boosted trees on statistics", "constant"))
    assert trees < constant


def test_classes_are_scored_by_macro_f1(study):
    table = GroundCapacitance(**QUICK, answer="class", loss="balanced_softmax")(study, make_encoder(1))
    assert table.metrics[0] == "macro F1"
    assert (
        table.score("boosted trees on statistics", "macro F1").value
        > table.score("constant", "macro F1").value
    )


@pytest.mark.parametrize("mode", ["downstream", "finetune"])
def test_networks_over_graphs_predict_nets_too(study, mode):
    table = GroundCapacitance(**QUICK, mode=mode)(study, make_encoder(1))
    assert table.score("pretrained", "MAE").value > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": "word"}, "answer is 'number' or 'class'; got 'word'"),
        ({"loss": "ce"}, "the loss of a number is one of mse, gai, bmc, bni, lds, released_bmc; got 'ce'"),
        (
            {"answer": "class", "loss": "mse"},
            "the loss of a class is one of ce, balanced_softmax, released_balanced_softmax, focal; got 'mse'",
        ),
    ],
)
def test_options_that_do_not_fit_are_refused(study, changes, message):
    with pytest.raises(ConfigError, match=message):
        GroundCapacitance(**{**QUICK, **changes})(study, make_encoder())
