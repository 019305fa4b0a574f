"""Linear probe, nearest neighbours and retrieval on a synthetic study, and against plain loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import synthetic_evaluation as synthetic
import torch
from references_evaluation import retrieve, vote
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diptych.errors import ConfigError, DataError
from diptych.evaluation.comparison import Contender, compare
from diptych.evaluation.knn import NearestNeighbours, nearest_votes
from diptych.evaluation.linear import LinearProbe
from diptych.evaluation.linear_model import STRENGTHS, fit_linear
from diptych.evaluation.metrics import Floats
from diptych.evaluation.retrieval import chance_scores, retrieval, retrieval_scores
from diptych.evaluation.table import Table
from diptych.evaluation.target import Target, prepare
from diptych.study import Baseline, Indices

STUDY = synthetic.study()
FAST: dict[str, Any] = {"seeds": 2, "draws": 200, "device": "cpu"}


@pytest.fixture(scope="module")
def sign() -> Table:
    return LinearProbe(label="sign", fractions=(0.2, 1.0), **FAST)(STUDY, synthetic.knowing())


def test_the_table_has_every_row_at_every_fraction(sign: Table) -> None:
    names = ["pretrained", "random weights", "random forest", "logistic regression", "majority class"]
    for fraction in (1.0, 0.2):
        rows = [row for row in sign.rows if row.fraction == fraction]
        assert [row.name for row in rows if not row.difference] == names
        assert [row.name for row in rows if row.difference] == [f"pretrained - {name}" for name in names[1:4]]
    assert list(dict.fromkeys(row.fraction for row in sign.rows)) == [1.0, 0.2]
    assert sign.levels == ["patient", "sample"]
    assert "random forest and logistic regression on hand-made features: two noisy features" in sign.notes


def test_an_encoder_that_knows_beats_random_weights(sign: Table) -> None:
    assert sign.score("pretrained", "AUROC").value > 0.9
    gap = sign.score("pretrained - random weights", "AUROC")
    assert gap.value > 0.1
    assert gap.low is not None
    assert gap.low > 0
    assert gap.p is not None
    assert gap.p < 0.05


def test_values_lie_in_their_intervals_and_differences_add_up(sign: Table) -> None:
    for row in sign.rows:
        for score in row.scores.values():
            assert score.low is not None
            assert score.high is not None
            assert score.low - 1e-9 <= score.value <= score.high + 1e-9
    difference = sign.score("pretrained - random forest", "AUPRC", "sample", 0.2).value
    one, other = (sign.score(name, "AUPRC", "sample", 0.2).value for name in ("pretrained", "random forest"))
    assert difference == pytest.approx(one - other)


def test_the_majority_is_at_chance(sign: Table) -> None:
    for level in sign.levels:
        assert sign.score("majority class", "AUROC", level).value == 0.5
        assert sign.score("majority class", "balanced accuracy", level).value == 0.5


def test_repeats_and_patients_are_counted(sign: Table) -> None:
    by_name = {(row.name, row.fraction): row for row in sign.rows}
    assert by_name["pretrained", 1.0].repeats == 1
    assert by_name["pretrained", 0.2].repeats == 2
    assert by_name["random weights", 1.0].repeats == 2
    train = STUDY.samples.ids[STUDY.samples.ids["split"] == "train"]
    assert by_name["pretrained", 1.0].patients == train["patient"].nunique()
    assert by_name["pretrained", 1.0].samples == len(train)
    classes = train.assign(sign=STUDY.samples.labels["sign"]).groupby("sign")["patient"].nunique()
    assert by_name["pretrained", 0.2].patients == sum(int(0.2 * number + 0.5) for number in classes)
    assert sign.score("pretrained", "AUROC").sd is None
    assert sign.score("pretrained", "AUROC", fraction=0.2).sd is not None


def test_the_same_evaluation_gives_the_same_numbers(sign: Table) -> None:
    torch.manual_seed(123)
    again = LinearProbe(label="sign", fractions=(1.0, 0.2, 1.0), **FAST)(STUDY, synthetic.knowing())
    assert again.frame().equals(sign.frame())


def test_the_random_state_of_torch_stays() -> None:
    encoder = synthetic.knowing()
    before = torch.get_rng_state()
    NearestNeighbours(label="sign", **FAST)(STUDY, encoder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("evaluator", [LinearProbe, NearestNeighbours])
def test_a_label_without_signal_is_at_chance(evaluator: Callable[..., Callable[..., Table]]) -> None:
    score = evaluator(label="noise", **FAST)(STUDY, synthetic.knowing()).score("pretrained", "AUROC")
    assert score.low is not None
    assert score.high is not None
    assert score.low < 0.5 < score.high


def test_numbers_are_regressed() -> None:
    table = LinearProbe(label="age", **FAST)(STUDY, synthetic.knowing())
    assert list(table.metrics) == ["MAE", "R2", "Spearman", "RMSE"]
    names = [row.name for row in table.rows if not row.difference]
    assert names == ["pretrained", "random weights", "random forest", "ridge regression", "mean"]
    assert table.score("pretrained", "Spearman").value > 0.6
    assert table.score("pretrained", "MAE").value < table.score("mean", "MAE").value
    with pytest.raises(KeyError):
        table.score("mean", "Spearman")  # a constant has no rank correlation


def test_several_pretraining_seeds_are_averaged() -> None:
    encoders = [synthetic.knowing(), synthetic.Encoder(), synthetic.knowing()]
    evaluate = NearestNeighbours(label="sign", **FAST)
    table = evaluate(STUDY, encoders)
    parts = [evaluate(STUDY, each).score("pretrained", "AUROC").value for each in encoders]
    score = table.score("pretrained", "AUROC")
    assert table.rows[0].repeats == 3
    assert score.value == pytest.approx(np.mean(parts))
    assert score.sd == pytest.approx(np.std(parts, ddof=1))


def test_labels_within_patients_are_scored_per_recording() -> None:
    table = NearestNeighbours(label="state", **FAST)(STUDY, synthetic.knowing())
    assert table.levels == ["recording", "sample"]
    assert table.score("pretrained", "accuracy").value > 0.9


def test_a_study_without_features_says_so() -> None:
    table = NearestNeighbours(label="sign", **FAST)(synthetic.study(baseline=False), synthetic.knowing())
    names = [row.name for row in table.rows if not row.difference]
    assert names == ["pretrained", "random weights", "majority class"]
    assert "no classical baseline: this study has no hand-made features" in table.notes


def test_features_that_do_not_fit_are_refused() -> None:
    short = replace(STUDY, baseline=lambda indices: Baseline(name="hrv", values=np.zeros((3, 2))))
    with pytest.raises(DataError, match=r"'hrv' has features of shape \(3, 2\) for 360 samples"):
        LinearProbe(label="sign", **FAST)(short, synthetic.knowing())
    infinite = replace(
        STUDY, baseline=lambda rows: Baseline(name="hrv", values=np.full((len(rows), 1), np.inf))
    )
    with pytest.raises(DataError, match="'hrv' has infinite features; expected NaN"):
        LinearProbe(label="sign", **FAST)(infinite, synthetic.knowing())


def test_a_feature_that_is_always_missing_does_no_harm() -> None:
    def features(rows: np.ndarray) -> Baseline:
        assert STUDY.baseline is not None
        values = STUDY.baseline(rows).values
        return Baseline(name="one empty", values=np.column_stack([values, np.full(len(values), np.nan)]))

    whole = LinearProbe(label="sign", **FAST)(STUDY, synthetic.knowing())
    table = LinearProbe(label="sign", **FAST)(replace(STUDY, baseline=features), synthetic.knowing())
    expected = whole.score("logistic regression", "AUROC").value
    assert table.score("logistic regression", "AUROC").value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fractions": ()}, "label fractions are above 0 and at most 1, such as 1.0 and 0.1; got none"),
        ({"fractions": (10.0,)}, "got 10"),
        ({"seeds": 0}, "the number of seeds is at least 1; got 0"),
        ({"strengths": (0.0,)}, "the strengths C to choose from are positive"),
        ({"label": "sing"}, "did you mean 'sign'"),
        ({"device": "nonsense"}, "device 'nonsense' cannot be used"),
    ],
)
def test_options_that_cannot_be_run_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearProbe(**{"label": "sign"} | FAST | options)(STUDY, synthetic.knowing())
    with pytest.raises(ConfigError, match="expected an encoder or several"):
        LinearProbe(label="sign")(STUDY, [])


def test_the_linear_probe_is_scikit_learn_with_a_chosen_strength() -> None:
    target = prepare(STUDY.samples, "group")
    features = np.random.default_rng(0).normal(size=(len(target.rows), 5)) + target.codes[
        :, None
    ] * np.arange(5)
    fit = fit_linear(features, target, target.train)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=fit.strength, max_iter=2000))
    model.fit(features[target.train], target.codes[target.train])
    test = features[target.test]
    assert fit.predict(test) == pytest.approx(model.predict_proba(test), abs=2e-3)


def test_features_of_noise_choose_a_strong_penalty_and_clear_ones_a_weak_one() -> None:
    target = prepare(STUDY.samples, "sign")
    noise = np.random.default_rng(0).normal(size=(len(target.rows), 30))
    assert fit_linear(noise, target, target.train).strength <= 1e-2
    clear = noise[:, :3] + 20 * target.codes[:, None]
    assert fit_linear(clear, target, target.train).strength >= 1


@pytest.mark.parametrize("label", ["sign", "number"])
@pytest.mark.parametrize(("width", "signal"), [(5, 0.05), (5, 0.3), (120, 0.05), (120, 2.0)])
def test_the_chosen_strength_is_the_one_that_trying_all_would_choose(
    label: str, width: int, signal: float
) -> None:
    target = prepare(STUDY.samples, "sign")
    if label == "number":
        drawn = np.random.default_rng(2).normal(size=len(target.rows))
        target = replace(target, values=drawn + target.values, classes=())
    features = np.random.default_rng(width).normal(size=(len(target.rows), width))
    features[:, : width // 5] += signal * target.values[:, None]
    losses = all_losses(features, target, target.train)
    chosen = fit_linear(features, target, target.train).strength
    slack = (
        0.002 * len(target.train) if target.classes else 0
    )  # classes that part cleanly have next to no loss
    assert losses[chosen] <= 1.002 * min(losses.values()) + slack


def test_a_loss_that_rises_before_it_falls_does_not_mislead() -> None:
    """What patients differ in outweighs the label's part in every feature, and its chance sign is learnt first."""
    target = prepare(STUDY.samples, "sign")
    train = target.few(target.train, 0.3, seed=4)
    draws = np.random.default_rng(4)
    sides = np.where(np.arange(40) % 2, 1.0, -1.0)
    features = draws.normal(size=(len(target.rows), 40)) + 0.4 * target.values[:, None] * sides
    _, patient = np.unique(target.patients, return_inverse=True)
    features += 4 * draws.normal(size=(patient.max() + 1, 1))[patient]
    losses = all_losses(features, target, train)
    values = list(losses.values())
    assert max(values[1:4]) > 1.2 * values[0] > 1.3 * min(values), "the case is what it is meant to be"
    assert losses[fit_linear(features, target, train).strength] <= 1.002 * min(values) + 0.002 * len(train)


def all_losses(features: Floats, target: Target, train: Indices) -> dict[float, float]:
    """The folds' loss of every strength, each fitted afresh with a tight tolerance."""
    x, y, patients = (each[train] for each in (features, target.values, target.patients))
    splitter = (StratifiedGroupKFold if target.classes else GroupKFold)(5, shuffle=True, random_state=0)
    losses = dict.fromkeys(STRENGTHS, 0.0)
    for fitted, judged in splitter.split(x, y, patients):
        for strength in STRENGTHS:
            last = (
                LogisticRegression(C=strength, max_iter=5000, tol=1e-7)
                if target.classes
                else Ridge(alpha=1 / strength)
            )
            model = make_pipeline(StandardScaler(), last).fit(x[fitted], y[fitted])
            if target.classes:
                losses[strength] += log_loss(y[judged], model.predict_proba(x[judged]), normalize=False)
            else:
                losses[strength] += float(((model.predict(x[judged]) - y[judged]) ** 2).sum())
    return losses


def test_scale_and_shift_of_features_do_not_matter_to_the_probe() -> None:
    target = prepare(STUDY.samples, "sign")
    features = np.random.default_rng(0).normal(size=(len(target.rows), 4)) + target.codes[:, None]
    one = fit_linear(features, target, target.train).predict(features)
    changed = features * [1, 10, 100, 0.1] + 7
    other = fit_linear(changed, target, target.train).predict(changed)
    assert one == pytest.approx(other, abs=1e-3)


def test_a_class_without_training_samples_has_probability_zero() -> None:
    target = prepare(STUDY.samples, "group")
    train = target.train[target.codes[target.train] != 1]
    features = np.random.default_rng(0).normal(size=(len(target.rows), 4))
    predicted = fit_linear(features, target, train).predict(features)
    assert (predicted[:, 1] == 0).all()
    assert predicted.sum(axis=1) == pytest.approx(np.ones(len(features)))


def test_one_patient_a_class_is_too_few_to_choose() -> None:
    target = prepare(STUDY.samples, "sign")
    train = target.few(target.train, 0.01, seed=0)
    features = np.random.default_rng(0).normal(size=(len(target.rows), 4))
    fit = fit_linear(features, target, train)
    assert fit.strength == 1.0
    assert fit.warnings("probe") == ["probe: too few patients to choose C in some fits, 1 taken"]


def test_a_class_of_one_patient_does_not_hinder_the_choice() -> None:
    """Wherever that class is missing from a fold, every C has the same loss for it."""
    samples = STUDY.samples
    first = samples.ids["patient"].iloc[samples.where("train")[0]]
    lone = samples.labels["sign"].mask(samples.ids["patient"] == first, "lone")
    target = prepare(replace(samples, labels=samples.labels.assign(lone=lone)), "lone")
    features = np.random.default_rng(0).normal(size=(len(target.rows), 30))
    one_each = np.unique(target.patients[target.train], return_index=True)[1]
    for train in (target.train, target.train[one_each]):
        fit = fit_linear(features, target, train)
        assert fit.strength <= 1e-2
        assert fit.warnings("probe") in ([], ["probe: the chosen C is at the edge of the grid (1e-05)"])


@pytest.mark.parametrize("neighbours", [1, 7, 500])
@pytest.mark.parametrize("temperature", [0.07, 0.005, 10.0])
def test_votes_equal_the_plain_loop(
    neighbours: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diptych.evaluation.knn.BLOCK", 100)  # several blocks of queries
    draws = np.random.default_rng(0)
    keys, queries = draws.normal(size=(30, 4)), draws.normal(size=(11, 4))
    owners, asked = (np.array([f"p{k}" for k in draws.integers(6, size=size)]) for size in (30, 11))
    codes, numbers = draws.integers(3, size=30), draws.normal(size=30)
    options: dict[str, Any] = {"neighbours": neighbours, "temperature": temperature}
    classes = nearest_votes(keys, np.eye(3)[codes], owners, queries, asked, **options)
    means = nearest_votes(keys, numbers, owners, queries, asked, **options)
    for row, query in enumerate(queries):
        one = (query, str(asked[row]), neighbours, temperature)
        for code in range(3):
            assert classes[row, code] == pytest.approx(vote(keys, (codes == code).tolist(), owners, *one))
        assert means[row] == pytest.approx(vote(keys, numbers.tolist(), owners, *one))


def test_a_tiny_temperature_is_the_nearest_neighbour() -> None:
    draws = np.random.default_rng(1)
    keys, queries, numbers = draws.normal(size=(30, 4)), draws.normal(size=(9, 4)), draws.normal(size=30)
    owners, asked = np.array(["k"] * 30), np.array(["q"] * 9)
    sharp = nearest_votes(keys, numbers, owners, queries, asked, temperature=1e-6)
    one = nearest_votes(keys, numbers, owners, queries, asked, neighbours=1)
    assert np.isfinite(sharp).all()
    assert sharp == pytest.approx(one)


def test_neighbours_of_the_same_patient_do_not_vote() -> None:
    keys = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = nearest_votes(
        keys, np.array([1.0, 2.0]), np.array(["a", "b"]), keys, np.array(["a", "b"]), neighbours=1
    )
    assert found.tolist() == [2.0, 1.0]
    with pytest.raises(DataError, match="no neighbour of another patient"):
        nearest_votes(keys, np.array([1.0, 2.0]), np.array(["a", "a"]), keys[:1], np.array(["a"]))


@pytest.mark.parametrize("options", [{"neighbours": 0}, {"temperature": 0.0}])
def test_bad_neighbour_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="neighbours are at least 1 and the temperature is above 0"):
        NearestNeighbours(label="sign", **FAST, **options)(STUDY, synthetic.knowing())


def rows_with_ids(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of 7 patients with one to three recordings of one to three samples."""
    draws = np.random.default_rng(seed)
    ids = [
        (f"p{p}", f"p{p}r{r}")
        for p in range(7)
        for r in range(draws.integers(1, 4))
        for _ in range(draws.integers(1, 4))
    ]
    patients, recordings = (np.array(column) for column in zip(*ids, strict=True))
    return np.round(draws.normal(size=(len(ids), 2)), 1), patients, recordings


@pytest.mark.parametrize("seed", range(6))
def test_retrieval_equals_the_plain_loop(seed: int) -> None:
    rows, patients, recordings = rows_with_ids(seed)
    rows += 1e-3 * np.random.default_rng(seed).normal(size=rows.shape)
    found = retrieval_scores(rows, patients, recordings)
    for metric, expected in retrieve(rows, patients.tolist(), recordings.tolist()).items():
        assert found[metric].tolist() == pytest.approx(expected)


def test_collapsed_embeddings_find_nothing_by_luck() -> None:
    _, patients, recordings = rows_with_ids(0)
    found = retrieval_scores(np.ones((len(patients), 2)), patients, recordings)
    assert found["recall@1"].max() == 0


def test_chance_is_the_mean_over_random_orders() -> None:
    _, patients, recordings = rows_with_ids(2)
    draws = np.random.default_rng(0)
    many = [
        retrieval_scores(draws.normal(size=(len(patients), 30)), patients, recordings) for _ in range(600)
    ]
    expected = chance_scores(patients, recordings)
    for metric, values in expected.items():
        mean = np.mean([each[metric] for each in many])
        assert mean == pytest.approx(values.mean(), abs=0.015), metric


def test_retrieval_prints_all_rows() -> None:
    table = retrieval(STUDY, synthetic.Encoder(), **FAST)
    names = ["pretrained", "random weights", "hand-made features", "random order"]
    assert [row.name for row in table.rows if not row.difference] == names
    assert [row.name for row in table.rows if row.difference] == [
        f"pretrained - {name}" for name in names[1:]
    ]
    assert table.levels == ("recording", "sample")
    patients = len(STUDY.samples.ids.loc[STUDY.samples.where("test"), "patient"].unique())
    assert table.notes[0] == f"{patients} patients with two or more recordings are asked for"
    assert table.score("random weights", "recall@1").value > table.score("random order", "recall@1").value


def test_retrieval_needs_patients_with_two_recordings() -> None:
    ids = STUDY.samples.ids.assign(recording=STUDY.samples.ids["patient"])
    alone = replace(STUDY, samples=replace(STUDY.samples, ids=ids))
    with pytest.raises(
        DataError, match=r"retrieval needs a test patient with two recordings.*0 patients with several"
    ):
        retrieval(alone, synthetic.Encoder(), **FAST)


def test_patient_scores_are_of_mean_predictions() -> None:
    target = prepare(STUDY.samples, "sign")
    draws = np.random.default_rng(0)
    predictions = draws.dirichlet([1, 1], size=len(target.test))
    contender = Contender(name="x", fraction=1.0, predictions=[predictions], patients=3, samples=[9])
    table = compare(target, [contender], title="t", draws=50)
    owners = target.patients[target.test]
    names = np.unique(owners)
    means = np.array([predictions[owners == name].mean(axis=0) for name in names])
    truth = np.array([target.codes[target.test][owners == name][0] for name in names])
    assert table.score("x", "accuracy").value == pytest.approx(np.mean(means.argmax(axis=1) == truth))
    right = predictions.argmax(axis=1) == target.codes[target.test]
    assert table.score("x", "accuracy", "sample").value == pytest.approx(right.mean())
    assert (table.test_patients, table.test_samples) == (len(names), len(owners))
