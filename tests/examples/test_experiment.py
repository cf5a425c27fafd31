"""What the three examples of the paper's experiments share."""

import argparse
import importlib
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import attention_sampling as ats
from attention_sampling.callbacks import EpochCheckpoint
from attention_sampling.experiments.tasks import TASKS
from attention_sampling.layers.activity_regularizer import ActivityRegularizer

if keras.backend.backend() != "tensorflow":
    pytest.skip(
        "the examples are written for the TensorFlow backend", allow_module_level=True
    )

EXAMPLES = Path(__file__).parents[2] / "examples"
DEFAULTS = {
    "epochs": 3,
    "batch_size": 4,
    "learning_rate": 0.1,
    "decay": 0.25,
    "clip": "weight",
    "weight_decay": 0.0,
    "dtype_policy": "float32",
    "entropy": 0.01,
    "mix": 1.0,
    "mix_epochs": 0,
    "feature_scale": 4.0,
    "estimator": "unordered",
    "control_variate": True,
    "prediction": "sample",
    "center": True,
}


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # as for a script
    return importlib.import_module


@pytest.fixture
def parse(load):
    options = load("experiment_options")

    def parse(*argv, **defaults):
        parser = argparse.ArgumentParser()
        given = DEFAULTS | defaults
        options.add_options(
            parser, TASKS["colon_cancer"], "runs/x", {"": given, "drawn": DEFAULTS}
        )
        arguments = parser.parse_args(argv)
        options.set_defaults(parser, arguments, given)
        return arguments

    return parse


def log_rows(*losses):
    """Return rows of a log as they are read: everything is text."""
    return [
        {
            "accuracy": str(1 - loss / 10),
            "cross_entropy": str(loss),
            "loss": "99",  # with the regularizer
            "val_accuracy": str(1 - loss / 5),
            "val_cross_entropy": str(2 * loss),
            "val_loss": "99",
            "seconds": "1.5",
        }
        for loss in losses
    ]


def make_fits(load, *runs):
    """Return a fit of a fold for each (last training loss, images to test with)."""
    metrics = load("experiment_metrics")
    return [
        metrics.fit_metrics(log_rows(3, loss), run, 7 + run, fold, 100 - n_test, n_test)
        for run, folds in enumerate(runs)
        for fold, (loss, n_test) in enumerate(folds)
    ]


def test_a_fit_is_the_last_epoch_and_the_curve(load):
    [fit] = make_fits(load, [(1, 20)])
    assert fit == {
        "run": 0,
        "seed": 7,
        "fold": 0,
        "epochs": 2,
        "extended_from": None,
        "seconds": 3.0,
        "n_train": 80,
        "n_test": 20,
        "train_loss": 1.0,
        "train_error": 0.1,
        "test_loss": 2.0,
        "test_error": 0.2,
        "curve": {
            "train_loss": [3.0, 1.0],
            "train_error": [0.3, 0.1],
            "test_loss": [6.0, 2.0],
            "test_error": [0.6, 0.2],
            "seconds": [1.5, 3.0],
        },
    }


def test_a_run_is_the_mean_over_its_folds_by_their_images(load):
    fits = make_fits(load, [(1, 20), (2, 60)], [(3, 50), (3, 50)])
    averages = load("experiment_metrics").average_fits(fits, folds=2)
    first, second = averages["runs"]
    assert (first["run"], first["seed"], second["seed"]) == (0, 7, 8)
    assert first["train_loss"] == pytest.approx((80 * 1 + 40 * 2) / 120, abs=1e-6)
    assert first["test_loss"] == pytest.approx((20 * 2 + 60 * 4) / 80, abs=1e-6)
    assert first["test_error"] == pytest.approx((20 * 0.2 + 60 * 0.4) / 80)
    assert (first["epochs"], first["seconds"]) == (2, 3)
    values = np.array([first["test_error"], second["test_error"]])
    assert averages["mean"]["test_error"] == pytest.approx(values.mean())
    expected = values.std(ddof=1) / np.sqrt(2)
    assert averages["standard_error"]["test_error"] == pytest.approx(expected, abs=1e-6)


def test_runs_that_are_not_whole_do_not_count(load):
    metrics = load("experiment_metrics")
    fits = make_fits(load, [(1, 20), (1, 20)], [(9, 20)])
    averages = metrics.average_fits(fits, folds=2)
    assert [run["run"] for run in averages["runs"]] == [0]
    assert averages["mean"]["train_loss"] == 1
    assert set(averages["standard_error"].values()) == {None}
    averages = metrics.average_fits(fits[:1], folds=2)
    assert averages["runs"] == []
    assert set(averages["mean"].values()) == {None}
    curves = metrics.average_curves(fits, folds=2)
    np.testing.assert_array_equal(curves["test_loss"], [[6, 2]])


@pytest.mark.parametrize("runs", [1, 3])
def test_learning_curves_are_drawn(load, tmp_path, runs):
    fits = make_fits(load, *[[(run, 20), (1, 30)] for run in range(runs)])
    load("experiment_figures").draw_learning_curves(
        fits, 2, tmp_path / "curve.png", "it"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (900, 600)
        pixels = np.asarray(image.convert("RGB")).astype(int)
    lines = (np.abs(pixels - [31, 119, 180]).max(axis=-1) < 20).sum()
    bands = (np.abs(pixels - [210, 228, 240]).max(axis=-1) < 4).sum()
    assert lines > 500
    assert (bands > 500) == (runs > 1)


@pytest.mark.parametrize(
    ("runs", "folds", "title"),
    [
        (1, 1, "it: 1 run"),
        (3, 2, "it: 3 runs of 2 folds, mean and range"),
    ],
)
def test_learning_curves_say_what_they_are_of(
    load, tmp_path, monkeypatch, runs, folds, title
):
    figures = load("experiment_figures")
    kept = []
    monkeypatch.setattr(
        figures, "Figure", lambda **size: kept.append(Figure(**size)) or kept[0]
    )
    fits = make_fits(load, *[[(run, 20)] * folds for run in range(runs)])
    figures.draw_learning_curves(fits, folds, tmp_path / "curve.png", "it")
    [figure] = kept
    assert figure.get_suptitle() == title
    by_epoch = [axes for axes in figure.axes if axes.get_xlabel() == "epoch"]
    assert len(by_epoch) == 2
    for axes in by_epoch:
        places = axes.get_xticks()
        np.testing.assert_array_equal(places, np.round(places))


def test_pictures_are_of_the_classes_in_turn(load):
    in_turn = load("experiment_figures").in_turn
    assert in_turn([1, 1, 1, 0, 1, 0], 5) == [3, 0, 5, 1, 2]


def test_options_are_filled_with_the_defaults(parse, load):
    arguments = parse("--epochs=9", "--no-center", "--mix=0", center=True)
    settings = load("experiment_options").experiment_settings(arguments)
    assert settings == DEFAULTS | {
        "epochs": 9,
        "center": False,
        "mix": 0.0,
        "method": "ats-10",
        "runs": 1,
        "seed": 0,
        "pictures": 8,
        "backend": "tensorflow",
    }
    json.dumps(settings, allow_nan=False)


def test_help_says_defaults_and_where_others_hold(load):
    describe = load("experiment_options").describe
    variants = {"": {"a": 1, "b": True}, "drawn": {"a": 2, "b": True}}
    assert describe("a", variants) == " (default: 1; drawn: 2)"
    assert describe("b", variants) == " (default: yes)"


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--runs=0", "--runs must be positive"),
        ("--batch-size=-1", "--batch-size must be positive"),
        ("--feature-scale=inf", "--feature-scale must be positive"),
        ("--learning-rate=nan", "--learning-rate must be at least 0 and finite"),
        ("--seed=-1", "--seed must be at least 0"),
        ("--seed=4294967296", "--seed of the last run must be below 4294967296"),
        ("--mix=1.5", "--mix must be from 0 to 1"),
        ("--decay=-0.1", "--decay must be from 0 to 1"),
        ("--method=ats", "No such method. Expected: ats-N"),
        ("--dtype-policy=float3", "--dtype-policy"),
        ("--estimator=ordered", "--estimator ordered needs --no-control-variate"),
        ("--dtype-policy=mixed_float16", "leaves out steps that overflow; mixed_bf"),
        ("--dtype-policy=int8_from_float32", "of quantized models, which are not"),
        ("--clip=none", "--clip: invalid choice"),
    ],
)
def test_options_out_of_range_are_refused(parse, capsys, argument, message):
    with pytest.raises(SystemExit):
        parse(argument)
    assert message in " ".join(capsys.readouterr().err.split())


def test_options_that_would_do_nothing_are_refused(parse, capsys):
    with pytest.raises(SystemExit):
        parse("--mix=0", "--mix-epochs=4")
    assert "--mix-epochs 4 needs --mix above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse("--method=u-3", "--prediction=top_k")
    assert "--prediction top_k needs --method ats-N" in capsys.readouterr().err
    for method, option in (
        ("u-3", "--entropy=1"),
        ("u-3", "--mix=0"),
        ("u-3", "--mix-epochs=0"),
        ("deep-mil", "--estimator=ordered"),
        ("deep-mil", "--no-control-variate"),
        ("cnn-0.5", "--prediction=sample"),
        ("cnn-0.5", "--feature-scale=2"),
        ("cnn-0.5", "--no-center"),
    ):
        with pytest.raises(SystemExit):
            parse(f"--method={method}", option)
        name = option.removeprefix("--no-").removeprefix("--").partition("=")[0]
        error = " ".join(capsys.readouterr().err.split())
        assert f"--{name} would do nothing: --method {method} does not" in error
    assert not parse("--method=deep-mil-gated", "--no-center").center
    # A default is nothing that anybody asked for.
    assert parse("--mix=0", mix_epochs=4).mix == 0


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--method=ats-3"], {"estimator", "control_variate", "prediction"}),
        (["--method=u-3"], {"estimator", "control_variate", "prediction"}),
        (["--method=cnn-0.5"], set()),
        (["--method=deep-mil"], set()),
    ],
)
def test_each_method_gets_the_keywords_it_takes(parse, load, argv, expected):
    keywords = load("experiment_options").sampling_keywords(parse(*argv))
    proposal = {"proposal", "proposal_mix"} if argv == ["--method=ats-3"] else set()
    assert set(keywords) == expected | proposal
    assert "proposal" not in load("experiment_options").sampling_keywords(
        parse(*argv, mix=0)
    )


def find(model, kind):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kind)]


def test_options_reach_the_model(parse, load):
    build = load("experiment_training").build_compiled_model
    task = TASKS["colon_cancer"].resized((80, 80), (16, 16))
    argv = ["--method=ats-3", "--decay=0", "--prediction=top_k", "--clip=global"]
    argv += ["--mix=0.3", "--entropy=0.25", "--feature-scale=3", "--weight-decay=0.5"]
    model = build(parse(*argv), task, None, 8, seed=5)
    [sample], [expect] = find(model, ats.SamplePatches), find(model, ats.Expectation)
    assert (sample.n_patches, sample.seed, sample.prediction) == (3, 5, "top_k")
    assert sample.proposal_mix == 0.3
    assert (expect.estimator, expect.control_variate) == ("unordered", True)
    [regularizer] = find(model, ActivityRegularizer)
    assert regularizer.regularizer.strength == 0.25
    assert [layer.scale for layer in model.layers if is_scaling(layer)] == [3]
    assert len(find(model, keras.layers.BatchNormalization)) == 1
    optimizer = model.optimizer
    assert (optimizer.weight_decay, optimizer.global_clipnorm) == (0.5, 1)
    assert find(model, keras.layers.Conv2D)[0].compute_dtype == "float32"
    # And what is the other way round.
    argv = ["--method=ats-3", "--no-control-variate", "--estimator=ordered"]
    argv += ["--no-center", "--mix=0", "--entropy=0", "--feature-scale=1"]
    argv += ["--dtype-policy=mixed_bfloat16"]
    model = build(parse(*argv), task, None, 8, seed=5)
    [sample], [expect] = find(model, ats.SamplePatches), find(model, ats.Expectation)
    assert (sample.prediction, sample.has_proposal) == ("sample", False)
    assert (expect.estimator, expect.control_variate) == ("ordered", False)
    assert not find(model, ActivityRegularizer)
    assert not any(map(is_scaling, model.layers))
    assert not find(model, keras.layers.BatchNormalization)
    assert (model.optimizer.clipnorm, model.optimizer.global_clipnorm) == (1, None)
    assert find(model, keras.layers.Conv2D)[0].compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"


def is_scaling(layer):
    return isinstance(layer, keras.layers.Rescaling)


def test_weights_are_those_of_the_seed(parse, load):
    build = load("experiment_training").build_compiled_model
    task = TASKS["colon_cancer"].resized((80, 80), (16, 16))
    first, again, other = (
        build(parse("--method=ats-3"), task, None, 8, seed).get_weights()
        for seed in (5, 5, 6)
    )
    for x, y in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, y)
    assert any((x != y).any() for x, y in zip(first, other, strict=True))


class Part:
    """Images that say how they were asked for."""

    def __init__(self, name, labels):
        self.name, self.labels = name, labels

    def batches(self, *arguments):
        return (self.name, *arguments)


class FitRecorder:
    """A model that keeps what it is trained with."""

    def fit(self, data, **keywords):
        self.data, self.keywords = data, keywords


def test_training_is_as_the_options_say(parse, load, tmp_path):
    train = load("experiment_training").train
    split = load("experiment").Split(Part("train", [0, 0, 0, 1]), Part("test", [1]))
    arguments = parse("--method=ats-3", "--mix=0.8", "--mix-epochs=4", "--epochs=9")
    orders = []
    for done, balanced in ((0, True), (2, False)):
        model = FitRecorder()
        train(arguments, model, split, tmp_path, done, (7, 1), balanced)
        name, inputs, batch_size, order = model.data
        assert (name, inputs, batch_size) == ("train", ("view", "image"), 4)
        orders.append(order)
        keywords = model.keywords
        assert keywords["validation_data"] == ("test", ("view", "image"), 4)
        assert (keywords["initial_epoch"], keywords["epochs"]) == (done, 9)
        weights = {0: pytest.approx(2 / 3), 1: 2} if balanced else None
        assert keywords["class_weight"] == weights
        [mix] = (
            one for one in keywords["callbacks"] if isinstance(one, ats.ProposalMix)
        )
        assert (mix.mix(0), mix.mix(2), mix.mix(9)) == (0.8, 0.4, 0)
        [file] = (
            one.path
            for one in keywords["callbacks"]
            if isinstance(one, EpochCheckpoint)
        )
        assert file == tmp_path / "model.keras"
    assert orders[0] != orders[1]
    train(arguments, model, split, tmp_path, 0, (8, 1))
    assert model.data[3] != orders[0]
    model = FitRecorder()
    train(arguments, model, split, tmp_path, 9, (7, 1))
    assert not hasattr(model, "data")


def test_optimizer_is_as_the_options_say(parse, load):
    training = load("experiment_training")
    arguments = parse("--learning-rate=0.1", "--decay=0.25", "--weight-decay=0.3")
    optimizer = training._optimizer(arguments, 100)
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert optimizer.weight_decay == 0.3
    rates = [float(optimizer._learning_rate(step)) for step in (0, 40, 75, 100)]
    assert rates[:3] == pytest.approx([0.1] * 3)
    assert rates[3] == pytest.approx(0, abs=1e-7)
    rates = [
        float(training._optimizer(parse("--decay=1"), 100)._learning_rate(step))
        for step in (0, 50, 100)
    ]
    assert rates == pytest.approx([0.1, 0.05, 0], abs=1e-6)
    plain = training._optimizer(parse("--decay=0"), 100)
    assert type(plain) is keras.optimizers.Adam
    assert float(plain.learning_rate) == pytest.approx(0.1)


def test_weight_decay_leaves_biases_alone(parse, load):
    optimizer = load("experiment_training")._optimizer(
        parse("--decay=0", "--weight-decay=0.5"), 100
    )
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    model.layers[0].set_weights([np.ones((2, 2)), np.ones(2)])
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros((2, 2)), keras.ops.zeros(2)])
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel, 1 - 0.1 * 0.5)
    np.testing.assert_allclose(bias, 1)


def test_mix_falls_only_where_it_is_to(parse, load):
    callbacks = load("experiment_training")._mix_callbacks
    [callback] = callbacks(parse("--mix=0.8", "--mix-epochs=4"))
    assert (callback.mix(0), callback.mix(2), callback.mix(9)) == (0.8, 0.4, 0)
    assert callbacks(parse("--mix=0.8")) == []
    assert callbacks(parse("--mix=0", mix_epochs=4)) == []
    assert callbacks(parse("--method=u-3", mix_epochs=4)) == []


def test_rare_classes_weigh_more(load):
    weights = load("experiment_training")._class_weights(np.array([0, 0, 0, 1]))
    assert weights == {0: pytest.approx(2 / 3), 1: 2}


def test_a_loss_that_is_not_finite_ends_the_training(load):
    callback = load("run_progress").RequireFinite()
    callback.on_epoch_end(0, {"loss": 1.0, "val_loss": 2.0})
    with pytest.raises(ValueError, match=r"epoch 3\. Expected.*Received: val_loss=nan"):
        callback.on_epoch_end(2, {"loss": 1.0, "val_loss": float("nan")})
