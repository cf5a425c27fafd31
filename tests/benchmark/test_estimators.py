import csv
import json

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from attention_sampling.benchmark import __main__ as benchmark
from attention_sampling.benchmark import tables
from attention_sampling.benchmark.estimators import bias as estimator_bias
from attention_sampling.benchmark.estimators import command as estimators
from attention_sampling.benchmark.estimators import cost as estimator_cost
from attention_sampling.benchmark.estimators import extremes as estimator_extremes
from attention_sampling.benchmark.estimators import (
    measurements as estimator_measurements,
)
from attention_sampling.benchmark.estimators import ratios as estimator_ratios
from attention_sampling.benchmark.estimators.problems import (
    ATTENTIONS,
    make_attention,
    make_features,
)
from attention_sampling.benchmark.estimators.variance import (
    METHODS,
    Problem,
    errors_of,
    squared_errors,
)
from attention_sampling.benchmark.gradients import pull_back
from attention_sampling.benchmark.limits_report import Report
from attention_sampling.layers import Expectation

# JAX compiles each of them anew.
SOME = {
    name: estimator_bias.ESTIMATORS[name]
    for name in ("with replacement", "unordered, control variate")
}
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"


class PlainMean(Expectation):
    """Take the mean of the drawn features, though no cell was drawn twice."""

    def sampling_weights(self, sampled_attention, *others, **keywords):
        return 1.0 / (sampled_attention.shape[1] * ops.stop_gradient(sampled_attention))


class ForeignVariate(Expectation):
    """Take the drawn cell itself from its gradient: a variate that may not be taken."""

    def _estimate(self, features, sampled_attention, training):
        weights = self.sampling_weights(sampled_attention)
        value = super()._estimate(features, sampled_attention, training=training)
        change = sampled_attention - ops.stop_gradient(sampled_attention)
        return value - ops.sum(
            (weights * change)[..., None] * ops.stop_gradient(features), axis=1
        )


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def is_picture(path):
    with Image.open(path) as image:
        image.load()
        return image.format == "PNG" and path.stat().st_size < 200_000


@pytest.fixture
def problem():
    rng = np.random.default_rng(1)
    attention = make_attention("spread 0.58", 6, rng)
    return Problem(attention, make_features(6, 8, 2, rng), n_patches=3)


# Bias


@pytest.mark.parametrize("from_proposal", [False, True])
@pytest.mark.parametrize("name", estimator_bias.ESTIMATORS)
def test_no_bias_where_there_should_be_none(name, from_proposal):
    expectation = Expectation(**estimator_bias.ESTIMATORS[name], self_normalize=False)
    errors = estimator_bias.bias(expectation, 4, 2, "peaked", from_proposal)
    assert errors.max() < estimator_bias.LIMIT


def test_bias_sees_a_wrong_estimator():
    errors = estimator_bias.bias(PlainMean(), 4, 2, "peaked")
    assert errors.min() > 1e-2


def test_bias_sees_a_wrong_gradient():
    value, of_features, of_logits = estimator_bias.bias(
        ForeignVariate(control_variate=False), 4, 2, "uneven"
    )
    assert max(value, of_features) < estimator_bias.LIMIT
    assert of_logits > 1e-2


def test_table_of_bias_names_a_wrong_estimator(monkeypatch):
    monkeypatch.setattr(estimator_bias, "Expectation", PlainMean)
    monkeypatch.setattr(estimator_bias, "ESTIMATORS", {"plain mean": {}})
    rows = estimator_bias.measure_exact(cells=[4], n_patches=[2])
    missed, judged = tables.missed_limits("bias", rows)
    assert missed == ["bias: plain mean, attention", "bias: plain mean, proposal"]
    assert judged == 2


def test_bias_that_there_is_falls_with_the_number_of_patches(monkeypatch):
    monkeypatch.setattr(estimator_bias, "FORMS", ("flat",))
    rows = estimator_bias.measure_biased(cells=4, n_patches=[1, 3])
    for name in ("with replacement, self-normalised", "top-k"):
        few, many = (row["value"] for row in rows if row["estimator"] == name)
        assert 0 < many < few
    assert all(
        row["logit gradient"] == "" for row in rows if row["estimator"] == "top-k"
    )


@pytest.mark.parametrize("replace", [True, False])
def test_ordered_draws_are_all_there_are(replace):
    probabilities = np.array([0.5, 0.3, 0.2])
    draws, chances = estimator_bias.ordered_draws(probabilities, 2, replace)
    assert chances.sum() == pytest.approx(1.0)
    of_two_first = chances[(draws == [0, 1]).all(axis=1)]
    assert of_two_first == pytest.approx([0.15 if replace else 0.3])


# Variance


@pytest.mark.parametrize("name", METHODS)
def test_errors_in_closed_form_are_those_of_the_layer(name, problem):
    method = METHODS[name]
    arguments = {"replace": method.replace}
    arguments["control_variate"] = method.leave_one_out is not None
    if name == "ordered":
        arguments["estimator"] = "ordered"
    # With replacement one cell may come twice.
    drawn = np.array(
        [[1, 1, 4], [5, 0, 5]] if method.replace else [[1, 3, 4], [5, 0, 2]]
    )

    def expected(logits):
        sampled = ops.take_along_axis(ops.softmax(logits), drawn, axis=1)
        features = ops.array(problem.features[drawn], "float32")
        return Expectation(**arguments)([features, sampled], training=True)

    attention, features, _ = problem
    logits = np.tile(np.log(attention).astype("float32"), (2, 1))
    of_logits = 0.0
    for entry, cotangent in enumerate(np.eye(features.shape[1])):
        value, (gradient,) = pull_back(expected)([logits], np.tile(cotangent, (2, 1)))
        response = features[:, entry]
        exact = attention * (response - attention @ response)
        of_logits += np.sum((gradient - exact) ** 2, axis=1)
    of_value = np.sum((value - attention @ features) ** 2, axis=1)
    np.testing.assert_allclose(
        errors_of(problem, method, drawn), [of_value, of_logits], rtol=1e-4
    )


def test_squared_error_with_replacement_is_the_known_one(problem):
    errors = squared_errors(problem, trials=4000, seed=0)
    samples = errors["with replacement"][0]
    norm = np.sum((problem.attention @ problem.features) ** 2)
    known = (1 - norm) / problem.n_patches
    assert samples.mean() == pytest.approx(known, abs=4 * samples.std() / 4000**0.5)


def test_squared_errors_share_draws_and_come_in_batches(problem, monkeypatch):
    module = "attention_sampling.benchmark.estimators.variance._LARGEST_ARRAY"
    monkeypatch.setattr(module, 9 * 7)
    errors = squared_errors(problem, trials=17, seed=1)
    assert {samples.shape for samples in errors.values()} == {(2, 17)}
    np.testing.assert_array_equal(
        errors["unordered"][0], errors["unordered, control variate"][0]
    )
    again = squared_errors(problem, trials=17, seed=1)
    np.testing.assert_array_equal(again["ordered"], errors["ordered"])


def test_ratio_of_means_has_the_error_of_paired_samples(rng):
    denominators = rng.uniform(1, 2, size=1000)
    noise = rng.normal(size=1000)
    ratio, error = estimator_ratios.mean_ratio(0.5 * denominators + noise, denominators)
    assert ratio == pytest.approx(0.5, abs=4 * error)
    assert error == pytest.approx(1 / 1.5 / 1000**0.5, rel=0.1)


@pytest.mark.parametrize(
    ("attention", "n", "ratio", "limit"),
    [
        ("one cell 0.95", 5, 0.14, "<= 0.15 PASS"),
        ("one cell 0.95", 5, 0.16, "<= 0.15 MISSED"),
        ("one cell 0.95", 2, 0.16, "<= 1 PASS"),
        ("flat", 5, 1.01, "<= 1 MISSED"),
    ],
)
def test_ratio_is_held_against_its_limit(attention, n, ratio, limit):
    errors = {"unordered": np.full((2, 9), ratio), "ordered": np.ones((2, 9))}
    row = estimator_ratios.ratio_row({"attention": attention, "n": n}, errors)
    assert row["value"] == pytest.approx(ratio)
    assert row["value limit"] == row["logit gradient limit"] == limit


def test_noise_may_lift_a_ratio_of_one():
    noisy = np.stack([np.array([1.0, 1.1, 0.9, 1.1])] * 2)
    errors = {"unordered": noisy, "ordered": np.ones((2, 4))}
    row = estimator_ratios.ratio_row({"attention": "flat", "n": 2}, errors)
    assert row["value"] > 1
    assert row["value limit"] == "<= 1 PASS"


def test_gain_has_a_limit_for_flat_attention_and_some_patches():
    errors = {name: np.ones((2, 5)) for name in METHODS}
    errors["unordered"] = np.full((2, 5), 6.0)
    labels = {"attention": "flat", "n": 10}
    row = estimator_ratios.gain_row(labels, errors)
    assert row["unordered"] == 6.0
    assert row["unordered limit"] == ">= 5 PASS"
    assert row["with replacement limit"] == ">= 5 MISSED"
    assert (
        estimator_ratios.gain_row({**labels, "n": 2}, errors)["unordered limit"] == ""
    )


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention_has_the_largest_cell_of_its_name(name, rng):
    attention = make_attention(name, 1024, rng)
    assert attention.sum() == pytest.approx(1.0)
    largest = 1 / 1024 if name == "flat" else float(name.split()[-1])
    assert attention.max() == pytest.approx(largest)


def test_features_have_unit_norm_and_share_more_with_more_places(rng):
    shared = []
    for places in (1, 4, 16):
        features = make_features(1024, 32, places, rng)
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0)
        assert features.min() >= 0
        shared.append(np.sum(features.mean(axis=0) ** 2))
    assert shared == sorted(shared)


# Extremes and cost


def test_extremes_are_finite(monkeypatch):
    monkeypatch.setattr(estimator_extremes, "ESTIMATORS", SOME)
    rows = estimator_extremes.measure([50], [1, 50, 60], seed=0)
    assert len(rows) == 2 * len(estimator_extremes.ATTENTIONS)
    assert {row["limit"] for row in rows} == {"finite PASS"}
    assert all(0 < row["|value|"] <= 1.001 for row in rows)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_extremes_show_what_is_not_finite(monkeypatch, wrong):
    def broken(*inputs, **keywords):
        return wrong * ops.sum(inputs[0], axis=1)

    monkeypatch.setattr("attention_sampling.estimators.weighted_sum", broken)
    rows = estimator_extremes.measure([4], [2], seed=0)
    assert {row["limit"] for row in rows} == {"finite MISSED"}


def test_cost_is_measured_beside_steps(tmp_path):
    setting = estimator_cost.Setting(
        2, 2, limit=1e9, image_size=60, view_size=12, patch_size=20
    )
    report = Report(tmp_path)
    estimator_measurements.measure_cost(report, [setting], rounds=1)
    (cost,) = read_rows(tmp_path / "cost.csv")
    assert float(cost["share"]) == pytest.approx(
        float(cost["estimator s"]) / float(cost["step s"]), rel=1e-4
    )
    assert cost["limit"] == "<= 1e+09 PASS"
    (memory,) = read_rows(tmp_path / "memory.csv")
    assert (memory["allocated MB"] == "nan") == (not ON_TENSORFLOW)
    if ON_TENSORFLOW:
        assert 1 < float(memory["allocated MB"]) < 64
    assert is_picture(tmp_path / "cost.png")


# The command


def test_command_writes_tables_and_figures(tmp_path, monkeypatch, capsys):
    """Smaller than by its options, as to what they do not say."""
    for name, smaller in {
        "BIAS_CELLS": (4,),
        "BIAS_PATCHES": (1, 2),
        "CELLS": 30,
        "N_PATCHES": (2, 5),
        "FEATURES": {4: ("flat", "one cell 0.95"), 1: ("flat",)},
        "EXTREME_CELLS": (10,),
        "EXTREME_PATCHES": (10,),
    }.items():
        monkeypatch.setattr(estimators, name, smaller)
    for module in (estimator_bias, estimator_extremes):
        monkeypatch.setattr(module, "ESTIMATORS", SOME)
    output = tmp_path / "made" / "for it"
    words = [
        "--output",
        str(output),
        "--problems",
        "3",
        "--trials",
        "20",
        "--skip-cost",
    ]
    benchmark.main(["estimators", *words])
    printed = capsys.readouterr().out
    names = {path.name for path in output.iterdir()}
    tabled = {"bias", "biased", "variance", "unordered", "control_variate", "extremes"}
    pictured = {"bias", "variance", "control_variate"}
    assert names == {
        *(f"{name}.csv" for name in tabled),
        *(f"{name}.png" for name in pictured),
        "estimators.json",
    }
    assert all(is_picture(output / f"{name}.png") for name in pictured)
    assert "Limits met: " in printed
    missed = [line for line in printed.splitlines() if line.startswith("MISSED: ")]
    verdicts = [
        x.split()[-1]
        for name in tabled
        for row in read_rows(output / f"{name}.csv")
        for column, x in row.items()
        if column.endswith("limit") and x
    ]
    assert verdicts.count("MISSED") == len(missed)
    assert f"{verdicts.count('PASS')} of {len(verdicts)}" in printed
    rows = read_rows(output / "variance.csv")
    kinds = {(row["features"], row["attention"], row["n"]) for row in rows}
    assert len(rows) == len(kinds) * len(METHODS)
    assert all(float(row["value"]) > 0 for row in rows)
    record = json.loads((output / "estimators.json").read_text())
    assert record["arguments"]["trials"] == 20
    assert record["versions"]["backend"] == keras.backend.backend()
    assert record["versions"]["backend"] in record["versions"]
    assert str(tmp_path) not in json.dumps(record)
    with pytest.raises(
        ValueError, match=r"estimators\.json holds an earlier measurement"
    ):
        benchmark.main(["estimators", "--output", str(output)])


@pytest.mark.parametrize("option", ["--problems", "--trials", "--rounds", "--seed"])
def test_command_refuses_what_is_out_of_range(option, tmp_path):
    words = ["estimators", "--output", str(tmp_path / "none"), option, "-1"]
    with pytest.raises(ValueError, match=f"{option} must be .*Received: -1"):
        benchmark.main(words)
    assert not (tmp_path / "none").exists()


# Tables


def test_table_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    tables.save_table(path, [{"name": "a", "x": 1 / 3}])
    before = path.read_bytes()
    assert before == b"name,x\na,0.333333\n"
    with pytest.raises(ValueError, match="fields not in fieldnames"):
        tables.save_table(path, [{"name": "b"}, {"name": "c", "y": 2.0}])
    assert path.read_bytes() == before


def test_nan_meets_no_limit():
    assert tables.at_most(float("nan"), 1.0, error=1.0) == "<= 1 MISSED"
    assert tables.at_least(float("nan"), 1.0) == ">= 1 MISSED"


def test_missed_limits_are_named_by_what_was_measured():
    rows = [
        {"name": "a", "n": 2, "x": 0.5, "x limit": "<= 1 PASS", "limit": "<= 0 MISSED"},
        {"name": "b", "n": 5, "x": 2.0, "x limit": "<= 1 MISSED", "limit": ""},
    ]
    assert tables.missed_limits("table", rows) == (
        ["table: a, n = 2", "table: b, n = 5, x"],
        3,
    )


def test_pull_back_of_a_compiled_function_is_that_of_the_function(rng):
    inputs = [rng.normal(size=(2, 3)).astype("float32") for _ in range(3)]

    def function(x, y, unused):
        return ops.sum(x * ops.stop_gradient(x) * y, axis=1)

    for compiled in (False, True):
        value, gradients = pull_back(function, compiled)(inputs, [1.0, 2.0])
        x, y, _ = inputs
        weights = np.array([[1.0], [2.0]])
        np.testing.assert_allclose(value, (x * x * y).sum(axis=1), rtol=1e-5)
        np.testing.assert_allclose(gradients[0], weights * x * y, rtol=1e-5)
        np.testing.assert_allclose(gradients[1], weights * x * x, rtol=1e-5)
        np.testing.assert_array_equal(gradients[2], np.zeros((2, 3)))
