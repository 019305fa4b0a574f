"""``evaluate coupling`` and ``links`` on real netlists, the 24 that the package ships."""

import re

import numpy as np
import pytest
import torch
from studies import EXAMPLES, QUICK, make_encoder, make_study

from diptych.errors import ConfigError, DataError
from diptych.study import Study
from diptych_circuits.coupling import CouplingCapacitance
from diptych_circuits.evaluated import coupling_targets
from diptych_circuits.links_evaluated import CouplingExistence
from diptych_circuits.options import Options
from diptych_circuits.portions import grouped, node_rows
from diptych_circuits.trial import ALONE, Trial, components

SCHEMATIC = """.subckt inv{} a y vdd vss
M1 y a vss vss nmos L=0.15u W=0.65u
M2 y a vdd vdd pmos L=0.15u W=1u
.ends
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def table(study):
    return CouplingCapacitance(**QUICK)(study, make_encoder(1))


def trial_of(study, targets, labels, distances=True, **changes):
    options = Options(**{**QUICK, "batch_size": 64, "hidden": 16, "dropout": 0.0, **changes})
    return Trial(study, targets, labels, 0, options, loss="mse", distances=distances)


def test_rows_are_the_encoder_its_rivals_and_paired_differences(table):
    names = [row.name for row in table.rows]
    rivals = ["random weights", ALONE, "boosted trees on statistics", "constant"]
    assert names == ["pretrained", *rivals, *(f"pretrained - {name}" for name in rivals)]


def test_levels_are_couplings_designs_and_decades(table):
    assert list(table.levels)[:2] == ["sample", "patient"]
    assert all(level.endswith("aF") for level in table.levels[2:])
    assert len(table.levels) > 4
    assert "per design" in table.text()


def test_trees_beat_a_constant_on_designs_that_were_held_out(table):
    gap = table.score("boosted trees on statistics", "R2").value - table.score("constant", "R2").value
    assert gap > 0.2


def test_no_design_is_on_both_sides(study):
    targets = coupling_targets(study)
    parts = [set(targets.design[getattr(targets, name)]) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set(targets.design))


def test_labels_of_test_designs_change_no_prediction(study):
    """Predictions are those of training designs alone: other farads in the test designs leave them as they are."""
    from dataclasses import replace

    encoder = make_encoder(1)
    targets = coupling_targets(study)
    found = []
    for factor in (1.0, 50.0):
        farad = targets.farad.copy()
        farad[targets.test] *= factor
        changed = replace(targets, farad=farad)
        limits = np.log10(farad[targets.train])
        labels = (np.log10(farad) - limits.min()) / np.ptp(limits)
        trial = trial_of(study, changed, labels)
        found.append([row.predictions[0] for row in trial.contenders(encoder)])
    for before, after in zip(*found, strict=True):
        assert np.array_equal(before, after)


@pytest.mark.parametrize("mode", ["downstream", "finetune"])
def test_subgraphs_whole_and_sampled_agree_where_sampling_takes_everything(study, mode):
    """No node of the examples has more neighbours than are sampled; two layers reach no further than four hops."""
    targets = coupling_targets(study)
    labels = np.random.default_rng(0).random(len(targets.farad))
    predictions = {}
    for subgraphs in ("whole", "shared", "disjoint"):
        trial = trial_of(study, targets, labels, mode=mode, subgraphs=subgraphs)
        torch.manual_seed(0)
        encoder = make_encoder(2)
        rows = trial.rows_of(trial.embedded(encoder)) if mode == "downstream" else trial._encoding(encoder)
        from diptych_circuits.fitting import predict
        from diptych_circuits.heads import Network

        head = trial.new_head(int(rows.width), trial.wanted)
        predictions[subgraphs] = predict(Network(rows, head), trial.portions, targets.test)
    tolerance = {"rtol": 1e-3, "atol": 1e-5}
    np.testing.assert_allclose(predictions["shared"], predictions["whole"], **tolerance)
    np.testing.assert_allclose(predictions["disjoint"], predictions["whole"], **tolerance)


def test_trees_on_embeddings_find_what_embeddings_know(study):
    """An encoder whose rows hold the answer is as good as it; its random weights are not."""
    targets = coupling_targets(study)
    labels = np.random.default_rng(0).random(len(study.circuits))
    told = labels[targets.ends].mean(axis=1)
    trial = trial_of(study, targets, told, mode="trees", statistics=False, distances=False)
    trial.embedded = lambda encoder: torch.from_numpy(
        np.column_stack([labels, labels**2, 1 - labels])
    ).float()
    predicted = trial.contenders(make_encoder())[0].predictions[0]
    assert np.mean((predicted - told[targets.test]) ** 2) < 0.3 * told[targets.test].var()


def test_components_are_of_the_given_nodes_and_lose_little():
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(50, 3)) @ generator.normal(size=(3, 8))
    found = components(rows, np.arange(30), 3)
    assert np.allclose(found[:30].mean(axis=0), 0)
    assert np.all(np.diff(found[:30].var(axis=0)) < 0)
    distances = [np.linalg.norm(each[:, None] - each[None], axis=2) for each in (rows, found)]
    assert np.allclose(*distances)


def test_finetuning_leaves_the_given_encoder_as_it_was(study):
    encoder = make_encoder(1)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    training = encoder.training
    CouplingCapacitance(**QUICK, mode="finetune")(study, encoder)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert encoder.training == training


def test_rows_of_nodes_do_not_depend_on_how_netlists_are_grouped(study):
    encoder = make_encoder(1)
    many, one = (
        node_rows(encoder, study.circuits, study.whole, nodes=limit, device="cpu") for limit in (100_000, 1)
    )
    assert torch.allclose(many, one, atol=1e-5)
    assert len(many) == len(study.circuits)


def test_groups_hold_every_netlist_once_and_at_most_the_asked_nodes():
    sizes = np.array([5, 5, 30, 1, 1, 1])
    groups = grouped(np.arange(6), sizes, 10)
    assert [group.tolist() for group in groups] == [[0, 1], [2], [3, 4, 5]]


def test_other_netlists_are_tested_but_for_training_designs(study, tmp_path):
    for source in sorted(EXAMPLES.glob("*.spice"))[::3]:
        (tmp_path / source.name).write_bytes(source.read_bytes())
    table = CouplingCapacitance(**QUICK, between="nets", tested=str(tmp_path))(study, make_encoder(1))
    ids = study.samples.ids.drop_duplicates("patient")
    assert 1 <= table.test_patients < len(list(tmp_path.glob("*.spice")))
    assert table.test_patients == sum(
        ids.set_index("patient")["split"].get(key, "test") == "test"
        for key in set(study.read(str(tmp_path)).table["patient"])
    )
    assert any("none of them a training design" in note for note in table.notes)


def test_a_single_test_design_has_scores_and_no_intervals(study, tmp_path):
    source = EXAMPLES / "sky130_fd_sc_hd__a2111o_1_k25d_pex_netlist.spice"
    other = tmp_path / "other_cell.spice"
    other.write_text(source.read_text().replace("w=1 ", "w=1.1 "))
    table = CouplingCapacitance(**QUICK, tested=str(other))(study, make_encoder(1))
    assert table.test_patients == 1
    score = table.score("pretrained", "MAE")
    assert (score.low, score.high) == (None, None)
    assert table.score("pretrained - constant", "MAE").p is None
    assert any("no intervals: there is one test design" in note for note in table.notes)


def test_the_scale_of_the_release_leaves_couplings_beyond_it_out(study):
    table = CouplingCapacitance(**QUICK, scale="release")(study, make_encoder(1))
    farad = coupling_targets(study).farad
    beyond = np.count_nonzero(farad >= 1e-15)
    assert any(
        note.startswith(f"{beyond} of {len(farad)} capacitances lie beyond the release's limits")
        for note in table.notes
    )


def test_links_are_told_apart_better_than_by_chance(study):
    table = CouplingExistence(**QUICK)(study, make_encoder(1))
    assert table.score("boosted trees on statistics", "AUROC").low > 0.5
    assert table.score("constant", "AUROC").value == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "linear"}, "mode is one of frozen, trees, downstream, finetune; got 'linear'"),
        (
            {"mode": "trees", "loss": "gai"},
            "boosted trees have their own loss, mse or ce; got 'gai' with mode trees",
        ),
        ({"subgraphs": "some"}, "subgraphs is one of whole, shared, disjoint; got 'some'"),
        ({"loss": "huber"}, "there is no loss 'huber'"),
        ({"between": "devices"}, "between is 'terminals' or 'nets'; got 'devices'"),
        ({"scale": "mine"}, "label_range is 'training' or 'release'"),
        ({"batch_size": 1}, "batch_size: expected at least 2; got 1"),
        ({"dropout": 1.0}, "dropout is from 0 to below 1; got 1"),
        ({"epochs": 0}, "epochs: expected at least 1; got 0"),
        ({"fractions": (0.0,)}, "label fractions are above 0 and at most 1"),
    ],
)
def test_options_that_cannot_be_run_are_refused(study, changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        CouplingCapacitance(**{**QUICK, **changes})(study, make_encoder())


def test_negatives_below_nothing_are_refused(study):
    with pytest.raises(ConfigError, match="negatives: expected a number above 0"):
        CouplingExistence(**QUICK, negatives=0.0)(study, make_encoder())


def test_a_study_of_something_else_is_refused(study):
    other = Study(
        samples=study.samples,
        new_encoder=make_encoder,
        method=None,
        training=study.training,
        plain=study.plain,
    )
    with pytest.raises(ConfigError, match="this evaluation needs a study of netlists; got a Study"):
        CouplingCapacitance(**QUICK)(other, make_encoder())


def test_schematics_without_parasitics_say_so(tmp_path):
    for number in range(12):
        text = SCHEMATIC.format(number).replace("W=1u", f"W={1 + number / 10}u")
        (tmp_path / f"design{chr(97 + number)}.spice").write_text(text)
    bare = make_study(tmp_path / "cache", tmp_path)
    with pytest.raises(
        DataError, match="none of the 12 netlists has coupling capacitances: they hold no parasitic"
    ):
        CouplingCapacitance(**QUICK)(bare, make_encoder())
